//! Root files made from older ones: VCDIFF, decoded by the program `xdelta3`.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

const PROGRAM: &str = "xdelta3";
/// Bytes that are read from the program at once.
const STEP: usize = 256 << 10;

/// Why a delta gave nothing. Never the end of a download: the whole file is there too.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeltaError {
    /// The program could not be run or read from.
    #[error("{PROGRAM}: {0}")]
    Run(#[from] io::Error),
    /// The program has refused the delta.
    #[error("{PROGRAM} ended with {0}")]
    Failed(std::process::ExitStatus),
    /// The program said nothing for too long.
    #[error("{PROGRAM} was silent for {0:?}")]
    Silent(Duration),
    /// The delta makes another file than it should.
    #[error("it makes more than the {0} bytes of the file")]
    TooMuch(u64),
}

/// The program, where it is installed.
pub(crate) fn program() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(PROGRAM))
        .find(|program| program.is_file())
}

/// A delta being decoded, piece by piece.
#[derive(Debug)]
pub(crate) struct Decoding {
    child: tokio::process::Child,
    output: tokio::process::ChildStdout,
    left: u64,
    size: u64,
    idle: Duration,
}

impl Decoding {
    /// Begins to make the file of `size` bytes that `delta` makes of `base`. Both are paths of
    /// our own making. The program gets no environment, since that may hold options for it.
    pub(crate) fn begin(
        program: &Path,
        base: &Path,
        delta: &Path,
        size: u64,
        idle: Duration,
    ) -> Result<Self, DeltaError> {
        let mut child = Command::new(program)
            // Decode to standard output, and run no other programs for compressed input.
            .args(["-d", "-D", "-R", "-q", "-c", "-s"])
            .arg(base)
            .arg(delta)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or_else(|| io::Error::other("it has no output"))?;
        Ok(Self { child, output, left: size, size, idle })
    }

    /// The next piece; `None` once the whole file has come and the program is content.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, DeltaError> {
        let mut piece = BytesMut::with_capacity(STEP);
        let read = read_some(&mut self.output, &mut piece);
        let count = timeout(self.idle, read).await.map_err(|_| DeltaError::Silent(self.idle))??;
        if count == 0 {
            let ended = timeout(self.idle, self.child.wait()).await;
            let status = ended.map_err(|_| DeltaError::Silent(self.idle))??;
            return if status.success() { Ok(None) } else { Err(DeltaError::Failed(status)) };
        }
        let left = self.left.checked_sub(count as u64);
        self.left = left.ok_or(DeltaError::TooMuch(self.size))?;
        Ok(Some(piece.freeze()))
    }
}

/// Fills the buffer as far as it has room; less only at the end.
async fn read_some(from: &mut (impl AsyncRead + Unpin), into: &mut BytesMut) -> io::Result<usize> {
    while into.len() < STEP {
        if from.read_buf(into).await? == 0 {
            break;
        }
    }
    Ok(into.len())
}
