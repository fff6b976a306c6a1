//! Files of images over a loopback server: whole, cut, wrong, and as deltas.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::{Build, Memory, Server, Tree, access, delta, fingerprint, remote};
use lxd_proto::arch::Architecture;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{Image, InstanceType};
use lxd_proto::remote::conformance::{self, KnownImage};
use lxd_proto::remote::{Bases, Error, Fetch, FileRole, Remote, Result, fetch};

const METADATA: &[u8] = b"the metadata";
/// Something that goes wrong with the server.
type Break = fn(&Server);

const ROOT_PATH: &str = "images/alpine/amd64/20260101/rootfs.squashfs";

/// Bytes that look like nothing, the same for the same seed.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u8::try_from(state >> 56).unwrap()
    };
    (0..length).map(next).collect()
}

fn build<'a>(serial: &'a str, rootfs: &'a [u8]) -> Build<'a> {
    Build {
        catalog: "images",
        os: "alpine",
        arch: "amd64",
        serial,
        metadata: METADATA,
        rootfs,
        delta: None,
    }
}

struct Place {
    server: Server,
    cache: tempfile::TempDir,
}

impl Place {
    async fn new(tree: &Tree) -> Self {
        Self { server: Server::start(tree).await, cache: tempfile::tempdir().unwrap() }
    }

    fn remote(&self) -> Arc<dyn Remote> {
        remote(self.server.address(), &access("downloads", self.cache.path()))
    }

    async fn image(&self, digits: &str) -> (Arc<dyn Remote>, Image) {
        let remote = self.remote();
        let image = remote.image(&digits.parse().unwrap(), None).await.unwrap();
        self.server.asked();
        (remote, image)
    }

    async fn fetch(&self, digits: &str, request: &Fetch) -> (Result<()>, Memory) {
        let (remote, image) = self.image(digits).await;
        let mut memory = Memory::default();
        (fetch(&*remote, &image, request, &mut memory).await, memory)
    }
}

#[tokio::test]
async fn files_come_in_order_and_are_counted() {
    let rootfs = noise(300_000, 1);
    let mut tree = Tree::default();
    let split = build("20260101", &rootfs);
    tree.add(&split);
    let unified = tree.add_unified("images", "uni", "20260101", &noise(100_000, 2));
    let place = Place::new(&tree).await;

    let request = Fetch::default();
    let (done, memory) = place.fetch(&split.fingerprint(), &request).await;
    done.unwrap();
    let files: Vec<_> = memory.files.iter().map(|(role, name, _)| (*role, name.as_str())).collect();
    assert_eq!(
        files,
        [
            (FileRole::Metadata, "lxd.tar.xz"),
            (FileRole::Rootfs(InstanceType::Container), "rootfs.squashfs"),
        ]
    );
    assert_eq!(memory.bytes(), [METADATA, &rootfs].concat());
    let total = (METADATA.len() + rootfs.len()) as u64;
    assert_eq!((request.progress.done(), request.progress.total()), (total, Some(total)));
    // The catalogs are not asked for again while files come.
    assert_eq!(place.server.paths().len(), 2);

    let (done, memory) = place.fetch(&unified, &Fetch::default()).await;
    done.unwrap();
    assert_eq!(memory.files[0].0, FileRole::Unified);
    assert_eq!(memory.bytes().len(), 100_000);
}

#[tokio::test]
async fn it_is_a_remote_like_any_other() {
    let mut tree = Tree::default();
    let rootfs = noise(70_000, 7);
    let mut known = Vec::new();
    for (arch, architecture) in [("amd64", Architecture::X86_64), ("arm64", Architecture::Aarch64)]
    {
        let build = Build { arch, metadata: arch.as_bytes(), ..build("20260101", &rootfs) };
        tree.add(&build);
        known.push(KnownImage {
            fingerprint: build.fingerprint().parse().unwrap(),
            kind: InstanceType::Container,
            architecture,
            size: (arch.len() + rootfs.len()) as u64,
            split: true,
            aliases: vec!["alpine".to_owned(), format!("alpine/{arch}")],
        });
    }
    known.push(KnownImage {
        fingerprint: tree.add_unified("other", "uni", "20260101", &rootfs).parse().unwrap(),
        kind: InstanceType::Container,
        architecture: Architecture::X86_64,
        size: rootfs.len() as u64,
        split: false,
        aliases: vec!["uni".to_owned()],
    });
    let place = Place::new(&tree).await;
    conformance::all(&*place.remote(), &known).await.unwrap();
    place.server.plain();
    conformance::all(&*place.remote(), &known).await.unwrap();
}

#[tokio::test]
async fn what_was_cut_goes_on_where_it_was() {
    let rootfs = noise(1 << 20, 3);
    let mut tree = Tree::default();
    let split = build("20260101", &rootfs);
    tree.add(&split);
    let place = Place::new(&tree).await;
    let (remote, image) = place.image(&split.fingerprint()).await;
    place.server.cut(150_000, 5);
    let mut memory = Memory::default();
    fetch(&*remote, &image, &Fetch::default(), &mut memory).await.unwrap();
    assert_eq!(memory.bytes(), [METADATA, &rootfs].concat());
    let (_, traffic) = place.server.asked();
    assert!(traffic < (1 << 20) + 20_000, "{traffic} bytes");

    // A sink that holds the beginning from an earlier life gets the rest.
    let held = vec![METADATA.to_vec(), rootfs[..600_000].to_vec()];
    let mut memory = Memory { held, ..Memory::default() };
    let request = Fetch::default();
    remote.download(&image, &request, &mut memory).await.unwrap();
    assert_eq!(memory.bytes(), [METADATA, &rootfs].concat());
    let (requests, traffic) = place.server.asked();
    assert_eq!(requests.iter().map(|asked| asked.status).collect::<Vec<_>>(), [206]);
    assert!(traffic < (1 << 20) - 500_000, "{traffic} bytes");
    assert_eq!(request.progress.done(), (METADATA.len() + rootfs.len()) as u64);

    // A server that knows no ranges sends all of it again, and the sink does not notice.
    place.server.plain();
    let held = vec![METADATA.to_vec(), rootfs[..600_000].to_vec()];
    let mut memory = Memory { held, ..Memory::default() };
    remote.download(&image, &Fetch::default(), &mut memory).await.unwrap();
    assert_eq!(memory.bytes(), [METADATA, &rootfs].concat());
}

#[tokio::test]
async fn wrong_files_are_refused_by_name() {
    let rootfs = noise(1000, 4);
    let split = build("20260101", &rootfs);
    let digits = split.fingerprint();
    let cases: [(&str, Break); 5] = [
        ("SHA-256", |server| server.replace(ROOT_PATH, &[7; 1000])),
        ("bytes", |server| server.replace(ROOT_PATH, &[7; 1001])),
        ("bytes", |server| server.replace(ROOT_PATH, &[7; 999])),
        ("does not have it", |server| server.remove(ROOT_PATH)),
        ("bytes", |server| server.endless(ROOT_PATH)),
    ];
    for (words, damage) in cases {
        let mut tree = Tree::default();
        tree.add(&split);
        let place = Place::new(&tree).await;
        damage(&place.server);
        let (done, memory) = place.fetch(&digits, &Fetch::default()).await;
        let error = done.unwrap_err();
        assert!(!error.is_not_found(), "{error}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains(ROOT_PATH), "{text}");
        assert!(memory.bytes().len() <= METADATA.len() + 1000 + (64 << 10));
    }

    // Right files under a fingerprint that is not theirs.
    let mut tree = Tree::default();
    tree.add(&split);
    let lie = "00".repeat(32);
    for product in tree.catalogs.get_mut("images").unwrap().products.values_mut() {
        for version in product.versions.values_mut() {
            version.items.get_mut("lxd.tar.xz").unwrap().combined_squashfs_sha256 = lie.clone();
        }
    }
    let place = Place::new(&tree).await;
    let (done, _) = place.fetch(&lie, &Fetch::default()).await;
    assert!(matches!(done, Err(Error::Mismatch { .. })), "{done:?}");

    // A catalog that does not say what the file is.
    let mut tree = Tree::default();
    tree.add(&split);
    for product in tree.catalogs.get_mut("images").unwrap().products.values_mut() {
        for version in product.versions.values_mut() {
            version.items.get_mut("root").unwrap().sha256 = fingerprint(&[&rootfs]).to_uppercase();
        }
    }
    let place = Place::new(&tree).await;
    let (done, _) = place.fetch(&digits, &Fetch::default()).await;
    assert!(done.unwrap_err().to_string().contains("lower-case"));
}

#[tokio::test]
async fn a_cancelled_download_ends() {
    let mut tree = Tree::default();
    let rootfs = noise(1000, 5);
    let split = build("20260101", &rootfs);
    tree.add(&split);
    let place = Place::new(&tree).await;
    let request = Fetch::default();
    request.cancel.cancel();
    let (done, memory) = place.fetch(&split.fingerprint(), &request).await;
    assert!(matches!(done, Err(Error::Cancelled)));
    assert!(memory.files.is_empty());
}

/// Root files on this machine.
struct OnDisk(BTreeMap<Fingerprint, PathBuf>);

impl Bases for OnDisk {
    fn rootfs(&self, image: &Fingerprint) -> Option<PathBuf> {
        self.0.get(image).cloned()
    }
}

/// Whether deltas can be decoded here.
fn decoder() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join("xdelta3").is_file())
}

/// Two builds of which the newer has a delta; what the newer should be made of.
struct Pair {
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let old = noise(400_000, 6);
        let new = [&old[..200_000], b"a change", &old[200_100..]].concat();
        Self { old, new }
    }

    /// Fetches the newer build with `delta` in the tree and `base` on disk. Which files were
    /// asked for, and what came.
    async fn run(&self, delta: Vec<u8>, base: &[u8], held: usize) -> (Vec<String>, Vec<u8>) {
        let mut tree = Tree::default();
        let old = build("20260101", &self.old);
        let new = Build { delta: Some(("20260101", delta)), ..build("20260102", &self.new) };
        tree.add(&old);
        tree.add(&new);
        let place = Place::new(&tree).await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("-base file");
        std::fs::write(&file, base).unwrap();
        let bases = OnDisk(BTreeMap::from([(old.fingerprint().parse().unwrap(), file)]));
        let request = Fetch { bases: Some(Arc::new(bases)), ..Fetch::default() };
        let (remote, image) = place.image(&new.fingerprint()).await;
        let held = vec![Vec::new(), self.new[..held].to_vec()];
        let mut memory = Memory { held, ..Memory::default() };
        remote.download(&image, &request, &mut memory).await.unwrap();
        let total = (METADATA.len() + self.new.len()) as u64;
        assert_eq!(request.progress.done(), total);
        assert_eq!(leftovers(place.cache.path()), Vec::<String>::new());
        let names =
            place.server.paths().into_iter().map(|(path, _)| {
                Path::new(&path).file_name().unwrap().to_string_lossy().into_owned()
            });
        (names.collect(), memory.bytes())
    }

    fn whole(&self) -> Vec<u8> {
        [METADATA, &self.new].concat()
    }
}

fn leftovers(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('.'))
        .collect()
}

const META_NAME: &str = "lxd.tar.xz";
const DELTA_NAME: &str = "rootfs.20260101.vcdiff";
const ROOT_NAME: &str = "rootfs.squashfs";

#[tokio::test]
async fn a_delta_stands_in_for_the_whole_file() {
    let pair = Pair::new();
    let delta = delta(&pair.old, &pair.new);
    assert!(delta.len() < 200);
    let expected: &[&str] =
        if decoder() { &[META_NAME, DELTA_NAME] } else { &[META_NAME, ROOT_NAME] };
    for held in [0, 1, 200_004, 399_000] {
        let (asked, bytes) = pair.run(delta.clone(), &pair.old, held).await;
        assert_eq!(asked, expected, "{held} bytes held");
        assert!(bytes == pair.whole(), "{held} bytes held");
    }
    // So little is missing that the delta would be more.
    let (asked, bytes) = pair.run(delta.clone(), &pair.old, pair.new.len() - 10).await;
    assert_eq!(asked, [META_NAME, ROOT_NAME]);
    assert!(bytes == pair.whole());
}

#[tokio::test]
async fn a_wrong_delta_costs_the_whole_file_and_no_more() {
    let pair = Pair::new();
    let good = delta(&pair.old, &pair.new);
    let mut torn = good.clone();
    torn.truncate(good.len() - 3);
    let other = delta(&pair.old, &[&pair.old[..], b"another file"].concat());
    let bomb = delta(&pair.old, &[&pair.old[..], &pair.old[..], &pair.old[..]].concat());
    let large = noise(pair.new.len() + 1, 9);
    let changed = noise(pair.old.len(), 10);
    for (what, delta, base) in [
        ("torn", &torn, &pair.old),
        ("no delta", &b"garbage".to_vec(), &pair.old),
        ("empty", &Vec::new(), &pair.old),
        ("of another file", &other, &pair.old),
        ("too long", &bomb, &pair.old),
        ("larger than the file", &large, &pair.old),
        ("with another base", &good, &changed),
        ("with a short base", &good, &pair.old[..1000].to_vec()),
    ] {
        let (asked, bytes) = pair.run(delta.clone(), base, 0).await;
        assert_eq!(asked.last().map(String::as_str), Some(ROOT_NAME), "{what}");
        assert!(bytes == pair.whole(), "{what}");
    }
}
