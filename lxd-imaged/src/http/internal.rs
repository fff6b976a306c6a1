//! Of ours, for the daemon's own subcommands; on the unix socket only.

use axum::extract::State;

use super::Daemon;
use super::reply::Reply;

/// Ends the daemon as SIGTERM does.
pub(super) async fn shutdown(State(app): Daemon) -> Reply {
    app.shutdown.cancel();
    Reply::Empty
}

/// Answers when the store is loaded: this route waits for it.
pub(super) async fn ready() -> Reply {
    Reply::Empty
}
