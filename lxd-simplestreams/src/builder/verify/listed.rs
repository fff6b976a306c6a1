//! What the catalogs of a tree list, and what in them no client understands.

use std::collections::BTreeMap;

use lxd_proto::arch::Architecture;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::format::Role;
use lxd_proto::image::InstanceType;

use super::{Checking, FaultKind};
use crate::document::{Catalog, Item, Product, Version};
use crate::path::TreePath;
use crate::publish::is_serial;
use crate::root::{INCUS, LXD, RootKind};

/// What the documents list.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Size and hash by path; the first that is said.
    pub(super) files: BTreeMap<String, (u64, Fingerprint)>,
    /// What a file is to an image, by its path.
    pub(super) roles: BTreeMap<String, Role>,
    /// Pairs of metadata and root, with what they should be together.
    pub(super) images: Vec<Pair>,
    pub(super) deltas: Vec<Delta>,
    /// Products by what clients ask for: alias, architecture and what is to start.
    names: BTreeMap<(String, String, InstanceType), Vec<(String, String)>>,
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) metadata: String,
    pub(super) root: String,
    pub(super) fingerprint: Fingerprint,
}

#[derive(Debug)]
pub(super) struct Delta {
    pub(super) path: String,
    pub(super) base: String,
    pub(super) target: String,
}

impl Checking<'_> {
    /// Everything that a catalog lists.
    pub(super) fn list(&mut self, path: &str, catalog: &Catalog, listed: &mut Listed) {
        self.report.products += catalog.products.len();
        for (name, product) in &catalog.products {
            if product.arch.parse::<Architecture>().is_err() {
                let reason = format!("{name} is for {:?}, which nobody knows", product.arch);
                self.fault(path, FaultKind::Document, reason);
            }
            self.names(path, name, product, listed);
            for (serial, version) in &product.versions {
                self.report.versions += 1;
                if !is_serial(serial) {
                    let reason = format!(
                        "{name} has a version {serial:?}, which begins with no date: no client \
                         sees it"
                    );
                    self.fault(path, FaultKind::Document, reason);
                }
                for item in version.items.values().filter(|item| !item.path.is_empty()) {
                    self.item(path, item, listed);
                }
                self.pairs(path, &format!("{name} {serial}"), version, listed);
                for item in version.items.values() {
                    let Some(kind) = item.ftype.strip_suffix(".vcdiff") else { continue };
                    let of = |version: &Version| {
                        let mut items = version.items.values();
                        items.find(|other| other.ftype == kind).map(|other| other.path.clone())
                    };
                    match (product.versions.get(&item.delta_base).and_then(of), of(version)) {
                        (Some(base), Some(target)) => {
                            listed.deltas.push(Delta { path: item.path.clone(), base, target });
                        }
                        (None, _) => {
                            let reason = format!(
                                "it starts from {:?}, which is not in the catalog",
                                item.delta_base
                            );
                            self.fault(&item.path, FaultKind::Delta, reason);
                        }
                        (_, None) => {
                            let reason = format!("there is no {kind} that it could make");
                            self.fault(&item.path, FaultKind::Delta, reason);
                        }
                    }
                }
            }
        }
    }

    /// The aliases of a product.
    fn names(&mut self, path: &str, name: &str, product: &Product, listed: &mut Listed) {
        let Some(newest) = product.versions.values().next_back() else { return };
        let mut kinds: Vec<InstanceType> = newest.items.values().filter_map(makes).collect();
        kinds.sort();
        kinds.dedup();
        for alias in product.aliases.split(',').filter(|_| !product.aliases.is_empty()) {
            if alias.is_empty() || alias.chars().any(|c| c.is_whitespace() || c.is_control()) {
                let reason = format!("{name} has the alias {alias:?}, which nobody can ask for");
                self.fault(path, FaultKind::Document, reason);
            }
            for &kind in &kinds {
                let key = (alias.to_owned(), product.arch.clone(), kind);
                listed.names.entry(key).or_default().push((path.to_owned(), name.to_owned()));
            }
        }
    }

    /// Aliases that lead to one of several products, by chance.
    pub(super) fn same_names(&mut self, listed: &Listed) {
        for ((alias, ..), products) in &listed.names {
            let [(_, first), rest @ ..] = products.as_slice() else { continue };
            for (path, other) in rest.iter().filter(|(_, other)| other != first) {
                let reason = format!("the alias {alias} leads to {first} and to {other}");
                self.fault(path, FaultKind::Document, reason);
            }
        }
    }

    fn item(&mut self, catalog: &str, item: &Item, listed: &mut Listed) {
        let fits = TreePath::parse(&item.path).is_some_and(|path| path.as_str() == item.path);
        let size = u64::try_from(item.size).ok().filter(|size| *size > 0);
        let hash = item.sha256.parse::<Fingerprint>().ok();
        let hash = hash.filter(|hash| hash.to_string() == item.sha256);
        let (true, Some(size), Some(hash)) = (fits, size, hash) else {
            let reason = format!("{:?} has no path, size or SHA-256 that clients take", item.path);
            self.fault(catalog, FaultKind::Document, reason);
            return;
        };
        let role = match item.ftype.as_str() {
            ftype if [LXD.metadata, INCUS.metadata].contains(&ftype) => Some(Role::Metadata),
            ftype if [LXD.combined, INCUS.combined].contains(&ftype) => Some(Role::Unified),
            ftype => RootKind::from_ftype(ftype).map(|_| Role::Rootfs),
        };
        if let Some(role) = role {
            listed.roles.entry(item.path.clone()).or_insert(role);
        }
        let first = listed.files.entry(item.path.clone()).or_insert((size, hash));
        if *first != (size, hash) {
            self.fault(
                catalog,
                FaultKind::Document,
                format!("{} is listed in two ways", item.path),
            );
        }
    }

    /// The images of a version: what clients pair, and what they should be then.
    fn pairs(&mut self, catalog: &str, called: &str, version: &Version, listed: &mut Listed) {
        let items = || version.items.values();
        let has = |names: [&str; 2]| items().any(|item| names.contains(&&*item.ftype));
        let has_root = items().any(|item| RootKind::from_ftype(&item.ftype).is_some());
        let is_split = has([LXD.metadata, INCUS.metadata]) && has_root;
        if !is_split && !has([LXD.combined, INCUS.combined]) {
            let missing = if has_root { "metadata" } else { "root file system and no disk" };
            let reason = format!("{called} has no {missing}: no client sees an image in it");
            self.fault(catalog, FaultKind::Document, reason);
        }
        for metadata in items().filter(|i| [LXD.metadata, INCUS.metadata].contains(&&*i.ftype)) {
            for root in items() {
                let Some(kind) = RootKind::from_ftype(&root.ftype) else { continue };
                let fingerprint = metadata.combined(kind).parse::<Fingerprint>().ok();
                // Clients compare text.
                let fingerprint =
                    fingerprint.filter(|it| it.to_string() == metadata.combined(kind));
                let Some(fingerprint) = fingerprint else {
                    let (one, other) = (&metadata.ftype, &root.ftype);
                    let reason = format!(
                        "{called}: {one} has no combined hash with {other} in lower-case hex: clients of it do not \
                         see the image"
                    );
                    self.fault(catalog, FaultKind::Document, reason);
                    continue;
                };
                listed.images.push(Pair {
                    metadata: metadata.path.clone(),
                    root: root.path.clone(),
                    fingerprint,
                });
            }
        }
    }
}

/// What starts from a file.
fn makes(item: &Item) -> Option<InstanceType> {
    let is_combined = [LXD.combined, INCUS.combined].contains(&item.ftype.as_str());
    match RootKind::from_ftype(&item.ftype) {
        Some(kind) => Some(kind.kind()),
        None if item.combined_type == InstanceType::VirtualMachine.to_string() => {
            Some(InstanceType::VirtualMachine)
        }
        None => is_combined.then_some(InstanceType::Container),
    }
}
