//! How a command fails: what is said, what may help, and the exit status.

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lxd_proto::remote::Error;
use serde::{Serialize, Serializer};

use crate::output::{Shape, json, visible, yaml};

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
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "without_layout")]
    pub(crate) hints: Vec<String>,
    /// Exit status.
    #[serde(skip)]
    pub(crate) code: u8,
    /// What another attempt may do about it.
    #[serde(skip)]
    pub(crate) cause: Cause,
    /// The words of the layers below, for `--debug`.
    #[serde(skip)]
    pub(crate) detail: Option<String>,
}

/// Why a command failed, as far as another attempt could go better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Cause {
    /// It would fail again.
    #[default]
    Other,
    /// Nobody answers at the address: another one may do.
    Unreachable,
    /// Something answers, but in another protocol.
    OtherProtocol,
}

impl Failure {
    pub(crate) fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), hints: Vec::new(), code: 1, cause: Cause::Other, detail: None }
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

    #[must_use]
    pub(crate) fn because(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    /// For standard error: in the shape that the result would have had, if a program reads it.
    pub(crate) fn shaped(&self, shape: Option<Shape>, debug: bool) -> String {
        let told = match shape {
            _ if self.error.is_empty() => None,
            Some(Shape::Json) => json(self).ok(),
            Some(Shape::Yaml) => yaml(self).ok(),
            _ => None,
        };
        told.unwrap_or_else(|| visible(&self.text(debug)).into_owned())
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

/// Hints without the blanks that indent them for people.
fn without_layout<S: Serializer>(hints: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(hints.iter().map(|hint| hint.trim()))
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
            Error::Tls { endpoint, reason } => untrusted_server(&endpoint, &reason),
            Error::Silent { .. } => Self::new(error.to_string()).because(Cause::Unreachable),
            other => Self::new(other.to_string()),
        };
        Self { detail, ..failure }
    }
}

/// Cause and remedy when a server's certificate is not accepted.
fn untrusted_server(endpoint: &str, reason: &str) -> Failure {
    Failure::new(format!("cannot trust {endpoint}: {reason}")).hint(
        "If its owner says that the certificate is right, `lxd-cli remote trust REMOTE` accepts it; \
         `lxd-cli doctor REMOTE:` looks closer.",
    )
}

/// Cause and remedy when a server cannot be reached.
fn unreachable_server(endpoint: &str, source: &io::Error) -> Failure {
    if endpoint.starts_with("https:") {
        return Failure::new(format!("cannot reach {endpoint}: {source}"))
            .hint(format!("`lxd-cli doctor {endpoint}` looks for the reason."))
            .because(Cause::Unreachable);
    }
    let reason = match source.kind() {
        io::ErrorKind::NotFound => "there is no such socket".to_owned(),
        io::ErrorKind::ConnectionRefused => "nobody listens on the socket".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => source.to_string(),
    };
    let failure = Failure::new(format!("cannot reach lxd-imaged at {endpoint}: {reason}"))
        .because(Cause::Unreachable);
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => failure.hint(
            "Start the daemon with `lxd-imaged`, or point LXD_DIR or LXD_SOCKET at a running one.",
        ),
        io::ErrorKind::PermissionDenied => failure.hint(match group_of(Path::new(endpoint)) {
            Some(group) if group != "root" => {
                format!("Add yourself to the group \"{group}\", or run this as root.")
            }
            // To let people into root's group would be no remedy.
            Some(_) => "Run this as root, or have the daemon started with `lxd-imaged --group \
                        NAME` and be a member of that group."
                .to_owned(),
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
    fn programs_get_their_shape_without_layout() {
        let failure = Failure::new("no: \x1b[2J").hint("  031aa7");
        let json = failure.shaped(Some(Shape::Json), false);
        assert_eq!(json, "{\"error\":\"no: \\u001b[2J\",\"hints\":[\"031aa7\"]}\n");
        let yaml = failure.shaped(Some(Shape::Yaml), false);
        assert_eq!(yaml, "error: \"no: \\u001b[2J\"\nhints:\n- 031aa7\n");
        let text = failure.shaped(None, false);
        assert_eq!(text, "Error: no: \\u{1b}[2J\n  031aa7\n");
        assert_eq!(Failure::silent().shaped(Some(Shape::Json), false), "");
    }

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
