//! Commands in a running instance: their streams or terminal, signals, and how they end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::fs::{Gid, MemfdFlags, OFlags, Uid};
use rustix::pipe::PipeFlags;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::channel::{self, Invocation, Reply, Request};
use super::spec::Name;
use super::{Error, Runtime, attach, helper, sys};

/// How long it may take until the command is executed.
const BEGIN: Duration = Duration::from_secs(30);
/// How long a terminal is read after the command has ended, while other processes hold it: what
/// the command wrote last may still be on its way through the kernel.
const PATIENCE: Duration = Duration::from_millis(100);
/// What a pipe holds: large transfers need fewer turns.
const PIPE: usize = 256 << 10;
/// The highest signal of Linux.
const LAST_SIGNAL: i32 = 64;

/// What is to be executed.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program, looked up in the `PATH` of `environment`, and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// The user, as the instance sees it.
    pub uid: u32,
    /// The group, as the instance sees it; there are no others.
    pub gid: u32,
    /// Where it is executed; `/` if that is not there.
    pub directory: String,
    /// Columns and rows of the terminal it gets; without, it gets pipes.
    pub terminal: Option<(u16, u16)>,
}

/// A command that is being executed.
#[derive(Debug)]
pub struct Running {
    /// Where its input goes and its output comes from.
    pub io: Io,
    /// The process; it is killed when the last copy is dropped.
    pub process: Process,
}

/// The streams of a command.
#[derive(Debug)]
pub enum Io {
    /// Three pipes. Output ends when every process that has it is gone.
    Pipes {
        /// Standard input; dropping it is the end of the input.
        stdin: pipe::Sender,
        /// Standard output.
        stdout: pipe::Receiver,
        /// Standard error.
        stderr: pipe::Receiver,
    },
    /// One terminal. Its output ends when the command has ended and all was read.
    Terminal(Terminal),
}

/// The process of a command; copies are the same process.
#[derive(Debug, Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    handle: OwnedFd,
    terminal: Option<Arc<AsyncFd<OwnedFd>>>,
    end: watch::Receiver<Option<Result<i32, String>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.end.borrow().is_none() {
            // It may have ended meanwhile, which is as good.
            let _ = sys::send_signal(self.handle.as_fd(), libc::SIGKILL);
        }
    }
}

impl Process {
    /// Sends a signal to the process, and to no other of the instance.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        if !(1..=LAST_SIGNAL).contains(&signal) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match sys::send_signal(self.inner.handle.as_fd(), signal) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            outcome => outcome,
        }
    }

    /// Ends the process at once.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Changes the size of the terminal; nothing happens if there is none.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let Some(terminal) = &self.inner.terminal else { return Ok(()) };
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(terminal.get_ref(), size)?)
    }

    /// Waits for the end; its status, or 128 and the signal that ended it.
    pub async fn wait(&self) -> io::Result<i32> {
        let mut end = self.inner.end.clone();
        let lost = || io::Error::other("the helper is gone");
        let end = end.wait_for(Option::is_some).await.map_err(|_| lost())?;
        match end.as_ref() {
            Some(Ok(status)) => Ok(*status),
            Some(Err(error)) => Err(io::Error::other(error.clone())),
            None => Err(lost()),
        }
    }
}

/// The master side of a terminal in an instance.
#[derive(Debug)]
pub struct Terminal {
    master: Arc<AsyncFd<OwnedFd>>,
    /// The command has ended: what other processes hold the terminal for no longer counts.
    ended: Ended,
}

struct Ended {
    token: CancellationToken,
    waiting: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Since the end: when output that does not come is no longer waited for.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Ended {
    fn new(token: CancellationToken) -> Self {
        let waiting = Box::pin(token.clone().cancelled_owned());
        Self { token, waiting, patience: None }
    }

    /// Ready when the command has ended and nothing came for a while.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.patience.is_none() {
            ready!(self.waiting.as_mut().poll(context));
        }
        let patience = || Box::pin(tokio::time::sleep(PATIENCE));
        self.patience.get_or_insert_with(patience).as_mut().poll(context)
    }

    /// Something came.
    fn restart(&mut self) {
        if let Some(patience) = &mut self.patience {
            patience.as_mut().reset(Instant::now() + PATIENCE);
        }
    }
}

impl std::fmt::Debug for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.token.fmt(formatter)
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let Poll::Ready(guard) = this.master.poll_read_ready(context) else {
                return this.ended.poll(context).map(Ok);
            };
            let mut guard = guard?;
            let space = buffer.initialize_unfilled();
            let read = guard.try_io(|master| Ok(rustix::io::read(master.get_ref(), space)?));
            match read {
                Ok(Ok(read)) => {
                    this.ended.restart();
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                // Nobody has the other side open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.master.poll_write_ready(context))?;
            let written = guard.try_io(|master| Ok(rustix::io::write(master.get_ref(), bytes)?));
            if let Ok(outcome) = written {
                return Poll::Ready(outcome);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Both ends of the three pipes.
struct Pipes {
    theirs: [OwnedFd; 3],
    ours: (pipe::Sender, pipe::Receiver, pipe::Receiver),
}

impl Pipes {
    /// They belong to the user of the command, who may open them again as `/dev/stdout`.
    fn new(uid: Option<u32>) -> io::Result<Self> {
        let [input, output, errors] = [pipe(uid)?, pipe(uid)?, pipe(uid)?];
        let sender = pipe::Sender::from_owned_fd(nonblocking(input.1)?)?;
        let receiver = |end| pipe::Receiver::from_owned_fd(nonblocking(end)?);
        Ok(Self {
            ours: (sender, receiver(output.0)?, receiver(errors.0)?),
            theirs: [input.0, output.1, errors.1],
        })
    }
}

fn pipe(uid: Option<u32>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // Beyond what the system allows, a pipe is just as it was.
    let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE);
    if let Some(uid) = uid {
        rustix::fs::fchown(&write, Some(Uid::from_raw(uid)), None::<Gid>)?;
    }
    Ok((read, write))
}

/// The two ends of a pipe have flags of their own: the command's stay as it expects them.
fn nonblocking(end: OwnedFd) -> io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&end)?;
    rustix::fs::fcntl_setfl(&end, flags | OFlags::NONBLOCK)?;
    Ok(end)
}

/// The daemon's end of the channel to a helper.
#[derive(Debug)]
struct Helper {
    socket: AsyncFd<OwnedFd>,
    child: tokio::process::Child,
}

impl Helper {
    fn spawn(runtime: &Runtime) -> io::Result<Self> {
        let (ours, theirs) = channel::pair()?;
        let child = tokio::process::Command::new(&runtime.inner.helper)
            .arg(helper::ATTACH)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C at the daemon's terminal is not meant for commands.
            .process_group(0)
            .spawn()?;
        Ok(Self { socket: sys::asynchronous(nonblocking(ours)?)?, child })
    }

    async fn receive(&self) -> io::Result<(Reply, VecDeque<OwnedFd>)> {
        let read = |socket: &OwnedFd| channel::receive::<Reply>(socket);
        let (reply, descriptors) = self
            .socket
            .async_io(tokio::io::Interest::READABLE, read)
            .await?
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((reply, descriptors.into()))
    }
}

impl Runtime {
    /// Executes a command in a running instance; returns when it is being executed.
    ///
    /// # Errors
    ///
    /// [`Error::exit_status`] tells what a shell would say of a command that could not be executed.
    pub async fn exec(&self, name: &Name, command: Command) -> Result<Running, Error> {
        let init = self.init(name)?;
        if super::cgroup::Hierarchies::mounted().is_frozen(init.pid()) {
            return Err(Error::Frozen(name.clone()));
        }
        let step = |step: &str| {
            let (name, step) = (name.clone(), step.to_owned());
            move |source: io::Error| Error::Exec { name, step, source }
        };
        let program = command.argv.first().cloned().unwrap_or_default();
        let terminal = command.terminal;
        let uid = self.inner.ids.base.checked_add(command.uid);
        let pipes = match terminal {
            Some(_) => None,
            None => Some(Pipes::new(uid).map_err(step("make pipes"))?),
        };
        let invocation = Invocation::from(command).file().map_err(step("pass the command"))?;
        let mut helper = Helper::spawn(self).map_err(step("start the helper"))?;
        let request = Request { terminal, init: init.pid() };
        let (ours, theirs) = match pipes {
            Some(Pipes { ours, theirs }) => (Some(ours), Some(theirs)),
            None => (None, None),
        };
        let descriptors: Vec<_> = [&invocation, init.handle()]
            .into_iter()
            .chain(theirs.iter().flatten())
            .map(AsFd::as_fd)
            .collect();
        channel::send(helper.socket.get_ref(), &request, &descriptors)
            .map_err(step("ask the helper"))?;
        // Else output would never end.
        drop(theirs);
        let begun = tokio::time::timeout(BEGIN, begin(&helper)).await;
        let (master, handle) = match begun {
            Ok(Ok(Begun::Executed { terminal, process })) => (terminal, process),
            Ok(Ok(Begun::Failed { step, error })) => {
                return Err(refusal(name, program, step, error));
            }
            Ok(Err(error)) => return Err(step("hear from the helper")(error)),
            Err(_) => {
                let _ = helper.child.start_kill();
                return Err(step("enter the instance in time")(io::ErrorKind::TimedOut.into()));
            }
        };
        let master = match master {
            Some(master) => {
                let master = nonblocking(master).and_then(sys::asynchronous);
                Some(Arc::new(master.map_err(step("use the terminal"))?))
            }
            None => None,
        };
        let (end, ended) = follow(helper);
        let io = match (ours, &master) {
            (Some((stdin, stdout, stderr)), _) => Io::Pipes { stdin, stdout, stderr },
            (None, Some(master)) => {
                let ended = Ended::new(ended);
                Io::Terminal(Terminal { master: Arc::clone(master), ended })
            }
            (None, None) => return Err(step("open a terminal")(io::ErrorKind::NotFound.into())),
        };
        let process = Process { inner: Arc::new(Inner { handle, terminal: master, end }) };
        Ok(Running { io, process })
    }
}

/// What became of a request.
enum Begun {
    Executed { terminal: Option<OwnedFd>, process: OwnedFd },
    Failed { step: String, error: io::Error },
}

async fn begin(helper: &Helper) -> io::Result<Begun> {
    let mut terminal = None;
    loop {
        let (reply, mut descriptors) = helper.receive().await?;
        match reply {
            Reply::Terminal => terminal = descriptors.pop_front(),
            Reply::Started => {
                let process = descriptors.pop_front().ok_or(io::ErrorKind::InvalidData)?;
                return Ok(Begun::Executed { terminal, process });
            }
            Reply::Failed { step, error } => {
                return Ok(Begun::Failed { step, error: io::Error::from_raw_os_error(error) });
            }
            Reply::Exited(_) => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Waits for the end of the command, for all who want to know.
fn follow(mut helper: Helper) -> (watch::Receiver<Option<Result<i32, String>>>, CancellationToken) {
    let (sender, end) = watch::channel(None);
    let ended = CancellationToken::new();
    let token = ended.clone();
    tokio::spawn(async move {
        let outcome = match helper.receive().await {
            Ok((Reply::Exited(status), _)) => Ok(status),
            Ok((reply, _)) => Err(format!("the helper says {reply:?}")),
            Err(error) => Err(format!("the helper has gone: {error}")),
        };
        sender.send_replace(Some(outcome));
        token.cancel();
        // It has nothing left to do.
        let _ = helper.child.wait().await;
    });
    (end, ended)
}

fn refusal(name: &Name, program: String, step: String, source: io::Error) -> Error {
    if step == attach::EXECUTE {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                return Error::CommandNotFound(program);
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => {
                return Error::CommandNotExecutable(program);
            }
            _ if source.raw_os_error() == Some(libc::ENOEXEC) => {
                return Error::CommandNotExecutable(program);
            }
            _ => {}
        }
    }
    Error::Exec { name: name.clone(), step, source }
}

impl From<Command> for Invocation {
    fn from(command: Command) -> Self {
        let Command { argv, environment, uid, gid, directory, terminal: _ } = command;
        Self { argv, environment, uid, gid, directory }
    }
}

impl Invocation {
    /// As a file that the helper reads: it may be longer than a message, and may hold secrets,
    /// which everybody could see among the arguments of a process.
    fn file(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(rustix::fs::memfd_create("command", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(self)?)?;
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
        Ok(file.into())
    }
}
