//! Of ours, for the daemon's own subcommands.

use axum::Extension;
use axum::extract::State;

use super::Daemon;
use super::reply::Reply;
use crate::app::Caller;
use crate::error::Error;

/// Ends the daemon as SIGTERM does.
pub(super) async fn shutdown(State(app): Daemon, Extension(caller): Extension<Caller>) -> Reply {
    if !caller.is_trusted() {
        return Error::Forbidden.into();
    }
    app.shutdown.cancel();
    Reply::Empty
}

/// Answers only when requests are served at all, which is when the store is loaded.
pub(super) async fn ready(Extension(caller): Extension<Caller>) -> Reply {
    if caller.is_trusted() { Reply::Empty } else { Error::Forbidden.into() }
}
