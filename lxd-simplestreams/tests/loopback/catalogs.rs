//! Catalogs over a loopback server: what is asked for, what is kept, what happens on failure.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lxd_simplestreams::document::MAX_DOCUMENT;
use tokio::net::TcpListener;

use crate::support::{Build, Certificates, Memory, Server, Tree, access, remote};
use futures_util::future::join_all;
use lxd_proto::arch::Architecture;
use lxd_proto::filter::Filter;
use lxd_proto::image::Image;
use lxd_proto::net::Access;
use lxd_proto::remote::{Error, Fetch, Protocol, Remote, RemoteSpec, Want, fetch, resolve};

const INDEX: &str = "streams/v1/index.json";
const IMAGES: &str = "streams/v1/images.json";

fn build<'a>(catalog: &'a str, os: &'a str, serial: &'a str) -> Build<'a> {
    let (metadata, rootfs) = (os.as_bytes(), serial.as_bytes());
    Build { catalog, os, arch: "amd64", serial, metadata, rootfs, delta: None }
}

fn tree(oses: &[&str]) -> Tree {
    let mut tree = Tree::default();
    for os in oses {
        tree.add(&build("images", os, "20260101"));
    }
    tree
}

async fn list(remote: &dyn Remote) -> Vec<Image> {
    remote.images(&Filter::default()).await.unwrap()
}

/// The names of systems that a program sees which has just started.
async fn seen(program: &str, server: &Server, cache: &Path) -> Vec<String> {
    let remote = remote(server.address(), &access(program, cache));
    list(&*remote).await.into_iter().map(|image| image.properties["os"].clone()).collect()
}

fn asked(paths: &[(&str, u16)]) -> Vec<(String, u16)> {
    paths.iter().map(|(path, status)| ((*path).to_owned(), *status)).collect()
}

#[tokio::test]
async fn a_second_program_costs_one_304_and_less_than_a_kilobyte() {
    let cache = tempfile::tempdir().unwrap();
    let mut tree = tree(&["alpine", "debian"]);
    let server = Server::start(&tree).await;
    assert_eq!(seen("1", &server, cache.path()).await, ["alpine", "debian"]);
    assert_eq!(server.paths(), asked(&[(INDEX, 200), (IMAGES, 200)]));

    assert_eq!(seen("2", &server, cache.path()).await, ["alpine", "debian"]);
    let (requests, traffic) = server.asked();
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].path.as_str(), requests[0].status), (IMAGES, 304));
    assert!(traffic < 1000, "{traffic} bytes");

    // One remote in a burst of questions asks once.
    let burst = remote(server.address(), &access("3", cache.path()));
    let resolved = resolve(&*burst, "debian", &Want::default(), None).await.unwrap();
    assert_eq!(resolved.image.properties["os"], "debian");
    assert_eq!(burst.aliases().await.unwrap().len(), 4);
    assert_eq!(server.paths(), asked(&[(IMAGES, 304)]));

    // A new version is seen, and only its catalog is fetched.
    tree.add(&build("images", "alpine", "20260102"));
    server.publish(&tree);
    assert_eq!(seen("4", &server, cache.path()).await, ["alpine", "alpine", "debian"]);
    assert_eq!(server.paths(), asked(&[(IMAGES, 200)]));
    assert_eq!(seen("5", &server, cache.path()).await.len(), 3);
    assert_eq!(server.paths(), asked(&[(IMAGES, 304)]));
}

#[tokio::test]
async fn of_several_catalogs_only_the_changed_one_is_fetched() {
    let cache = tempfile::tempdir().unwrap();
    let mut tree = tree(&["alpine"]);
    tree.add(&build("other", "debian", "20260101"));
    let server = Server::start(&tree).await;
    assert_eq!(seen("1", &server, cache.path()).await, ["alpine", "debian"]);
    server.asked();
    tree.add(&build("other", "debian", "20260102"));
    server.publish(&tree);
    assert_eq!(seen("2", &server, cache.path()).await, ["alpine", "debian", "debian"]);
    let mut paths = server.paths();
    paths.sort();
    assert_eq!(paths, asked(&[(IMAGES, 304), ("streams/v1/other.json", 200)]));
    assert_eq!(seen("3", &server, cache.path()).await.len(), 3);
}

#[tokio::test]
async fn what_is_not_found_is_looked_for_in_new_catalogs() {
    let cache = tempfile::tempdir().unwrap();
    let mut tree = tree(&["alpine"]);
    let server = Server::start(&tree).await;
    seen("1", &server, cache.path()).await;
    tree.add(&build("other", "debian", "20260101"));
    server.publish(&tree);
    server.asked();
    let remote = remote(server.address(), &access("2", cache.path()));
    assert_eq!(remote.alias("debian", &Want::default()).await.unwrap().name, "debian");
    let paths = server.paths();
    assert!(paths.contains(&(INDEX.to_owned(), 200)), "{paths:?}");
    assert_eq!(list(&*remote).await.len(), 2);
    // Nor is a name that nobody has asked for again and again.
    for _ in 0..5 {
        assert!(remote.alias("nobody", &Want::default()).await.unwrap_err().is_not_found());
    }
    assert!(server.paths().len() <= 3);

    // A catalog that has gone makes the index interesting, too.
    tree.catalogs.remove("images");
    server.publish(&tree);
    assert_eq!(seen("3", &server, cache.path()).await, ["debian"]);
}

#[tokio::test]
async fn references_are_resolved_as_everywhere() {
    let cache = tempfile::tempdir().unwrap();
    let mut tree = tree(&["alpine"]);
    let arm = Build { arch: "arm64", rootfs: b"arm", ..build("images", "alpine", "20260101") };
    tree.add(&arm);
    for number in 0..20 {
        tree.add(&build("images", "many", &format!("202601{:02}", number + 1)));
    }
    let server = Server::start(&tree).await;
    let remote = remote(server.address(), &access("1", cache.path()));
    let want = |architecture| Want { architecture: Some(architecture), ..Want::default() };
    let target = remote.alias("alpine", &want(Architecture::Aarch64)).await.unwrap().target;
    assert_eq!(target.to_string(), arm.fingerprint());
    let by_prefix = remote.image(&target.short().parse().unwrap(), None).await.unwrap();
    assert_eq!(by_prefix.architecture, Architecture::Aarch64);
    assert!(remote.secret(&target).await.unwrap().is_none());

    let digits = list(&*remote).await.into_iter().map(|image| image.fingerprint.to_string());
    let mut first: Vec<char> = digits.map(|digits| digits.chars().next().unwrap()).collect();
    first.sort_unstable();
    let twice = first.windows(2).find(|pair| pair[0] == pair[1]).unwrap()[0];
    let error = remote.image(&twice.to_string().parse().unwrap(), None).await.unwrap_err();
    let Error::Ambiguous { candidates, .. } = error else { panic!("{error}") };
    assert!(candidates.len() > 1);
    for reference in ["nothing", "0123456789ab", ""] {
        let error = resolve(&*remote, reference, &Want::default(), None).await.unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }
}

#[tokio::test]
async fn a_server_in_trouble_is_answered_for_by_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let mut tree = tree(&["alpine"]);
    let server = Server::start(&tree).await;
    seen("0", &server, cache.path()).await;
    for (number, status) in [500, 502, 503, 429].into_iter().enumerate() {
        server.fail(Some(status));
        assert_eq!(seen(&format!("a{number}"), &server, cache.path()).await, ["alpine"]);
    }
    server.fail(None);
    // Half a document; and one that is none.
    tree.add(&build("images", "debian", "20260101"));
    let whole = tree.files()[IMAGES].clone();
    for (number, broken) in [&whole[..whole.len() / 2], b"", b"<html>", &[]].iter().enumerate() {
        server.replace(IMAGES, broken);
        assert_eq!(seen(&format!("b{number}"), &server, cache.path()).await, ["alpine"]);
    }
    server.publish(&tree);
    server.cut(10, 100);
    assert_eq!(seen("c", &server, cache.path()).await, ["alpine"]);
    server.cut(0, 0);
    // Nothing of that was kept: the whole document is seen at once.
    assert_eq!(seen("d", &server, cache.path()).await, ["alpine", "debian"]);

    // These do not pass by themselves.
    for (number, status) in [401, 403, 404, 410].into_iter().enumerate() {
        server.fail(Some(status));
        let remote = remote(server.address(), &access(&format!("e{number}"), cache.path()));
        let error = remote.images(&Filter::default()).await.unwrap_err();
        assert!(!error.is_not_found(), "{status} means no image: {error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }

    let address = server.address().to_owned();
    drop(server);
    let remote = remote(&address, &access("f", cache.path()));
    assert_eq!(list(&*remote).await.len(), 2);
    // Whoever looks for a newer version is not told what was known before, just asked or not.
    let name = &remote.aliases().await.unwrap()[0].name;
    for _ in 0..2 {
        let fresh = Want { fresh: true, ..Want::default() };
        let error = remote.alias(name, &fresh).await.unwrap_err();
        assert!(matches!(error, Error::Connect { .. }), "{error}");
        assert!(remote.alias(name, &Want::default()).await.is_ok());
    }
}

#[tokio::test]
async fn a_broken_tree_is_an_error_that_says_where() {
    let cache = tempfile::tempdir().unwrap();
    for (number, (path, document, part)) in [
        (INDEX, "{", INDEX),
        (
            INDEX,
            r#"{"index":{"a":{"datatype":"image-downloads","path":"../x","products":["p"]}}}"#,
            "outside",
        ),
        (IMAGES, r#"{"products":{"p":{"aliases":["x"]}}}"#, IMAGES),
        (IMAGES, "", IMAGES),
    ]
    .into_iter()
    .enumerate()
    {
        let server = Server::start(&tree(&["alpine"])).await;
        server.replace(path, document.as_bytes());
        let remote = remote(server.address(), &access(&number.to_string(), cache.path()));
        let error = remote.images(&Filter::default()).await.unwrap_err();
        assert!(matches!(error, Error::Decode { .. }), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
        // It can be repaired.
        server.publish(&tree(&["alpine"]));
        assert_eq!(seen(&format!("{number}b"), &server, cache.path()).await, ["alpine"]);
    }
    let server = Server::start(&Tree::default()).await;
    server.remove(INDEX);
    let remote = remote(server.address(), &access("x", cache.path()));
    let error = remote.images(&Filter::default()).await.unwrap_err().to_string();
    assert!(error.contains("is this a simplestreams server?"), "{error}");
}

#[tokio::test]
async fn a_server_without_tags_is_read_each_time_and_converted_once() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&tree(&["alpine"])).await;
    server.plain();
    seen("1", &server, cache.path()).await;
    let stored = || {
        let entry = fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap();
        entry.metadata().unwrap().modified().unwrap()
    };
    let before = stored();
    assert_eq!(seen("2", &server, cache.path()).await, ["alpine"]);
    assert_eq!(stored(), before);
}

#[tokio::test]
async fn catalogs_travel_compressed_and_files_as_they_are() {
    let cache = tempfile::tempdir().unwrap();
    let oses: Vec<_> = (0..200).map(|number| format!("os{number}")).collect();
    let tree = tree(&oses.iter().map(String::as_str).collect::<Vec<_>>());
    let length = tree.files()[IMAGES].len();
    let server = Server::start(&tree).await;
    server.gzip();
    let remote = remote(server.address(), &access("1", cache.path()));
    let images = list(&*remote).await;
    assert_eq!(images.len(), 200);
    let (_, traffic) = server.asked();
    assert!(traffic < length / 2, "{traffic} of {length} bytes");
    let mut memory = Memory::default();
    fetch(&*remote, &images[0], &Fetch::default(), &mut memory).await.unwrap();
}

#[tokio::test]
async fn a_catalog_that_swells_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&tree(&["alpine"])).await;
    server.gzip();
    server.replace(IMAGES, &vec![b' '; MAX_DOCUMENT + 1]);
    let remote = remote(server.address(), &access("1", cache.path()));
    let error = remote.images(&Filter::default()).await.unwrap_err();
    assert!(matches!(error, Error::Size { .. }), "{error:?}");
    let (_, traffic) = server.asked();
    assert!(traffic < MAX_DOCUMENT / 100, "{traffic} bytes");
}

#[tokio::test]
async fn mirrors_under_one_host_never_mix() {
    let cache = tempfile::tempdir().unwrap();
    let mut both = Tree::default();
    for (mirror, os) in [("a/", "alpine"), ("b/", "debian")] {
        for (path, bytes) in tree(&[os]).files() {
            both.files.insert(format!("{mirror}{path}"), bytes);
        }
    }
    let server = Server::start(&both).await;
    for program in ["1", "2"] {
        for (mirror, os) in [("/a", "alpine"), ("/b/", "debian"), ("/a/", "alpine")] {
            let address = format!("{}{mirror}", server.address());
            let remote = remote(&address, &access(program, cache.path()));
            let images = list(&*remote).await;
            assert_eq!(images.len(), 1);
            assert_eq!(images[0].properties["os"], os);
        }
    }
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn a_damaged_cache_is_made_anew() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&tree(&["alpine"])).await;
    seen("0", &server, cache.path()).await;
    let path = fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&path).unwrap();
    let mut other = good.clone();
    other[good.len() / 2] ^= 0xff;
    for (number, bytes) in [&b""[..], b"garbage", &good[..20], &other].into_iter().enumerate() {
        fs::write(&path, bytes).unwrap();
        assert_eq!(seen(&format!("a{number}"), &server, cache.path()).await, ["alpine"]);
        assert_eq!(fs::read(&path).unwrap().len(), good.len(), "it is stored again");
    }
    // One of another tree in its place.
    let mirror = Server::start(&tree(&["debian"])).await;
    seen("b", &mirror, cache.path()).await;
    let files = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path());
    let theirs = files.into_iter().find(|file| *file != path).unwrap();
    fs::copy(&theirs, &path).unwrap();
    assert_eq!(seen("c", &server, cache.path()).await, ["alpine"]);
    // No place to keep anything.
    let file = cache.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(seen("d", &server, &file.join("below")).await, ["alpine"]);
}

#[tokio::test]
async fn fifty_at_once_ask_once() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&tree(&["alpine"])).await;
    let access = access("fifty", cache.path());
    let asking = (0..50).map(|_| {
        let remote = remote(server.address(), &access);
        tokio::spawn(async move { remote.alias("alpine", &Want::default()).await.unwrap() })
    });
    for task in asking.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(server.paths(), asked(&[(INDEX, 200), (IMAGES, 200)]));
}

#[tokio::test]
async fn twenty_wait_for_a_dead_server_together() {
    let cache = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let server = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            open.push(stream);
        }
    });
    let mut access = access("dead", cache.path());
    access.limits.connect = Duration::from_millis(200);
    access.limits.idle = Duration::from_millis(200);
    let one = remote(&address, &access);
    let all = Filter::default();
    let asking = (0..20).map(|_| one.images(&all));
    for answer in join_all(asking).await {
        assert!(matches!(answer, Err(Error::Silent { .. })), "{answer:?}");
    }
    let connections = connections.load(Ordering::Relaxed);
    assert!(connections <= 2, "{connections} connections");
    server.abort();
}

#[tokio::test]
async fn user_and_password_go_to_the_server_and_nowhere_else() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&tree(&["alpine"])).await;
    let address = server.address().replace("http://", "http://me:hidden@");
    let mine = remote(&address, &access("1", cache.path()));
    list(&*mine).await;
    let (requests, _) = server.asked();
    assert!(
        requests.iter().all(|asked| asked.authorization.as_deref() == Some("Basic bWU6aGlkZGVu"))
    );
    for entry in fs::read_dir(cache.path()).unwrap() {
        let stored =
            String::from_utf8_lossy(&fs::read(entry.unwrap().path()).unwrap()).into_owned();
        assert!(!stored.contains("hidden"));
    }
    server.fail(Some(401));
    let refused = remote(&address, &access("2", cache.path()));
    let error = refused.images(&Filter::default()).await.unwrap_err();
    assert!(!error.to_string().contains("hidden"), "{error}");
    assert!(!format!("{error:?}").contains("hidden"), "{error:?}");
}

#[tokio::test]
async fn filters_apply() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(&tree(&["alpine", "debian"])).await;
    let remote = remote(server.address(), &access("1", cache.path()));
    let filter = Filter::parse("properties.os eq debian and type eq container").unwrap();
    let images = remote.images(&filter).await.unwrap();
    assert_eq!(images.len(), 1);
    assert!(remote.images(&Filter::parse("public eq false").unwrap()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_server_may_want_to_see_a_certificate() {
    let cache = tempfile::tempdir().unwrap();
    let certificates = Certificates::new();
    let server = Server::start_tls(&tree(&["alpine"]), certificates.acceptor.clone()).await;
    let spec = |certificate: &str| RemoteSpec {
        address: server.address().to_owned(),
        protocol: Protocol::Simplestreams,
        certificate: certificate.to_owned(),
        ..RemoteSpec::default()
    };
    let stranger = access("stranger", cache.path());
    let friend = Access { identity: Some(certificates.client.clone()), ..stranger.clone() };
    let connect = |certificate, access| lxd_simplestreams::connect(spec(certificate), access);

    let let_in = connect(&certificates.server, &friend).unwrap();
    assert_eq!(list(&*let_in).await.len(), 1);
    // Not even what a friend has seen.
    let kept_out = connect(&certificates.server, &stranger).unwrap();
    assert!(kept_out.images(&Filter::default()).await.is_err());
    // Somebody else in the server's place is told nothing, and nothing of theirs is shown.
    let other = Certificates::new().server;
    let deceived = connect(&other, &friend).unwrap();
    let error = deceived.images(&Filter::default()).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    let unpinned = connect("", &friend).unwrap();
    let error = unpinned.images(&Filter::default()).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
}
