//! Items that become images, and items that do not.

use super::*;

use crate::document::Index;
use crate::listing::{self, Rules};

const META: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const BOTH: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const ROOT: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

/// One container image.
fn plain() -> String {
    format!(
        r#"{{"content_id":"images","datatype":"image-downloads","format":"products:1.0","products":{{"p":{{"aliases":"one,two","arch":"amd64","os":"Os","release":"1","release_title":"One","variant":"default","requirements":{{"a":"b"}},"versions":{{"20260101_0000":{{"items":{{"m":{{"ftype":"lxd.tar.xz","path":"d/lxd.tar.xz","size":10,"sha256":"{META}","combined_squashfs_sha256":"{BOTH}"}},"r":{{"ftype":"squashfs","path":"d/rootfs.squashfs","size":20,"sha256":"{ROOT}"}}}}}}}}}}}}}}"#
    )
}

/// What a catalog comes to: sizes of its images and their names, or nothing when it is broken.
fn outcome(catalog: &str) -> Option<(Vec<u64>, Vec<String>)> {
    let catalog = Catalog::parse(catalog.as_bytes()).ok()?;
    let found = images(&catalog).into_iter().map(|listed| (0, listed)).collect();
    let rules = Rules { native: Some(Architecture::X86_64), cut_ubuntu: false };
    let listing = listing::build(b"", found, rules).unwrap();
    let sizes = listing.images().map(|image| image.unwrap().size).collect();
    let names = listing.aliases().unwrap().into_iter().map(|alias| alias.name).collect();
    Some((sizes, names))
}

/// What the real `lxc` 5.0.2 makes of the same catalogs, but for those marked as ours.
#[test]
fn single_defects_do_what_they_do_to_lxc() {
    const ALL: &[&str] = &["one", "one/amd64", "two", "two/amd64"];
    let image = |size: u64| Some((vec![size], ALL));
    let nothing = Some((vec![], &[][..]));
    for (from, to, expected) in [
        ("", "", image(30)),
        (r#""arch":"amd64""#, r#""ARCH":"amd64""#, image(30)),
        (r#""arch":"amd64""#, r#""arch":"amd64","ARCH":"vax""#, nothing.clone()),
        (r#""arch":"amd64""#, r#""arch":"amd64","arch":null"#, image(30)),
        (r#""arch":"amd64""#, r#""arch":"""#, nothing.clone()),
        (r#""one,two""#, "null", Some((vec![30], &[][..]))),
        (r#""products":{"#, r#""products":{"q":null,"#, image(30)),
        (r#""products":{"#, r#""products":{"q":{}},"products":{"#, image(30)),
        (r#""one,two""#, r#"["one"]"#, None),
        (r#""one,two""#, "7", None),
        (r#""size":10"#, r#""size":"10""#, None),
        (r#""size":10"#, r#""size":10.0"#, None),
        (r#""size":10"#, r#""size":null"#, image(20)),
        (r#""size":10,"#, "", image(20)),
        // Ours: a negative size is none.
        (r#""size":10"#, r#""size":-10"#, image(20)),
        (r#""variant""#, r#""supported":"yes","variant""#, None),
        (r#""variant""#, r#""unknown":[1,1e400,"\ud800"],"variant""#, image(30)),
        // Ours: hashes that no bytes have make no image.
        (BOTH, &BOTH.to_uppercase(), nothing.clone()),
        (BOTH, &BOTH[1..], nothing.clone()),
        (BOTH, "../../../../etc/evil", nothing.clone()),
        (BOTH, "", nothing.clone()),
        // A file's own hash is looked at when the file is fetched.
        (ROOT, "", image(30)),
        // Ours: no way out of the tree.
        ("d/rootfs", "../rootfs", nothing.clone()),
        ("d/rootfs", "/d/rootfs", image(30)),
        ("d/rootfs", "https://other/rootfs", image(30)),
        ("d/lxd.tar.xz", "", nothing.clone()),
        ("20260101_0000", "20260101", image(30)),
        ("20260101_0000", "2026", nothing.clone()),
        ("20260101_0000", "20261399", nothing.clone()),
        ("20260101_0000", "20260229", nothing.clone()),
        ("20260101_0000", "2026-01-01", nothing.clone()),
        ("20260101_0000", "latest", nothing.clone()),
        ("20260101_0000", "2026010é", nothing.clone()),
        ("20260101_0000", "+2260101", nothing.clone()),
        (r#""squashfs""#, r#""root.squashfs""#, nothing.clone()),
        (r#""lxd.tar.xz""#, r#""LXD.tar.xz""#, nothing.clone()),
        // Ours, as in LXD 6: the first word counts.
        (
            r#""amd64""#,
            r#""amd64 amd64""#,
            Some((vec![30], &["one", "one/amd64 amd64", "two", "two/amd64 amd64"])),
        ),
        // Ours: what was made for Incus works here too.
        (r#""lxd.tar.xz""#, r#""incus.tar.xz""#, image(30)),
        // Ours: an empty name is none.
        ("one,two", ",one,,two", image(30)),
        ("one,two", "two, one", Some((vec![30], &[" one", " one/amd64", "two", "two/amd64"]))),
    ] {
        let catalog = plain().replacen(from, to, 1);
        let expected = expected.map(|(sizes, names)| {
            (sizes, names.iter().map(ToString::to_string).collect::<Vec<_>>())
        });
        assert_eq!(outcome(&catalog), expected, "{from} -> {to}");
    }
}

fn only(catalog: &str) -> Listed {
    let mut found = images(&Catalog::parse(catalog.as_bytes()).unwrap());
    assert_eq!(found.len(), 1, "{catalog}");
    found.remove(0)
}

#[test]
fn requirements_are_lxds_where_there_are_any() {
    let requirements = |text: &str| {
        let listed = only(&plain().replacen(r#""requirements":{"a":"b"}"#, text, 1));
        let properties = listed.image.properties.into_iter();
        properties.filter(|(key, _)| key.starts_with("requirements.")).collect::<Vec<_>>()
    };
    let pair = |key: &str, value: &str| vec![(format!("requirements.{key}"), value.to_owned())];
    assert_eq!(requirements(r#""requirements":{"a":"b"}"#), pair("a", "b"));
    let both = r#""requirements":{"a":"b"},"lxd_requirements":{"c":"d","e":""}"#;
    assert_eq!(requirements(both), pair("c", "d"));
    assert_eq!(requirements(r#""requirements":{"a":"b"},"lxd_requirements":{}"#), []);
    assert_eq!(requirements(r#""requirements":{"a":"b"},"lxd_requirements":null"#), pair("a", "b"));
}

#[test]
fn expiry_is_the_end_of_support_when_that_is_a_day() {
    for (text, shown) in [
        ("2029-05-31", "2029-05-31T00:00:00Z"),
        ("", "1970-01-01T00:00:00Z"),
        ("2029-02-30", "1970-01-01T00:00:00Z"),
        ("31.5.2029", "1970-01-01T00:00:00Z"),
        ("2029-05-31 ", "1970-01-01T00:00:00Z"),
        ("2029-5-31", "1970-01-01T00:00:00Z"),
    ] {
        assert_eq!(expiry(text).to_string(), shown, "{text:?}");
    }
}

#[test]
fn deltas_lead_from_versions_that_are_there() {
    let catalog = include_bytes!("../../tests/golden/streams/v1/images.json");
    let catalog = Catalog::parse(catalog).unwrap();
    let found = images(&catalog);
    let of = |serial: &str, ftype: &str| {
        found
            .iter()
            .find(|listed| {
                let properties = &listed.image.properties;
                properties["os"] == "Debian"
                    && properties["serial"] == serial
                    && properties["type"] == ftype
            })
            .unwrap()
    };
    for ftype in ["squashfs", "disk-kvm.img"] {
        assert!(of("20260301_0524", ftype).files.deltas.is_empty());
        let newer = of("20260302_0524", ftype);
        let [delta] = &newer.files.deltas[..] else { panic!("{:?}", newer.files.deltas) };
        assert_eq!(delta.base, of("20260301_0524", ftype).image.fingerprint);
    }
    assert!(of("20260302_0524", "uefi1.img").files.deltas.is_empty());
}

#[test]
fn texts_that_every_image_would_repeat_are_bounded() {
    let long = "x".repeat(MAX_TEXT + 1);
    assert!(
        images(&Catalog::parse(plain().replacen("Os", &long, 1).as_bytes()).unwrap()).is_empty()
    );
    let names = "x,".repeat(MAX_NAMES);
    let catalog = plain().replacen("one,two", &names, 1);
    assert!(images(&Catalog::parse(catalog.as_bytes()).unwrap()).is_empty());
}

/// Any change of some bytes: a verdict, never a panic, and only images that can be.
#[test]
fn mutated_documents_are_read_or_refused() {
    let golden = include_bytes!("../../tests/golden/streams/v1/images.json");
    let small = plain().into_bytes();
    let index = include_bytes!("../../tests/golden/streams/v1/index.json");
    let mut random = Random(42);
    for round in 0..4000 {
        let seed = if round % 40 == 0 { &golden[..] } else { &small[..] };
        let document = random.mutate(seed);
        if let Ok(catalog) = Catalog::parse(&document) {
            let found: Vec<_> = images(&catalog).into_iter().map(|listed| (0, listed)).collect();
            for (_, listed) in &found {
                let files = &listed.files;
                for file in [Some(&files.metadata), files.root.as_ref()].into_iter().flatten() {
                    assert!(
                        !file.path.as_str().split('/').any(|name| matches!(name, "" | ".." | "."))
                    );
                }
            }
            let count = found.len();
            let rules = Rules { native: Some(Architecture::X86_64), cut_ubuntu: round % 2 == 0 };
            let listing = listing::build(b"h", found, rules).unwrap();
            assert!(listing.len() <= count);
            listing.aliases().unwrap();
            for image in listing.images() {
                assert!(listing.files(&image.unwrap().fingerprint).unwrap().is_some());
            }
        }
        if let Ok(index) = Index::parse(&random.mutate(index)) {
            for path in index.catalogs() {
                let _ = TreePath::parse(path);
            }
        }
    }
}

/// A small generator of numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }

    /// The document with some bytes, tokens or pieces changed.
    fn mutate(&mut self, document: &[u8]) -> Vec<u8> {
        const TOKENS: [&[u8]; 12] = [
            b"null",
            b"{",
            b"}",
            b"[]",
            b"\"\"",
            b",",
            b"-1",
            b"9999999999999999999",
            b"\"..\"",
            b"\\u0000",
            b"\xff",
            b"lxd_combined.tar.gz",
        ];
        let mut bytes = document.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                1 => {
                    let token = TOKENS[self.below(TOKENS.len())];
                    bytes.splice(at..at, token.iter().copied());
                }
                2 => {
                    let end = (at + self.below(40)).min(bytes.len());
                    bytes.drain(at..end);
                }
                3 => {
                    let end = (at + self.below(200)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                _ => bytes.truncate(bytes.len() - self.below(bytes.len()).min(8)),
            }
            if bytes.is_empty() {
                bytes.push(b'{');
            }
        }
        bytes
    }
}
