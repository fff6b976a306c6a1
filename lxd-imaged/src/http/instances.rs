//! `/1.0/instances`, and `/1.0/containers`, its old name.

use axum::Extension;
use axum::body::Body;
use axum::extract::{OriginalUri, Path, State};
use http::HeaderMap;
use lxd_proto::filter::Filter;
use lxd_proto::instance::exec::ExecPost;
use lxd_proto::instance::{
    InstanceName, InstancePatch, InstancePost, InstancePut, InstancesPost, SnapshotName,
    SnapshotPost, SnapshotPut, SnapshotsPost, StatePut,
};
use lxd_proto::operation::Operation;
use lxd_proto::{routes, time};

use super::Daemon;
use super::extract::{self, Query};
use super::reply::Reply;
use crate::app::Caller;
use crate::error::{Error, INSTANCE_NOT_FOUND, Result, SNAPSHOT_NOT_FOUND};
use crate::service::instances;

pub(super) async fn list(State(app): Daemon, OriginalUri(uri): OriginalUri) -> Reply {
    let query = Query::of(&uri);
    let filter = match Filter::parse(query.get(routes::query::FILTER).unwrap_or_default()) {
        Ok(filter) => filter,
        Err(error) => return Error::from(error).into(),
    };
    let mut all = Vec::new();
    for record in app.catalog.instances.all() {
        let object = instances::shown(&app, &record);
        if filter.matches(&object) {
            all.push((record, object));
        }
    }
    match query.number(routes::query::RECURSION) {
        0 => {
            let path = |name: &str| routes::INSTANCE.url(&[name]);
            Reply::json(&all.iter().map(|(_, object)| path(&object.name)).collect::<Vec<_>>())
        }
        1 => Reply::json(&all.into_iter().map(|(_, object)| object).collect::<Vec<_>>()),
        _ => {
            let records: Vec<_> = all.into_iter().map(|(record, _)| record).collect();
            Reply::json(&instances::full(&app, &records).await)
        }
    }
}

pub(super) async fn create(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Reply {
    let created = async {
        let post: InstancesPost = extract::json(body).await?;
        instances::create(&app, &caller, post)
    };
    created.await.into()
}

fn named(text: &str) -> Result<InstanceName> {
    text.parse().map_err(|_| INSTANCE_NOT_FOUND)
}

fn named_snapshot(text: &str) -> Result<SnapshotName> {
    text.parse().map_err(|_| SNAPSHOT_NOT_FOUND)
}

pub(super) async fn get(
    State(app): Daemon,
    Path(name): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let record = match named(&name).and_then(|name| app.catalog.instances.get(&name)) {
        Ok(record) => record,
        Err(error) => return error.into(),
    };
    let etag = instances::etag(&record);
    if Query::of(&uri).recursion() {
        Reply::tagged(&instances::full(&app, &[record]).await.pop(), etag)
    } else {
        Reply::tagged(&instances::shown(&app, &record), etag)
    }
}

pub(super) async fn put(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let done = async {
        let name = named(&name)?;
        let put: InstancePut = extract::json(body).await?;
        instances::put(&app, &caller, &name, extract::etag(&headers), put)
    };
    done.await.into()
}

pub(super) async fn patch(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let done = async {
        let name = named(&name)?;
        let patch: InstancePatch = extract::json(body).await?;
        instances::patch(&app, &caller, &name, extract::etag(&headers), patch).await
    };
    done.await.into()
}

/// Another name; a copy to another server is not to be had.
pub(super) async fn rename(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Reply {
    let done = async {
        let name = named(&name)?;
        let post: InstancePost = extract::json(body).await?;
        if post.migration {
            return Err(Error::NotYet("moving instances between servers"));
        }
        let to = post.name.parse().map_err(|error| Error::BadRequest(format!("{error}")))?;
        instances::rename(&app, &caller, &name, to)
    };
    done.await.into()
}

pub(super) async fn delete(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Reply {
    named(&name).and_then(|name| instances::delete(&app, &caller, &name)).into()
}

pub(super) async fn state(State(app): Daemon, Path(name): Path<String>) -> Reply {
    let state = async {
        let name = named(&name)?;
        app.catalog.instances.get(&name)?;
        instances::state(&app, &name).await
    };
    match state.await {
        Ok(state) => Reply::json(&state),
        Err(error) => error.into(),
    }
}

pub(super) async fn set_state(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Reply {
    let done = async {
        let name = named(&name)?;
        let put: StatePut = extract::json(body).await?;
        instances::set_state(&app, &caller, &name, &put)
    };
    done.await.into()
}

pub(super) async fn exec(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Reply {
    let done = async {
        let name = named(&name)?;
        let post: ExecPost = extract::json(body).await?;
        instances::exec(&app, &caller, &name, post)
    };
    done.await.into()
}

pub(super) async fn snapshots(
    State(app): Daemon,
    Path(name): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let record = match named(&name).and_then(|name| app.catalog.instances.get(&name)) {
        Ok(record) => record,
        Err(error) => return error.into(),
    };
    let all = instances::snapshots(&record);
    Reply::list(Query::of(&uri).recursion(), &all, |snapshot| {
        routes::INSTANCE_SNAPSHOT.url(&[record.name.as_str(), &snapshot.name])
    })
}

pub(super) async fn take(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Reply {
    let done = async {
        let name = named(&name)?;
        let post: SnapshotsPost = extract::json(body).await?;
        instances::take(&app, &caller, &name, &post)
    };
    done.await.into()
}

pub(super) async fn snapshot(
    State(app): Daemon,
    Path((name, snapshot)): Path<(String, String)>,
) -> Reply {
    let found = || {
        let record = app.catalog.instances.get(&named(&name)?)?;
        let snapshot = named_snapshot(&snapshot)?;
        let taken = record.snapshots.get(&snapshot).ok_or(SNAPSHOT_NOT_FOUND)?;
        Ok::<_, Error>(instances::snapshot(&record, &snapshot, taken))
    };
    match found() {
        Ok(snapshot) => {
            let etag = crate::service::images::hash(&snapshot.expires_at);
            Reply::tagged(&snapshot, etag)
        }
        Err(error) => error.into(),
    }
}

pub(super) async fn put_snapshot(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path((name, snapshot)): Path<(String, String)>,
    body: Body,
) -> Reply {
    let done = async {
        let (name, snapshot) = (named(&name)?, named_snapshot(&snapshot)?);
        let put: SnapshotPut = extract::json(body).await?;
        let at = put.expires_at.unwrap_or_else(time::zero);
        instances::expire(&app, &caller, &name, &snapshot, at)
    };
    done.await.into()
}

pub(super) async fn rename_snapshot(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path((name, snapshot)): Path<(String, String)>,
    body: Body,
) -> Reply {
    let done = async {
        let (name, snapshot) = (named(&name)?, named_snapshot(&snapshot)?);
        let post: SnapshotPost = extract::json(body).await?;
        if post.migration {
            return Err(Error::NotYet("moving snapshots between servers"));
        }
        let to = post.name.parse().map_err(|error| Error::BadRequest(format!("{error}")))?;
        instances::rename_snapshot(&app, &caller, &name, &snapshot, to)
    };
    done.await.into()
}

pub(super) async fn delete_snapshot(
    State(app): Daemon,
    Extension(caller): Extension<Caller>,
    Path((name, snapshot)): Path<(String, String)>,
) -> Reply {
    let delete = || -> Result<Operation> {
        let (name, snapshot) = (named(&name)?, named_snapshot(&snapshot)?);
        instances::delete_snapshot(&app, &caller, &name, &snapshot)
    };
    delete().into()
}
