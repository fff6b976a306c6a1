//! The steps to a server on this machine: its socket, and what answers there.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use lxd_proto::client::LxdClient;

use super::network::Subject;
use super::report::{PROTOCOL, Report, SOCKET, TRUST};
use crate::failure::Failure;

/// Looks at every step.
pub(super) async fn examine(remote: &Subject<'_>, report: &mut Report) {
    let path = remote.spec.address.trim_start_matches("unix:");
    let path = path.strip_prefix("//").unwrap_or(path);
    match fs::metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            report.fail(
                SOCKET,
                format!("{path} is no socket"),
                "Point LXD_SOCKET at the daemon's.",
            );
            return report.skip(&[PROTOCOL, TRUST]);
        }
        _ => {}
    }
    let client = match LxdClient::new(remote.spec.clone(), &remote.access) {
        Ok(client) => client,
        Err(error) => {
            report.failure(SOCKET, &Failure::from(error));
            return report.skip(&[PROTOCOL, TRUST]);
        }
    };
    match client.server().await {
        Ok(server) => {
            report.ok(SOCKET, format!("{path} answers"));
            super::network::speaks(&server.value, report);
            super::network::trusts(&server.value, remote, report);
        }
        Err(error) => {
            report.failure(SOCKET, &Failure::from(error));
            report.skip(&[PROTOCOL, TRUST]);
        }
    }
}
