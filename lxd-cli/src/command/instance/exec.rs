//! `exec`: a command in an instance, with our streams as its own.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use lxd_proto::client::{Controls, Execution, Input, Output, exec_metadata};
use lxd_proto::instance::exec::{Control, ExecPost};
use lxd_proto::operation::Operation;
use lxd_proto::remote::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::settings::pair;
use super::{Named, terminal};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::interrupt::lend_terminal;
use crate::output::{async_stream, note};

/// Bytes of standard input that are sent at a time.
const CHUNK: usize = 64 << 10;
/// Chunks of standard input that wait for the connection.
const WAITING: usize = 4;
/// How long the rest of the output may be silent after the command has ended.
const REST: Duration = Duration::from_secs(10);

/// Run a command in an instance.
#[derive(Debug, Args)]
#[command(after_help = "\
There is no shell in between: for pipes, variables and patterns run one, as in the last example.
The exit status is that of the command; 127 when there is no such program, 126 when it cannot be
run, 128 and the number of the signal that ended it.

Examples:
  lxd-cli exec web -- hostname
  lxd-cli exec web -- sh
  lxd-cli exec web --env LANG=C --cwd /tmp -- tar -xf - < files.tar
  lxd-cli exec web -- sh -c 'ls /etc | wc -l'")]
pub(crate) struct Exec {
    /// The instance
    #[arg(value_name = "[REMOTE:]NAME")]
    instance: String,
    /// The program and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<String>,
    /// A variable for its environment; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The directory it runs in; the home of the user if not given
    #[arg(long, value_name = "DIRECTORY")]
    cwd: Option<String>,
    /// The uid it runs as
    #[arg(long, value_name = "UID", default_value_t = 0)]
    user: u32,
    /// The gid it runs as
    #[arg(long, value_name = "GID", default_value_t = 0)]
    group: u32,
    /// Whether it gets a terminal
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// With a terminal, whatever our own streams are
    #[arg(short = 't', long, conflicts_with_all = ["mode", "force_noninteractive"])]
    force_interactive: bool,
    /// Without a terminal
    #[arg(short = 'T', long, conflicts_with = "mode")]
    force_noninteractive: bool,
    /// Give it no standard input
    #[arg(short = 'n', long)]
    disable_stdin: bool,
}

/// Whether a command gets a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Mode {
    /// When our own input and output are one.
    #[default]
    Auto,
    /// Always.
    Interactive,
    /// Never.
    NonInteractive,
}

impl Exec {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let named = Named::instance(context, &self.instance)?;
        let post = self.request()?;
        // Signals are the command's from now on.
        context.interrupt.handle();
        let _lent = lend_terminal();
        let mut signals = Signals::catch()
            .map_err(|error| Failure::new(format!("cannot watch for signals: {error}")))?;
        let begun = named.server.exec(&named.name, &post).await;
        let execution = named.ok(begun).await?;
        let raw = if post.interactive { terminal::Raw::begin() } else { None };
        let operation = self.attend(&named, execution, &mut signals).await;
        drop(raw);
        status(operation?)
    }

    fn interactive(&self) -> bool {
        match self.mode {
            _ if self.force_interactive => true,
            _ if self.force_noninteractive => false,
            Mode::Interactive => true,
            Mode::NonInteractive => false,
            Mode::Auto => !self.disable_stdin && terminal::is_whole(),
        }
    }

    fn request(&self) -> Outcome<ExecPost> {
        let mut environment = BTreeMap::new();
        if let Ok(term) = std::env::var("TERM") {
            environment.insert("TERM".to_owned(), term);
        }
        for word in &self.env {
            // As with lxc: a name alone is an empty value.
            let (name, value) =
                if word.contains('=') { pair(word)? } else { (word.clone(), String::new()) };
            environment.insert(name, value);
        }
        let interactive = self.interactive();
        let (width, height) =
            if interactive { terminal::size().unwrap_or_default() } else { (0, 0) };
        Ok(ExecPost {
            command: self.command.clone(),
            wait_for_websocket: true,
            interactive,
            environment,
            width,
            height,
            record_output: false,
            user: self.user,
            group: self.group,
            cwd: self.cwd.clone().unwrap_or_default(),
        })
    }

    /// Carries bytes and signals until the command has ended and all its output is here.
    async fn attend(
        &self,
        named: &Named,
        execution: Execution,
        signals: &mut Signals,
    ) -> Outcome<Result<Operation, Error>> {
        let Execution { operation, input, output, errors, controls } = execution;
        let interactive = errors.is_none();
        let chunks = if self.disable_stdin { None } else { Some(read_stdin()) };
        let (stdout, stderr) = (async_stream(&io::stdout())?, async_stream(&io::stderr())?);
        let outputs = async {
            tokio::try_join!(drain(output, stdout), async {
                match errors {
                    Some(errors) => drain(errors, stderr).await,
                    None => Ok(()),
                }
            })
        };
        let ended = named.server.finish(operation, |_| ());
        tokio::pin!(outputs, ended);
        let shown = CancellationToken::new();
        let whole = if interactive { shown.clone() } else { CancellationToken::new() };
        let mut feeding = Box::pin(feed(input, chunks, whole));
        let (mut fed, mut drained) = (false, false);
        loop {
            tokio::select! {
                operation = &mut ended => {
                    if !drained {
                        // A process that was left behind may hold the output open.
                        match timeout(REST, &mut outputs).await {
                            Ok(done) => drop(done?),
                            Err(_) => note("Note: output of what the command left running is not shown any more."),
                        }
                    }
                    return Ok(operation);
                }
                done = &mut outputs, if !drained => {
                    done?;
                    drained = true;
                    shown.cancel();
                }
                () = &mut feeding, if !fed => fed = true,
                control = signals.next() => controls_send(&controls, control).await,
            }
        }
    }
}

async fn controls_send(controls: &Controls, control: Option<Control>) {
    if let Some(control) = control {
        controls.send(control).await;
    }
}

/// The exit status of this client.
fn status(ended: Result<Operation, Error>) -> Outcome {
    let (operation, failed) = match ended {
        Ok(operation) => (operation, None),
        Err(Error::Operation(operation)) => {
            let error = operation.err.clone();
            (*operation, Some(error))
        }
        Err(error) => return Err(error.into()),
    };
    let status = exec_metadata(&operation)?.status;
    match (status, failed) {
        (None | Some(0), None) => Ok(()),
        (Some(status), None) => Err(Failure { code: as_code(status), ..Failure::silent() }),
        (status, Some(error)) => {
            let code = status.filter(|status| *status != 0).map_or(1, as_code);
            Err(Failure { code, ..Failure::new(error) })
        }
    }
}

fn as_code(status: i32) -> u8 {
    u8::try_from(status & 0xff).unwrap_or(1)
}

/// Reads standard input on a thread of its own, which a silent terminal may hold for ever.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&buffer[..read])).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    });
    receiver
}

/// Sends what is read, then the end, and keeps the stream open; but when `whole` is told, all of
/// a terminal's output is here: the server then waits for us to close the stream.
async fn feed(mut input: Input, chunks: Option<mpsc::Receiver<Bytes>>, whole: CancellationToken) {
    let fed = async {
        if let Some(mut chunks) = chunks {
            while let Some(bytes) = chunks.recv().await {
                if !input.write(bytes).await {
                    break;
                }
            }
        }
        input.end().await;
        input.held().await;
    };
    if whole.run_until_cancelled(fed).await.is_none() {
        input.end().await;
    }
}

/// Writes what comes; a reader of ours that went away ends the program without a word.
async fn drain(mut output: Output, mut to: impl AsyncWrite + Unpin) -> Outcome {
    while let Some(bytes) = output.next().await? {
        let written = async {
            to.write_all(&bytes).await?;
            to.flush().await
        };
        match written.await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Err(Failure::silent());
            }
            Err(error) => return Err(Failure::new(format!("cannot write the output: {error}"))),
        }
    }
    Ok(())
}

/// The signals that are the command's, and changes of the terminal's size.
struct Signals {
    resized: Signal,
    forwarded: Vec<(SignalKind, Signal)>,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let forwarded = kinds.into_iter().map(|kind| Ok((kind, signal(kind)?)));
        Ok(Self {
            resized: signal(SignalKind::window_change())?,
            forwarded: forwarded.collect::<io::Result<_>>()?,
        })
    }

    /// The next of them; `None` for a new size that nobody knows.
    async fn next(&mut self) -> Option<Control> {
        let forwarded = self.forwarded.iter_mut().map(|(kind, signal)| {
            Box::pin(async move {
                signal.recv().await;
                kind.as_raw_value()
            })
        });
        tokio::select! {
            _ = self.resized.recv() => {
                terminal::size().map(|(width, height)| Control::Resize { width, height })
            }
            (number, _, _) = futures_util::future::select_all(forwarded) => {
                Some(Control::Signal(number))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        exec: Exec,
    }

    fn exec(line: &str) -> Exec {
        Line::try_parse_from(line.split(' ')).unwrap().exec
    }

    #[test]
    fn flags_after_the_command_are_the_commands() {
        let exec = exec("x c1 --env A=b --user 7 -T -- ls -l --env C=d");
        assert_eq!(exec.command, ["ls", "-l", "--env", "C=d"]);
        let post = exec.request().unwrap();
        assert_eq!((post.environment["A"].as_str(), post.user, post.interactive), ("b", 7, false));
    }

    #[test]
    fn the_double_dash_may_be_left_out() {
        assert_eq!(exec("x c1 ls -l").command, ["ls", "-l"]);
        assert!(exec("x -t c1 sh").interactive());
        assert!(exec("x --mode interactive c1 sh").interactive());
    }

    #[test]
    fn the_status_of_the_command_is_ours() {
        let operation = |err: &str, status: &str| -> Operation {
            serde_json::from_str(&format!(
                r#"{{"id":"1","class":"websocket","description":"","status":"Success",
                "created_at":"2026-11-24T00:00:00Z","updated_at":"2026-11-24T00:00:00Z",
                "status_code":200,"resources":null,"metadata":{{"return":{status}}},
                "may_cancel":false,"err":"{err}"}}"#
            ))
            .unwrap()
        };
        assert!(status(Ok(operation("", "0"))).is_ok());
        let failure = status(Ok(operation("", "137"))).unwrap_err();
        assert_eq!((failure.code, failure.error.as_str()), (137, ""));
        let failed = Error::Operation(Box::new(operation("Command not found", "127")));
        let failure = status(Err(failed)).unwrap_err();
        assert_eq!((failure.code, failure.error.as_str()), (127, "Command not found"));
    }
}
