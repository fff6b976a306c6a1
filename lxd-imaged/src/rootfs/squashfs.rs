//! Squashfs files, by the programs of squashfs-tools with fixed arguments.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use lxd_proto::format::{Checker, Extracted, FileType, Findings, FormatError, Limits, Role};
use lxd_proto::image::InstanceType;
use lxd_proto::metadata::Metadata;
use lxd_proto::remote::Progress;
use rustix::fs as kernel;
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::pack::{Holes, Image, Packed, stream};
use super::walk::Walk;
use super::{Error, open_dir};

/// Where a squashfs file that holds a whole image is unpacked first, below the tree.
pub(super) const ASIDE: &str = ".unsquashed";

/// How much is kept of what a program complains.
const COMPLAINT: u64 = 16 << 10;

/// Unpacks a squashfs file below `into`. Its structure is checked before, so that `unsquashfs`
/// sees neither two entries of one name nor one that leads out.
pub(super) fn unpack(
    path: &Path,
    file: &File,
    head: &[u8],
    role: Role,
    into: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Extracted, Error> {
    let mut checker = Checker::new(role, Limits::default()).verify_data(false);
    checker.feed(&head[..head.len().min(FileType::DETECT_BYTES)])?;
    let Findings { metadata, kind, entries, unpacked_bytes, .. } = checker.finish(file)?;
    if kind == Some(InstanceType::VirtualMachine) {
        return Err(Error::VirtualMachine);
    }
    let whole = role != Role::Rootfs;
    let target = into.join(if whole { ASIDE } else { "rootfs" });
    let mut command = program("unsquashfs");
    command.args(["-no-progress", "-info", "-dest"]).arg(&target).arg(path);
    let mut running = Running::start("unsquashfs", command.stdout(Stdio::piped()))?;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let step = usize::try_from(size / entries.max(1)).unwrap_or_default();
    if let Some(lines) = running.child.stdout.take() {
        // One line for each file: the occasion to count, and to look whether to go on. Names
        // may have newlines, and lines are as long as a path at most.
        for line in BufReader::new(lines).split(b'\n') {
            line.map_err(|source| Error::read(path, source))?;
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            progress.add(step);
        }
    }
    running.end()?;
    if whole {
        move_up(into, &target)?;
    }
    scrub(&into.join("rootfs"))?;
    Ok(Extracted { metadata, entries, unpacked_bytes })
}

/// Moves the parts of an image to where they belong, and makes those ours that nobody else reads.
fn move_up(into: &Path, aside: &Path) -> Result<(), Error> {
    let failed = |source| Error::read(aside, source);
    for name in ["metadata.yaml", "templates", "rootfs"] {
        match fs::rename(aside.join(name), into.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
    }
    fs::remove_dir(aside).map_err(failed)?;
    // That these are a file, and files and directories, was checked.
    own(&into.join("metadata.yaml"), 0o600)?;
    let templates = into.join("templates");
    if let Ok(dir) = open_dir(&templates) {
        own(&templates, 0o700)?;
        let mut walk = Walk::new(dir)?;
        while let Some(item) = walk.next()? {
            let mode = if item.kind.is_dir() { 0o700 } else { 0o600 };
            own(&PathBuf::from(item.place()), mode)?;
        }
    }
    Ok(())
}

fn own(path: &Path, mode: u32) -> Result<(), Error> {
    std::os::unix::fs::chown(path, Some(0), Some(0))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(|source| Error::read(path, source))
}

/// Takes attributes away that would steer the overlay which the tree becomes a part of.
fn scrub(rootfs: &Path) -> Result<(), Error> {
    let mut walk = Walk::new(open_dir(rootfs).map_err(|errno| Error::read(rootfs, errno))?)?;
    let top = walk.root()?;
    let mut next = Some(top);
    while let Some(item) = next {
        for name in walk.xattr_names(&item, |name| name.starts_with(b"trusted.overlay."))? {
            match kernel::removexattr(item.place(), &name[..]) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(Error::look(walk.path(), errno)),
            }
        }
        next = walk.next()?;
    }
    Ok(())
}

/// Packs an image as [`super::pack`] does, as a new squashfs file at `out`, which only we can read.
///
/// `sqfstar` makes it from the same stream, so owners are moved back in the same way. Access lists
/// are lost: squashfs has no place for them.
///
/// # Errors
/// See [`Error`]; [`Error::Program`] when squashfs-tools 4.5 or newer are not installed. What is
/// at `out` is removed then.
pub fn pack_squashfs(
    metadata: &[u8],
    templates: &Path,
    root: &Path,
    shift: u32,
    out: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Packed, Error> {
    // sqfstar 4.5 fails on a sparse file that ends in a hole; it makes holes of zeros itself.
    let image = Image { metadata, templates, root, shift, holes: Holes::Filled };
    let result = squash(image, out, progress, cancel);
    if result.is_err() {
        // What can't be removed is left to the sweep.
        let _ = fs::remove_file(out);
    }
    result
}

fn squash(
    image: Image<'_>,
    out: &Path,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Packed, Error> {
    let created = Metadata::parse(image.metadata).map_err(FormatError::from)?.creation_date;
    let mut command = program("sqfstar");
    command
        .args(["-quiet", "-no-progress", "-reproducible", "-exit-on-error"])
        // At its own level: 4.5 can't read the option for another one.
        .args(["-comp", "zstd", "-mkfs-time"])
        .arg(created.clamp(0, i64::from(u32::MAX)).to_string())
        .args(["-root-mode", "0755", "-root-uid", "0", "-root-gid", "0"])
        .arg(out);
    let mut running = Running::start("sqfstar", command.stdin(Stdio::piped()))?;
    let Some(stdin) = running.child.stdin.take() else { return Err(Error::Thread) };
    match stream(image, stdin, progress, cancel) {
        // It has stopped reading, and says why.
        Err(Error::Output { source }) => {
            running.end()?;
            Err(Error::Output { source })
        }
        Err(error) => Err(error),
        Ok(packed) => {
            running.end()?;
            own(out, 0o600)?;
            Ok(packed)
        }
    }
}

/// A program with nothing of our surroundings but where programs are.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).stdout(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// A program at work; ended when this goes.
struct Running {
    name: &'static str,
    child: Child,
    complaint: Option<JoinHandle<String>>,
}

impl Running {
    fn start(name: &'static str, command: &mut Command) -> Result<Self, Error> {
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|source| {
            let reason = match source.kind() {
                std::io::ErrorKind::NotFound => {
                    "it is not installed; install the package squashfs-tools".to_owned()
                }
                _ => source.to_string(),
            };
            Error::Program { name, reason }
        })?;
        let stderr = child.stderr.take();
        let complaint = thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut stderr) = stderr {
                // What comes after that is read as well, or the program would wait.
                let _ = stderr.by_ref().take(COMPLAINT).read_to_end(&mut text);
                let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            }
            String::from_utf8_lossy(&text).into_owned()
        });
        Ok(Self { name, child, complaint: Some(complaint) })
    }

    /// Waits for its end, which must be a success.
    fn end(&mut self) -> Result<(), Error> {
        let failed = |reason| Error::Program { name: self.name, reason };
        let status = self.child.wait().map_err(|source| failed(source.to_string()))?;
        let complaint = self.complaint.take().and_then(|thread| thread.join().ok());
        if status.success() {
            return Ok(());
        }
        let complaint = complaint.unwrap_or_default();
        let last = complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        Err(failed(format!("{status}: {}", last.trim().escape_debug())))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.complaint.is_some() {
            // It may have ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
