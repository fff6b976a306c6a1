//! HTTP: every route of the API, each handler parses, calls a service and replies.

mod aliases;
mod builtin;
mod events;
mod export;
mod extract;
mod images;
mod internal;
mod operations;
mod reply;
mod server;

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
        .route(routes::PROJECTS.template(), get(builtin::projects))
        .route(routes::PROJECT.template(), get(builtin::project))
        .route(routes::PROFILES.template(), get(builtin::profiles))
        .route(routes::PROFILE.template(), get(builtin::profile))
        .route(routes::STORAGE_POOLS.template(), get(builtin::pools))
        .route(routes::STORAGE_POOL.template(), get(builtin::pool))
        .route(routes::SHUTDOWN.template(), post(internal::shutdown))
        .layer(middleware::from_fn(only_the_default_project))
        .fallback(async || Reply::from(Error::NotFound("not found")))
        .method_not_allowed_fallback(async || Reply::not_implemented())
        .with_state(app)
}

fn images(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route(routes::IMAGES.template(), get(images::list).post(images::create))
        .route(
            routes::IMAGE.template(),
            get(images::get).put(images::put).patch(images::patch).delete(images::delete),
        )
        .route(routes::IMAGE_EXPORT.template(), get(export::get))
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
        .route(routes::READY.template(), get(internal::ready))
        .route_layer(middleware::from_fn_with_state(app.clone(), once_loaded))
}

/// Images and aliases are read while the first requests already come.
async fn once_loaded(State(app): Daemon, request: Request, next: Next) -> Response {
    use axum::response::IntoResponse;
    match app.catalog.loaded().await {
        Ok(()) => next.run(request).await,
        Err(error) => Reply::from(error).into_response(),
    }
}

/// There is one project; the path `/1.0/projects/NAME` says so by itself.
async fn only_the_default_project(request: Request, next: Next) -> Response {
    use axum::response::IntoResponse;
    let query = Query::of(request.uri());
    match query.get(routes::query::PROJECT) {
        Some(name) if !name.is_empty() && name != lxd_proto::project::DEFAULT => {
            let text = "Check if project has images: fetch project: Project not found";
            Reply::from(Error::NotFound(text)).into_response()
        }
        _ => next.run(request).await,
    }
}

/// What handlers get of the daemon.
type Daemon = State<Arc<App>>;
