//! The root file systems of instances and snapshots: what they have of their own, and the mounts
//! that make a whole of it.
//!
//! An overlay instance has an `upper` directory over its image's tree, whose owners are shifted
//! into the range of containers by an id-mapped mount. Where the kernel or the file system cannot
//! do that, an instance has a plain copy of the tree with shifted owners.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::instance::{InstanceName, SnapshotName};
use tokio_util::sync::CancellationToken;

use crate::db::{Definition, Disk};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::lxc::Runtime;
use crate::lxc::mounts::{self, Layers};
use crate::rootfs;

/// Where an instance keeps its own part.
#[derive(Debug, Clone)]
pub struct Disks {
    directory: Directory,
    runtime: Runtime,
}

/// Where a snapshot is shown as a whole while it is read.
const VIEW: &str = ".view";
/// What is to become, and what was, the disk of an instance that is restored.
const RESTORED: &str = ".restored";
const REPLACED: &str = ".replaced";

/// Whose disk it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// An instance.
    Instance(InstanceName),
    /// A snapshot of one.
    Snapshot(InstanceName, SnapshotName),
}

/// A whole root file system, as long as this is held.
#[derive(Debug)]
pub struct View {
    root: PathBuf,
    mounted: Option<PathBuf>,
}

impl View {
    /// Its root; owners in it are shifted into the range of containers.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(mounted) = &self.mounted {
            if let Err(error) = mounts::unmount(mounted) {
                tracing::warn!(%error, path = %mounted.display(), "cannot unmount");
            }
            let _ = fs::remove_dir(mounted);
        }
    }
}

impl Disks {
    /// Disks below the state directory.
    pub fn new(directory: Directory, runtime: Runtime) -> Self {
        Self { directory, runtime }
    }

    /// How the disk of a new instance of an image is kept. The first call blocks for a moment.
    pub fn kind(&self) -> Disk {
        match self.runtime.no_overlay() {
            None => Disk::Overlay,
            Some(why) => {
                tracing::info!(why, "instances are plain copies of their images here");
                Disk::Plain
            }
        }
    }

    /// How far owners are shifted.
    pub fn base(&self) -> u32 {
        self.runtime.ids().base
    }

    /// How many users and groups an instance has.
    pub fn ids(&self) -> u32 {
        self.runtime.ids().size
    }

    /// What belongs to an instance or a snapshot.
    pub fn home(&self, owner: &Owner) -> PathBuf {
        match owner {
            Owner::Instance(name) => self.directory.instances().join(name.as_str()),
            Owner::Snapshot(instance, name) => {
                self.directory.snapshots().join(instance.as_str()).join(name.as_str())
            }
        }
    }

    /// The tree of an image.
    pub fn tree(&self, image: &Fingerprint) -> PathBuf {
        self.directory.trees().join(image.to_string())
    }

    /// The root of a running or mounted instance.
    pub fn root(&self, name: &InstanceName) -> PathBuf {
        self.directory.instances().join(name.as_str()).join("rootfs")
    }

    /// Makes the disk of a new instance.
    ///
    /// # Errors
    /// What could not be made; nothing stays behind.
    pub fn create(
        &self,
        name: &InstanceName,
        definition: &Definition,
        cancel: &CancellationToken,
    ) -> Result<()> {
        self.build(&Owner::Instance(name.clone()), |home| {
            // Closed until the runtime lets the root user of instances pass through.
            make(home, 0o700)?;
            match (definition.disk, &definition.image) {
                (Disk::Overlay, Some(image)) => {
                    self.make_layer(home, &self.tree(image).join("rootfs"))
                }
                (Disk::Overlay, None) => Err(Error::Internal("an overlay on no image".into())),
                (Disk::Plain, Some(image)) => {
                    let tree = self.tree(image).join("rootfs");
                    copy(&tree, &home.join("rootfs"), i64::from(self.base()), cancel)
                }
                (Disk::Plain, None) => {
                    let root = home.join("rootfs");
                    make(&root, 0o755)?;
                    self.give(&root)
                }
            }
        })
    }

    /// Makes a disk of another's: of a snapshot, a restored or a copied instance.
    ///
    /// # Errors
    /// What could not be copied; nothing stays behind.
    pub fn duplicate(
        &self,
        from: &Owner,
        to: &Owner,
        disk: Disk,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let source = self.home(from);
        self.build(to, |home| {
            // Closed until the runtime lets the root user of instances pass through.
            make(home, 0o700)?;
            match disk {
                Disk::Overlay => {
                    copy(&source.join("upper"), &home.join("upper"), 0, cancel)?;
                    make(&home.join("work"), 0o711)?;
                    self.give(&home.join("work"))?;
                    make(&home.join("rootfs"), 0o711)
                }
                Disk::Plain => copy(&source.join("rootfs"), &home.join("rootfs"), 0, cancel),
            }
        })
    }

    /// Copies the disk of a snapshot beside that of its instance, which may run, for
    /// [`Disks::restore`].
    ///
    /// # Errors
    /// What could not be copied; nothing of it stays.
    pub fn prepare_restore(
        &self,
        name: &InstanceName,
        snapshot: &SnapshotName,
        disk: Disk,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let home = self.home(&Owner::Instance(name.clone()));
        let taken = self.home(&Owner::Snapshot(name.clone(), snapshot.clone()));
        let part = part(disk);
        let (fresh, old) = (home.join(RESTORED), home.join(REPLACED));
        let trouble = |error| Error::io(format!("cannot restore {}", home.display()), error);
        rootfs::remove(&fresh).and_then(|()| rootfs::remove(&old)).map_err(trouble)?;
        copy(&taken.join(part), &fresh, 0, cancel)
    }

    /// Puts what [`Disks::prepare_restore`] has copied in the place of a stopped instance's disk.
    ///
    /// # Errors
    /// What could not be renamed; the instance is then as it was, or the next start finishes it.
    pub fn restore(&self, name: &InstanceName, disk: Disk) -> Result<()> {
        self.unmount(name)?;
        let home = self.home(&Owner::Instance(name.clone()));
        let part = part(disk);
        let (fresh, old) = (home.join(RESTORED), home.join(REPLACED));
        let trouble = |error| Error::io(format!("cannot restore {}", home.display()), error);
        fs::rename(home.join(part), &old)
            .and_then(|()| fs::rename(&fresh, home.join(part)))
            .map_err(trouble)?;
        // What overlayfs keeps there belongs to the old upper directory.
        if disk == Disk::Overlay {
            rootfs::remove(&home.join("work")).map_err(trouble)?;
            make(&home.join("work"), 0o711)?;
            self.give(&home.join("work"))?;
        }
        rootfs::remove(&old).map_err(trouble)
    }

    /// Another name for an instance, with its snapshots.
    ///
    /// # Errors
    /// The directories cannot be renamed; then they are as they were.
    pub fn rename(&self, from: &InstanceName, to: &InstanceName) -> Result<()> {
        self.unmount(from)?;
        let pairs = [self.directory.instances(), self.directory.snapshots()];
        let pairs = pairs.map(|parent| (parent.join(from.as_str()), parent.join(to.as_str())));
        let mut done: Vec<&(PathBuf, PathBuf)> = Vec::new();
        for pair in pairs.iter().filter(|(old, _)| old.exists()) {
            if let Err(error) = fs::rename(&pair.0, &pair.1) {
                for (old, new) in done {
                    let _ = fs::rename(new, old);
                }
                return Err(Error::io(format!("cannot rename {}", pair.0.display()), error));
            }
            done.push(pair);
        }
        Ok(())
    }

    /// Another name for a snapshot.
    ///
    /// # Errors
    /// The directory cannot be renamed.
    pub fn rename_snapshot(
        &self,
        instance: &InstanceName,
        from: &SnapshotName,
        to: &SnapshotName,
    ) -> Result<()> {
        let home =
            |name: &SnapshotName| self.home(&Owner::Snapshot(instance.clone(), name.clone()));
        fs::rename(home(from), home(to))
            .map_err(|error| Error::io(format!("cannot rename {}", home(from).display()), error))
    }

    /// Removes a disk with all that lies beside it; one that is not there is fine.
    ///
    /// # Errors
    /// What is still in use.
    pub fn delete(&self, owner: &Owner) -> Result<()> {
        let home = self.home(owner);
        if let Owner::Instance(name) = owner {
            self.unmount(name)?;
            let snapshots = self.directory.snapshots().join(name.as_str());
            rootfs::remove(&snapshots).map_err(|error| {
                Error::io(format!("cannot remove {}", snapshots.display()), error)
            })?;
        }
        rootfs::remove(&home)
            .map_err(|error| Error::io(format!("cannot remove {}", home.display()), error))
    }

    /// The whole root of an instance at its usual place, mounted if it was not; it stays mounted.
    ///
    /// # Errors
    /// The kernel refuses a mount.
    pub fn mount(&self, name: &InstanceName, definition: &Definition) -> Result<PathBuf> {
        let home = self.home(&Owner::Instance(name.clone()));
        let root = home.join("rootfs");
        if definition.disk == Disk::Overlay && !mounts::is_mounted(&root) {
            let lower = self.lower(definition)?;
            let (upper, work) = (home.join("upper"), home.join("work"));
            self.runtime.mount_overlay(&Layers::Writable { lower, upper, work }, &root)?;
        }
        Ok(root)
    }

    /// Takes the mounts of an instance away.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unmount(&self, name: &InstanceName) -> Result<()> {
        let root = self.root(name);
        if root.exists() && mounts::is_mounted(&root) {
            mounts::unmount(&root)?;
        }
        Ok(())
    }

    /// The whole root of an instance or a snapshot, to read. An instance that is mounted is seen
    /// as it is now.
    ///
    /// # Errors
    /// The kernel refuses a mount.
    pub fn view(&self, owner: &Owner, definition: &Definition) -> Result<View> {
        let home = self.home(owner);
        let root = home.join("rootfs");
        if definition.disk == Disk::Plain {
            return Ok(View { root, mounted: None });
        }
        if let Owner::Instance(name) = owner {
            let root = self.mount(name, definition)?;
            return Ok(View { root, mounted: None });
        }
        let target = home.join(VIEW);
        make(&target, 0o711)?;
        let lower = self.lower(definition)?;
        self.runtime.mount_overlay(&Layers::ReadOnly(vec![home.join("upper"), lower]), &target)?;
        Ok(View { root: target.clone(), mounted: Some(target) })
    }

    /// The image's tree with shifted owners, mounted if it was not.
    fn lower(&self, definition: &Definition) -> Result<PathBuf> {
        let image = definition.image.as_ref();
        let image = image.ok_or_else(|| Error::Internal("an overlay on no image".into()))?;
        let tree = self.tree(image);
        let mapped = tree.join("mapped");
        self.runtime.mount_idmapped(&tree.join("rootfs"), &mapped)?;
        Ok(mapped)
    }

    fn make_layer(&self, home: &Path, tree: &Path) -> Result<()> {
        // The root directory of the whole has the attributes of the upper one.
        let mode = fs::metadata(tree).map(|it| it.permissions().mode() & 0o7777);
        let mode =
            mode.map_err(|error| Error::io(format!("cannot look at {}", tree.display()), error))?;
        for (part, mode) in [("upper", mode), ("work", 0o755)] {
            make(&home.join(part), mode)?;
            self.give(&home.join(part))?;
        }
        make(&home.join("rootfs"), 0o711)
    }

    /// To the root user of containers.
    fn give(&self, path: &Path) -> Result<()> {
        let base = Some(self.base());
        chown(path, base, base)
            .map_err(|error| Error::io(format!("cannot give away {}", path.display()), error))
    }

    /// Builds a home aside and puts it in place whole.
    fn build(&self, owner: &Owner, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let home = self.home(owner);
        let name = home.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let parent = home.parent().unwrap_or(Path::new("/")).to_owned();
        let partial = parent.join(format!(".{name}.partial"));
        let trouble = |error| Error::io(format!("cannot make {}", home.display()), error);
        fs::create_dir_all(&parent).map_err(trouble)?;
        rootfs::remove(&partial).map_err(trouble)?;
        let outcome = fill(&partial).and_then(|()| fs::rename(&partial, &home).map_err(trouble));
        if outcome.is_err() {
            let _ = rootfs::remove(&partial);
        }
        outcome
    }

    /// Takes the mounts of all trees away, when nothing runs on them any more.
    ///
    /// # Errors
    /// The directory cannot be read, or the kernel refuses.
    pub fn release_trees(&self) -> Result<()> {
        for tree in entries(&self.directory.trees())? {
            let mapped = tree.join("mapped");
            if mounts::is_mounted(&mapped) {
                mounts::unmount(&mapped)?;
            }
        }
        Ok(())
    }

    /// Removes what a crash left half made, and what belongs to no instance or snapshot that is
    /// `known`.
    ///
    /// # Errors
    /// The directories cannot be read.
    pub fn sweep(&self, known: &dyn Fn(&str, Option<&str>) -> bool) -> Result<()> {
        for home in entries(&self.directory.instances())? {
            let name = home.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if known(&name, None) {
                finish_restore(&home)?;
            } else {
                discard(&home)?;
            }
        }
        for instance in entries(&self.directory.snapshots())? {
            let name = instance.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !known(&name, None) {
                discard(&instance)?;
                continue;
            }
            for home in entries(&instance)? {
                let snapshot = home.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if !known(&name, Some(&snapshot)) {
                    discard(&home)?;
                }
            }
        }
        Ok(())
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let read =
        || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    read().map_err(|error: io::Error| {
        Error::io(format!("cannot read {}", directory.display()), error)
    })
}

/// Removes a home that nobody owns.
fn discard(home: &Path) -> Result<()> {
    for mount in [home.join("rootfs"), home.join(VIEW)] {
        if mounts::is_mounted(&mount) {
            mounts::unmount(&mount)?;
        }
    }
    tracing::info!(path = %home.display(), "removing what an interrupted change left");
    rootfs::remove(home)
        .map_err(|error| Error::io(format!("cannot remove {}", home.display()), error))
}

/// A restore that was interrupted between its two renames gets its second one.
fn finish_restore(home: &Path) -> Result<()> {
    let (fresh, old) = (home.join(RESTORED), home.join(REPLACED));
    let trouble = |error| Error::io(format!("cannot tidy {}", home.display()), error);
    for part in ["upper", "rootfs"] {
        if old.exists() && !home.join(part).exists() {
            fs::rename(&old, home.join(part)).map_err(trouble)?;
        }
    }
    rootfs::remove(&fresh).and_then(|()| rootfs::remove(&old)).map_err(trouble)
}

/// The directory of a home that holds a disk.
const fn part(disk: Disk) -> &'static str {
    match disk {
        Disk::Overlay => "upper",
        Disk::Plain => "rootfs",
    }
}

/// Makes a directory with exactly these permissions, whatever the daemon's mask.
fn make(path: &Path, mode: u32) -> Result<()> {
    let make = || {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => outcome?,
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    make().map_err(|error| Error::io(format!("cannot make {}", path.display()), error))
}

fn copy(from: &Path, to: &Path, shift: i64, cancel: &CancellationToken) -> Result<()> {
    rootfs::copy(from, to, shift, cancel)?;
    Ok(())
}
