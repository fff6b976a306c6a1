//! The compressed images: a Debian root (or part of this machine's /usr), packed once and kept.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::options::cache_dir;
use crate::payload;

/// Bytes of /usr that stand in for a Debian root, and for a short run.
const STAND_IN: u64 = 280 << 20;
const SHORT: u64 = 24 << 20;

/// How a tarball is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Gz,
    Zst,
    Xz,
}

impl Codec {
    pub(crate) const ALL: [Self; 3] = [Self::Gz, Self::Zst, Self::Xz];

    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Gz => ".tar.gz",
            Self::Zst => ".tar.zst",
            Self::Xz => ".tar.xz",
        }
    }

    /// The program that packs, as image builders run it: one thread, its default level.
    fn program(self) -> [&'static str; 2] {
        match self {
            Self::Gz => ["gzip", "-c"],
            Self::Zst => ["zstd", "-cq"],
            Self::Xz => ["xz", "-c"],
        }
    }
}

/// A root file system on this machine.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Holds `rootfs` and `metadata.yaml`.
    folder: PathBuf,
    origin: String,
}

/// A packed image in memory.
#[derive(Debug)]
pub(crate) struct Packed {
    codec: Codec,
    /// The file.
    pub(crate) bytes: Vec<u8>,
    whole: usize,
}

impl Tree {
    /// Finds or makes one; `short` takes a small one.
    pub(crate) fn prepare(short: bool) -> Result<Self> {
        let cache = cache_dir()?;
        let debian = cache.join("debian");
        if !short && (link_demo(&debian)? || debootstrap(&debian)) {
            return Self::at(debian, "a Debian root (debootstrap, minbase)".to_owned());
        }
        let (name, limit) = if short { ("short", SHORT) } else { ("stand-in", STAND_IN) };
        let folder = cache.join(name);
        if !folder.join("metadata.yaml").is_file() {
            copy_some(Path::new("/usr"), &folder.join("rootfs/usr"), limit)?;
        }
        Self::at(folder, format!("{} MiB of this machine's /usr", limit >> 20))
    }

    fn at(folder: PathBuf, origin: String) -> Result<Self> {
        let path = folder.join("metadata.yaml");
        std::fs::write(&path, payload::metadata_yaml("tree"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { folder, origin })
    }

    pub(crate) fn describe(&self) -> &str {
        &self.origin
    }

    /// The tree as an image, `metadata.yaml` first or last; packed only once.
    pub(crate) fn packed(&self, codec: Codec, metadata_last: bool) -> Result<Packed> {
        let order =
            if metadata_last { ["rootfs", "metadata.yaml"] } else { ["metadata.yaml", "rootfs"] };
        let name = if metadata_last { "metadata-last" } else { "metadata-first" };
        let path = self.folder.join(format!("{name}{}", codec.extension()));
        if !path.is_file() {
            crate::progress(&format!("packing {}", path.display()));
            let part = path.with_extension("part");
            pack(&self.folder, &order, codec, &part)?;
            std::fs::rename(&part, &path)?;
        }
        Packed::read(codec, &path)
    }

    /// The tree as an image that starts: if it has no `/sbin/init`, busybox is that.
    pub(crate) fn bootable(&self, codec: Codec) -> Result<Packed> {
        let path = self.folder.join(format!("bootable{}", codec.extension()));
        if !path.is_file() {
            crate::progress(&format!("packing {}", path.display()));
            let mut words = vec!["metadata.yaml".to_owned(), "rootfs".to_owned()];
            let init = self.folder.join("init");
            words.extend(["-C".to_owned(), init.to_string_lossy().into_owned()]);
            words.extend(add_init(&self.folder.join("rootfs"), &init)?);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let part = path.with_extension("part");
            pack(&self.folder, &words, codec, &part)?;
            std::fs::rename(&part, &path)?;
        }
        Packed::read(codec, &path)
    }
}

impl Packed {
    fn read(codec: Codec, path: &Path) -> Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let whole = bytes.len();
        Ok(Self { codec, bytes, whole })
    }

    /// Makes it an image that no daemon has seen: same content, other bytes.
    pub(crate) fn renew(&mut self, serial: u64) -> Result<()> {
        let serial = u32::try_from(serial)?;
        self.bytes.truncate(self.whole);
        match self.codec {
            // The time in the header, which means nothing to a decoder.
            Codec::Gz => self.bytes[4..8].copy_from_slice(&serial.to_le_bytes()),
            // A frame to skip.
            Codec::Zst => {
                self.bytes.extend_from_slice(&0x184d_2a50_u32.to_le_bytes());
                self.bytes.extend_from_slice(&4_u32.to_le_bytes());
                self.bytes.extend_from_slice(&serial.to_le_bytes());
            }
            // Stream padding: any number of zero words.
            Codec::Xz => self.bytes.resize(self.whole + 4 * serial as usize, 0),
        }
        Ok(())
    }
}

fn pack(folder: &Path, words: &[&str], codec: Codec, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "-cf", "-"]).args(words).current_dir(folder);
    let mut tar = tar.stdout(Stdio::piped()).spawn().context("cannot run tar")?;
    let archive = tar.stdout.take().context("tar without output")?;
    let [program, flags] = codec.program();
    let mut packer = Command::new(program);
    packer.arg(flags).stdin(archive).stdout(File::create(to)?);
    let status = packer.status().with_context(|| format!("cannot run {program}"))?;
    ensure!(tar.wait()?.success() && status.success(), "packing {} failed", to.display());
    Ok(())
}

/// Makes in `init` what `root` lacks to be started; paths below `init`, none if it lacks nothing.
fn add_init(root: &Path, init: &Path) -> Result<Vec<String>> {
    if root.join("sbin/init").symlink_metadata().is_ok() {
        std::fs::create_dir_all(init)?;
        return Ok(Vec::new());
    }
    let sbin = if root.join("sbin").is_symlink() { "rootfs/usr/sbin" } else { "rootfs/sbin" };
    std::fs::create_dir_all(init.join(sbin))?;
    std::fs::create_dir_all(init.join("rootfs/etc"))?;
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
    let busybox = busybox.into_iter().find(|path| path.is_file());
    let busybox = busybox.context("no busybox: apt-get install busybox-static")?;
    let (program, table) = (format!("{sbin}/init"), "rootfs/etc/inittab".to_owned());
    std::fs::copy(busybox, init.join(&program))?;
    // It has nothing to do but to be there.
    std::fs::write(init.join(&table), "# nothing\n")?;
    let mut added = vec![program, table];
    for dir in ["dev", "proc", "sys"] {
        if !root.join(dir).is_dir() {
            let dir = format!("rootfs/{dir}");
            std::fs::create_dir_all(init.join(&dir))?;
            added.push(dir);
        }
    }
    Ok(added)
}

/// Uses the root that `cargo xtask demo` made, if it did.
fn link_demo(folder: &Path) -> Result<bool> {
    let link = folder.join("rootfs");
    if link.join("etc/os-release").is_file() {
        return Ok(true);
    }
    let demo = lxd_tests::tool::target_dir().join("demo/bookworm/rootfs");
    if !demo.join("etc/os-release").is_file() {
        return Ok(false);
    }
    std::fs::create_dir_all(folder)?;
    let copied =
        Command::new("cp").arg("-a").arg(&demo).arg(&link).status().context("cannot run cp")?;
    ensure!(copied.success(), "copying {} failed", demo.display());
    Ok(true)
}

/// Builds a root file system, if that is possible here.
fn debootstrap(folder: &Path) -> bool {
    let part = folder.with_extension("part");
    let built = Command::new("debootstrap")
        .args(["--variant=minbase", "bookworm"])
        .arg(part.join("rootfs"))
        .output();
    built.is_ok_and(|output| output.status.success()) && std::fs::rename(&part, folder).is_ok()
}

/// Copies files from `from`, in the order of their names, until they have `limit` bytes.
fn copy_some(from: &Path, to: &Path, limit: u64) -> Result<()> {
    let mut left = limit;
    let mut pending = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = pending.pop() {
        std::fs::create_dir_all(&to)?;
        let mut entries: Vec<_> = std::fs::read_dir(&from)?.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
            if kind.is_dir() {
                pending.push((entry.path(), target));
            } else if kind.is_file() && left > 0 {
                let mut copy = File::create(&target)?;
                left =
                    left.saturating_sub(std::io::copy(&mut File::open(entry.path())?, &mut copy)?);
                copy.flush()?;
            }
        }
        if left == 0 {
            return Ok(());
        }
    }
    Ok(())
}
