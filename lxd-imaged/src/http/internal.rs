//! Of ours, for the daemon's own subcommands.

use axum::Extension;
use axum::extract::State;

use super::Daemon;
use super::reply::Reply;
use crate::app::Caller;

/// Ends the daemon as SIGTERM does.
pub(super) async fn shutdown(State(app): Daemon, Extension(caller): Extension<Caller>) -> Reply {
    if let Err(error) = caller.must_be_trusted() {
        return error.into();
    }
    app.shutdown.cancel();
    Reply::Empty
}

/// Answers when the store is loaded: this route waits for it.
pub(super) async fn ready(Extension(caller): Extension<Caller>) -> Reply {
    caller.must_be_trusted().into()
}
