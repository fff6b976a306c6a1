//! HTTP: every route of the API, each handler parses, calls a service and replies.

mod access;
mod aliases;
mod builtin;
mod certificates;
mod copies;
mod direct;
mod events;
mod export;
mod extract;
mod form;
mod images;
mod instance_files;
mod instances;
mod internal;
mod mirrors;
mod operations;
mod ranged;
mod reply;
mod server;
mod sockets;
mod streams;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get, post};
use lxd_proto::routes;

use crate::app::App;
use crate::error::Error;
use extract::Query;
use reply::Reply;

/// The whole API. What shows or changes images waits until the store is loaded.
pub fn router(app: Arc<App>) -> Router {
    images(&app)
        .route(routes::ROOT.template(), any(server::root))
        .route(routes::API.template(), get(server::get).put(server::put).patch(server::patch))
        .route(routes::OPERATIONS.template(), get(operations::list))
        .route(routes::OPERATION.template(), get(operations::get).delete(operations::cancel))
        .route(routes::OPERATION_WAIT.template(), get(operations::wait))
        .route(routes::OPERATION_WEBSOCKET.template(), get(operations::websocket))
        .route(routes::EVENTS.template(), get(events::listen))
        .route(routes::CERTIFICATES.template(), get(certificates::list).post(certificates::create))
        .route(
            routes::CERTIFICATE.template(),
            get(certificates::get)
                .put(certificates::put)
                .patch(certificates::patch)
                .delete(certificates::delete),
        )
        .route(routes::PROJECTS.template(), get(builtin::projects))
        .route(routes::PROJECT.template(), get(builtin::project))
        .route(routes::PROFILES.template(), get(builtin::profiles))
        .route(routes::PROFILE.template(), get(builtin::profile))
        .route(routes::STORAGE_POOLS.template(), get(builtin::pools))
        .route(routes::STORAGE_POOL.template(), get(builtin::pool))
        .route(routes::SHUTDOWN.template(), post(internal::shutdown))
        .fallback(unknown)
        .method_not_allowed_fallback(async || Reply::not_implemented())
        .layer(middleware::from_fn(only_the_default_project))
        .layer(middleware::from_fn_with_state(app.clone(), access::admit))
        .layer(middleware::from_fn_with_state(app.clone(), access::cross_origin))
        .with_state(app)
}

fn images(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route(routes::IMAGES.template(), get(images::list).post(images::create))
        .route(
            routes::IMAGE.template(),
            get(images::get).put(images::put).patch(images::patch).delete(images::delete),
        )
        .route(routes::IMAGE_EXPORT.template(), get(export::get).post(copies::push))
        .route(routes::IMAGE_SECRET.template(), post(copies::secret))
        .route(routes::IMAGE_REFRESH.template(), post(copies::refresh))
        .route(routes::IMAGE_HISTORY.template(), get(copies::history))
        .route(routes::IMAGE_ROLLBACK.template(), post(copies::rollback))
        .route(routes::ALIASES.template(), get(aliases::list).post(aliases::create))
        .route(
            // Everything behind `aliases/`: names hold slashes, encoded or not.
            &routes::ALIAS.template().replace("{name}", "{*name}"),
            get(aliases::get)
                .put(aliases::put)
                .patch(aliases::patch)
                .post(aliases::rename)
                .delete(aliases::delete),
        )
        .merge(streams())
        .route(routes::MIRRORS.template(), get(mirrors::list).post(mirrors::create))
        .route(
            routes::MIRROR.template(),
            get(mirrors::get).put(mirrors::put).patch(mirrors::patch).delete(mirrors::delete),
        )
        .route(routes::MIRROR_RUN.template(), post(mirrors::run))
        .route(routes::MIRROR_MANIFEST.template(), get(mirrors::manifest))
        .route(routes::MIRROR_IMPORT.template(), post(mirrors::import))
        .merge(instances(|route: routes::Route| route.template().to_owned()))
        .merge(instances(|route: routes::Route| route.older().unwrap_or_default()))
        .route(routes::READY.template(), get(internal::ready))
        .route_layer(middleware::from_fn_with_state(app.clone(), once_loaded))
}

/// The simplestreams server, and single images behind a URL.
fn streams() -> Router<Arc<App>> {
    Router::new()
        .route(routes::STREAMS_INDEX.template(), get(streams::index))
        .route(routes::STREAMS_CATALOG.template(), get(streams::catalog))
        .route(routes::STREAMS_SIGNED_INDEX.template(), get(streams::signed_index))
        .route(routes::STREAMS_SIGNED_CATALOG.template(), get(streams::signed_catalog))
        .route(routes::STREAMS_FILE.template(), get(streams::file))
        .route(&routes::DIRECT.template().replace("{alias}", "{*alias}"), get(direct::get))
}

/// The instances, under either name of the collection.
fn instances(at: fn(routes::Route) -> String) -> Router<Arc<App>> {
    Router::new()
        .route(&at(routes::INSTANCES), get(instances::list).post(instances::create))
        .route(
            &at(routes::INSTANCE),
            get(instances::get)
                .put(instances::put)
                .patch(instances::patch)
                .post(instances::rename)
                .delete(instances::delete),
        )
        .route(&at(routes::INSTANCE_STATE), get(instances::state).put(instances::set_state))
        .route(&at(routes::INSTANCE_EXEC), post(instances::exec))
        .route(
            &at(routes::INSTANCE_FILES),
            get(instance_files::get).post(instance_files::post).delete(instance_files::delete),
        )
        .route(
            &at(routes::INSTANCE_CONSOLE),
            get(instance_files::console).delete(instance_files::clear_console),
        )
        .route(&at(routes::INSTANCE_LOGS), get(instance_files::logs))
        .route(&at(routes::INSTANCE_LOG), get(instance_files::log))
        .route(&at(routes::INSTANCE_SNAPSHOTS), get(instances::snapshots).post(instances::take))
        .route(
            &at(routes::INSTANCE_SNAPSHOT),
            get(instances::snapshot)
                .put(instances::put_snapshot)
                .post(instances::rename_snapshot)
                .delete(instances::delete_snapshot),
        )
}

/// Images and aliases are read while the first requests already come.
async fn once_loaded(State(app): Daemon, request: Request, next: Next) -> Response {
    use axum::response::IntoResponse;
    match app.catalog.loaded().await {
        Ok(()) => next.run(request).await,
        Err(error) => Reply::from(error).into_response(),
    }
}

/// There is one project; the path `/1.0/projects/NAME` says so by itself. What belongs to no
/// project can be asked for with any.
async fn only_the_default_project(request: Request, next: Next) -> Response {
    use axum::response::IntoResponse;
    let query = Query::of(request.uri());
    match query.get(routes::query::PROJECT) {
        Some(name)
            if !name.is_empty()
                && name != lxd_proto::project::DEFAULT
                && !is_the_servers(request.uri().path()) =>
        {
            let text = "Check if project has images: fetch project: Project not found";
            Reply::from(Error::NotFound(text)).into_response()
        }
        _ => next.run(request).await,
    }
}

/// Whether a path is about the server as a whole.
fn is_the_servers(path: &str) -> bool {
    let below = |route: routes::Route| {
        let rest = path.strip_prefix(route.template());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    path == routes::API.template()
        || [routes::CERTIFICATES, routes::PROJECTS, routes::STORAGE_POOLS].into_iter().any(below)
}

/// The answer to a path that no route knows.
async fn unknown(request: Request) -> Reply {
    const LATER: [&str; 2] = ["virtual-machines", "networks"];
    let path = request.uri().path();
    let below = path.strip_prefix(routes::API.template()).unwrap_or_default();
    let first = below.trim_start_matches('/').split('/').next().unwrap_or_default();
    Error::NotFound(if LATER.contains(&first) {
        "not found: lxd-imaged serves images and containers; networks and virtual machines are not its business"
    } else {
        "not found"
    })
    .into()
}

/// What handlers get of the daemon.
type Daemon = State<Arc<App>>;
