//! `lxd-imaged`: the command line of the daemon.
#![expect(clippy::doc_markdown, reason = "the comments of the command line are its help texts")]

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand, ValueEnum};
use lxd_imaged::directory::Directory;
use lxd_imaged::fsck;
use lxd_imaged::ops::log::LogEvents;
use lxd_imaged::serve::{self, Options};
use lxd_proto::routes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// Where everything is kept unless `LXD_DIR` says otherwise.
const DEFAULT_DIRECTORY: &str = "/var/lib/lxd-imaged";

/// What is logged unless `LXD_IMAGED_LOG` says otherwise.
const DEFAULT_LOG: &str = "info,sqlx=warn";

/// Stores, checks and serves LXD images.
///
/// Without a subcommand it serves in the foreground, on DIRECTORY/unix.socket. Clients find it
/// through the same LXD_DIR: lxc, lxd-cli, pylxd.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  lxd-imaged --group lxd\n  LXD_DIR=$HOME/images lxd-imaged\n  lxd-imaged waitready --timeout 30\n  lxd-imaged fsck --repair"
)]
struct Cli {
    /// State directory
    #[arg(long, env = "LXD_DIR", default_value = DEFAULT_DIRECTORY, global = true, value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Group whose members may use the socket, by name or number
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// How log lines look, on stderr; LXD_IMAGED_LOG sets what is logged (error, warn, info, debug)
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Wait until the daemon of this directory answers
    #[command(after_help = "Example:\n  lxd-imaged waitready --timeout 30")]
    Waitready {
        /// Seconds to wait; 0 for ever
        #[arg(long, short, default_value_t = 0)]
        timeout: u64,
    },
    /// End the daemon of this directory and wait until it is gone
    #[command(after_help = "Example:\n  LXD_DIR=$HOME/images lxd-imaged shutdown --timeout 10")]
    Shutdown {
        /// Seconds to wait; 0 for ever
        #[arg(long, short, default_value_t = 60)]
        timeout: u64,
    },
    /// Check a stopped store: every file is there and has the bytes it should have
    #[command(
        after_help = "Examples:\n  lxd-imaged fsck\n  lxd-imaged fsck --repair --format json"
    )]
    Fsck {
        /// Remove what no image uses; move what is broken to lost+found
        #[arg(long)]
        repair: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
        format: ReportFormat,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    if let Some(code) = lxd_imaged::lxc::helper::dispatch() {
        return code;
    }
    let cli = Cli::parse();
    let log = log_to_stderr(cli.log_format);
    match run(cli, log) {
        Ok(code) => code,
        Err(error) => {
            // Logging may be off; the reason for ending must show all the same.
            let _ = writeln!(std::io::stderr(), "Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Logs to stderr, and to listeners once there are any.
fn log_to_stderr(format: LogFormat) -> LogEvents {
    let (filter, wrong) = match std::env::var("LXD_IMAGED_LOG") {
        Ok(text) => match EnvFilter::try_new(&text) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(DEFAULT_LOG), Some(error)),
        },
        Err(_) => (EnvFilter::new(DEFAULT_LOG), None),
    };
    let events = LogEvents::default();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Listeners choose by themselves; they are told of every step.
    let steps = Targets::new().with_target("lxd_imaged", LevelFilter::DEBUG);
    let registry = tracing_subscriber::registry().with(events.clone().with_filter(steps));
    match format {
        LogFormat::Text => registry.with(lines.with_filter(filter)).init(),
        LogFormat::Json => registry.with(lines.json().with_filter(filter)).init(),
    }
    if let Some(error) = wrong {
        tracing::warn!(%error, "LXD_IMAGED_LOG is not understood and does not count");
    }
    events
}

fn run(cli: Cli, log: LogEvents) -> anyhow::Result<ExitCode> {
    // Whatever is created is the daemon's alone, unless its mode is set on purpose.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let directory = Directory::new(cli.directory);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // More than there are cores: a write that has to wait for the disk takes one away.
        .worker_threads(cores.max(4))
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(async {
        match cli.command {
            None => {
                let group = cli.group;
                serve::serve(Options { directory, group, log }).await.map(|()| ExitCode::SUCCESS)
            }
            Some(Command::Waitready { timeout }) => {
                wait_ready(&directory.socket(), timeout).await.map(|()| ExitCode::SUCCESS)
            }
            Some(Command::Shutdown { timeout }) => {
                shutdown(&directory, timeout).await.map(|()| ExitCode::SUCCESS)
            }
            Some(Command::Fsck { repair, format }) => {
                let report = fsck::run(&directory, repair).await?;
                print(&report, format)?;
                Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
        }
    });
    // Reads that a gone client has left behind must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

fn print(report: &fsck::Report, format: ReportFormat) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if format == ReportFormat::Json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
        return Ok(());
    }
    for finding in &report.findings {
        let fault = format!("{:?}", finding.fault).to_lowercase();
        let done = if finding.repaired { "repaired" } else { "found" };
        writeln!(out, "{done}: {fault}: {}: {}", finding.subject, finding.detail)?;
    }
    let verdict = match (report.findings.len(), report.is_clean()) {
        (0, _) => "the store is sound",
        (_, true) => "everything was repaired",
        (_, false) => "run it again with --repair to mend this",
    };
    writeln!(
        out,
        "{} images, {} files, {} bytes read, {} problems: {verdict}",
        report.images,
        report.blobs,
        report.bytes,
        report.findings.len()
    )?;
    Ok(())
}

/// Asks until the daemon answers.
async fn wait_ready(socket: &Path, timeout: u64) -> anyhow::Result<()> {
    let ready = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        loop {
            pause.tick().await;
            if let Ok(200) = request(socket, "GET", routes::READY.template()).await {
                return;
            }
        }
    };
    if within(timeout, ready).await.is_none() {
        bail!("no answer on {} within {timeout} s", socket.display());
    }
    Ok(())
}

async fn shutdown(directory: &Directory, timeout: u64) -> anyhow::Result<()> {
    let socket = directory.socket();
    let status = request(&socket, "POST", routes::SHUTDOWN.template())
        .await
        .with_context(|| format!("no daemon answers on {}", socket.display()))?;
    if status != 200 {
        bail!("the daemon on {} refused to end (status {status})", socket.display());
    }
    let gone = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        // The lock is the last thing a daemon lets go.
        while directory.hold().is_err() {
            pause.tick().await;
        }
    };
    if within(timeout, gone).await.is_none() {
        bail!("the daemon still holds {} after {timeout} s", directory.root().display());
    }
    Ok(())
}

async fn within<T>(seconds: u64, work: impl Future<Output = T>) -> Option<T> {
    match seconds {
        0 => Some(work.await),
        seconds => tokio::time::timeout(Duration::from_secs(seconds), work).await.ok(),
    }
}

/// Sends a request without a body; returns the status of the answer.
async fn request(socket: &Path, method: &str, path: &str) -> anyhow::Result<u16> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: lxd-imaged\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(64 << 10).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.context("the answer is no HTTP")
}
