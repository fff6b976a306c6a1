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
    /// The server on the network that it is about, as the layers below call it: the advice
    /// depends on which remote that is.
    #[serde(skip)]
    pub(crate) endpoint: Option<String>,
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
    /// The certificate is not accepted: a person may accept it.
    Untrusted,
}

impl Failure {
    pub(crate) fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            hints: Vec::new(),
            code: 1,
            cause: Cause::Other,
            endpoint: None,
            detail: None,
        }
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

    /// About a server on the network; an endpoint of another kind is none.
    #[must_use]
    fn at(mut self, endpoint: &str) -> Self {
        self.endpoint = endpoint.starts_with("https:").then(|| endpoint.to_owned());
        self
    }

    #[must_use]
    pub(crate) fn because(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    /// With the advice for the remote that its endpoint is, or for the endpoint itself.
    #[must_use]
    pub(crate) fn advised(mut self, remote: impl Fn(&str) -> Option<String>) -> Self {
        let Some(endpoint) = self.endpoint.take() else { return self };
        let hint = match (self.cause, remote(&endpoint)) {
            (Cause::Untrusted, Some(name)) => format!(
                "If its owner says that the certificate is right, `lxd-cli remote trust {name}` \
                 accepts it; `lxd-cli doctor {name}:` looks closer."
            ),
            (_, Some(name)) => format!("`lxd-cli doctor {name}:` looks for the reason."),
            (_, None) => format!("`lxd-cli doctor {endpoint}` looks for the reason."),
        };
        self.hint(hint)
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
            Error::Tls { ref endpoint, .. } => {
                Self::new(error.to_string()).because(Cause::Untrusted).at(endpoint)
            }
            Error::Handshake { ref endpoint, .. } => Self::new(error.to_string()).at(endpoint),
            Error::Silent { .. } | Error::Slow { .. } => {
                Self::new(error.to_string()).because(Cause::Unreachable)
            }
            other => Self::new(other.to_string()),
        };
        Self { detail, ..failure }
    }
}

/// Cause and remedy when a server cannot be reached.
fn unreachable_server(endpoint: &str, source: &io::Error) -> Failure {
    if endpoint.starts_with("https:") {
        return Failure::new(format!("cannot reach {endpoint}: {source}"))
            .because(Cause::Unreachable)
            .at(endpoint);
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
    fn advice_names_the_remote_and_offers_only_what_can_help() {
        let endpoint = || "https://h:8443".to_owned();
        let known = |at: &str| (at == "https://h:8443").then(|| "backup".to_owned());
        let reason = || "another".to_owned();
        let told = |error: Error| Failure::from(error).advised(known).hints.join("\n");
        let untrusted = told(Error::Tls { endpoint: endpoint(), reason: reason() });
        assert!(untrusted.contains("`lxd-cli remote trust backup` accepts"), "{untrusted}");
        let plain = Error::Handshake { endpoint: endpoint(), reason: reason() };
        assert_eq!(told(plain), "`lxd-cli doctor backup:` looks for the reason.");
        // No remote has a certificate to accept.
        let stranger = Error::Tls { endpoint: "https://other".into(), reason: reason() };
        assert_eq!(told(stranger), "`lxd-cli doctor https://other` looks for the reason.");
        let source = || io::ErrorKind::ConnectionRefused.into();
        let refused = told(Error::Connect { endpoint: endpoint(), source: source() });
        assert_eq!(refused, "`lxd-cli doctor backup:` looks for the reason.");
        let socket = told(Error::Connect { endpoint: "/run/x".into(), source: source() });
        assert!(socket.starts_with("Start the daemon") && !socket.contains("doctor"), "{socket}");
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
