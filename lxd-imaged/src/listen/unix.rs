//! The unix socket: whoever may open it is trusted.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use lxd_proto::event::Requestor;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{self, Peer};
use super::eager::Eager;
use super::sending::Sending;
use crate::app::Caller;
use crate::catalog::Viewer;
use crate::store::outbox::Outbox;

/// Connections that may be open at once.
const MAX_CONNECTIONS: usize = 8192;
/// How long to let others end after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the socket, in place of one that a dead daemon has left. The caller holds the directory.
pub fn bind(path: &Path, group: Option<&str>) -> anyhow::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    if let Some(group) = group {
        let id = group_id(group)?;
        std::os::unix::fs::chown(path, None, Some(id))
            .with_context(|| format!("cannot give {} to the group {group}", path.display()))?;
    }
    Ok(listener)
}

/// The number of a group, by name or by number.
fn group_id(group: &str) -> anyhow::Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let groups = fs::read_to_string("/etc/group").context("cannot read /etc/group")?;
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    match found {
        Some(id) => Ok(id),
        None => bail!("there is no group \"{group}\"; create it, or leave --group out"),
    }
}

/// Accepts connections until `shutdown` is cancelled, then waits for the open ones.
pub async fn serve(listener: UnixListener, router: Router, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let outbox = Outbox::new();
                let peer =
                    Peer { caller: caller(&stream), client: None, outbox: Some(outbox.clone()) };
                let stream = Sending::new(stream, outbox);
                let (router, shutdown) = (router.clone(), shutdown.clone());
                connections.spawn(Eager::new(async move {
                    connection::serve(stream, router, peer, shutdown).await;
                    drop(place);
                }));
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must end first.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

fn caller(stream: &UnixStream) -> Caller {
    let uid = stream.peer_cred().map_or(u32::MAX, |credentials| credentials.uid());
    let username = user_name(uid).unwrap_or_else(|| uid.to_string());
    let requestor = Requestor { username, protocol: "unix".into(), address: "@".into() };
    Caller { viewer: Viewer::Trusted, requestor }
}

fn user_name(uid: u32) -> Option<String> {
    if uid == 0 {
        return Some("root".into());
    }
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}
