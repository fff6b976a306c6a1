//! Which files of a directory make an image together.

use std::collections::{BTreeMap, BTreeSet};

use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::InstanceType;
use lxd_proto::metadata::Metadata;

use super::recognize::Content;
use crate::root::RootKind;

/// Endings that a name can have several of.
const ENDINGS: [&str; 18] = [
    ".tar.xz",
    ".tar.gz",
    ".tar.zst",
    ".tar.bz2",
    ".tar.lzma",
    ".tar",
    ".txz",
    ".tgz",
    ".squashfs",
    ".qcow2",
    ".img",
    ".root",
    ".rootfs",
    ".raw",
    ".incus",
    ".lxd",
    ".ext4",
    ".disk",
];
/// What image builders call metadata, the best first: where there are several, they are alike.
const METADATA: [&str; 4] = ["lxd", "incus", "meta", "metadata"];
/// What they call roots.
const ROOTS: [&str; 6] = ["rootfs", "root", "disk", "disk-kvm", "uefi1", "disk1"];

/// The files of one build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// The name of the metadata file, or of the whole image.
    pub(super) metadata: String,
    /// What it says.
    pub(super) says: Metadata,
    pub(super) parts: Parts,
    /// What the names say the image is.
    pub(super) claims: Option<Fingerprint>,
}

/// What there is beside the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parts {
    /// Nothing: it is a whole image.
    Unified(InstanceType),
    /// Root files, at most one of each kind; their names.
    Roots(BTreeMap<RootKind, String>),
}

impl Group {
    /// The names of its root files.
    pub(super) fn roots(&self) -> impl Iterator<Item = (RootKind, &str)> {
        let roots = match &self.parts {
            Parts::Unified(_) => None,
            Parts::Roots(roots) => Some(roots),
        };
        roots.into_iter().flatten().map(|(kind, name)| (*kind, name.as_str()))
    }
}

/// What was made of the files of a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Grouped {
    pub(super) groups: Vec<Group>,
    /// Files that belong to an image of which the rest is missing, with the reason.
    pub(super) incomplete: Vec<(String, String)>,
    /// Metadata for the same files as the one that was taken, and that one.
    pub(super) spare: Vec<(String, String)>,
    /// Roots that lie beside an image which has others by the usual names.
    pub(super) strays: Vec<String>,
}

/// A root file and what it is.
type Root = (RootKind, String);

/// Puts the files of one directory together: a metadata file with the roots of the same name, or,
/// where it is the only one, with those of the usual names, and where there are none, with the others.
/// Of files in `broken` it is not known what they are: nothing else takes their place.
pub(super) fn group(files: Vec<(String, Content)>, broken: &[String]) -> Grouped {
    let mut grouped = Grouped::default();
    let held: BTreeSet<String> =
        broken.iter().flat_map(|name| [key(name, &METADATA), key(name, &ROOTS)]).collect();
    let mut metadata: BTreeMap<String, Vec<(String, Metadata)>> = BTreeMap::new();
    let mut roots: BTreeMap<String, Vec<Root>> = BTreeMap::new();
    let mut bare: BTreeMap<String, Vec<Root>> = BTreeMap::new();
    for (name, content) in files {
        match content {
            Content::Metadata(says) => {
                metadata.entry(key(&name, &METADATA)).or_default().push((name, says));
            }
            Content::Root(kind) => {
                roots.entry(key(&name, &ROOTS)).or_default().push((kind, name));
            }
            Content::Bare => {
                let entry = bare.entry(key(&name, &ROOTS)).or_default();
                entry.push((RootKind::Tarball, name));
            }
            Content::Unified(says, kind) => {
                let claims = stem(&name).parse().ok();
                let parts = Parts::Unified(kind);
                grouped.groups.push(Group { metadata: name, says, parts, claims });
            }
            Content::Delta | Content::Other => {}
        }
    }
    let is_only = metadata.len() == 1;
    for (key, mut candidates) in metadata {
        candidates.sort_by_key(|(name, _)| (rank(name), name.clone()));
        let mut candidates = candidates.into_iter();
        let Some((name, says)) = candidates.next() else { continue };
        let mut take = |key: &str| {
            let found = [roots.remove(key), bare.remove(key)];
            found.into_iter().flatten().flatten().collect::<Vec<Root>>()
        };
        let mut found = take(&key);
        if is_only {
            if !key.is_empty() {
                found.extend(take(""));
            }
            let others = std::mem::take(&mut roots).into_values().flatten();
            if found.is_empty() && !held.contains("") {
                found.extend(others);
                let stems: BTreeSet<String> = found.iter().map(|(_, name)| stem(name)).collect();
                if stems.len() > 1 {
                    let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
                    let reason = format!(
                        "each of {} could be its root: name it rootfs or disk, as builders do",
                        names.join(", ")
                    );
                    grouped.incomplete.push((name, reason));
                    continue;
                }
            } else {
                grouped.strays.extend(others.map(|(_, name)| name));
            }
        }
        if held.contains(&key) || (is_only && held.contains("")) {
            continue;
        }
        grouped.spare.extend(candidates.map(|(spare, _)| (spare, name.clone())));
        grouped.add_split(name, says, found, key.parse().ok());
    }
    // A tarball of other things is nobody's business, unless it is called a root.
    let bare = bare.remove("").unwrap_or_default();
    for (_, name) in roots.into_values().flatten().chain(bare) {
        grouped.incomplete.push((name, "there is no metadata file for it".to_owned()));
    }
    grouped
}

impl Grouped {
    fn add_split(
        &mut self,
        name: String,
        says: Metadata,
        mut found: Vec<Root>,
        claims: Option<Fingerprint>,
    ) {
        found.sort();
        let mut roots = BTreeMap::new();
        for (kind, root) in found {
            // Whichever were taken, it could be the wrong one.
            if let Some(first) = roots.get(&kind) {
                let reason = format!(
                    "both {first} and {root} could be its {}: keep one of them beside it",
                    kind.ftype()
                );
                self.incomplete.push((name, reason));
                return;
            }
            roots.insert(kind, root);
        }
        if roots.is_empty() {
            let reason = "there is no root file system and no disk for this metadata";
            self.incomplete.push((name, reason.to_owned()));
            return;
        }
        self.groups.push(Group { metadata: name, says, parts: Parts::Roots(roots), claims });
    }
}

/// What the files of one build have in common in their names; empty for the usual names.
fn key(name: &str, usual: &[&str]) -> String {
    let stem = stem(name);
    if usual.contains(&stem.as_str()) { String::new() } else { stem }
}

fn rank(name: &str) -> usize {
    let stem = stem(name);
    METADATA.iter().position(|usual| *usual == stem).unwrap_or(METADATA.len())
}

/// Whether builders call metadata so.
pub(super) fn is_metadata_name(name: &str) -> bool {
    METADATA.contains(&stem(name).as_str())
}

/// A name without its endings and without what marks metadata.
fn stem(name: &str) -> String {
    let lower = name.to_lowercase();
    let mut stem = lower.strip_prefix("meta-").unwrap_or(&lower);
    let cut = |stem: &str| {
        let cut = ENDINGS.iter().find_map(|ending| stem.strip_suffix(ending));
        cut.filter(|rest| !rest.is_empty()).map(str::len)
    };
    while let Some(length) = cut(stem) {
        stem = &stem[..length];
    }
    stem.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lxd_proto::arch::Architecture;

    fn says() -> Metadata {
        Metadata {
            architecture: Architecture::X86_64,
            creation_date: 1,
            expiry_date: 0,
            properties: BTreeMap::new(),
            templates: BTreeMap::new(),
        }
    }

    /// `METADATA+ROOT+ROOT` for each group, `!NAME` for what is incomplete.
    fn told(files: &[(&str, char)]) -> String {
        let marks = files.iter().map(|(_, mark)| *mark);
        let files = files.iter().map(|&(name, content)| {
            let content = match content {
                'm' => Content::Metadata(says()),
                'u' => Content::Unified(says(), InstanceType::Container),
                's' => Content::Root(RootKind::Squashfs),
                't' => Content::Root(RootKind::Tarball),
                'b' => Content::Bare,
                'q' => Content::Root(RootKind::DiskKvm),
                'd' => Content::Delta,
                _ => Content::Other,
            };
            (name.to_owned(), content)
        });
        let (broken, files): (Vec<_>, Vec<_>) =
            files.zip(marks).partition(|(_, mark)| *mark == '!');
        let broken: Vec<String> = broken.into_iter().map(|((name, _), _)| name).collect();
        let grouped = group(files.into_iter().map(|(file, _)| file).collect(), &broken);
        let mut told = Vec::new();
        for group in &grouped.groups {
            let roots = group.roots().map(|(_, name)| format!("+{name}")).collect::<String>();
            let claims = group.claims.map_or("", |_| "=");
            told.push(format!("{}{roots}{claims}", group.metadata));
        }
        told.extend(grouped.incomplete.iter().map(|(name, _)| format!("!{name}")));
        told.extend(grouped.spare.iter().map(|(name, _)| format!("({name})")));
        told.extend(grouped.strays.iter().map(|name| format!("?{name}")));
        told.join(" ")
    }

    #[test]
    fn files_of_one_build_are_found() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let names = |suffix: &str| [format!("{a}{suffix}"), format!("{b}{suffix}")];
        let [a_meta, b_meta] = names(".tar.xz");
        let [a_root, b_root] = [format!("{a}.rootfs"), format!("{b}.squashfs")];
        let meta_a = format!("meta-{a}.tar.gz");
        let cases: &[(&[(&str, char)], &str)] = &[
            // As distrobuilder leaves it.
            (
                &[
                    ("incus.tar.xz", 'm'),
                    ("rootfs.squashfs", 's'),
                    ("disk.qcow2", 'q'),
                    ("rootfs.tar.xz", 't'),
                    ("image.yaml", '-'),
                ],
                "incus.tar.xz+rootfs.squashfs+rootfs.tar.xz+disk.qcow2",
            ),
            (
                &[
                    ("incus.tar.xz", 'm'),
                    ("lxd.tar.xz", 'm'),
                    ("x.squashfs", 's'),
                    ("a.vcdiff", 'd'),
                ],
                "lxd.tar.xz+x.squashfs (incus.tar.xz)",
            ),
            // As images are exported.
            (
                &[
                    (&a_meta, 'm'),
                    (&a_root, 's'),
                    (&b_meta, 'm'),
                    (&b_root, 's'),
                    ("u.tar.gz", 'u'),
                ],
                &format!("u.tar.gz {a_meta}+{a_root}= {b_meta}+{b_root}="),
            ),
            (&[(&meta_a, 'm'), (&a_root, 's')], &format!("{meta_a}+{a_root}=")),
            (&[("my.tar.gz", 'm'), ("my.rootfs.squashfs", 's')], "my.tar.gz+my.rootfs.squashfs"),
            (&[("lxd.tar.xz", 'm')], "!lxd.tar.xz"),
            (&[("rootfs.squashfs", 's')], "!rootfs.squashfs"),
            (&[("x.tar.xz", 'm'), ("y.tar.xz", 'm'), ("z.img", 'q')], "!x.tar.xz !y.tar.xz !z.img"),
            (&[("lxd.tar.xz", 'm'), ("a.squashfs", 's'), ("b.squashfs", 's')], "!lxd.tar.xz"),
            // Other things that lie about beside an image.
            (
                &[("incus.tar.xz", 'm'), ("rootfs.tar.xz", 't'), ("logs.tar.gz", 't')],
                "incus.tar.xz+rootfs.tar.xz ?logs.tar.gz",
            ),
            (
                &[("incus.tar.xz", 'm'), ("rootfs.squashfs", 's'), ("logs.tar.gz", 'b')],
                "incus.tar.xz+rootfs.squashfs",
            ),
            (
                &[("incus.tar.xz", 'm'), ("disk.qcow2", 'q'), ("base.qcow2", 'q')],
                "incus.tar.xz+disk.qcow2 ?base.qcow2",
            ),
            (
                &[("lxd.tar.xz", 'm'), ("x.squashfs", 's'), ("logs.tar", 'b')],
                "lxd.tar.xz+x.squashfs",
            ),
            (&[("lxd.tar.xz", 'm'), ("root.tar", 'b')], "lxd.tar.xz+root.tar"),
            (
                &[("my.tar", 'm'), ("my.rootfs.tar", 'b'), ("x.tar", 't')],
                "my.tar+my.rootfs.tar ?x.tar",
            ),
            (&[("logs.tar", 'b')], ""),
            (&[("root.tar", 'b')], "!root.tar"),
            (&[], ""),
        ];
        for (files, expected) in cases {
            assert_eq!(told(files), *expected, "{files:?}");
        }
    }

    #[test]
    fn nothing_takes_the_place_of_what_is_broken_or_could_be_one_of_several() {
        let cases: &[(&[(&str, char)], &str)] = &[
            (&[("lxd.tar.xz", 'm'), ("rootfs.squashfs", '!'), ("logs.tar", 't')], "?logs.tar"),
            (&[("lxd.tar.xz", '!'), ("incus.tar.xz", 'm'), ("rootfs.squashfs", 's')], ""),
            (
                &[("lxd.tar.xz", 'm'), ("rootfs.squashfs", 's'), ("logs.tar", '!')],
                "lxd.tar.xz+rootfs.squashfs",
            ),
            (&[("lxd.tar.xz", 'm'), ("x.squashfs", 's'), ("scratch.qcow2", 'q')], "!lxd.tar.xz"),
            (
                &[("lxd.tar.xz", 'm'), ("x.squashfs", 's'), ("x.qcow2", 'q')],
                "lxd.tar.xz+x.squashfs+x.qcow2",
            ),
            (&[("lxd.tar.xz", 'm'), ("logs.tar", 'b')], "!lxd.tar.xz"),
        ];
        for (files, expected) in cases {
            assert_eq!(told(files), *expected, "{files:?}");
        }
    }
}
