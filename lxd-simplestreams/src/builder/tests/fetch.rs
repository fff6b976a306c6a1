//! Images come in from a server, with the names that they have there.

use std::sync::Mutex;

use async_trait::async_trait;
use lxd_proto::alias::{AliasEntry, ImageAlias};
use lxd_proto::filter::Filter;
use lxd_proto::fingerprint::Prefix;
use lxd_proto::image::Image;
use lxd_proto::remote::{
    Error, Fetch, FileRole, IncomingFile, Remote, RemoteSpec, Secret, Sink, Want,
};

use super::*;

/// A server with split images in memory.
#[derive(Debug, Default)]
struct Memory {
    spec: RemoteSpec,
    images: Vec<(Image, [Vec<u8>; 2])>,
    downloads: Mutex<usize>,
}

impl Memory {
    fn add(&mut self, sample: &Sample, names: &[&str], public: bool) -> Fingerprint {
        let files = [sample.metadata(), sample.root()];
        let fingerprint = sha256(&[&files[0], &files[1]]);
        let aliases: Vec<ImageAlias> = names
            .iter()
            .map(|name| serde_json::from_value(serde_json::json!({ "name": name })).unwrap())
            .collect();
        let image = serde_json::json!({
            "fingerprint": fingerprint, "architecture": "x86_64", "public": public,
            "size": files[0].len() + files[1].len(),
        });
        let image: Image = serde_json::from_value(image).unwrap();
        self.images.push((Image { aliases, ..image }, files));
        fingerprint
    }
}

#[async_trait]
impl Remote for Memory {
    fn spec(&self) -> &RemoteSpec {
        &self.spec
    }

    async fn images(&self, _: &Filter) -> lxd_proto::remote::Result<Vec<Image>> {
        Ok(self.images.iter().map(|(image, _)| image.clone()).collect())
    }

    async fn image(&self, _: &Prefix, _: Option<&Secret>) -> lxd_proto::remote::Result<Image> {
        Err(Error::Cancelled)
    }

    async fn aliases(&self) -> lxd_proto::remote::Result<Vec<AliasEntry>> {
        Err(Error::Cancelled)
    }

    async fn alias(&self, _: &str, _: &Want) -> lxd_proto::remote::Result<AliasEntry> {
        Err(Error::Cancelled)
    }

    async fn download(
        &self,
        image: &Image,
        _: &Fetch,
        sink: &mut dyn Sink,
    ) -> lxd_proto::remote::Result<()> {
        *self.downloads.lock().unwrap() += 1;
        let found = self.images.iter().find(|(other, _)| other == image).unwrap();
        for (role, bytes) in
            [FileRole::Metadata, FileRole::Rootfs(image.kind)].into_iter().zip(&found.1)
        {
            let file = IncomingFile { role, filename: String::new(), length: None };
            let store = async {
                sink.begin(&file).await?;
                sink.write(bytes.clone().into()).await
            };
            store.await.map_err(Error::io("store"))?;
        }
        Ok(())
    }
}

async fn fetched(home: &Home, server: &Memory, keep: Option<usize>) -> BuildReport {
    let (mut tree, taken) =
        home.open().fetch(server, "there", &Fetch::default(), keep).await.unwrap();
    tree.build(&BuildOptions::default(), now()).unwrap().with_taken(taken)
}

#[tokio::test]
async fn public_images_come_verified_with_their_names() {
    let home = Home::new();
    let mut server = Memory::default();
    let one = server.add(&sample("alpine", "20260101"), &["web", "web/amd64", "a,b"], true);
    let two = server.add(&sample("alpine", "20260102"), &["db"], true);
    server.add(&sample("secret", "20260101"), &["private"], false);
    let bad = server.add(&sample("bad", "20260101"), &["bad"], true);
    server.images.last_mut().unwrap().1[1].push(0);
    let report = fetched(&home, &server, None).await;
    assert_eq!(report.taken.len(), 2, "{report:?}");
    assert!(report.taken.iter().all(|taken| taken.from.starts_with("there:")));
    let broken = told(&report.broken);
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert!(broken[0].starts_with(&format!("there:{bad}: Image fingerprint doesn't match")));
    let names = |fingerprint| home.listed()[&fingerprint].names.to_string();
    // A name leads to the image that has it, although there is a newer one.
    assert_eq!(names(one), "web");
    assert_eq!(names(two), "alpine/1,alpine/1/default,db");

    // Nothing comes twice, and a build without the server keeps the names.
    let report = fetched(&home, &server, None).await;
    assert_eq!((report.taken.len(), report.present, report.changed), (0, 2, false));
    assert_eq!(*server.downloads.lock().unwrap(), 4);
    fs::remove_file(home.tree().join(CATALOG)).unwrap();
    home.build();
    assert_eq!(names(one), "web");

    // Names move as they do there.
    let web = server.images[0].0.aliases.clone();
    server.images[0].0.aliases.clear();
    server.images[1].0.aliases.extend(web);
    fetched(&home, &server, None).await;
    assert_eq!(names(two), "alpine/1,alpine/1/default,db,web");
    assert_eq!(home.verify().faults, []);
}

#[tokio::test]
async fn a_name_leads_where_it_led() {
    let home = Home::new();
    let mut server = Memory::default();
    server.add(&sample("alpine", "20260101"), &[], true);
    let debian = server.add(&sample("debian", "20260101"), &["alpine/1"], true);
    let older = server.add(&sample("void", "20260101"), &["void/1"], true);
    server.add(&sample("void", "20260102"), &[], true);
    assert_eq!(told(&fetched(&home, &server, None).await.broken), [""; 0]);
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for (product, listed) in home.catalog().products {
        for alias in listed.aliases.split(',') {
            assert_eq!(names.insert(alias.to_owned(), product.clone()), None, "{alias}");
        }
    }
    assert_eq!(names["alpine/1"], "debian:1:amd64:default");
    assert_eq!(names["alpine/1/default"], "alpine:1:amd64:default");
    assert!(home.listed()[&debian].names.contains("debian/1"));
    // Not to the newest of its product, where the server has another word.
    assert_eq!(&*home.listed()[&older].names, "void/1");
    assert_eq!(home.verify().faults, []);
}

#[tokio::test]
async fn only_what_stays_comes() {
    let home = Home::new();
    let mut server = Memory::default();
    for (serial, day) in [("20260101", 1), ("20260102", 2), ("20260103", 3)] {
        server.add(&sample("alpine", serial), &[], true);
        let image = &mut server.images.last_mut().unwrap().0;
        image.created_at = format!("2026-01-0{day}T00:00:00Z").parse().unwrap();
    }
    let report = fetched(&home, &server, Some(1)).await;
    assert_eq!((report.taken.len(), report.older), (1, 2));
    assert_eq!(report.taken[0].serial, "20260103");
    // What is known to be too old is not even fetched.
    let report = fetched(&home, &server, Some(1)).await;
    assert_eq!((report.taken.len(), report.older), (0, 2));
    assert_eq!(*server.downloads.lock().unwrap(), 3);
    let report = fetched(&home, &server, Some(2)).await;
    assert_eq!((report.taken.len(), report.older), (1, 1));
    // Nor is what has been removed.
    change::prune(&home, 1, 0, now());
    let before = *server.downloads.lock().unwrap();
    let report = fetched(&home, &server, Some(1)).await;
    assert_eq!((report.taken.len(), report.older), (0, 2));
    assert_eq!(*server.downloads.lock().unwrap(), before);
    // Without a rule comes what never was here.
    let report = fetched(&home, &server, None).await;
    assert_eq!((report.taken.len(), report.older), (1, 1));
    assert_eq!(report.taken[0].serial, "20260101");
}

#[tokio::test]
async fn images_with_names_of_their_own_come_whatever_is_kept() {
    let home = Home::new();
    let mut server = Memory::default();
    for (serial, day, name) in [("20260101", 1, "web"), ("20260102", 2, "db"), ("20260103", 3, "")]
    {
        let names: &[&str] = if name.is_empty() { &[] } else { &[name] };
        server.add(&sample("alpine", serial), names, true);
        let image = &mut server.images.last_mut().unwrap().0;
        image.created_at = format!("2026-01-0{day}T00:00:00Z").parse().unwrap();
    }
    let report = fetched(&home, &server, Some(1)).await;
    assert_eq!((report.taken.len(), report.older, report.products), (3, 0, 3));
}

#[tokio::test]
async fn what_a_server_does_not_publish_any_more_is_told() {
    let home = Home::new();
    let mut server = Memory::default();
    for os in ["alpine", "private", "gone"] {
        server.add(&sample(os, "20260101"), &[], true);
    }
    version(&home, "own", "20260101");
    assert_eq!(fetched(&home, &server, None).await.gone, []);
    server.images[1].0.public = false;
    server.images.pop();
    for _ in 0..2 {
        let report = fetched(&home, &server, None).await;
        let paths: Vec<&str> = report.gone.iter().map(|gone| gone.path.as_str()).collect();
        assert_eq!(paths.len(), 2, "{paths:?}");
        for os in ["private", "gone"] {
            assert!(paths.contains(&at(os, "20260101").as_str()), "{paths:?}");
        }
        assert!(report.gone[0].reason.contains("there: has no public image"));
    }
    fs::remove_dir_all(home.tree().join(at("private", "20260101"))).unwrap();
    assert_eq!(fetched(&home, &server, None).await.gone.len(), 1);
    assert_eq!(home.listed().len(), 3);
}
