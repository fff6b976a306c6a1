//! A tree: files and the documents that tell of them.

use std::collections::BTreeMap;

use lxd_simplestreams::document::{Catalog, Index, IndexEntry, Item, Product, Version};
use sha2::{Digest, Sha256};

/// Files by path, and the catalogs that list them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) catalogs: BTreeMap<String, Catalog>,
    /// When the documents say that they were made.
    pub(crate) updated: String,
}

/// One build of a split image.
#[derive(Debug, Clone)]
pub(crate) struct Build<'a> {
    pub(crate) catalog: &'a str,
    pub(crate) os: &'a str,
    pub(crate) arch: &'a str,
    pub(crate) serial: &'a str,
    pub(crate) metadata: &'a [u8],
    pub(crate) rootfs: &'a [u8],
    /// The serial of the older build and the delta from it.
    pub(crate) delta: Option<(&'a str, Vec<u8>)>,
}

/// The SHA-256 of some pieces, one after the other.
pub(crate) fn fingerprint(pieces: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update(piece);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Build<'_> {
    /// The fingerprint of the image.
    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(&[self.metadata, self.rootfs])
    }
}

impl Tree {
    /// Adds a split image under the alias `OS`.
    pub(crate) fn add(&mut self, build: &Build<'_>) {
        let directory = format!("images/{}/{}/{}", build.os, build.arch, build.serial);
        let combined = build.fingerprint();
        let mut metadata =
            self.item("lxd.tar.xz", &format!("{directory}/lxd.tar.xz"), build.metadata);
        metadata.combined_squashfs_sha256 = combined;
        let root = self.item("squashfs", &format!("{directory}/rootfs.squashfs"), build.rootfs);
        let mut items =
            BTreeMap::from([("lxd.tar.xz".to_owned(), metadata), ("root".to_owned(), root)]);
        if let Some((base, delta)) = &build.delta {
            let path = format!("{directory}/rootfs.{base}.vcdiff");
            let mut item = self.item("squashfs.vcdiff", &path, delta);
            (*base).clone_into(&mut item.delta_base);
            items.insert("delta".to_owned(), item);
        }
        let version = Version { items, ..Version::default() };
        self.product(build.catalog, build.os, build.arch)
            .versions
            .insert(build.serial.to_owned(), version);
    }

    /// Adds a unified image under the alias `OS` and returns its fingerprint.
    pub(crate) fn add_unified(
        &mut self,
        catalog: &str,
        os: &str,
        serial: &str,
        bytes: &[u8],
    ) -> String {
        let path = format!("images/{os}/{serial}/all.tar.gz");
        let item = self.item("lxd_combined.tar.gz", &path, bytes);
        let fingerprint = item.sha256.clone();
        let items = BTreeMap::from([("all".to_owned(), item)]);
        let version = Version { items, ..Version::default() };
        self.product(catalog, os, "amd64").versions.insert(serial.to_owned(), version);
        fingerprint
    }

    fn product(&mut self, catalog: &str, os: &str, arch: &str) -> &mut Product {
        let catalog = self.catalogs.entry(catalog.to_owned()).or_default();
        let product = catalog.products.entry(format!("{os}:{arch}")).or_default();
        os.clone_into(&mut product.aliases);
        os.clone_into(&mut product.os);
        arch.clone_into(&mut product.arch);
        "1".clone_into(&mut product.release);
        "1".clone_into(&mut product.release_title);
        product
    }

    fn item(&mut self, ftype: &str, path: &str, bytes: &[u8]) -> Item {
        self.files.insert(path.to_owned(), bytes.to_vec());
        Item {
            ftype: ftype.to_owned(),
            path: path.to_owned(),
            size: i64::try_from(bytes.len()).unwrap(),
            sha256: fingerprint(&[bytes]),
            ..Item::default()
        }
    }

    /// All files by path, documents included.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.files.clone();
        let updated = self.updated.clone();
        let mut index = Index { format: "index:1.0".to_owned(), updated, ..Index::default() };
        for (name, catalog) in &self.catalogs {
            let path = format!("streams/v1/{name}.json");
            let entry = IndexEntry {
                datatype: "image-downloads".to_owned(),
                path: path.clone(),
                format: "products:1.0".to_owned(),
                products: catalog.products.keys().cloned().collect(),
                updated: self.updated.clone(),
            };
            let catalog = Catalog {
                content_id: name.clone(),
                format: "products:1.0".to_owned(),
                updated: self.updated.clone(),
                ..catalog.clone()
            };
            index.index.insert(name.clone(), entry);
            files.insert(path, serde_json::to_vec_pretty(&catalog).unwrap());
        }
        files.insert("streams/v1/index.json".to_owned(), serde_json::to_vec(&index).unwrap());
        files
    }
}
