//! Any bytes as an index and as a catalog.
#![no_main]

use lxd_simplestreams::convert;
use lxd_simplestreams::document::{Catalog, Index};
use lxd_simplestreams::path::TreePath;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(index) = Index::parse(bytes) {
        for path in index.catalogs() {
            let _ = TreePath::parse(path);
        }
    }
    if let Ok(catalog) = Catalog::parse(bytes) {
        let _ = convert::images(&catalog);
    }
});
