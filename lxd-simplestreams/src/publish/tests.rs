//! What is published reads back as the images that were published.

use lxd_proto::alias::AliasEntry;
use lxd_proto::remote::Want;

use super::*;
use crate::convert;
use crate::document::{Catalog, Index};
use crate::listing::{Listing, Matching, Rules, build};

fn digest(number: u8, part: u8) -> Fingerprint {
    let mut bytes = [part; 32];
    bytes[0] = number;
    Fingerprint::from_bytes(bytes)
}

fn file(number: u8, part: u8, name: &str) -> PublishedFile {
    let sha256 = digest(number, part);
    PublishedFile { path: format!("images/{sha256}/{name}"), size: 1000 + u64::from(part), sha256 }
}

/// An image of Debian 12 whose files and fingerprint follow from `number`, made on that day.
fn image(number: u8, day: &str, aliases: &[&str]) -> PublishedImage {
    let properties = [("os", "Debian"), ("release", "bookworm"), ("version", "12")];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
    PublishedImage {
        fingerprint: digest(number, 0),
        kind: InstanceType::Container,
        architecture: Architecture::X86_64,
        properties: properties.into_iter().collect(),
        aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        created_at: format!("{day}T10:11:12Z").parse().unwrap(),
        expires_at: lxd_proto::time::epoch(),
        metadata: file(number, 1, "lxd.tar.xz"),
        root: Some((RootKind::Squashfs, file(number, 2, "rootfs.squashfs"))),
        deltas: Vec::new(),
        lineage: None,
        place: None,
    }
}

fn with(mut image: PublishedImage, key: &str, value: &str) -> PublishedImage {
    image.properties.insert(key.to_owned(), value.to_owned());
    image
}

fn machine(mut image: PublishedImage, number: u8) -> PublishedImage {
    image.kind = InstanceType::VirtualMachine;
    image.root = Some((RootKind::DiskKvm, file(number, 3, "disk.qcow2")));
    image
}

fn unified(mut image: PublishedImage) -> PublishedImage {
    image.fingerprint = image.metadata.sha256;
    image.root = None;
    image
}

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

/// Product, its names, its serials from the newest on.
fn shape(images: Vec<PublishedImage>) -> Vec<(String, String, Vec<String>)> {
    let products = Products::group(images);
    let shape = products.products().map(|(name, product)| {
        let serials = product.versions().map(|(serial, _)| serial.to_owned()).collect();
        (name.to_owned(), product.aliases().join(","), serials)
    });
    shape.collect()
}

fn read(images: Vec<PublishedImage>) -> Listing {
    let catalog = Products::group(images).catalog(now());
    let catalog = Catalog::parse(&catalog).unwrap();
    let found = convert::images(&catalog).into_iter().map(|listed| (0, listed)).collect();
    let rules = Rules { native: Some(Architecture::X86_64), cut_ubuntu: false };
    build(b"", found, rules).unwrap()
}

#[test]
fn older_images_are_versions_of_the_one_with_names() {
    let images = vec![
        image(1, "2026-01-01", &[]),
        image(2, "2026-02-01", &["web", "debian/12"]),
        image(3, "2026-01-01", &[]),
        image(4, "2026-03-01", &[]),
    ];
    let expected = [
        (
            "debian:bookworm:amd64:default",
            "debian/12,web",
            &["20260201_1011", "20260101_1011+00001", "20260101_1011"][..],
        ),
        // Newer than what has the names: they would lead to it.
        ("debian:bookworm:amd64:default:-", "", &["20260301_1011"]),
    ];
    for turn in 0..images.len() {
        let mut turned = images.clone();
        turned.rotate_left(turn);
        let shape = shape(turned);
        let shape: Vec<_> = shape
            .iter()
            .map(|(name, aliases, serials)| {
                let serials: Vec<&str> = serials.iter().map(String::as_str).collect();
                (name.as_str(), aliases.as_str(), serials)
            })
            .collect();
        let expected: Vec<_> = expected.iter().map(|(n, a, s)| (*n, *a, s.to_vec())).collect();
        assert_eq!(shape, expected, "turned by {turn}");
    }
}

#[test]
fn the_newest_version_sorts_last_whatever_serials_look_like() {
    for newest in ["20260101-2", "20260101.0", "20260101.00000", "20260101_0000", "202601010"] {
        let serial = |image, serial| with(image, "serial", serial);
        let images = vec![
            serial(image(1, "2026-01-01", &[]), "20260101"),
            serial(image(2, "2026-01-01", &[]), "20260101"),
            serial(image(3, "2026-01-01", &["srl"]), newest),
        ];
        let shape = shape(images);
        assert_eq!(shape[0].1, "srl", "{shape:?}");
        assert_eq!(shape[0].2, [newest, "20260101+00001", "20260101"]);
    }
}

#[test]
fn a_thousand_builds_of_one_minute_keep_their_order() {
    let images: Vec<_> = (0..1100u16)
        .map(|number| {
            let mut one = image(0, "2026-01-01", &[]);
            let mut bytes = [7; 32];
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            one.fingerprint = Fingerprint::from_bytes(bytes);
            one
        })
        .collect();
    let products = Products::group(images.clone());
    let (_, product) = products.products().next().unwrap();
    let newest_first: Vec<_> =
        product.versions().flat_map(|(_, images)| images.iter().map(|it| it.fingerprint)).collect();
    let expected: Vec<_> = images.iter().rev().map(|image| image.fingerprint).collect();
    assert_eq!(newest_first, expected);
}

#[test]
fn an_alias_leads_to_the_image_that_has_it() {
    let old = PublishedImage { lineage: Some("l".into()), ..image(5, "2026-01-05", &[]) };
    let new = PublishedImage { lineage: Some("l".into()), ..image(6, "2026-01-06", &["b"]) };
    let images = vec![
        image(1, "2026-01-01", &["a", "z"]),
        image(2, "2026-02-01", &["c", "has,comma"]),
        machine(image(3, "2026-01-01", &["vm"]), 3),
        machine(image(4, "2026-01-01", &[]), 4),
        old,
        new,
        unified(image(7, "2026-01-07", &["whole"])),
        with(image(8, "2026-01-08", &["cloud"]), "variant", "cloud"),
    ];
    let listing = read(images.clone());
    assert_eq!(listing.len(), images.len());
    for image in &images {
        for name in image.aliases.iter().filter(|name| !name.contains(',')) {
            let want = Want { kind: Some(image.kind), ..Want::default() };
            for name in [name.clone(), format!("{name}/amd64")] {
                let AliasEntry { target, .. } = listing.alias(&name, &want).unwrap().unwrap();
                assert_eq!(target, image.fingerprint, "{name}");
            }
        }
    }
    let want = Want::default();
    assert!(listing.alias("comma", &want).unwrap().is_none());
    let name = "debian:bookworm:amd64:default:b";
    let shape = shape(images);
    let versions = shape.iter().find(|product| product.0 == name).unwrap();
    assert_eq!(versions.2, ["20260106_1011", "20260105_1011"]);
}

#[test]
fn what_is_told_about_an_image_is_read_back() {
    let mut full = image(1, "2026-01-01", &["x"]);
    for (key, value) in [
        ("variant", "cloud"),
        ("label", "release"),
        ("serial", "20251231.7"),
        ("requirements.nesting", "true"),
    ] {
        full = with(full, key, value);
    }
    full.expires_at = "2028-06-30T13:00:00Z".parse().unwrap();
    let listing = read(vec![full.clone()]);
    let Matching::One(read) = listing.matching(&full.fingerprint.into()).unwrap() else {
        panic!("it is not there")
    };
    assert_eq!(read.properties["serial"], "20251231.7");
    assert_eq!(read.properties["requirements.nesting"], "true");
    assert_eq!(read.properties["label"], "release");
    assert_eq!(read.properties["os"], "Debian");
    assert_eq!(read.properties["version"], "12");
    assert_eq!(read.properties["description"], "Debian bookworm amd64 (release) (20251231.7)");
    assert_eq!(read.expires_at.to_string(), "2028-06-30T00:00:00Z");
    assert_eq!(read.size, full.metadata.size + full.root.as_ref().unwrap().1.size);
    let files = listing.files(&full.fingerprint).unwrap().unwrap();
    assert_eq!(files.metadata.path.as_str(), full.metadata.path);
    assert_eq!(files.root.unwrap().sha256, Some(digest(1, 2)));
}

#[test]
fn an_image_that_says_nothing_goes_by_its_name() {
    let mut bare = image(1, "2026-01-01", &["mine"]);
    bare.properties.clear();
    let mut nameless = bare.clone();
    nameless.fingerprint = digest(9, 0);
    nameless.aliases.clear();
    let odd = with(with(bare.clone(), "serial", "latest"), "os", "My: OS");
    assert_eq!(shape(vec![bare, nameless])[0].0, "image:mine:amd64:default");
    let expected = ("my--os:mine:amd64:default".to_owned(), "20260101_1011".to_owned());
    let shape = shape(vec![odd]);
    assert_eq!((shape[0].0.clone(), shape[0].2[0].clone()), expected);
}

#[test]
fn what_clients_would_misread_is_left_out() {
    let mut whole = unified(image(1, "2026-01-01", &["vm"]));
    whole.kind = InstanceType::VirtualMachine;
    let mut odd = image(2, "2026-01-01", &["odd"]);
    odd.kind = InstanceType::VirtualMachine;
    assert!(Products::group(vec![whole, odd]).is_empty());
}

#[test]
fn a_version_of_a_tree_holds_a_container_and_a_machine() {
    let place = || Some(Place { product: "p".into(), serial: "20260101".into() });
    let container = PublishedImage { place: place(), ..image(1, "2026-01-01", &["x"]) };
    let mut disk = machine(PublishedImage { place: place(), ..image(2, "2026-01-01", &["x"]) }, 2);
    disk.metadata = container.metadata.clone();
    let foreign = PublishedImage { place: place(), ..image(3, "2026-01-01", &[]) };
    let images = vec![container, disk, foreign];
    let shape = shape(images.clone());
    assert_eq!(shape, [("p".into(), "x".into(), vec!["20260101+00001".into(), "20260101".into()])]);
    assert_eq!(read(images).len(), 3);
}

#[test]
fn a_delta_names_the_version_it_starts_from() {
    let mut new = image(2, "2026-02-01", &["x"]);
    for base in [digest(1, 0), digest(77, 0)] {
        let file = file(2, 9, "delta");
        new.deltas.push(PublishedDelta { base, file });
    }
    let listing = read(vec![image(1, "2026-01-01", &[]), new.clone()]);
    let files = listing.files(&new.fingerprint).unwrap().unwrap();
    let bases: Vec<_> = files.deltas.iter().map(|delta| delta.base).collect();
    assert_eq!(bases, [digest(1, 0)]);
}

#[test]
fn lxd_and_incus_find_the_same_files() {
    let images = vec![image(1, "2026-01-01", &["x"]), unified(image(2, "2026-01-01", &["y"]))];
    let catalog = Products::group(images).catalog(now());
    let catalog = Catalog::parse(&catalog).unwrap();
    let mut pairs = 0;
    for version in catalog.products.values().flat_map(|product| product.versions.values()) {
        for (lxd, incus) in
            [("lxd.tar.xz", "incus.tar.xz"), ("lxd_combined.tar.gz", "incus_combined.tar.gz")]
        {
            let (Some(lxd), Some(incus)) = (version.items.get(lxd), version.items.get(incus))
            else {
                continue;
            };
            pairs += 1;
            assert_eq!(
                (&lxd.path, &lxd.sha256, lxd.size),
                (&incus.path, &incus.sha256, incus.size)
            );
            assert_eq!(lxd.combined_squashfs_sha256, incus.combined_squashfs_sha256);
        }
    }
    assert_eq!(pairs, 2);
}

#[test]
fn an_index_names_its_catalogs() {
    let products = Products::group(vec![image(1, "2026-01-01", &["x"])]);
    for (signed, path) in [(Signed::No, CATALOG), (Signed::Yes, SIGNED_CATALOG)] {
        let index = Index::parse(&products.index(now(), signed)).unwrap();
        assert_eq!(index.catalogs(), [path]);
        assert_eq!(index.updated, "Tue, 24 Nov 2026 12:00:00 +0000");
        assert_eq!(index.index[CONTENT_ID].products, ["debian:bookworm:amd64:default"]);
    }
    let empty = Index::parse(&Products::default().index(now(), Signed::No)).unwrap();
    assert!(empty.catalogs().is_empty());
}

#[test]
fn serials_begin_with_a_real_date() {
    for (text, is) in [
        ("20260101", true),
        ("20260101_10:11", true),
        ("20260101.12", true),
        ("20261399", false),
        ("latest", false),
        ("2026-01-01", false),
        ("20260101 1", false),
        ("20260101/..", false),
        (&format!("20260101{}", "0".repeat(60)), false),
    ] {
        assert_eq!(is_serial(text), is, "{text}");
    }
    assert_eq!(from_time(lxd_proto::time::zero()), "19700101_0000");
}

#[test]
fn a_catalog_in_pieces_is_the_catalog() {
    let images = vec![
        image(1, "2026-01-01", &[]),
        image(2, "2026-02-01", &["web", "debian/12"]),
        with(image(3, "2026-01-01", &["cloud"]), "variant", "cloud"),
        with(image(4, "2026-01-01", &["a\"b"]), "os", "qu\"ote"),
        machine(image(5, "2026-01-01", &["vm"]), 5),
    ];
    let whole = Products::group(images.clone());
    for images in [images, Vec::new()] {
        let whole = if images.is_empty() { &Products::default() } else { &whole };
        let mut systems: BTreeMap<String, Vec<PublishedImage>> = BTreeMap::new();
        for image in images {
            systems.entry(image.system()).or_default().push(image);
        }
        let mut pieces = Vec::new();
        for images in systems.into_values() {
            let products = Products::group(images);
            let piece =
                |(name, product): (&str, &PublishedProduct)| (name.to_owned(), product.to_json());
            pieces.extend(products.products().map(piece));
        }
        let pieces = pieces.iter().map(|(name, piece)| (name.as_str(), piece.as_slice()));
        let pieces: Vec<_> = pieces.collect();
        let assembled = assemble(pieces.iter().copied(), now());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(text(&assembled.catalog), text(&whole.catalog(now())));
        for ((_, piece), place) in pieces.iter().zip(assembled.places) {
            assert_eq!(text(&assembled.catalog[place]), text(piece));
        }
        let index = index_of(assembled.names, now(), Signed::No);
        assert_eq!(text(&index), text(&whole.index(now(), Signed::No)));
    }
    let twice = assemble([("p", &b"{}"[..]), ("p", b"{}")], now());
    assert_eq!(twice.names, ["p", "p-"]);
}

#[test]
fn whatever_images_say_can_be_signed() {
    let (signer, keyring) = crate::signed::tests::ed25519();
    let odd = with(image(1, "2026-01-01", &[]), "label", "a\u{7f}\u{1}b ");
    let mut odd = with(odd, "requirements.x", &"y".repeat(25_000));
    odd = with(odd, "requirements.y", "z");
    odd.aliases = (0..2000).map(|number| format!("name/{number}/with-{number}")).collect();
    let mut large = with(image(2, "2026-01-02", &["large"]), "os", &"\"\u{1}".repeat(10_000));
    for key in ["release", "variant", "version", "release_title"] {
        large = with(large, key, &"\\ ".repeat(20_000));
    }
    let products = Products::group(vec![odd, large]);
    for (name, product) in products.products() {
        assert!(name.len() <= 1024, "{}", name.len());
        assert!(!product.to_json().is_empty());
    }
    let catalog = products.catalog(now());
    for document in [catalog.clone(), products.index(now(), Signed::Yes)] {
        let signed = signer.sign_json(&document).unwrap();
        assert!(keyring.verify(&signed).is_ok());
    }
    let catalog = Catalog::parse(&catalog).unwrap();
    let product = &catalog.products["debian:bookworm:amd64:default"];
    assert_eq!(product.versions.values().next().unwrap().label, "a\u{7f}\u{1}b ");
    let requirements = product.requirements.as_ref().unwrap();
    assert_eq!(requirements.keys().collect::<Vec<_>>(), ["y"]);
    assert!(product.aliases.starts_with("name/0/with-0,name/1/with-1,"), "{}", product.aliases);
}
