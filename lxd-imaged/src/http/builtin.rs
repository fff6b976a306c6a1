//! The built-in project, profile and storage pool: read-only, and no secret to a client that may
//! only read.

use axum::Extension;
use axum::extract::{OriginalUri, Path, State};
use lxd_proto::profile::{self, Profile};
use lxd_proto::project::{self, Project};
use lxd_proto::routes;
use lxd_proto::storage::{self, StoragePool};

use super::Daemon;
use super::extract::Query;
use super::reply::Reply;
use crate::app::{App, Caller};
use crate::catalog::Viewer;
use crate::error::Error;
use crate::service::images::hash;

fn default_project(app: &App, caller: &Caller) -> Project {
    let mut used_by = vec![routes::PROFILE.url(&[profile::DEFAULT])];
    let images = app.catalog.images(caller.viewer, None);
    used_by.extend(images.iter().map(|entry| super::images::path(entry)));
    Project::builtin(used_by)
}

fn default_pool(app: &App) -> StoragePool {
    StoragePool::builtin(app.root.display().to_string())
}

pub(super) async fn projects(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let mut all = vec![default_project(&app, &caller)];
    all.retain(|_| caller.viewer != Viewer::Outsider);
    Reply::list(Query::of(&uri).recursion(), &all, |it| routes::PROJECT.url(&[&it.name]))
}

pub(super) async fn project(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Reply {
    match name.as_str() {
        project::DEFAULT if caller.viewer != Viewer::Outsider => {
            let project = default_project(&app, &caller);
            let etag = hash(&(&project.description, &project.config));
            Reply::tagged(&project, etag)
        }
        _ => Error::NotFound("Project not found").into(),
    }
}

pub(super) async fn profiles(OriginalUri(uri): OriginalUri) -> Reply {
    let all = [Profile::builtin()];
    Reply::list(Query::of(&uri).recursion(), &all, |it| routes::PROFILE.url(&[&it.name]))
}

pub(super) async fn profile(Path(name): Path<String>) -> Reply {
    match name.as_str() {
        profile::DEFAULT => {
            let profile = Profile::builtin();
            let etag = hash(&(&profile.config, &profile.description, &profile.devices));
            Reply::tagged(&profile, etag)
        }
        _ => Error::NotFound("Profile not found").into(),
    }
}

pub(super) async fn pools(State(app): Daemon, OriginalUri(uri): OriginalUri) -> Reply {
    let all = [default_pool(&app)];
    Reply::list(Query::of(&uri).recursion(), &all, |it| routes::STORAGE_POOL.url(&[&it.name]))
}

pub(super) async fn pool(State(app): Daemon, Path(name): Path<String>) -> Reply {
    match name.as_str() {
        storage::DEFAULT => {
            let pool = default_pool(&app);
            let etag = hash(&(&pool.name, &pool.driver, &pool.config));
            Reply::tagged(&pool, etag)
        }
        _ => Error::NotFound("Storage pool not found").into(),
    }
}
