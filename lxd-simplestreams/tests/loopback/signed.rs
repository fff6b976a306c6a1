//! A tree that has to be signed: what is taken, and everything that is refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lxd_proto::filter::Filter;
use lxd_proto::remote::{Error, Fetch, Protocol, Remote, RemoteSpec, Want, fetch};
use lxd_simplestreams::signed::Keyring;

use crate::support::{Build, Memory, Server, Tree, access, key, remote, signed};

const INDEX: &str = "streams/v1/index.sjson";
const IMAGES: &str = "streams/v1/images.sjson";

fn tree(serials: &[&str]) -> Tree {
    let mut tree = Tree::default();
    for serial in serials {
        let (metadata, rootfs) = (b"debian".as_slice(), serial.as_bytes());
        let catalog = "images";
        tree.add(&Build {
            catalog,
            os: "debian",
            arch: "amd64",
            serial,
            metadata,
            rootfs,
            delta: None,
        });
    }
    tree
}

/// A tree as of a day in January.
fn of_day(day: u8, serials: &[&str]) -> Tree {
    Tree { updated: format!("{day:02} Jan 2026 07:00:00 +0000"), ..tree(serials) }
}

/// A remote whose answers one of these keys must have signed.
fn trusting(server: &Server, keyring: &str, program: &str, cache: &Path) -> Arc<dyn Remote> {
    let spec = RemoteSpec {
        address: server.address().to_owned(),
        protocol: Protocol::Simplestreams,
        keyring: Some(keyring.to_owned()),
        ..RemoteSpec::default()
    };
    lxd_simplestreams::connect(spec, &access(program, cache)).unwrap()
}

async fn start(files: BTreeMap<String, Vec<u8>>) -> Server {
    let server = Server::start(&Tree::default()).await;
    server.publish_files(files);
    server
}

/// How many images a program sees that has just started.
async fn seen(
    program: &str,
    server: &Server,
    keyring: &str,
    cache: &Path,
) -> Result<usize, String> {
    let remote = trusting(server, keyring, program, cache);
    match remote.images(&Filter::default()).await {
        Ok(images) => Ok(images.len()),
        Err(error @ Error::Signature { .. }) => {
            let text = error.to_string();
            assert!(text.contains(server.address()), "{text}");
            Err(text)
        }
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn a_signed_tree_is_read_from_its_signed_documents_alone() {
    let (cache, (signer, keyring)) = (tempfile::tempdir().unwrap(), key());
    let server = start(signed(&tree(&["20260101", "20260102"]), &signer, 5)).await;
    let remote = trusting(&server, &keyring, "1", cache.path());
    let images = remote.images(&Filter::default()).await.unwrap();
    assert_eq!(images.len(), 2);
    let paths: Vec<String> = server.paths().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, [INDEX, IMAGES]);
    let mut memory = Memory::default();
    fetch(&*remote, &images[0], &Fetch::default(), &mut memory).await.unwrap();
    assert!(memory.bytes().starts_with(b"debian"));
    // Another program needs no more than to hear that nothing is new.
    assert_eq!(seen("2", &server, &keyring, cache.path()).await, Ok(2));
    assert_eq!(server.paths().last().unwrap(), &(IMAGES.to_owned(), 304));
    // What is new is taken, and what was signed anew, too.
    server.publish_files(signed(&tree(&["20260103"]), &signer, 4));
    assert_eq!(seen("3", &server, &keyring, cache.path()).await, Ok(1));
    server.publish_files(signed(&tree(&["20260103"]), &signer, 3));
    assert_eq!(seen("4", &server, &keyring, cache.path()).await, Ok(1));
}

#[tokio::test]
async fn what_nobody_or_somebody_else_has_signed_is_refused() {
    let (signer, keyring) = key();
    let (other, others) = key();
    let good = signed(&tree(&["20260101"]), &signer, 1);
    let text = |path: &str| String::from_utf8(good[path].clone()).unwrap();
    let plain = |path: &str| {
        let verified = Keyring::from_bytes(keyring.as_bytes()).unwrap();
        verified.verify(&good[path]).unwrap().payload
    };
    let unsigned = tree(&["20260101"]).files();
    let by_other = signed(&tree(&["20260101"]), &other, 1);
    let names_unsigned = {
        let index = plain(INDEX);
        let index = String::from_utf8(index).unwrap().replace(".sjson", ".json");
        signer.sign(index.as_bytes()).unwrap()
    };
    let with = |path: &str, bytes: Vec<u8>| {
        let mut files = good.clone();
        files.insert(path.to_owned(), bytes);
        files
    };
    let changed = |path: &str, from: &str, to: &str| {
        let text = text(path);
        assert!(text.contains(from), "{text}");
        with(path, text.replacen(from, to, 1).into_bytes())
    };
    for (what, files, document, reason) in [
        ("an unsigned tree", unsigned, INDEX, "its images are not signed"),
        ("an unsigned index", with(INDEX, plain(INDEX)), INDEX, "it is not signed"),
        ("an unsigned catalog", with(IMAGES, plain(IMAGES)), IMAGES, "it is not signed"),
        ("a page for guests", with(INDEX, b"<html>".to_vec()), INDEX, "it is not signed"),
        ("another signer", by_other.clone(), INDEX, "not in the keyring"),
        ("another's catalog", with(IMAGES, by_other[IMAGES].clone()), IMAGES, "not in the keyring"),
        (
            "a changed index",
            changed(INDEX, "debian:amd64", "debian:arm64"),
            INDEX,
            "has been changed",
        ),
        ("a changed catalog", changed(IMAGES, "20260101", "20260102"), IMAGES, "has been changed"),
        ("text after it", with(IMAGES, [&good[IMAGES][..], b"{}"].concat()), IMAGES, "after it"),
        ("text before it", with(INDEX, [b"{}\n", &good[INDEX][..]].concat()), INDEX, "before it"),
        ("a catalog that is none", with(INDEX, names_unsigned), INDEX, "which is not signed"),
        ("the index as catalog", with(IMAGES, good[INDEX].clone()), IMAGES, "its format is"),
        ("the catalog as index", with(INDEX, good[IMAGES].clone()), INDEX, "its format is"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let server = start(good.clone()).await;
        // A good one that was seen before is no way around.
        assert_eq!(seen("1", &server, &keyring, cache.path()).await, Ok(1));
        server.publish_files(files.clone());
        let fresh = tempfile::tempdir().unwrap();
        for directory in [fresh.path(), cache.path()] {
            let remote = trusting(&server, &keyring, what, directory);
            // Asks for the index, too.
            let error = remote.alias("nothing", &Want::default()).await.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, Error::Signature { .. }), "{what}: {error:?}");
            assert!(text.contains(server.address()), "{what}: {text}");
            // Who knows an index asks for its catalogs first.
            if directory == fresh.path() {
                assert!(text.contains(document) && text.contains(reason), "{what}: {text}");
            }
        }
    }
    let cache = tempfile::tempdir().unwrap();
    let server = start(good).await;
    assert!(seen("1", &server, &others, cache.path()).await.is_err());
    assert_eq!(seen("2", &server, &keyring, cache.path()).await, Ok(1));
}

#[tokio::test]
async fn nothing_older_than_what_was_seen_is_taken() {
    let (cache, (signer, keyring)) = (tempfile::tempdir().unwrap(), key());
    let cache = cache.path();
    let old = signed(&of_day(10, &["20260101"]), &signer, 30);
    let new = signed(&of_day(10, &["20260101", "20260102"]), &signer, 20);
    let server = start(old.clone()).await;
    assert_eq!(seen("1", &server, &keyring, cache).await, Ok(1));
    server.publish_files(new.clone());
    assert_eq!(seen("2", &server, &keyring, cache).await, Ok(2));
    // What is not found is looked for in a new index.
    let remote = trusting(&server, &keyring, "2", cache);
    assert!(remote.alias("nothing", &Want::default()).await.unwrap_err().is_not_found());
    for (what, replayed) in [("3", vec![IMAGES]), ("4", vec![INDEX, IMAGES])] {
        let mut files = new.clone();
        files.extend(replayed.iter().map(|path| ((*path).to_owned(), old[*path].clone())));
        server.publish_files(files);
        let error = seen(what, &server, &keyring, cache).await.unwrap_err();
        assert!(error.contains("a newer one of"), "{error}");
    }
    // The index alone, asked for because a name is not found.
    server.publish_files(
        new.iter()
            .map(|(path, bytes)| {
                (path.clone(), if path == INDEX { &old[INDEX] } else { bytes }.clone())
            })
            .collect(),
    );
    let remote = trusting(&server, &keyring, "5", cache);
    let error = remote.alias("nothing", &Want::default()).await.unwrap_err().to_string();
    assert!(error.contains(INDEX) && error.contains("a newer one of"), "{error}");
    // Without the listing, and by another keyring that has the key, too.
    for entry in std::fs::read_dir(cache).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "listing") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    server.publish_files(old);
    let (_, another) = key();
    let both = format!("{another}\n{keyring}");
    assert!(seen("6", &server, &keyring, cache).await.unwrap_err().contains("a newer one of"));
    assert!(seen("7", &server, &both, cache).await.unwrap_err().contains("a newer one of"));
    server.publish_files(new);
    assert_eq!(seen("8", &server, &both, cache).await, Ok(2));
}

#[tokio::test]
async fn documents_that_do_not_belong_together_are_refused() {
    let (signer, keyring) = key();
    let old = signed(&of_day(10, &["20260101"]), &signer, 30);
    let new = signed(&of_day(17, &["20260101", "20260102"]), &signer, 20);
    // To somebody who has never been here, an old catalog below a new index.
    let mut files = new.clone();
    files.insert(IMAGES.to_owned(), old[IMAGES].clone());
    let server = start(files).await;
    let cache = tempfile::tempdir().unwrap();
    let error = seen("1", &server, &keyring, cache.path()).await.unwrap_err();
    assert!(error.contains(IMAGES) && error.contains("older than the index says"), "{error}");
    // A catalog may be newer than the index: it is written first.
    let mut files = new;
    files.insert(INDEX.to_owned(), old[INDEX].clone());
    server.publish_files(files);
    assert_eq!(seen("2", &server, &keyring, cache.path()).await, Ok(2));
    // One catalog in the place of another of the same signer.
    let mut two = of_day(10, &["20260101"]);
    two.catalogs.insert("daily".to_owned(), two.catalogs["images"].clone());
    let two = signed(&two, &signer, 10);
    let mut files = two.clone();
    files.insert(IMAGES.to_owned(), two["streams/v1/daily.sjson"].clone());
    server.publish_files(files);
    let fresh = tempfile::tempdir().unwrap();
    let error = seen("3", &server, &keyring, fresh.path()).await.unwrap_err();
    assert!(error.contains("the catalog of \"daily\""), "{error}");
}

#[tokio::test]
async fn what_was_seen_is_shown_only_while_the_server_is_away() {
    let (cache, (signer, keyring)) = (tempfile::tempdir().unwrap(), key());
    let server = start(signed(&tree(&["20260101"]), &signer, 1)).await;
    assert_eq!(seen("1", &server, &keyring, cache.path()).await, Ok(1));
    server.fail(Some(503));
    assert_eq!(seen("2", &server, &keyring, cache.path()).await, Ok(1));
    server.fail(None);
    // An unsigned tree is there as well, for those who do not ask for more.
    server.publish(&tree(&["20260101", "20260102"]));
    assert!(seen("3", &server, &keyring, cache.path()).await.is_err());
    let believing = remote(server.address(), &access("4", cache.path()));
    assert_eq!(believing.images(&Filter::default()).await.unwrap().len(), 2);
    assert!(seen("5", &server, &keyring, cache.path()).await.is_err());
    server.publish_files(signed(&tree(&["20260101"]), &signer, 1));
    assert_eq!(seen("6", &server, &keyring, cache.path()).await, Ok(1));
}

#[tokio::test]
async fn a_keyring_that_is_none_and_a_protocol_without_signatures_are_told_at_once() {
    let cache = tempfile::tempdir().unwrap();
    let spec = |protocol, keyring: &str| RemoteSpec {
        address: "https://127.0.0.1:1".to_owned(),
        protocol,
        keyring: Some(keyring.to_owned()),
        ..RemoteSpec::default()
    };
    let access = access("1", cache.path());
    let connect = |spec| lxd_simplestreams::connect(spec, &access).map(|_| ());
    let error = connect(spec(Protocol::Simplestreams, "")).unwrap_err().to_string();
    assert!(error.contains("the keyring for https://127.0.0.1:1"), "{error}");
    let (_, keyring) = key();
    let error = connect(spec(Protocol::Lxd, &keyring)).unwrap_err().to_string();
    assert!(error.contains("not signed"), "{error}");
}
