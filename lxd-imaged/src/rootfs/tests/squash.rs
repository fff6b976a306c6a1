//! Squashfs files, made and unpacked by the programs of squashfs-tools, which CI installs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use lxd_proto::remote::Progress;
use tokio_util::sync::CancellationToken;

use super::archive::{Archive, METADATA, Place};
use super::round_trip::{furnish, look, set};
use crate::rootfs::{Error, pack_squashfs};

fn squash(root: &Path, templates: &Path, shift: u32, out: &Path) -> Result<(), Error> {
    let cancel = CancellationToken::new();
    pack_squashfs(METADATA, templates, root, shift, out, &Progress::default(), &cancel).map(|_| ())
}

#[test]
fn a_squashed_tree_comes_back() {
    let place = Place::new();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("root")).unwrap();
    furnish(&at("root"), 1_000_000);
    fs::create_dir(at("templates")).unwrap();
    fs::write(at("templates/a.tpl"), "a").unwrap();
    fs::set_permissions(at("templates/a.tpl"), fs::Permissions::from_mode(0o4777)).unwrap();
    squash(&at("root"), &at("templates"), 1_000_000, &at("image")).unwrap();
    squash(&at("root"), &at("templates"), 1_000_000, &at("twice")).unwrap();
    let image = fs::read(at("image")).unwrap();
    assert_eq!(image, fs::read(at("twice")).unwrap(), "packed twice");
    assert_eq!(fs::metadata(at("image")).unwrap().mode() & 0o7777, 0o600);
    let unpacked = place.unpack(&image).unwrap();
    assert_eq!(unpacked.metadata.creation_date, 1_424_284_563);
    let back = look(&place.tree("rootfs"));
    let before = look(&at("root"));
    assert_eq!(back.len(), before.len());
    for (path, mut seen) in before {
        let found = &back[&path];
        // Access lists are what squashfs can't keep; the mode holds their mask then.
        seen.xattrs.retain(|name, _| !name.starts_with(b"system."));
        let capability = seen.xattrs.get_mut(&b"security.capability"[..]);
        if let Some(capability) = capability {
            capability[3] = 2;
            capability.truncate(20);
        }
        let (uid, gid) = seen.owner;
        assert_eq!(found.owner, (uid - 1_000_000, gid - 1_000_000), "{path:?}");
        assert_eq!(
            (found.mode, found.mtime, found.links, found.device),
            (seen.mode, seen.mtime, seen.links, seen.device),
            "{path:?}"
        );
        assert_eq!((&found.content, &found.first), (&seen.content, &seen.first), "{path:?}");
        assert_eq!(found.xattrs, seen.xattrs, "{path:?}");
    }
    for (name, mode) in [("metadata.yaml", 0o600), ("templates", 0o700), ("templates/a.tpl", 0o600)]
    {
        let metadata = fs::metadata(place.tree(name)).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (mode, 0), "{name}");
    }
    assert_eq!(fs::read_dir(place.path("tree")).unwrap().count(), 3);
}

#[test]
fn hostile_squashfs_files_stay_inside() {
    let place = Place::new();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let head = Archive::default().file("metadata.yaml", METADATA).finish();
    fs::create_dir_all(at("root/sub")).unwrap();
    std::os::unix::fs::symlink(place.canary(), at("root/sub/link")).unwrap();
    fs::write(at("root/sub/file"), "x").unwrap();
    set(&at("root/sub"), "trusted.overlay.opaque", b"y");
    set(&at("root/sub"), "trusted.kept", b"1");
    let make = |source: &Path, out: &Path| {
        let made = std::process::Command::new("mksquashfs")
            .arg(source)
            .arg(out)
            .args(["-quiet", "-no-progress", "-noappend"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        fs::read(out).unwrap()
    };
    let rootfs = make(&at("root"), &at("rootfs.squashfs"));
    place.unpack_split(&head, &rootfs).unwrap();
    let names: Vec<_> =
        look(&place.tree("rootfs"))[Path::new("sub")].xattrs.keys().cloned().collect();
    assert_eq!(names, [b"trusted.kept"]);
    assert!(place.tree("rootfs/sub/link").is_symlink());

    // A whole image whose metadata is a link, or with a name that doesn't belong there.
    for name in ["metadata.yaml", "templates", "backup.yaml"] {
        let place = Place::new();
        fs::create_dir_all(at(name).join("rootfs")).unwrap();
        fs::write(at(name).join("metadata.yaml"), METADATA).unwrap();
        let _ = fs::remove_file(at(name).join(name));
        std::os::unix::fs::symlink(place.canary(), at(name).join(name)).unwrap();
        let image = make(&at(name), &at("hostile.squashfs"));
        assert!(place.unpack(&image).is_err(), "{name}");
        assert_eq!(fs::read_dir(place.path("tree")).unwrap().count(), 0, "{name}");
    }
    // Cut and damaged.
    let place = Place::new();
    let used = u64::from_le_bytes(rootfs[40..48].try_into().unwrap());
    let cut = &rootfs[..usize::try_from(used).unwrap() - 1];
    assert!(place.unpack_split(&head, cut).is_err());
    assert_eq!(fs::read_dir(place.path("tree")).unwrap().count(), 0);
}

#[test]
fn squashing_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("root")).unwrap();
    fs::write(at("root/large"), vec![7; 4 << 20]).unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let progress = Progress::default();
    let squashed =
        pack_squashfs(METADATA, &at("none"), &at("root"), 0, &at("out"), &progress, &cancel);
    assert!(matches!(squashed, Err(Error::Cancelled)), "{squashed:?}");
    assert!(!at("out").exists());
    let nowhere = squash(&at("root"), &at("none"), 0, &at("missing/out"));
    assert!(matches!(nowhere, Err(Error::Program { name: "sqfstar", .. })), "{nowhere:?}");
}
