//! How a command fails: what is said, what may help, and the exit status.

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lxd_proto::remote::Error;
use serde::Serialize;

/// The result of a command or a part of one.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Exit status of a wrong command line.
pub(crate) const USAGE: u8 = 2;
/// Exit status after an interrupt.
pub(crate) const INTERRUPTED: u8 = 130;

/// A failed command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    /// What failed, on what and why.
    pub(crate) error: String,
    /// What to do about it, or candidates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) hints: Vec<String>,
    /// Exit status.
    #[serde(skip)]
    pub(crate) code: u8,
    /// The words of the layers below, for `--debug`.
    #[serde(skip)]
    pub(crate) detail: Option<String>,
}

impl Failure {
    pub(crate) fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), hints: Vec::new(), code: 1, detail: None }
    }

    /// A wrong command line that clap could not know of.
    pub(crate) fn usage(error: impl Into<String>) -> Self {
        Self { code: USAGE, ..Self::new(error) }
    }

    /// The reader of our output is gone: nothing to say.
    pub(crate) fn silent() -> Self {
        Self::new("")
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn maybe_hint(self, hint: Option<String>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// As lines for standard error.
    pub(crate) fn text(&self, debug: bool) -> String {
        if self.error.is_empty() {
            return String::new();
        }
        let mut text = format!("Error: {}\n", self.error);
        for hint in &self.hints {
            let _ = writeln!(text, "{hint}");
        }
        if let (true, Some(detail)) = (debug, &self.detail) {
            let _ = writeln!(text, "debug: {detail}");
        }
        text
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let detail = Some(format!("{error:?}"));
        let failure = match error {
            Error::Connect { endpoint, source } => unreachable_server(&endpoint, &source),
            Error::NotFound { reference } => Self::new(format!(
                "Image not found: no alias and no fingerprint is \"{reference}\""
            )),
            Error::Ambiguous { reference, candidates } => {
                let mut failure = Self::new(format!(
                    "More than one image matches: {} fingerprints begin with \"{reference}\"",
                    candidates.len()
                ));
                failure.hints.extend(candidates.iter().map(|fp| format!("  {fp}")));
                failure
            }
            Error::Api { status: 412, .. } => {
                Self::new("it was changed by someone else in the meantime; nothing was saved")
                    .hint("Look at it again and repeat the command.")
            }
            other => Self::new(other.to_string()),
        };
        Self { detail, ..failure }
    }
}

/// Cause and remedy when the daemon cannot be reached.
fn unreachable_server(endpoint: &str, source: &io::Error) -> Failure {
    let reason = match source.kind() {
        io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens on the socket".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => source.to_string(),
    };
    let failure = Failure::new(format!("cannot reach lxd-imaged at {endpoint}: {reason}"));
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => failure.hint(
            "Start the daemon with `lxd-imaged`, or point LXD_DIR or LXD_SOCKET at a running one.",
        ),
        io::ErrorKind::PermissionDenied => failure.hint(match group_of(Path::new(endpoint)) {
            Some(group) => format!("Add yourself to the group \"{group}\", or run this as root."),
            None => "Run this as the user who runs the daemon, or as root.".to_owned(),
        }),
        _ => failure,
    }
}

/// The name of the group that owns `path`.
fn group_of(path: &Path) -> Option<String> {
    let gid = std::fs::metadata(path).ok()?.gid().to_string();
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_daemon_is_told_with_the_remedy() {
        let error = Error::Connect {
            endpoint: "/x/unix.socket".into(),
            source: io::Error::from_raw_os_error(2),
        };
        let text = Failure::from(error).text(false);
        assert!(text.starts_with("Error: cannot reach lxd-imaged at /x/unix.socket: "), "{text}");
        assert!(text.contains("LXD_DIR") && !text.contains("debug:"), "{text}");
    }
}
