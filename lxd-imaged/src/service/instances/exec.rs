//! Commands inside instances, with their streams on websockets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lxd_proto::event::action;
use lxd_proto::instance::exec::{Control, ExecMetadata, ExecPost, fd};
use lxd_proto::instance::{InstanceName, InstanceStatus};
use lxd_proto::operation::{Operation, description};
use lxd_proto::routes;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::power::environment;
use super::streams::{LEFT_OVER, carry_in, carry_out};
use super::{about_both, check_id, expanded, runtime, tell};
use crate::app::{App, Caller};
use crate::disks::Owner;
use crate::error::{Error, Result};
use crate::lxc::{self, Command, Io, Process};
use crate::ops::sockets::{Frame, Socket};
use crate::ops::{Context, Failure, Metadata};

/// How long a client may take to bring its websockets.
const PATIENCE: Duration = Duration::from_secs(5);
/// The variables of every command, beside those of root.
const VARIABLES: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];
/// Those of root.
const ROOT_VARIABLES: [(&str, &str); 2] = [("HOME", "/root"), ("USER", "root")];
/// The websockets of a command without a terminal.
const ALL: [&str; 4] = [fd::STDIN, fd::STDOUT, fd::STDERR, fd::CONTROL];
/// Bytes of a command line with its environment.
const LONGEST: usize = 1 << 20;
/// Bytes that are kept of each recorded stream.
const RECORDED: u64 = 16 << 20;

/// Statuses that a shell gives a command that could not be run.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Runs a command, as an operation.
///
/// # Errors
/// The instance does not run, or the request makes no sense; that a command is not there is told
/// by the operation.
pub fn exec(
    app: &Arc<App>,
    caller: &Caller,
    name: &InstanceName,
    post: ExecPost,
) -> Result<Operation> {
    let record = app.catalog.instances.get(name)?;
    match runtime::status(app, name) {
        InstanceStatus::Running => {}
        InstanceStatus::Frozen => return Err(Error::BadRequest("Instance is frozen".into())),
        _ => return Err(Error::BadRequest("Instance is not running".into())),
    }
    if post.command.first().is_none_or(String::is_empty) {
        return Err(Error::BadRequest("there is no command to run".into()));
    }
    check_id(app, "user", post.user)?;
    check_id(app, "group", post.group)?;
    let (config, _) = expanded(&record.definition);
    let variables = variables(&post, environment(&config));
    let texts = || variables.iter().flat_map(|(name, value)| [name, value]).chain(&post.command);
    if texts().any(|text| text.contains('\0')) || post.cwd.contains('\0') {
        return Err(Error::BadRequest("a command and its environment hold no zero bytes".into()));
    }
    if texts().map(String::len).sum::<usize>() > LONGEST {
        return Err(Error::BadRequest("the command and its environment are too long".into()));
    }
    let command = Command {
        argv: post.command.clone(),
        environment: in_container(&variables),
        uid: post.user,
        gid: post.group,
        directory: directory(&post, &variables),
        terminal: post.interactive.then(|| size(&post)),
    };
    tell(app, Some(caller), action::INSTANCE_EXEC, name, &[]);
    let instance = name.clone();
    let name = runtime::named(name)?;
    let session = Session { app: app.clone(), name, instance, command };
    if post.wait_for_websocket {
        session.with_websockets(&post, variables)
    } else {
        session.alone(&post, variables)
    }
}

/// Columns and rows of the terminal; the usual ones when nothing is said.
fn size(post: &ExecPost) -> (u16, u16) {
    let number = |value, usual| if value == 0 { usual } else { value };
    (number(post.width, 80), number(post.height, 25))
}

/// Where the command is executed: as asked, or at home.
fn directory(post: &ExecPost, variables: &BTreeMap<String, String>) -> String {
    if !post.cwd.is_empty() {
        return post.cwd.clone();
    }
    variables.get("HOME").filter(|home| home.starts_with('/')).map_or("/", String::as_str).into()
}

/// With what liblxc adds, which operations do not tell: programs ask by it where they are.
fn in_container(variables: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut all = BTreeMap::from([("container".to_owned(), "lxc".to_owned())]);
    all.extend(variables.clone());
    all.into_iter().collect()
}

fn variables(post: &ExecPost, configured: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut variables = post.environment.clone();
    for (name, value) in configured {
        variables.entry(name).or_insert(value);
    }
    let roots = if post.user == 0 { &ROOT_VARIABLES[..] } else { &[] };
    for (name, value) in VARIABLES.iter().chain(roots) {
        variables.entry((*name).to_owned()).or_insert_with(|| (*value).to_owned());
    }
    variables
}

/// A command that is to be run.
struct Session {
    app: Arc<App>,
    name: lxc::Name,
    instance: InstanceName,
    command: Command,
}

/// Websockets that a client is to bring, by their names in the protocol.
struct Expected {
    /// Input, or both directions of a terminal.
    input: oneshot::Receiver<Socket>,
    /// Output and error output of a command without a terminal.
    output: Option<(oneshot::Receiver<Socket>, oneshot::Receiver<Socket>)>,
    control: oneshot::Receiver<Socket>,
}

/// Those that it has brought.
struct Brought {
    input: Socket,
    output: Option<(Socket, Socket)>,
    /// Sizes and signals; without a terminal it may stay away.
    control: Controls,
}

enum Controls {
    Here(Socket),
    Later(oneshot::Receiver<Socket>),
}

impl Session {
    fn with_websockets(
        self,
        post: &ExecPost,
        variables: BTreeMap<String, String>,
    ) -> Result<Operation> {
        let names: &[&str] = if post.interactive { &[fd::STDIN, fd::CONTROL] } else { &ALL };
        let fds: BTreeMap<String, String> =
            names.iter().map(|name| ((*name).to_owned(), secret())).collect();
        let metadata = ExecMetadata {
            command: post.command.clone(),
            environment: variables,
            fds: fds.clone(),
            interactive: post.interactive,
            ..ExecMetadata::default()
        };
        let mut about = about_both(description::INSTANCE_EXEC, &self.instance);
        about.metadata = object(&metadata);
        let operations = self.app.operations.clone();
        operations.spawn_websocket(about, move |context| {
            let id = context.id();
            let expect = |name: &str| {
                let secret = fds.get(name).map_or("", String::as_str);
                self.app.sockets.expect(&id, secret)
            };
            let expected = Expected {
                input: expect(fd::STDIN),
                output: fds
                    .contains_key(fd::STDOUT)
                    .then(|| (expect(fd::STDOUT), expect(fd::STDERR))),
                control: expect(fd::CONTROL),
            };
            async move {
                let app = self.app.clone();
                let outcome = self.run(expected, &context).await;
                app.sockets.forget(&context.id());
                outcome
            }
        })
    }

    async fn run(self, expected: Expected, context: &Context) -> Result<Option<Metadata>, Failure> {
        let brought =
            tokio::time::timeout(PATIENCE, expected.brought(self.command.terminal.is_some()));
        let brought = brought.await.ok().flatten().ok_or_else(|| {
            Error::BadRequest("Timed out waiting for websockets to connect".into())
        })?;
        context.may_cancel(true);
        let running = match self.app.runtime.exec(&self.name, self.command).await {
            Ok(running) => running,
            Err(error) => return not_run(error, brought),
        };
        let process = running.process;
        let exited = CancellationToken::new();
        let (input, outputs) = streams(running.io, brought.input, brought.output, &exited);
        let cancelled = context.cancelled();
        let status = tokio::select! {
            status = process.wait() => status,
            // The client is gone, or wants it to end: so does the command.
            () = control(brought.control, &process) => killed(&process).await,
            () = cancelled.cancelled() => killed(&process).await,
        };
        exited.cancel();
        input.abort();
        for output in outputs {
            // The end of the operation comes after all bytes.
            let _ = output.await;
        }
        ended(status.map_err(lost)?, Metadata::new())
    }

    /// Without a client: what the command says is dropped, or kept in two files.
    fn alone(self, post: &ExecPost, variables: BTreeMap<String, String>) -> Result<Operation> {
        let metadata = json!({
            "command": post.command, "environment": variables, "interactive": post.interactive,
        });
        let mut about = about_both(description::INSTANCE_EXEC, &self.instance);
        about.metadata = metadata.as_object().cloned();
        let record = post.record_output;
        let operations = self.app.operations.clone();
        operations.spawn(about, async move |context| {
            context.may_cancel(true);
            let id = context.id();
            let command = Command { terminal: None, ..self.command };
            let running = match self.app.runtime.exec(&self.name, command).await {
                Ok(running) => running,
                Err(error) => return Err(refused(error)),
            };
            let process = running.process;
            let (stdout, stderr) = match running.io {
                // Its input has ended.
                Io::Pipes { stdout, stderr, .. } => (stdout, stderr),
                Io::Terminal(_) => {
                    return Err(Error::Internal("an unwanted terminal".into()).into());
                }
            };
            let logs = self.app.disks.home(&Owner::Instance(self.instance.clone())).join("logs");
            let file = |kind: &str| logs.join(format!("exec_{id}.{kind}"));
            let paths = record.then(|| (file("stdout"), file("stderr")));
            let (out, err) = paths.map_or((None, None), |(out, err)| (Some(out), Some(err)));
            let cancelled = context.cancelled();
            let ran = async {
                let kept = async { tokio::try_join!(keep(stdout, out), keep(stderr, err)) };
                tokio::pin!(kept);
                let status = tokio::select! {
                    status = process.wait() => status.map_err(lost)?,
                    kept = &mut kept => {
                        kept.map_err(unkept)?;
                        return process.wait().await.map_err(lost);
                    }
                };
                // Others that it has left behind are not waited for.
                if let Ok(kept) = tokio::time::timeout(LEFT_OVER, kept).await {
                    kept.map_err(unkept)?;
                }
                Ok::<_, Error>(status)
            };
            let status = tokio::select! {
                status = ran => status?,
                () = cancelled.cancelled() => return Err(Error::Cancelled.into()),
            };
            let mut metadata = Metadata::new();
            if record {
                let url = |kind: &str| {
                    let file = format!("exec_{id}.{kind}");
                    routes::INSTANCE_LOG.url(&[self.instance.as_str(), &file])
                };
                metadata.insert("output".into(), json!({ "1": url("stdout"), "2": url("stderr") }));
            }
            ended(status, metadata)
        })
    }
}

impl Expected {
    /// Waits for all that the command needs.
    async fn brought(self, terminal: bool) -> Option<Brought> {
        let input = self.input.await.ok()?;
        let output = match self.output {
            None => None,
            Some((out, err)) => Some((out.await.ok()?, err.await.ok()?)),
        };
        let control = if terminal {
            Controls::Here(self.control.await.ok()?)
        } else {
            Controls::Later(self.control)
        };
        Some(Brought { input, output, control })
    }
}

/// Connects the streams of a running command with the client's websockets.
fn streams(
    io: Io,
    input: Socket,
    output: Option<(Socket, Socket)>,
    exited: &CancellationToken,
) -> (JoinHandle<()>, Vec<JoinHandle<()>>) {
    match (io, output) {
        (Io::Pipes { stdin, stdout, stderr }, Some((out, err))) => {
            let feeding = tokio::spawn(feed(input, stdin));
            let outputs = vec![
                tokio::spawn(carry_out(stdout, out.outgoing, exited.clone())),
                tokio::spawn(carry_out(stderr, err.outgoing, exited.clone())),
            ];
            (feeding, outputs)
        }
        (Io::Pipes { stdin, stdout, .. }, None) => {
            let feeding = tokio::spawn(carry_in(input.incoming, stdin));
            (feeding, vec![tokio::spawn(carry_out(stdout, input.outgoing, exited.clone()))])
        }
        (Io::Terminal(terminal), _) => {
            let (reader, writer) = tokio::io::split(terminal);
            let feeding = tokio::spawn(carry_in(input.incoming, writer));
            // Ends by itself with the command.
            let all = CancellationToken::new();
            (feeding, vec![tokio::spawn(carry_out(reader, input.outgoing, all))])
        }
    }
}

/// Gives the command its input. The websocket stays open meanwhile, although nothing goes back.
async fn feed(input: Socket, stdin: impl AsyncWrite + Unpin) {
    let Socket { incoming, outgoing } = input;
    carry_in(incoming, stdin).await;
    drop(outgoing);
}

async fn killed(process: &Process) -> std::io::Result<i32> {
    process.kill()?;
    process.wait().await
}

fn unkept(error: std::io::Error) -> Error {
    Error::io("cannot keep what the command said", error)
}

fn lost(error: std::io::Error) -> Error {
    Error::io("cannot wait for the command", error)
}

/// Follows what the client says about the command; resolves when the client is gone.
async fn control(control: Controls, process: &Process) {
    let mut socket = match control {
        Controls::Here(socket) => socket,
        Controls::Later(receiver) => match receiver.await {
            Ok(socket) => socket,
            // It never comes; its other sockets tell when the client is gone.
            Err(_) => return std::future::pending().await,
        },
    };
    while let Some(frame) = socket.incoming.recv().await {
        let text = match &frame {
            Frame::Text(text) => text.as_str(),
            Frame::Data(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        };
        let followed = match Control::parse(text) {
            Some(Control::Resize { width, height }) => process.resize(width, height),
            Some(Control::Signal(signal)) => process.signal(signal),
            None => Ok(()),
        };
        if let Err(error) = followed {
            tracing::debug!(%error, "a message of a client could not be followed");
        }
    }
}

/// A command that is not there ends like one that a shell could not run, its streams too.
fn not_run(error: lxc::Error, brought: Brought) -> Result<Option<Metadata>, Failure> {
    let sockets = [Some(brought.input)].into_iter().chain(match brought.output {
        Some((out, err)) => [Some(out), Some(err)],
        None => [None, None],
    });
    for socket in sockets.flatten() {
        let _ = socket.outgoing.try_send(Frame::end());
    }
    Err(refused(error))
}

fn refused(error: lxc::Error) -> Failure {
    match error.exit_status() {
        Some(status) => match ended(status, Metadata::new()) {
            Err(failure) => failure,
            Ok(_) => error.into(),
        },
        None => error.into(),
    }
}

/// The result of a command as operations tell it.
fn ended(status: i32, mut metadata: Metadata) -> Result<Option<Metadata>, Failure> {
    metadata.insert("return".to_owned(), Value::from(status));
    let why = match status {
        NOT_FOUND => "Command not found",
        NOT_EXECUTABLE => "Command not executable",
        _ => return Ok(Some(metadata)),
    };
    Err(Failure { error: Error::BadRequest(why.to_owned()), metadata: Some(metadata) })
}

/// Reads a stream to its end; keeps its beginning in a file if there is one.
async fn keep(mut stream: impl AsyncRead + Unpin, path: Option<PathBuf>) -> std::io::Result<()> {
    if let Some(path) = path {
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent).await?;
        }
        let mut file = create_private(&path).await?;
        let mut beginning = (&mut stream).take(RECORDED);
        tokio::io::copy(&mut beginning, &mut file).await?;
        file.flush().await?;
    }
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

async fn create_private(path: &Path) -> std::io::Result<tokio::fs::File> {
    tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await
}

fn object(value: &impl serde::Serialize) -> Option<Map<String, Value>> {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}

/// 64 hexadecimal digits that nobody can guess.
fn secret() -> String {
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    format!("{}{}", first.simple(), second.simple())
}
