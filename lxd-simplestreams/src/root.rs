//! What the files of an image are called in a catalog.

use lxd_proto::image::InstanceType;

/// What the root file of a split image is. The order is that of preference for an alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RootKind {
    /// A squashfs of a container.
    Squashfs,
    /// A tarball of a container, whatever it is compressed with.
    Tarball,
    /// A qcow2 disk.
    DiskKvm,
    /// A disk, by a name that clients prefer less.
    Uefi1,
    /// A disk, by Ubuntu's name.
    Disk1,
}

impl RootKind {
    /// All of them, in their order.
    pub const ALL: [Self; 5] =
        [Self::Squashfs, Self::Tarball, Self::DiskKvm, Self::Uefi1, Self::Disk1];

    /// What a catalog calls it: the one thing by which clients choose.
    pub const fn ftype(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Tarball => "root.tar.xz",
            Self::DiskKvm => "disk-kvm.img",
            Self::Uefi1 => "uefi1.img",
            Self::Disk1 => "disk1.img",
        }
    }

    /// The kind that a catalog means by `ftype`.
    pub fn from_ftype(ftype: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|root| root.ftype() == ftype)
    }

    /// What starts from it.
    pub const fn kind(self) -> InstanceType {
        match self {
            Self::Squashfs | Self::Tarball => InstanceType::Container,
            Self::DiskKvm | Self::Uefi1 | Self::Disk1 => InstanceType::VirtualMachine,
        }
    }
}

/// The names of metadata and of unified images: LXD reads its own, Incus its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flavour {
    pub(crate) metadata: &'static str,
    pub(crate) combined: &'static str,
}

pub(crate) const LXD: Flavour = Flavour { metadata: "lxd.tar.xz", combined: "lxd_combined.tar.gz" };
pub(crate) const INCUS: Flavour =
    Flavour { metadata: "incus.tar.xz", combined: "incus_combined.tar.gz" };
