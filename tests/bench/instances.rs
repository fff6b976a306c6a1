//! Containers through the API, the same requests to both daemons, and what they take of the disk.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;

use crate::client::Connection;
use crate::server::Server;

/// Makes an instance of an image and starts it, as `lxc launch` does; seconds until it runs.
pub(crate) fn launch(connection: &mut Connection, name: &str, fingerprint: &str) -> Result<f64> {
    let start = Instant::now();
    create(connection, name, fingerprint)?;
    change_state(connection, name, "start")?;
    Ok(start.elapsed().as_secs_f64())
}

/// Makes an instance of an image.
pub(crate) fn create(connection: &mut Connection, name: &str, fingerprint: &str) -> Result<()> {
    let body = json!({
        "name": name,
        "type": "container",
        "profiles": ["default"],
        "source": { "type": "image", "fingerprint": fingerprint },
    });
    let accepted = connection.call("POST", "/1.0/instances", &body.to_string())?;
    connection.finished(&accepted).with_context(|| format!("creating {name}"))?;
    Ok(())
}

/// Starts or stops (by force) an instance.
fn change_state(connection: &mut Connection, name: &str, action: &str) -> Result<()> {
    let body = json!({ "action": action, "timeout": 30, "force": action == "stop" });
    let path = format!("/1.0/instances/{name}/state");
    let accepted = connection.call("PUT", &path, &body.to_string())?;
    connection.finished(&accepted).with_context(|| format!("{action} of {name}"))?;
    Ok(())
}

/// Stops an instance by force.
pub(crate) fn stop(connection: &mut Connection, name: &str) -> Result<()> {
    change_state(connection, name, "stop")
}

/// Deletes a stopped instance; seconds until it is gone.
pub(crate) fn delete(connection: &mut Connection, name: &str) -> Result<f64> {
    let start = Instant::now();
    let accepted = connection.call("DELETE", &format!("/1.0/instances/{name}"), "")?;
    connection.finished(&accepted).with_context(|| format!("deleting {name}"))?;
    Ok(start.elapsed().as_secs_f64())
}

/// An image that was made of an instance.
#[derive(Debug)]
pub(crate) struct Published {
    /// Until the operation's success.
    pub(crate) seconds: f64,
    pub(crate) bytes: f64,
    pub(crate) fingerprint: String,
}

/// Makes an image of a stopped instance.
pub(crate) fn publish(
    connection: &mut Connection,
    name: &str,
    algorithm: &str,
) -> Result<Published> {
    let body = json!({
        "source": { "type": "container", "name": name },
        "compression_algorithm": algorithm,
    });
    let start = Instant::now();
    let accepted = connection.call("POST", "/1.0/images", &body.to_string())?;
    let done = connection.finished(&accepted).with_context(|| format!("publishing {name}"))?;
    let seconds = start.elapsed().as_secs_f64();
    let fingerprint =
        done["metadata"]["fingerprint"].as_str().context("an image without a fingerprint")?;
    let image = connection.call("GET", &format!("/1.0/images/{fingerprint}"), "")?;
    let bytes = image["metadata"]["size"].as_f64().context("an image without a size")?;
    Ok(Published { seconds, bytes, fingerprint: fingerprint.to_owned() })
}

/// Stops and deletes all instances, running or not, so that nothing of them outlives the daemon.
pub(crate) fn clear(server: &Server) -> Result<()> {
    let mut connection = server.connect()?;
    let listed = connection.call("GET", "/1.0/instances", "")?;
    let paths = listed["metadata"].as_array().cloned().unwrap_or_default();
    let mut outcome = Ok(());
    for path in paths.iter().filter_map(serde_json::Value::as_str) {
        let name = path.rsplit('/').next().unwrap_or_default();
        // One that does not run can't be stopped.
        let _ = stop(&mut connection, name);
        outcome = outcome.and(delete(&mut connection, name).map(drop));
    }
    outcome
}

/// Bytes of the disk that everything below a directory takes: each file once, however many names
/// it has, and nothing that is mounted there from elsewhere.
pub(crate) fn used(dir: &Path) -> Result<f64> {
    let own = std::fs::symlink_metadata(dir)
        .with_context(|| format!("cannot look at {}", dir.display()))?;
    let mut seen = HashSet::new();
    let blocks = add(dir, &own, &mut seen);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(blocks as f64 * 512.0)
}

/// What goes away meanwhile counts for nothing.
fn add(path: &Path, metadata: &Metadata, seen: &mut HashSet<u64>) -> u64 {
    if !seen.insert(metadata.ino()) {
        return 0;
    }
    let mut blocks = metadata.blocks();
    if metadata.is_dir() {
        for entry in path.read_dir().into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(below) = std::fs::symlink_metadata(&path) else { continue };
            if below.dev() == metadata.dev() {
                blocks += add(&path, &below, seen);
            }
        }
    }
    blocks
}
