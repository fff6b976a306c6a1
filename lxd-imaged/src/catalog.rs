//! What the store holds, in memory: images by fingerprint, aliases by name, configuration.
//!
//! Requests read here and nowhere else. Only the database's writer changes it, after each
//! commit, so that what is listed is on disk.

mod published;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lxd_proto::alias::{AliasEntry, ImageAlias};
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::image::{Image, Verified};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::db::{
    AliasChange, BlobRow, Change, MirrorChange, NewImage, Observer, Origin, Replacement, Settings,
    Snapshot, WithdrawnFile,
};
use crate::error::{ALIAS_NOT_FOUND, Error, IMAGE_NOT_FOUND, Result};
use crate::instances::Instances;
use crate::mirror::Mirrors;
use crate::trust::TrustStore;

/// Who looks: decides what exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// Sees everything.
    Trusted,
    /// Sees everything, changes nothing: a restricted client of the one project.
    Restricted,
    /// A restricted client of other projects: is known, and sees what strangers see.
    Outsider,
    /// Sees public images whose check has passed.
    Stranger,
}

impl Viewer {
    /// Whether `image` exists for this viewer.
    pub fn sees(self, image: &Image) -> bool {
        match self {
            Self::Trusted | Self::Restricted => true,
            Self::Outsider | Self::Stranger => image.public && image.verified == Verified::Yes,
        }
    }
}

/// An image with its files, and its object rendered once.
#[derive(Debug)]
pub struct Entry {
    /// The object, aliases included.
    pub image: Image,
    /// The same as JSON.
    pub json: Box<str>,
    /// The unified file, or the metadata file.
    pub head: BlobRow,
    /// The root file system file of a split image.
    pub rootfs: Option<BlobRow>,
    /// Where it was copied from, and its place among its versions.
    pub origin: Option<Origin>,
}

/// The image as others see it: the way to its origin may hold a password, which only the daemon
/// itself needs.
pub fn shown(image: &Image) -> Cow<'_, Image> {
    let server = image.update_source.as_ref().map(|source| source.server.as_str());
    let bare = server.and_then(|server| {
        let mut url = url::Url::parse(server).ok()?;
        let secret = !url.username().is_empty() || url.password().is_some();
        (secret && url.set_password(None).is_ok() && url.set_username("").is_ok())
            .then(|| url.to_string())
    });
    let Some(bare) = bare else { return Cow::Borrowed(image) };
    let mut image = image.clone();
    if let Some(source) = &mut image.update_source {
        source.server = bare;
    }
    Cow::Owned(image)
}

impl Entry {
    fn new(
        mut image: Image,
        head: BlobRow,
        rootfs: Option<BlobRow>,
        origin: Option<Origin>,
    ) -> Self {
        image.refresh = origin.as_ref().and_then(|origin| origin.refresh.clone());
        // An image has only strings, numbers and lists: rendering cannot fail.
        let json = serde_json::to_string(&shown(&image)).unwrap_or_default().into_boxed_str();
        Self { image, json, head, rootfs, origin }
    }

    fn with(&self, edit: impl FnOnce(&mut Image, &mut Option<Origin>)) -> Arc<Self> {
        let mut image = self.image.clone();
        let mut origin = self.origin.clone();
        edit(&mut image, &mut origin);
        Arc::new(Self::new(image, self.head.clone(), self.rootfs.clone(), origin))
    }

    /// Whether no other version has taken its place.
    pub fn is_current(&self) -> bool {
        self.origin.as_ref().is_none_or(|origin| origin.replaced_at.is_none())
    }

    /// Its files.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRow> {
        std::iter::once(&self.head).chain(&self.rootfs)
    }
}

#[derive(Debug, Clone)]
struct Alias {
    target: Fingerprint,
    description: String,
}

#[derive(Debug, Default)]
struct Contents {
    images: BTreeMap<Fingerprint, Arc<Entry>>,
    aliases: BTreeMap<String, Alias>,
    /// The images that use a blob.
    users: HashMap<Fingerprint, Vec<Fingerprint>>,
    /// Files of deleted public images that are still kept.
    withdrawn: HashMap<Fingerprint, Vec<WithdrawnFile>>,
    config: BTreeMap<String, String>,
    /// Grows with every change of what strangers see.
    generation: u64,
}

/// The contents of the store.
#[derive(Debug)]
pub struct Catalog {
    contents: RwLock<Contents>,
    /// Trusted clients.
    pub trust: TrustStore,
    /// Containers.
    pub instances: Instances,
    /// Mirrors.
    pub mirrors: Mirrors,
    /// Whether images and aliases are known, or why they cannot be.
    loaded: watch::Sender<Option<Result<(), Arc<str>>>>,
    /// [`Contents::generation`], for who waits for the next one.
    generation: watch::Sender<u64>,
}

impl Catalog {
    /// A catalog of which only the configuration and who is trusted are known yet.
    pub fn new(settings: Settings) -> Self {
        let contents = Contents { config: settings.config, ..Contents::default() };
        let trust = TrustStore::default();
        trust.fill(settings.certificates);
        Self {
            contents: RwLock::new(contents),
            trust,
            instances: Instances::default(),
            mirrors: Mirrors::default(),
            loaded: watch::Sender::new(None),
            generation: watch::Sender::new(0),
        }
    }

    /// Waits until images and aliases are known. Before that the catalog looks empty.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn loaded(&self) -> Result<()> {
        let mut loaded = self.loaded.subscribe();
        // The sender is in here: it cannot be gone.
        let outcome = loaded.wait_for(Option::is_some).await.ok().and_then(|seen| seen.clone());
        match outcome {
            Some(Err(reason)) => Err(Error::Internal(reason.to_string())),
            _ => Ok(()),
        }
    }

    fn fill(&self, snapshot: Snapshot) {
        self.trust.fill(snapshot.settings.certificates);
        self.instances.fill(snapshot.instances);
        self.mirrors.fill(snapshot.mirrors);
        let mut contents = Contents { config: snapshot.settings.config, ..Contents::default() };
        let mut names: HashMap<Fingerprint, Vec<ImageAlias>> = HashMap::new();
        for alias in snapshot.aliases {
            names.entry(alias.target).or_default().push(ImageAlias {
                name: alias.name.clone(),
                description: alias.description.clone(),
            });
            let value = Alias { target: alias.target, description: alias.description };
            contents.aliases.insert(alias.name, value);
        }
        for NewImage { mut image, head, rootfs, origin, .. } in snapshot.images {
            image.aliases = names.remove(&image.fingerprint).unwrap_or_default();
            image.aliases.sort_by(|a, b| a.name.cmp(&b.name));
            contents.insert(Arc::new(Entry::new(image, head, rootfs, origin)));
        }
        contents.keep(snapshot.withdrawn);
        let mut old = self.contents.write();
        contents.generation = old.generation + 1;
        self.generation.send_replace(contents.generation);
        *old = contents;
    }

    /// All current images that `viewer` sees, by fingerprint, beginning after `after`.
    pub fn images(&self, viewer: Viewer, after: Option<Fingerprint>) -> Vec<Arc<Entry>> {
        let mut images = self.versions(viewer, after);
        images.retain(|entry| entry.is_current());
        images
    }

    /// The same with versions that others have replaced.
    pub fn versions(&self, viewer: Viewer, after: Option<Fingerprint>) -> Vec<Arc<Entry>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let contents = self.contents.read();
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        contents
            .images
            .range(range)
            .map(|(_, entry)| entry)
            .filter(|entry| viewer.sees(&entry.image))
            .cloned()
            .collect()
    }

    /// The one image whose fingerprint begins with `prefix`, among those `viewer` sees.
    pub fn image(&self, viewer: Viewer, prefix: &Prefix) -> Result<Arc<Entry>> {
        let contents = self.contents.read();
        let mut found = contents
            .images
            .range(prefix.lowest()..=prefix.highest())
            .map(|(_, entry)| entry)
            .filter(|entry| viewer.sees(&entry.image));
        match (found.next(), found.next()) {
            (None, _) => Err(IMAGE_NOT_FOUND),
            (Some(entry), None) => Ok(entry.clone()),
            (Some(_), Some(_)) => Err(Error::Ambiguous),
        }
    }

    /// The image with this fingerprint, whoever asks.
    pub fn get(&self, fingerprint: &Fingerprint) -> Option<Arc<Entry>> {
        self.contents.read().images.get(fingerprint).cloned()
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.contents.read().images.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All aliases of images that `viewer` sees, by name.
    pub fn aliases(&self, viewer: Viewer) -> Vec<AliasEntry> {
        let contents = self.contents.read();
        contents.aliases.keys().filter_map(|name| contents.alias(viewer, name)).collect()
    }

    /// The alias with this name, if its image exists for `viewer`.
    pub fn alias(&self, viewer: Viewer, name: &str) -> Result<AliasEntry> {
        self.contents.read().alias(viewer, name).ok_or(ALIAS_NOT_FOUND)
    }

    /// The image that an alias leads to, whoever asks.
    pub fn target(&self, name: &str) -> Option<Fingerprint> {
        self.contents.read().aliases.get(name).map(|alias| alias.target)
    }

    /// Whether any image uses the blob, or has used it so lately that it is still served.
    pub fn uses(&self, digest: &Fingerprint) -> bool {
        let contents = self.contents.read();
        contents.users.contains_key(digest) || contents.withdrawn.contains_key(digest)
    }

    /// Configuration that differs from its defaults.
    pub fn config(&self) -> BTreeMap<String, String> {
        self.contents.read().config.clone()
    }
}

impl Contents {
    fn insert(&mut self, entry: Arc<Entry>) {
        let fingerprint = entry.image.fingerprint;
        for blob in entry.blobs() {
            self.users.entry(blob.digest).or_default().push(fingerprint);
        }
        self.note(&entry);
        self.images.insert(fingerprint, entry);
    }

    fn remove(&mut self, fingerprint: &Fingerprint) {
        let Some(entry) = self.images.remove(fingerprint) else { return };
        self.note(&entry);
        for blob in entry.blobs() {
            if let Some(users) = self.users.get_mut(&blob.digest) {
                if let Some(at) = users.iter().position(|user| user == fingerprint) {
                    users.swap_remove(at);
                }
                if users.is_empty() {
                    self.users.remove(&blob.digest);
                }
            }
        }
        for alias in &entry.image.aliases {
            self.aliases.remove(&alias.name);
        }
    }

    fn alias(&self, viewer: Viewer, name: &str) -> Option<AliasEntry> {
        let alias = self.aliases.get(name)?;
        let entry = self.images.get(&alias.target)?;
        viewer.sees(&entry.image).then(|| AliasEntry {
            description: alias.description.clone(),
            target: alias.target,
            name: name.to_owned(),
            kind: entry.image.kind,
        })
    }

    fn edit(&mut self, fingerprint: &Fingerprint, edit: impl FnOnce(&mut Image)) {
        self.change(fingerprint, |image, _| edit(image));
    }

    fn change(
        &mut self,
        fingerprint: &Fingerprint,
        edit: impl FnOnce(&mut Image, &mut Option<Origin>),
    ) {
        let Some(entry) = self.images.get_mut(fingerprint) else { return };
        let new = entry.with(edit);
        let old = std::mem::replace(entry, new.clone());
        self.note(&old);
        self.note(&new);
        if old.image.public && !new.image.public {
            self.forget_files_of(&new);
        }
    }

    /// What [`Change::Insert`] and [`Change::Adopt`] have in common.
    fn put(&mut self, new: &NewImage) {
        let fingerprint = new.image.fingerprint;
        if new.adopt {
            self.change(&fingerprint, |image, origin| {
                let aliases = std::mem::take(&mut image.aliases);
                let verified = std::mem::take(&mut image.verified);
                *image = Image { aliases, verified, ..new.image.clone() };
                if new.origin.is_some() {
                    origin.clone_from(&new.origin);
                }
            });
        } else {
            let mut image = new.image.clone();
            image.aliases.clear();
            let (head, rootfs) = (new.head.clone(), new.rootfs.clone());
            let entry = Entry::new(image, head, rootfs, new.origin.clone());
            if !entry.image.public {
                self.forget_files_of(&entry);
            }
            self.insert(Arc::new(entry));
        }
        for (name, description) in &new.aliases {
            let description = if description.is_empty() {
                self.aliases.get(name.as_str()).map(|alias| alias.description.clone())
            } else {
                Some(description.clone())
            };
            let alias = Alias { target: fingerprint, description: description.unwrap_or_default() };
            self.set_alias(name.to_string(), alias);
        }
    }

    fn replace(&mut self, replacement: &Replacement) {
        let Replacement { from, from_origin, to } = replacement;
        self.put(to);
        let names: Vec<String> = self.images.get(from).map_or_else(Vec::new, |entry| {
            entry.image.aliases.iter().map(|alias| alias.name.clone()).collect()
        });
        for name in names {
            if let Some(mut alias) = self.aliases.get(&name).cloned() {
                alias.target = to.image.fingerprint;
                self.set_alias(name, alias);
            }
        }
        let lineage =
            self.images.get(from).and_then(|entry| Some(entry.origin.as_ref()?.lineage.clone()));
        if let Some(old) = lineage.filter(|old| *old != from_origin.lineage) {
            let of_it = |entry: &&Arc<Entry>| {
                entry.origin.as_ref().is_some_and(|origin| origin.lineage == old)
            };
            let versions: Vec<_> =
                self.images.values().filter(of_it).map(|entry| entry.image.fingerprint).collect();
            for version in versions {
                self.change(&version, |_, origin| {
                    if let Some(origin) = origin {
                        origin.lineage.clone_from(&from_origin.lineage);
                    }
                });
            }
        }
        self.change(from, |_, origin| *origin = Some(from_origin.clone()));
    }

    fn unset_alias(&mut self, name: &str) -> Option<Alias> {
        let alias = self.aliases.remove(name)?;
        self.edit(&alias.target, |image| image.aliases.retain(|alias| alias.name != name));
        Some(alias)
    }

    fn set_alias(&mut self, name: String, alias: Alias) {
        self.unset_alias(&name);
        let shown = ImageAlias { name: name.clone(), description: alias.description.clone() };
        self.edit(&alias.target, |image| {
            let at = image.aliases.partition_point(|other| other.name < shown.name);
            image.aliases.insert(at, shown);
        });
        self.aliases.insert(name, alias);
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Insert(new) | Change::Adopt(new) => self.put(new),
            Change::Replace(replacement) => self.replace(replacement),
            Change::Refreshed(checks) => {
                for (fingerprint, refresh) in checks {
                    if let Some(entry) = self.images.get_mut(fingerprint) {
                        *entry = entry.with(|_, origin| {
                            if let Some(origin) = origin {
                                origin.refresh = Some(refresh.clone());
                            }
                        });
                    }
                }
            }
            Change::Used(fingerprint, at) => {
                // Nothing that strangers see.
                if let Some(entry) = self.images.get_mut(fingerprint) {
                    *entry = entry.with(|image, _| image.last_used_at = *at);
                }
            }
            Change::Edit(edited) => self.edit(&edited.fingerprint, |image| {
                image.public = edited.public;
                image.auto_update = edited.auto_update;
                image.expires_at = edited.expires_at;
                image.properties.clone_from(&edited.properties);
                image.profiles.clone_from(&edited.profiles);
            }),
            Change::Verified(fingerprint, verified) => {
                self.edit(fingerprint, |image| image.verified = verified.clone());
            }
            Change::Delete(fingerprint) => self.remove(fingerprint),
            Change::Withdraw(withdrawal) => self.withdraw(withdrawal),
            Change::Forget(digests, before) => self.forget(digests.iter().copied(), *before),
            Change::Alias(change) => self.apply_alias(change),
            // The catalog's own, beside the contents.
            Change::Trust(_) | Change::Instance(_) => {}
            Change::Mirror(change) => self.apply_mirror(change),
            Change::Config(values) => {
                for (name, value) in values {
                    match value {
                        Some(value) => self.config.insert(name.clone(), value.clone()),
                        None => self.config.remove(name),
                    };
                }
            }
        }
    }

    /// What a change of mirrors is to images and aliases.
    fn apply_mirror(&mut self, change: &MirrorChange) {
        match change {
            MirrorChange::Take(taken) => self.put(&taken.image),
            MirrorChange::Point(_, aliases) => {
                for (name, target) in aliases {
                    let known = self.aliases.get(name.as_str());
                    let description = known.map(|alias| alias.description.clone());
                    let description = description.unwrap_or_default();
                    self.set_alias(name.to_string(), Alias { target: *target, description });
                }
            }
            MirrorChange::Unset(_, names) => {
                for (name, target) in names {
                    if self.aliases.get(name.as_str()).is_some_and(|it| it.target == *target) {
                        self.unset_alias(name.as_str());
                    }
                }
            }
            MirrorChange::Create(_)
            | MirrorChange::Update { .. }
            | MirrorChange::Delete(_)
            | MirrorChange::Ran(..)
            | MirrorChange::Leave(..)
            | MirrorChange::Claim(_) => {}
        }
    }

    fn apply_alias(&mut self, change: &AliasChange) {
        match change {
            AliasChange::Create { name, target, description }
            | AliasChange::Update { name, target, description } => {
                let alias = Alias { target: *target, description: description.clone() };
                self.set_alias(name.to_string(), alias);
            }
            AliasChange::Rename { from, to } => {
                if let Some(alias) = self.unset_alias(from.as_str()) {
                    self.set_alias(to.to_string(), alias);
                }
            }
            AliasChange::Delete { name } => {
                self.unset_alias(name.as_str());
            }
        }
    }
}

impl Observer for Catalog {
    fn loaded(&self, snapshot: Result<Snapshot>) {
        let outcome = snapshot.map(|snapshot| self.fill(snapshot));
        self.loaded.send_replace(Some(outcome.map_err(|error| error.to_string().into())));
    }

    fn committed(&self, changes: &[Change]) {
        let mut contents = self.contents.write();
        for change in changes {
            match change {
                Change::Trust(change) => self.trust.apply(change),
                Change::Instance(change) => self.instances.apply(change),
                Change::Mirror(change) => {
                    contents.apply_mirror(change);
                    self.mirrors.apply(change);
                }
                other => {
                    if let Some(fingerprint) = other.deleted() {
                        self.mirrors.forget(fingerprint);
                    }
                    if let Change::Alias(change) = other {
                        change.names().for_each(|name| self.mirrors.disown(name.as_str()));
                    }
                    contents.apply(other);
                }
            }
        }
        let generation = contents.generation;
        self.generation
            .send_if_modified(|known| std::mem::replace(known, generation) != generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_an_origin_is_shown_to_nobody() {
        let json = r#"{"fingerprint": "FP", "architecture": "x86_64", "update_source":
            {"alias": "a", "certificate": "", "protocol": "simplestreams", "server": "URL"}}"#
            .replace("FP", &"0".repeat(64));
        for (server, seen) in [
            ("https://bob:s3cret@127.0.0.1:8443/x", "https://127.0.0.1:8443/x"),
            ("https://127.0.0.1:8443", "https://127.0.0.1:8443"),
        ] {
            let image: Image = serde_json::from_str(&json.replace("URL", server)).unwrap();
            assert_eq!(shown(&image).update_source.as_ref().unwrap().server, seen);
        }
    }
}
