//! Deltas made and applied by the program `xdelta3`, in bounded time and space.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::error::{Result, TreeError};
use crate::delta;

/// The same bytes each time and everywhere: no secondary compression, no names of files inside.
const ENCODE: [&str; 8] = ["-e", "-9", "-D", "-S", "none", "-A", "-q", "-c"];
/// In so many bytes of the older file matches are looked for; the program takes twice the memory.
const WINDOWS: std::ops::RangeInclusive<u64> = 1 << 20..=128 << 20;
/// As clients do it, which know of no options.
const DECODE: [&str; 5] = ["-d", "-D", "-R", "-q", "-c"];
/// Bytes that are read at once.
const STEP: usize = 256 << 10;
/// How long it may take, and how much longer for each MiB of the newer file.
const LIMIT: Duration = Duration::from_mins(2);
const LIMIT_A_MIB: Duration = Duration::from_secs(2);

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// More comes than is wanted.
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
    /// It takes too long.
    #[error("xdelta3 took longer than {} seconds", .0.as_secs())]
    TooLong(Duration),
    /// The program is not content.
    #[error("xdelta3 ended with {0}")]
    Status(std::process::ExitStatus),
    /// The program cannot be run, or what it makes cannot be stored.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Failed {
    /// Whether it would be the same another time.
    pub(super) const fn is_lasting(&self) -> bool {
        matches!(self, Self::TooLarge(_) | Self::TooLong(_) | Self::Status(_))
    }
}

/// The program.
#[derive(Debug, Clone)]
pub(super) struct Program(PathBuf);

impl Program {
    pub(super) fn find() -> Result<Self> {
        delta::program().map(Self).ok_or(TreeError::NoXdelta)
    }

    /// Makes the delta that leads from `base` to `target`, both with their sizes; it must have
    /// less than half the bytes of `target`.
    pub(super) fn encode(
        &self,
        (base, base_size): (&Path, u64),
        (target, size): (&Path, u64),
        take: impl FnMut(&[u8]) -> io::Result<()> + Send,
    ) -> Result<(), Failed> {
        let window = base_size.clamp(*WINDOWS.start(), *WINDOWS.end()).next_power_of_two();
        let mut command = Command::new(&self.0);
        command.args(ENCODE).args(["-B", &window.to_string(), "-s"]).args([base, target]);
        run(command, size, size.div_ceil(2).saturating_sub(1), take)
    }

    /// Makes the file of `size` bytes that `delta` makes of `base`.
    pub(super) fn decode(
        &self,
        base: &Path,
        delta: &Path,
        size: u64,
        take: impl FnMut(&[u8]) -> io::Result<()> + Send,
    ) -> Result<(), Failed> {
        let mut command = Command::new(&self.0);
        command.args(DECODE).arg("-s").args([base, delta]);
        run(command, size, size, take)
    }
}

/// Runs it over a file of `size` bytes, and hands on at most `most` that it writes.
fn run(
    mut command: Command,
    size: u64,
    most: u64,
    take: impl FnMut(&[u8]) -> io::Result<()> + Send,
) -> Result<(), Failed> {
    // It takes options from the environment.
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mebibytes = u32::try_from(size >> 20).unwrap_or(u32::MAX);
    let limit = LIMIT.saturating_add(LIMIT_A_MIB.saturating_mul(mebibytes));
    let Some(output) = child.stdout.take() else {
        return Err(io::Error::other("xdelta3 has no output").into());
    };
    let outcome = watch(&mut child, output, most, limit, take);
    if outcome.is_err() {
        // It may have ended by itself.
        let _ = child.kill();
    }
    let status = child.wait()?;
    outcome?;
    if status.success() { Ok(()) } else { Err(Failed::Status(status)) }
}

/// Hands on what the program writes, and ends it when that takes too long.
fn watch(
    child: &mut Child,
    output: ChildStdout,
    most: u64,
    limit: Duration,
    take: impl FnMut(&[u8]) -> io::Result<()> + Send,
) -> Result<(), Failed> {
    let (done, wait) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let outcome = copy(output, most, take);
            // Nobody waits any more when it took too long.
            let _ = done.send(outcome);
        });
        wait.recv_timeout(limit).unwrap_or_else(|_| {
            // Its output ends then, and the thread with it.
            let _ = child.kill();
            Err(Failed::TooLong(limit))
        })
    })
}

fn copy(
    mut output: ChildStdout,
    most: u64,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Failed> {
    let mut buffer = vec![0; STEP];
    let mut left = most;
    loop {
        let count = match output.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        left = left.checked_sub(count as u64).ok_or(Failed::TooLarge(most))?;
        take(&buffer[..count])?;
    }
}
