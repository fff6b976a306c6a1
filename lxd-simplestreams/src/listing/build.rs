//! From the images of all catalogs to one listing: order, aliases, tables.

use std::collections::{HashMap, HashSet};

use lxd_proto::alias::AliasName;
use lxd_proto::arch::Architecture;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::InstanceType;

use crate::convert::{self, Listed};
use crate::listing::codec::Writer;
use crate::listing::{Listing, TooLarge, record};

/// Names that one listing gives out, counted for each architecture and type.
const MAX_NAMES: usize = 1_000_000;

/// What the server's address and this machine have to do with a listing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The architecture whose images own the short names.
    pub(crate) native: Option<Architecture>,
    /// Whether `ubuntu/` is cut from the beginning of names, as for Ubuntu's own server.
    pub(crate) cut_ubuntu: bool,
}

impl Rules {
    /// The rules on this machine for the tree at `address`.
    pub(crate) fn for_address(address: &str) -> Self {
        Self {
            native: Architecture::host(),
            cut_ubuntu: address.starts_with("https://cloud-images.ubuntu.com"),
        }
    }

    /// The name as it is used here; an empty one is none.
    fn name(self, name: &str) -> Option<&str> {
        let cut = if self.cut_ubuntu { name.strip_prefix("ubuntu/") } else { None };
        Some(cut.unwrap_or(name)).filter(|name| !name.is_empty())
    }
}

/// How well `architecture` suits a machine of another one: low is better. First itself, then
/// those whose programs it runs, then the others.
pub(super) fn preference(machine: Option<Architecture>, architecture: Architecture) -> usize {
    let Some(machine) = machine else { return 0 };
    let personalities = machine.personalities();
    if architecture == machine {
        0
    } else if let Some(place) = personalities.iter().position(|known| *known == architecture) {
        1 + place
    } else {
        1 + personalities.len() + usize::from(record::architecture_code(architecture))
    }
}

/// What one name can stand for once.
type Key = (InstanceType, Architecture);
/// Places of images by name.
type Owners = HashMap<String, Vec<(Key, usize)>>;

/// Puts the images of all catalogs in order and gives out the aliases.
///
/// `header` is what the listing is told to remember about itself.
pub(crate) fn build(
    header: &[u8],
    mut found: Vec<(u16, Listed)>,
    rules: Rules,
) -> Result<Listing, TooLarge> {
    found.sort_by(|(_, one), (_, other)| convert::compare(&one.image, &other.image));
    let (aliases, won) = give_out(&found, rules);
    drop_repeated(&mut found, won).write(header, aliases, rules)
}

/// Which image each name stands for, and the names that each image shows.
fn give_out(found: &[(u16, Listed)], rules: Rules) -> (Owners, Vec<Vec<String>>) {
    let mut owners = Owners::new();
    let mut won = vec![Vec::new(); found.len()];
    let mut seen = HashSet::new();
    let mut attempts = 0;
    for (place, (_, listed)) in found.iter().enumerate() {
        let image = &listed.image;
        let key = (image.kind, image.architecture);
        let raw = image.properties.get("architecture").map_or("", String::as_str);
        // Of an older version all names are gone.
        if !seen.insert((&*listed.names, key, raw)) {
            continue;
        }
        let native = rules.native == Some(image.architecture);
        for name in listed.names.split(',').filter_map(|name| rules.name(name)) {
            attempts += 1;
            if attempts > MAX_NAMES {
                tracing::warn!("only the first {MAX_NAMES} names of images are used");
                return (owners, won);
            }
            for (name, shown) in [(name.to_owned(), native), (format!("{name}/{raw}"), true)] {
                // A name that nobody could ask for.
                let Ok(name) = AliasName::try_from(name).map(String::from) else { continue };
                let owner = owners.entry(name.clone()).or_default();
                if owner.iter().any(|(owned, _)| *owned == key) {
                    continue;
                }
                owner.push((key, place));
                if shown {
                    won[place].push(name);
                }
            }
        }
    }
    (owners, won)
}

/// Images, each once, and for every original place where it has gone.
struct Unique<'a> {
    images: Vec<(&'a (u16, Listed), Vec<String>)>,
    place_of: Vec<usize>,
}

/// Products may share an image: the first keeps its place, and the names of all.
fn drop_repeated(found: &mut [(u16, Listed)], won: Vec<Vec<String>>) -> Unique<'_> {
    let mut first: HashMap<Fingerprint, usize> = HashMap::new();
    let mut unique = Unique { images: Vec::new(), place_of: Vec::new() };
    for (listed, names) in found.iter().zip(won) {
        let place = *first.entry(listed.1.image.fingerprint).or_insert(unique.images.len());
        match unique.images.get_mut(place) {
            Some((_, known)) => known.extend(names),
            None => unique.images.push((listed, names)),
        }
        unique.place_of.push(place);
    }
    unique
}

impl Unique<'_> {
    fn write(&self, header: &[u8], owners: Owners, rules: Rules) -> Result<Listing, TooLarge> {
        let mut aliases: Vec<(String, Key, Fingerprint)> = Vec::new();
        for (name, owner) in owners {
            for (key, place) in owner {
                let image = &self.images[self.place_of[place]].0.1.image;
                aliases.push((name.clone(), key, image.fingerprint));
            }
        }
        let rank = |key: Key| (record::kind_code(key.0), preference(rules.native, key.1));
        aliases.sort_unstable_by(|one, other| {
            one.0.cmp(&other.0).then_with(|| rank(one.1).cmp(&rank(other.1)))
        });

        let mut data = Writer::default();
        let mut places = Vec::with_capacity(self.images.len());
        for ((catalog, listed), names) in &self.images {
            places.push((listed.image.fingerprint, data.0.len()));
            record::write(&mut data, listed, names, *catalog);
        }
        let mut tables = Writer::default();
        for (_, place) in &places {
            tables.word(*place);
        }
        places.sort_unstable();
        for (fingerprint, place) in &places {
            tables.fingerprint(fingerprint);
            tables.word(*place);
        }
        for (name, (kind, architecture), target) in &aliases {
            tables.word(data.0.len());
            data.byte(record::kind_code(*kind));
            data.byte(record::architecture_code(*architecture));
            data.fingerprint(target);
            data.text(name);
        }
        Listing::assemble(header, [self.images.len(), aliases.len()], &tables.0, &data.0)
    }
}
