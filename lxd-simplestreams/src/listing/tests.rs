//! Order, aliases and look-ups, and blocks of bytes that are none.

use std::collections::BTreeMap;

use lxd_proto::alias::ImageAlias;

use super::*;
use crate::convert;
use crate::document::{Catalog, Index};

const TREE: [(&str, &[u8]); 2] = [
    ("streams/v1/images.json", include_bytes!("../../tests/golden/streams/v1/images.json")),
    (
        "streams/v1/com.ubuntu.cloud:released:download.json",
        include_bytes!("../../tests/golden/streams/v1/com.ubuntu.cloud:released:download.json"),
    ),
];

fn rules() -> Rules {
    Rules { native: Some(Architecture::X86_64), cut_ubuntu: false }
}

fn golden_tree() -> Vec<(u16, Listed)> {
    let index = Index::parse(include_bytes!("../../tests/golden/streams/v1/index.json")).unwrap();
    let mut found = Vec::new();
    for (number, path) in (0..).zip(index.catalogs()) {
        let path = crate::path::TreePath::parse(path).unwrap();
        let (_, document) = TREE.iter().find(|(name, _)| *name == path.as_str()).unwrap();
        let catalog = Catalog::parse(document).unwrap();
        found.extend(convert::images(&catalog).into_iter().map(|listed| (number, listed)));
    }
    found
}

fn golden_listing() -> Listing {
    build(b"header", golden_tree(), rules()).unwrap()
}

/// The answers that `lxc image list` and `lxc image alias list` of LXD 5.0.2 give for the tree
/// in `tests/golden` on an `x86_64` machine.
#[test]
fn images_are_those_of_lxc() {
    let golden = include_str!("../../tests/golden/lxd-5.0.2-images.json");
    let golden: Vec<Image> = serde_json::from_str(golden).unwrap();
    let mut ours: Vec<Image> = golden_listing().images().map(Result::unwrap).collect();
    ours.sort_by_key(|image| image.fingerprint);
    assert_eq!(ours.len(), golden.len());
    for (ours, golden) in ours.iter().zip(&golden) {
        assert_eq!(ours, golden);
    }
}

#[test]
fn aliases_are_those_of_lxc() {
    let golden = include_str!("../../tests/golden/lxd-5.0.2-aliases.json");
    let mut golden: Vec<AliasEntry> = serde_json::from_str(golden).unwrap();
    golden.sort_by(|one, other| (&one.name, one.kind as u8).cmp(&(&other.name, other.kind as u8)));
    assert_eq!(golden_listing().aliases().unwrap(), golden);
}

/// The order of the input is that of Go's maps: any. The listing is always the same.
#[test]
fn the_order_in_which_images_are_found_does_not_matter() {
    let listing = golden_listing();
    let mut found = golden_tree();
    for turn in 0..20 {
        found.rotate_left(7);
        if turn % 3 == 0 {
            found.reverse();
        }
        let again = build(b"header", found.clone(), rules()).unwrap();
        let images = |of: &Listing| of.images().map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(images(&again), images(&listing));
        assert_eq!(again.aliases().unwrap(), listing.aliases().unwrap());
    }
}

#[test]
fn a_missing_property_sorts_last_and_ties_go_by_fingerprint() {
    let found = golden_tree();
    for (_, one) in &found {
        for (_, two) in &found {
            let forth = convert::compare(&one.image, &two.image);
            assert_eq!(forth, convert::compare(&two.image, &one.image).reverse());
            assert_eq!(forth.is_eq(), one.image.fingerprint == two.image.fingerprint);
        }
    }
    let with = &found.iter().find(|one| one.1.image.properties.contains_key("variant")).unwrap().1;
    let mut without = with.image.clone();
    without.properties.remove("variant");
    assert!(convert::compare(&with.image, &without).is_lt());
    let mut other = with.image.clone();
    other.fingerprint = Fingerprint::from_bytes([255; 32]);
    assert!(convert::compare(&with.image, &other).is_lt());
}

#[test]
fn an_alias_leads_to_what_is_wanted() {
    let listing = golden_listing();
    let find = |name: &str, kind: Option<InstanceType>, architecture: Option<Architecture>| {
        let want = Want { kind, architecture, fresh: false };
        let entry = listing.alias(name, &want).unwrap()?;
        let Matching::One(image) = listing.matching(&entry.target.into()).unwrap() else {
            panic!("{name} leads to nothing")
        };
        assert_eq!(entry.kind, image.kind);
        Some((image.architecture.as_str(), image.kind.as_str()))
    };
    use Architecture as A;
    use InstanceType::{Container, VirtualMachine};
    let container = |architecture| Some((architecture, "container"));
    assert_eq!(find("debian", None, None), container("x86_64"));
    assert_eq!(find("debian", Some(VirtualMachine), None), Some(("x86_64", "virtual-machine")));
    assert_eq!(find("debian/trixie/odd", None, None), Some(("x86_64", "virtual-machine")));
    assert_eq!(find("debian/trixie/odd", Some(Container), None), None);
    assert_eq!(find("alpine", None, Some(A::Aarch64)), container("aarch64"));
    assert_eq!(find("alpine", None, Some(A::I686)), container("i686"));
    // Nothing suits: better a foreign one than none, as in LXD.
    assert!(find("alpine", None, Some(A::S390x)).is_some());
    assert_eq!(find("alpine/arm64", None, Some(A::X86_64)), container("aarch64"));
    assert_eq!(find("thirtytwo", None, Some(A::Aarch64)), container("i686"));
    assert_eq!(find("alpine/arm64", None, None), container("aarch64"));
    assert_eq!(find("alpine/x86_64", None, None), None);
    // Not for this machine, but there is no other.
    assert_eq!(find("thirtytwo", None, None), container("i686"));
    for name in ["", "alpin", "alpine/", "ALPINE", "zzz", "vax"] {
        assert_eq!(find(name, None, None), None, "{name}");
    }
}

#[test]
fn what_the_machine_runs_comes_before_what_it_does_not() {
    let only_foreign: Vec<_> = golden_tree()
        .into_iter()
        .filter(|(_, listed)| listed.image.architecture != Architecture::X86_64)
        .collect();
    let listing = build(b"", only_foreign, rules()).unwrap();
    let entry = listing.alias("alpine", &Want::default()).unwrap().unwrap();
    let Matching::One(image) = listing.matching(&entry.target.into()).unwrap() else { panic!() };
    assert_eq!(image.architecture, Architecture::I686);
}

#[test]
fn prefixes_find_one_several_or_none() {
    let listing = golden_listing();
    let all: Vec<Image> = listing.images().map(Result::unwrap).collect();
    for image in &all {
        let full = Prefix::from(image.fingerprint);
        assert_eq!(listing.matching(&full).unwrap(), Matching::One(Box::new(image.clone())));
        let short: Prefix = image.fingerprint.short().parse().unwrap();
        assert_eq!(listing.matching(&short).unwrap(), Matching::One(Box::new(image.clone())));
    }
    for digit in "0123456789abcdef".chars() {
        let prefix: Prefix = digit.to_string().parse().unwrap();
        let expected = all.iter().filter(|image| prefix.matches(&image.fingerprint)).count();
        match listing.matching(&prefix).unwrap() {
            Matching::None => assert_eq!(expected, 0),
            Matching::One(_) => assert_eq!(expected, 1),
            Matching::Several(found) => {
                assert_eq!(found.len(), expected);
                assert!(found.iter().all(|fingerprint| prefix.matches(fingerprint)));
            }
        }
    }
    assert_eq!(listing.files(&Fingerprint::from_bytes([0; 32])).unwrap(), None);
}

#[test]
fn ubuntus_own_server_has_its_prefix_cut() {
    for (address, name) in [
        ("https://cloud-images.ubuntu.com/releases", "22.04"),
        ("https://mirror.example/releases", "ubuntu/22.04"),
    ] {
        let mut found = golden_tree();
        found.truncate(1);
        found[0].1.names = "ubuntu/22.04".into();
        let rules = Rules { native: Some(Architecture::X86_64), ..Rules::for_address(address) };
        let listing = build(b"", found, rules).unwrap();
        assert!(listing.alias(name, &Want::default()).unwrap().is_some(), "{address}");
    }
}

#[test]
fn products_that_share_an_image_share_its_record() {
    let mut found = golden_tree();
    found.truncate(1);
    found[0].1.names = "first".into();
    let mut again = found[0].clone();
    again.1.names = "second".into();
    again.1.image.properties.insert("os".to_owned(), "zzz".to_owned());
    found.push(again);
    let listing = build(b"", found, rules()).unwrap();
    let images: Vec<Image> = listing.images().map(Result::unwrap).collect();
    let [image] = &images[..] else { panic!("{images:?}") };
    let names: Vec<_> = image.aliases.iter().map(|ImageAlias { name, .. }| name.as_str()).collect();
    let raw = &image.properties["architecture"];
    let native = image.architecture == Architecture::X86_64;
    assert!(names.contains(&format!("second/{raw}").as_str()), "{names:?}");
    assert_eq!(names.contains(&"first"), native);
    for name in ["first", "second"] {
        let entry = listing.alias(name, &Want::default()).unwrap().unwrap();
        assert_eq!(entry.target, image.fingerprint);
    }
}

#[test]
fn listings_keep_everything() {
    let listing = golden_listing();
    let stored = Listing::from_bytes(listing.as_bytes().to_vec()).unwrap();
    assert_eq!(stored.header(), b"header");
    let renamed = stored.with_header(b"another, longer header").unwrap();
    assert_eq!(renamed.header(), b"another, longer header");
    let by_fingerprint = |found: Vec<(u16, Listed)>| {
        let pairs = found.into_iter().map(|one| (one.1.image.fingerprint, one));
        pairs.collect::<BTreeMap<_, _>>()
    };
    let kept = renamed.listed().map(Result::unwrap).collect();
    assert_eq!(by_fingerprint(kept), by_fingerprint(golden_tree()));
    let again = build(b"header", renamed.listed().map(Result::unwrap).collect(), rules()).unwrap();
    assert_eq!(again.aliases().unwrap(), listing.aliases().unwrap());
}

/// A listing from a stranger: anything but a panic, an endless loop or a huge allocation.
#[test]
fn damaged_listings_are_refused_or_read_without_harm() {
    let good = golden_listing().as_bytes().to_vec();
    assert!(Listing::from_bytes(Vec::new()).is_err());
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    assert!(Listing::from_bytes(flipped).is_err(), "the checksum tells");

    let mut state = 7_u64;
    let mut random = |limit: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % limit as u64).unwrap()
    };
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len() - 12) + 12;
            match random(3) {
                0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                1 => bytes[at..].fill(255),
                _ => bytes.truncate(at.max(SUMMED_FROM + 1)),
            }
            if bytes.len() < 30 {
                break;
            }
        }
        let sum = crc32fast::hash(&bytes[SUMMED_FROM..]);
        bytes[MAGIC.len()..SUMMED_FROM].copy_from_slice(&sum.to_le_bytes());
        let Ok(listing) = Listing::from_bytes(bytes) else { continue };
        let _ = listing.aliases();
        let _ = listing.alias("alpine", &Want::default());
        let fingerprints: Vec<_> =
            listing.images().flatten().map(|image| image.fingerprint).collect();
        for fingerprint in fingerprints.into_iter().take(3) {
            let _ = listing.files(&fingerprint);
            let _ = listing.matching(&fingerprint.into());
        }
        let _ = listing.listed().count();
    }
}
