//! Of ours, for the daemon's own subcommands; on the unix socket only.

use axum::extract::State;

use super::Daemon;
use super::reply::Reply;
use crate::service::instances;

/// Ends all instances, which start again with the daemon, and then the daemon. SIGTERM leaves
/// instances alone.
pub(super) async fn shutdown(State(app): Daemon) -> Reply {
    instances::stop_all(&app).await;
    app.shutdown.cancel();
    Reply::Empty
}

/// Answers when the store is loaded: this route waits for it.
pub(super) async fn ready() -> Reply {
    Reply::Empty
}
