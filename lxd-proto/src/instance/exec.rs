//! Commands in an instance: what starts one, the secrets of its streams, and control messages.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wire::null_default;

/// Names of the websockets of a command.
pub mod fd {
    /// Its standard input; of an interactive one, the terminal in both directions.
    pub const STDIN: &str = "0";
    /// Its standard output.
    pub const STDOUT: &str = "1";
    /// Its standard error.
    pub const STDERR: &str = "2";
    /// For [`super::Control`].
    pub const CONTROL: &str = "control";
}

/// Body of `POST /1.0/instances/NAME/exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ExecPost {
    /// Program and arguments; no shell.
    #[serde(deserialize_with = "null_default")]
    pub command: Vec<String>,
    /// Begin when the client has connected the streams.
    pub wait_for_websocket: bool,
    /// On a terminal.
    pub interactive: bool,
    /// Added to the environment.
    #[serde(deserialize_with = "null_default")]
    pub environment: BTreeMap<String, String>,
    /// Columns of the terminal; 0 leaves them open.
    pub width: u16,
    /// Lines of the terminal.
    pub height: u16,
    /// Without streams: keep the output as files.
    pub record_output: bool,
    /// Uid inside.
    pub user: u32,
    /// Gid inside.
    pub group: u32,
    /// Directory; empty: the home of the user.
    pub cwd: String,
}

/// Metadata of the operation of a command.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecMetadata {
    /// As in [`ExecPost`].
    #[serde(deserialize_with = "null_default")]
    pub command: Vec<String>,
    /// With the defaults of the server and the instance.
    #[serde(deserialize_with = "null_default")]
    pub environment: BTreeMap<String, String>,
    /// Secrets of the websockets by [`fd`]; absent without websockets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_default")]
    pub fds: BTreeMap<String, String>,
    /// As in [`ExecPost`].
    pub interactive: bool,
    /// Paths of the recorded output, by `1` and `2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<BTreeMap<String, String>>,
    /// Exit status, 128 + n after signal n; absent while it runs.
    #[serde(rename = "return", skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
}

/// Secrets are in it.
impl fmt::Debug for ExecMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecMetadata")
            .field("command", &self.command)
            .field("fds", &self.fds.keys())
            .field("interactive", &self.interactive)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// A message on the control websocket, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ControlMessage {
    /// `window-resize` or `signal`.
    pub command: String,
    /// `width` and `height`, as decimal strings.
    pub args: Option<BTreeMap<String, String>>,
    /// Number of a signal.
    pub signal: i32,
}

/// What the client wants of a running command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The terminal has another size.
    Resize {
        /// Columns.
        width: u16,
        /// Lines.
        height: u16,
    },
    /// A signal for the command, by its number on Linux.
    Signal(i32),
}

/// The highest number of a signal on Linux.
const LAST_SIGNAL: i32 = 64;

impl Control {
    /// What a message says; `None` for what is none or makes no sense: it is then ignored, as by
    /// LXD.
    pub fn parse(text: &str) -> Option<Self> {
        let message: ControlMessage = serde_json::from_str(text).ok()?;
        match message.command.as_str() {
            "window-resize" => {
                let args = message.args?;
                let number = |key: &str| args.get(key)?.parse().ok();
                Some(Self::Resize { width: number("width")?, height: number("height")? })
            }
            "signal" if (1..=LAST_SIGNAL).contains(&message.signal) => {
                Some(Self::Signal(message.signal))
            }
            _ => None,
        }
    }

    /// The message.
    pub fn message(self) -> ControlMessage {
        match self {
            Self::Resize { width, height } => {
                let args = [("width", width), ("height", height)];
                let args = args.map(|(key, value)| (key.to_owned(), value.to_string()));
                let command = "window-resize".into();
                ControlMessage { command, args: Some(args.into()), signal: 0 }
            }
            Self::Signal(signal) => ControlMessage { command: "signal".into(), args: None, signal },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(control: Control) -> String {
        serde_json::to_string(&control.message()).unwrap()
    }

    #[test]
    fn control_messages_are_spelled_as_lxd_does() {
        let resize = Control::Resize { width: 100, height: 30 };
        let said = r#"{"command":"window-resize","args":{"height":"30","width":"100"},"signal":0}"#;
        assert_eq!(text(resize), said);
        assert_eq!(Control::parse(said), Some(resize));
        let said = r#"{"command":"signal","args":null,"signal":2}"#;
        assert_eq!(text(Control::Signal(2)), said);
        assert_eq!(Control::parse(said), Some(Control::Signal(2)));
    }

    #[test]
    fn nonsense_on_the_control_socket_means_nothing() {
        for said in [
            "",
            "{}",
            r#"{"command":"signal","args":null,"signal":0}"#,
            r#"{"command":"signal","args":null,"signal":65}"#,
            r#"{"command":"window-resize","args":{"width":"-1","height":"30"},"signal":0}"#,
            r#"{"command":"window-resize","args":null,"signal":0}"#,
        ] {
            assert_eq!(Control::parse(said), None, "{said}");
        }
    }

    #[test]
    fn a_request_has_the_keys_of_lxd_in_order() {
        let sent = concat!(
            r#"{"command":["ls"],"wait-for-websocket":true,"interactive":false,"#,
            r#""environment":{"TERM":"xterm"},"width":0,"height":0,"record-output":false,"#,
            r#""user":0,"group":0,"cwd":""}"#
        );
        let post: ExecPost = serde_json::from_str(sent).unwrap();
        assert!(post.wait_for_websocket && post.command == ["ls"]);
        assert_eq!(serde_json::to_string(&post).unwrap(), sent);
        let nulls = r#"{"command":null,"environment":null}"#;
        assert_eq!(serde_json::from_str::<ExecPost>(nulls).unwrap(), ExecPost::default());
    }

    #[test]
    fn secrets_are_not_shown() {
        let fds = BTreeMap::from([(fd::STDIN.to_owned(), "s3cret".to_owned())]);
        let metadata = ExecMetadata { fds, status: Some(3), ..ExecMetadata::default() };
        assert!(!format!("{metadata:?}").contains("s3cret"));
        let json = serde_json::to_value(&metadata).unwrap();
        assert_eq!(json["return"], 3);
        assert_eq!(json["fds"]["0"], "s3cret");
    }
}
