//! A simplestreams tree in memory: files and the documents that tell of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::fixtures::fingerprint;

/// Files by path, and products with their versions.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    files: BTreeMap<String, Vec<u8>>,
    products: BTreeMap<String, Value>,
}

impl Tree {
    /// Adds a split image as the build `serial` (`YYYYMMDD…`) of `product` (`os:release`), the
    /// rootfs under its `ftype` (`squashfs`, `root.tar.xz`, `disk-kvm.img`); its fingerprint.
    pub fn split(
        &mut self,
        product: &str,
        serial: &str,
        metadata: &[u8],
        (ftype, rootfs): (&str, &[u8]),
    ) -> String {
        let combined = fingerprint(&[metadata, rootfs]);
        let field = match ftype {
            "squashfs" => "combined_squashfs_sha256".to_owned(),
            "root.tar.xz" => "combined_rootxz_sha256".to_owned(),
            other => format!("combined_{}_sha256", other.replace('.', "-")),
        };
        let mut item = self.item(product, serial, "lxd.tar.xz", metadata);
        item[field] = json!(combined);
        self.add(product, serial, "lxd.tar.xz", item);
        let item = self.item(product, serial, ftype, rootfs);
        self.add(product, serial, ftype, item);
        combined
    }

    /// Adds a unified image as the build `serial` of `product`; its fingerprint.
    pub fn unified(&mut self, product: &str, serial: &str, image: &[u8]) -> String {
        let item = self.item(product, serial, "lxd_combined.tar.gz", image);
        self.add(product, serial, "lxd_combined.tar.gz", item);
        fingerprint(&[image])
    }

    /// Adds a difference to the squashfs of the build `base` of the same product.
    pub fn delta(&mut self, product: &str, serial: &str, base: &str, bytes: &[u8]) {
        let mut item = self.item(product, serial, "squashfs.vcdiff", bytes);
        item["delta_base"] = json!(base);
        self.add(product, serial, "squashfs.vcdiff", item);
    }

    /// Where a file of a build lies, with its leading slash.
    pub fn path(product: &str, serial: &str, ftype: &str) -> String {
        format!("/images/{}/{serial}/{ftype}", product.replace(':', "/"))
    }

    /// Changes what the catalog says about an item.
    pub fn say(&mut self, product: &str, serial: &str, ftype: &str, key: &str, value: Value) {
        let item = &mut self.products.get_mut(product).expect("a product")["versions"][serial]["items"]
            [ftype];
        item[key] = value;
    }

    /// Takes a build out of the catalog; its files stay.
    pub fn withdraw(&mut self, product: &str, serial: &str) {
        let versions = &mut self.products.get_mut(product).expect("a product")["versions"];
        versions.as_object_mut().expect("versions").remove(serial);
    }

    fn item(&mut self, product: &str, serial: &str, ftype: &str, bytes: &[u8]) -> Value {
        let path = Self::path(product, serial, ftype);
        let item = json!({
            "ftype": ftype, "path": path.trim_start_matches('/'), "size": bytes.len(),
            "sha256": fingerprint(&[bytes]),
        });
        self.files.insert(path, bytes.to_vec());
        item
    }

    fn add(&mut self, product: &str, serial: &str, name: &str, item: Value) {
        let (os, release) = product.split_once(':').unwrap_or((product, "1"));
        let entry = self.products.entry(product.to_owned()).or_insert_with(|| {
            json!({
                "aliases": format!("{os}/{release},{os}"), "os": os, "release": release,
                "release_title": release, "arch": "amd64", "versions": {},
            })
        });
        entry["versions"][serial]["items"][name] = item;
    }

    /// All files by path, documents included.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = self.files.clone();
        let products: BTreeMap<String, &Value> =
            self.products.iter().map(|(name, value)| (format!("{name}:amd64"), value)).collect();
        let names: Vec<&String> = products.keys().collect();
        let index = json!({
            "format": "index:1.0",
            "index": {"images": {
                "datatype": "image-downloads", "path": "streams/v1/images.json",
                "format": "products:1.0", "products": names,
            }},
        });
        let catalog = json!({
            "content_id": "images", "datatype": "image-downloads", "format": "products:1.0",
            "products": products,
        });
        files.insert("/streams/v1/index.json".to_owned(), index.to_string().into_bytes());
        files.insert("/streams/v1/images.json".to_owned(), catalog.to_string().into_bytes());
        files
    }
}
