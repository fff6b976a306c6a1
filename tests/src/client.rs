//! One run of a command line: what went in, what came out, what it should have been.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::wait::PATIENCE;

/// The clients that every behaviour is shown with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Debian's `lxc` 5.0.2.
    Lxc,
    /// This workspace's `lxd-cli`.
    Cli,
}

impl Client {
    /// Both, the judge first; `LXD_TEST_CLIENT=lxc` leaves it alone, to judge the tests.
    pub fn both() -> Vec<Self> {
        match std::env::var("LXD_TEST_CLIENT").as_deref() {
            Ok("lxc") => vec![Self::Lxc],
            _ => vec![Self::Lxc, Self::Cli],
        }
    }
}

/// A command line on its way.
#[derive(Debug)]
pub struct Invocation {
    shown: String,
    command: Command,
    stdin: Vec<u8>,
}

impl Invocation {
    /// `program` with the words of `line`, split as a shell would at spaces outside single quotes.
    pub fn new(program: &Path, line: &str) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = Command::new(program);
        command.args(words(line));
        Self { shown: format!("{name} {line}"), command, stdin: Vec::new() }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.command.env(key, value.into());
        self
    }

    /// Runs in `dir`.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Feeds `bytes` to standard input (empty otherwise).
    #[must_use]
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    /// The command itself, for [`crate::terminal`].
    pub(crate) fn into_command(self) -> Command {
        self.command
    }

    /// Starts it in the background; standard input is `/dev/null`.
    pub fn spawn(mut self) -> Running {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.command.spawn().unwrap_or_else(|e| panic!("$ {}: {e}", self.shown));
        Running { shown: self.shown, child }
    }

    /// Runs it to its end, which must come within [`PATIENCE`].
    pub fn run(self) -> Finished {
        self.start().wait()
    }

    /// Runs it; `None` when it did not end within `limit`.
    pub fn run_within(self, limit: Duration) -> Option<Finished> {
        self.start().wait_within(limit)
    }

    fn start(mut self) -> Running {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|e| panic!("$ {}: {e}", self.shown));
        let mut input = child.stdin.take().expect("stdin is a pipe");
        let bytes = std::mem::take(&mut self.stdin);
        // A program may end without reading: a broken pipe is not a fault here.
        std::thread::spawn(move || input.write_all(&bytes));
        Running { shown: self.shown, child }
    }

    /// Runs it; it must exit with 0.
    pub fn ok(self) -> Finished {
        self.exits(0)
    }

    /// Runs it; it must exit with 1 and say why on standard error.
    pub fn fails(self) -> Finished {
        let done = self.exits(1);
        assert!(!done.stderr.trim().is_empty(), "failed without a word:\n{done}");
        done
    }

    /// Runs it; it must exit with `code`.
    pub fn exits(self, code: i32) -> Finished {
        let done = self.run();
        assert_eq!(done.code, code, "wrong exit code:\n{done}");
        done
    }
}

/// A command under way.
#[derive(Debug)]
pub struct Running {
    shown: String,
    child: Child,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id fits")
    }

    /// Standard output, for reading while it runs.
    pub fn take_stdout(&mut self) -> impl Read + use<> {
        self.child.stdout.take().expect("stdout is read once")
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a process id is positive");
        rustix::process::kill_process(pid, signal).expect("signal a child of ours");
    }

    /// Waits for the end, within [`PATIENCE`].
    pub fn wait(self) -> Finished {
        let shown = self.shown.clone();
        let done = self.wait_within(PATIENCE);
        done.unwrap_or_else(|| panic!("$ {shown}: still running after {PATIENCE:?}"))
    }

    /// Waits for the end; `None` when it did not come within `limit` and was forced.
    pub fn wait_within(mut self, limit: Duration) -> Option<Finished> {
        use std::os::unix::process::ExitStatusExt;
        let stdout = self.child.stdout.take().map(drain);
        let stderr = self.child.stderr.take().map(drain);
        let collect = |stream: Option<Receiver<Vec<u8>>>| match stream {
            None => Some(String::new()),
            Some(stream) => {
                let bytes = stream.recv_timeout(limit).ok()?;
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
        };
        let (Some(stdout), Some(stderr)) = (collect(stdout), collect(stderr)) else {
            let _ = self.child.kill();
            let _ = self.child.wait();
            return None;
        };
        let status = self.child.wait().expect("wait for a child of ours");
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Some(Finished { shown: self.shown, stdout, stderr, code })
    }
}

fn drain(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = send.send(all);
    });
    receive
}

/// What a command said.
#[derive(Debug)]
pub struct Finished {
    /// The command line as a user would type it.
    pub shown: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code; 128 + N when signal N ended it.
    pub code: i32,
}

impl Finished {
    /// Standard output without surrounding white space.
    pub fn line(&self) -> &str {
        self.stdout.trim()
    }

    /// Standard output must contain `text`.
    pub fn says(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "stdout lacks {text:?}:\n{self}");
        self
    }

    /// Standard output must not contain `text`.
    pub fn says_not(self, text: &str) -> Self {
        assert!(!self.stdout.contains(text), "stdout has {text:?}:\n{self}");
        self
    }

    /// Standard output must be exactly `text`.
    pub fn prints(self, text: &str) -> Self {
        assert_eq!(self.stdout, text, "other output:\n{self}");
        self
    }

    /// Nothing on standard output.
    pub fn silent(self) -> Self {
        self.prints("")
    }

    /// Standard error must contain `text`.
    pub fn complains(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "stderr lacks {text:?}:\n{self}");
        self
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON ({e}):\n{self}"))
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shown, stdout, stderr, code } = self;
        write!(f, "$ {shown}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n--- exit {code}")
    }
}

/// Splits a command line at white space; single quotes keep what they hold together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut open) = (String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => (quoted, open) = (!quoted, true),
            c if c.is_whitespace() && !quoted => {
                if open {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            c => {
                word.push(c);
                open = true;
            }
        }
    }
    if open {
        words.push(word);
    }
    words
}

/// A program of the system, for scenarios that a person would type.
pub fn system(program: &str, line: &str) -> Invocation {
    Invocation::new(&crate::tool::require(program), line)
}

/// A path as text; the harness makes only paths that are.
pub fn shown(path: &Path) -> &str {
    path.to_str().expect("paths of the harness are text")
}

/// A fresh directory under `parent`.
pub fn subdir(parent: &Path, name: &str) -> PathBuf {
    let dir = parent.join(name);
    std::fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    dir
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(words("a  'b c' d''e ''"), ["a", "b c", "de", ""]);
    }
}
