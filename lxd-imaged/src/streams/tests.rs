//! Large catalogs, and who waits for whom.

use std::time::{Duration, Instant};

use lxd_proto::alias::AliasEntry;
use lxd_proto::arch::Architecture;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{Image, InstanceType, Properties, Verified};
use lxd_proto::time;
use sha2::{Digest, Sha256};

use super::*;
use crate::db::{BlobRow, Change, NewImage, Observer, Settings, Snapshot};

const VERSIONS: usize = 3;

fn digest(number: usize, part: u8) -> Fingerprint {
    Fingerprint::from_bytes(Sha256::digest(format!("{number} {part}")).into())
}

fn image(number: usize) -> NewImage {
    let (product, version) = (number / VERSIONS, number % VERSIONS);
    let day: Timestamp = format!("2026-03-{:02}T07:42:00Z", version + 1).parse().unwrap();
    let properties = [
        ("architecture", "amd64".to_owned()),
        ("description", format!("System {product} amd64 (202603{:02}_0742)", version + 1)),
        ("os", format!("System{}", product / 10)),
        ("release", format!("release{}", product % 10)),
        ("serial", format!("202603{:02}_0742", version + 1)),
        ("type", "squashfs".to_owned()),
        ("variant", "cloud".to_owned()),
    ];
    let blob = |part, size, extension: &str| BlobRow {
        digest: digest(number, part),
        size,
        extension: extension.to_owned(),
    };
    NewImage {
        image: Image {
            auto_update: false,
            properties: properties.map(|(key, value)| (key.to_owned(), value)).into(),
            public: true,
            expires_at: time::epoch(),
            profiles: vec!["default".into()],
            aliases: Vec::new(),
            architecture: Architecture::X86_64,
            cached: false,
            filename: "lxd.tar.xz".into(),
            fingerprint: digest(number, 0),
            size: 100_001_000,
            update_source: None,
            kind: InstanceType::Container,
            created_at: day,
            last_used_at: time::zero(),
            uploaded_at: day,
            verified: Verified::Yes,
            refresh: None,
        },
        head: blob(1, 1000, ".tar.xz"),
        rootfs: Some(blob(2, 100_000_000, ".squashfs")),
        aliases: Vec::new(),
        reuse: false,
        origin: None,
        adopt: false,
    }
}

/// A catalog of so many products in three versions each, of which the newest has two names.
fn catalog(products: usize) -> Arc<Catalog> {
    let aliases = (0..products).flat_map(|product| {
        ["cloud", "amd64"].map(|last| AliasEntry {
            name: format!("system{}/release{}/{last}", product / 10, product % 10),
            target: digest(product * VERSIONS + VERSIONS - 1, 0),
            description: String::new(),
            kind: InstanceType::Container,
        })
    });
    let catalog = Catalog::new(Settings::default());
    Observer::loaded(
        &catalog,
        Ok(Snapshot {
            images: (0..products * VERSIONS).map(image).collect(),
            aliases: aliases.collect(),
            ..Snapshot::default()
        }),
    );
    Arc::new(catalog)
}

fn edit(catalog: &Catalog, number: usize, value: &str) {
    let mut image = image(number).image;
    image.properties = Properties::from([("os".to_owned(), value.to_owned())]);
    catalog.committed(&[Change::Edit(Box::new(image))]);
}

#[tokio::test]
async fn a_large_catalog_is_rendered_in_a_moment() {
    let catalog = catalog(20_000);
    let streams = Streams::new(catalog.clone(), Clock::system());
    let took = |what: &str, since: Instant| {
        eprintln!("{what}: {:?}", since.elapsed());
        since.elapsed()
    };
    let start = Instant::now();
    let first = streams.current().await.unwrap();
    took("rendered", start);
    let start = Instant::now();
    let packed = first.catalog().gzip().await.unwrap();
    took("packed", start);
    eprintln!("{} bytes, {} packed", first.catalog().bytes().len(), packed.len());
    let start = Instant::now();
    assert!(Arc::ptr_eq(&first, &streams.current().await.unwrap()));
    assert!(took("asked again", start) < Duration::from_millis(10));

    let start = Instant::now();
    edit(&catalog, 7, "Another");
    let second = streams.current().await.unwrap();
    let again = took("rendered after an edit", start);
    assert_ne!(second.catalog().tag(), first.catalog().tag());
    // A loaded machine takes longer than a free one, but not as long as clients wait.
    assert!(again < Duration::from_secs(3), "{again:?}");
}
