//! What a run of a mirror is to do: a pure function of what the server has, what is here, and what
//! a person has decided.

use std::collections::{BTreeMap, BTreeSet};

use lxd_proto::alias::AliasName;
use lxd_proto::arch::Architecture;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{Image, InstanceType};
use lxd_proto::mirror::{
    MirrorAction, MirrorConfig, MirrorConflict, MirrorItem, MirrorReport, product, serial,
};

use crate::db::Member;

/// An image that the mirror keeps.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its product and version, as recorded.
    pub member: Member,
    /// Bytes of its files.
    pub size: u64,
    /// Whether its deep check has passed.
    pub whole: bool,
    /// Why it cannot be removed, if it cannot.
    pub bound: Option<String>,
}

/// Whose an alias is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// There is none of this name.
    Nobody,
    /// The mirror has set it.
    Mirror,
    /// Somebody else has; the text says who.
    Other(String),
}

/// What is here.
pub struct Here<'a> {
    /// What the mirror keeps.
    pub held: &'a BTreeMap<Fingerprint, Held>,
    /// Whether an image is in the store.
    pub stored: &'a dyn Fn(&Fingerprint) -> bool,
    /// Whose an alias is.
    pub owner: &'a dyn Fn(&AliasName) -> Owner,
}

impl std::fmt::Debug for Here<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Here").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

/// A version that is to be here.
#[derive(Debug, Clone)]
pub struct Version {
    /// As the server describes it.
    pub image: Image,
    /// What it is to the mirror.
    pub serial: String,
    /// What there is to do.
    pub action: MirrorAction,
}

/// A product that the server has and the filters select.
#[derive(Debug, Clone, Default)]
pub struct Product {
    /// The versions that are to be here, newest first.
    pub wanted: Vec<Version>,
    /// The aliases of the newest of them that is here.
    pub aliases: Vec<AliasName>,
}

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// By name.
    pub products: BTreeMap<String, Product>,
    /// Aliases that stay with somebody else.
    pub conflicts: Vec<MirrorConflict>,
    /// Images that the server has.
    upstream: u64,
    /// Images that the server has, but that the filters do not select.
    unselected: BTreeSet<Fingerprint>,
}

/// Plans a run over all images that the server has.
pub fn plan(config: &MirrorConfig, upstream: Vec<Image>, here: &Here<'_>) -> Plan {
    let mut plan = Plan { upstream: upstream.len() as u64, ..Plan::default() };
    // A server may name one image twice.
    let images: BTreeMap<Fingerprint, Image> =
        upstream.into_iter().map(|image| (image.fingerprint, image)).collect();
    let mut groups: BTreeMap<String, Vec<Image>> = BTreeMap::new();
    for image in images.into_values() {
        if config.selects(&image) {
            groups.entry(product(&image)).or_default().push(image);
        } else {
            plan.unselected.insert(image.fingerprint);
        }
    }
    let mut claims: BTreeMap<AliasName, ((bool, usize), String)> = BTreeMap::new();
    for (name, mut versions) in split(groups, here.held) {
        // One that has a name is the current one, whatever else has come after it.
        let age = |image: &Image| (!image.aliases.is_empty(), serial(image), image.fingerprint);
        versions.sort_by_cached_key(|image| std::cmp::Reverse(age(image)));
        if config.aliases {
            claim(config, &name, &versions, &mut claims);
        }
        versions.truncate(usize::try_from(config.keep).unwrap_or(usize::MAX));
        let version = |image: Image| {
            let serial = serial(&image);
            let action = match here.held.get(&image.fingerprint) {
                Some(held) if held.member.product == name && held.member.serial == serial => {
                    MirrorAction::Present
                }
                _ if (here.stored)(&image.fingerprint) => MirrorAction::Adopt,
                _ => MirrorAction::Download,
            };
            Version { image, serial, action }
        };
        let wanted = versions.into_iter().map(version).collect();
        plan.products.insert(name, Product { wanted, aliases: Vec::new() });
    }
    for (alias, (_, name)) in claims {
        if let Owner::Other(reason) = (here.owner)(&alias) {
            plan.conflicts.push(MirrorConflict { alias, product: name, reason });
        } else if let Some(product) = plan.products.get_mut(&name) {
            product.aliases.push(alias);
        }
    }
    plan
}

/// Images that share everything but go under names of their own are products of their own: an LXD
/// server may have many that all call themselves `debian:12`. What an image is here it stays, as far
/// as that fits its names: what becomes of it does not depend on the names that others get or lose.
fn split(
    groups: BTreeMap<String, Vec<Image>>,
    held: &BTreeMap<Fingerprint, Held>,
) -> BTreeMap<String, Vec<Image>> {
    let mut products: BTreeMap<String, Vec<Image>> = BTreeMap::new();
    for (name, images) in groups {
        let named = images.iter().filter(|image| !image.aliases.is_empty()).count();
        for image in images {
            let first = image.aliases.iter().map(|alias| alias.name.as_str()).min();
            let before = held.get(&image.fingerprint).map(|held| held.member.product.as_str());
            let product = match (before.filter(|it| fits(it, &name, &image, named)), first) {
                (Some(before), _) => before.to_owned(),
                (None, Some(alias)) if named > 1 => format!("{name}:{alias}"),
                _ => name.clone(),
            };
            products.entry(product).or_default().push(image);
        }
    }
    products
}

/// Whether `product` is `name`, or one of those that it is split into for a name of the image. `named`
/// is how many images with names there are: two of them are not one product.
fn fits(product: &str, name: &str, image: &Image, named: usize) -> bool {
    let Some(rest) = product.strip_prefix(name) else { return false };
    let Some(alias) = rest.strip_prefix(':') else {
        return rest.is_empty() && (image.aliases.is_empty() || named == 1);
    };
    image.aliases.is_empty() || image.aliases.iter().any(|it| it.name == alias)
}

/// Asks for the aliases of a product. Of two products that ask for one name a container wins, then
/// what this machine runs.
fn claim(
    config: &MirrorConfig,
    name: &str,
    versions: &[Image],
    claims: &mut BTreeMap<AliasName, ((bool, usize), String)>,
) {
    for image in versions {
        let rank = (image.kind == InstanceType::VirtualMachine, distance(image.architecture));
        for alias in &image.aliases {
            // A name that is too long with its prefix is none.
            let alias = AliasName::try_from(format!("{}{}", config.alias_prefix, alias.name));
            let Ok(alias) = alias else { continue };
            let known = claims.get(&alias);
            if known.is_none_or(|(best, _)| rank < *best) {
                claims.insert(alias, (rank, name.to_owned()));
            }
        }
    }
}

/// How far an architecture is from this machine's.
fn distance(architecture: Architecture) -> usize {
    let Some(host) = Architecture::host() else { return 0 };
    if architecture == host {
        return 0;
    }
    let runs = host.personalities().iter().position(|known| *known == architecture);
    runs.map_or(usize::MAX, |place| place + 1)
}

impl Plan {
    /// What the run will do if nothing fails.
    pub fn forecast(&self, config: &MirrorConfig, here: &Here<'_>) -> MirrorReport {
        let mut report = self.report();
        report.dry_run = true;
        for (name, product) in &self.products {
            for version in &product.wanted {
                report.add(version.item(name, version.action, String::new()));
            }
        }
        // As it will be when everything has come.
        let mut held = here.held.clone();
        for (name, product) in &self.products {
            for version in &product.wanted {
                let member =
                    Member { product: name.clone(), serial: version.serial.clone(), shared: false };
                let entry = held.entry(version.image.fingerprint).or_insert_with(|| Held {
                    member: member.clone(),
                    size: version.image.size,
                    whole: true,
                    bound: None,
                });
                entry.member = member;
            }
        }
        for item in self.retire(config, &held) {
            report.add(item);
        }
        report.sort();
        report
    }

    /// A report with what is known before anything is done.
    pub fn report(&self) -> MirrorReport {
        let mut report = MirrorReport::new(self.conflicts.clone());
        report.counts.upstream = self.upstream;
        report.counts.products = self.products.len() as u64;
        report
    }

    /// What becomes of versions that are here and not wanted: those that are needed to have as many
    /// of a product as are to be kept stay, be it because newer ones have failed or because the
    /// server has dropped them. So a product never loses its last version.
    pub fn retire(
        &self,
        config: &MirrorConfig,
        held: &BTreeMap<Fingerprint, Held>,
    ) -> Vec<MirrorItem> {
        let mut groups: BTreeMap<&str, Vec<(&Fingerprint, &Held)>> = BTreeMap::new();
        for (fingerprint, held) in held {
            groups.entry(&held.member.product).or_default().push((fingerprint, held));
        }
        let mut items = Vec::new();
        for (name, members) in groups {
            let wanted = self.products.get(name).map_or(&[][..], |product| &product.wanted);
            let is_wanted = |fingerprint: &Fingerprint| {
                wanted.iter().any(|it| it.image.fingerprint == *fingerprint)
            };
            let keep = usize::try_from(config.keep).unwrap_or(usize::MAX);
            let (good, mut others): (Vec<_>, Vec<_>) =
                members.into_iter().partition(|(fingerprint, _)| is_wanted(fingerprint));
            let good = good.iter().filter(|(_, held)| held.whole).count();
            let mut missing = keep.saturating_sub(good);
            others.sort_by(|a, b| (&b.1.member.serial, b.0).cmp(&(&a.1.member.serial, a.0)));
            for (fingerprint, held) in others {
                let newest = wanted.first().map(|version| version.serial.as_str());
                let fills = missing > 0 && held.whole;
                missing -= usize::from(fills);
                let (action, reason) = match (&held.bound, newest) {
                    _ if fills && self.unselected.contains(fingerprint) => {
                        (MirrorAction::Keep, "it is not selected any more".to_owned())
                    }
                    (_, None) if fills => {
                        (MirrorAction::Keep, "the server does not have the product any more".into())
                    }
                    (_, Some(_)) if fills => {
                        (MirrorAction::Keep, "fewer newer versions are here than are kept".into())
                    }
                    (Some(why), _) => (MirrorAction::Keep, why.clone()),
                    (None, Some(newest)) if *held.member.serial > *newest => {
                        (MirrorAction::Remove, "the server has withdrawn it".into())
                    }
                    (None, _) => {
                        (MirrorAction::Remove, format!("older than the newest {}", config.keep))
                    }
                };
                items.push(MirrorItem {
                    action,
                    product: name.to_owned(),
                    serial: held.member.serial.clone(),
                    fingerprint: *fingerprint,
                    size: held.size,
                    reason,
                });
            }
        }
        items
    }

    /// The image that each product's aliases should lead to, by what is here: the newest wanted one.
    pub fn leaders(&self, held: &BTreeMap<Fingerprint, Held>) -> Vec<(Fingerprint, &[AliasName])> {
        self.products
            .values()
            .filter_map(|product| {
                let mut here = product.wanted.iter().map(|version| version.image.fingerprint);
                let leader = here.find(|it| held.get(it).is_some_and(|held| held.whole))?;
                Some((leader, &*product.aliases))
            })
            .collect()
    }

    /// Whether an alias that the mirror has set on an image of `product` has no place any more.
    pub fn drops(&self, alias: &str, product: &str) -> bool {
        let listed = self.products.contains_key(product);
        let wanted =
            self.products.values().any(|it| it.aliases.iter().any(|name| name.as_str() == alias));
        listed && !wanted
    }
}

impl Version {
    /// Its line in a report.
    pub fn item(&self, product: &str, action: MirrorAction, reason: String) -> MirrorItem {
        MirrorItem {
            action,
            product: product.to_owned(),
            serial: self.serial.clone(),
            fingerprint: self.image.fingerprint,
            size: self.image.size,
            reason,
        }
    }
}

#[cfg(test)]
mod tests;
