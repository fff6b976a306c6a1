//! Any bytes as a listing from the cache.
#![no_main]

use lxd_proto::remote::Want;
use lxd_simplestreams::listing::Listing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(listing) = Listing::from_bytes(bytes.to_vec()) else { return };
    let _ = listing.aliases();
    let _ = listing.alias("a", &Want::default());
    for image in listing.images().flatten().take(10) {
        let _ = listing.files(&image.fingerprint);
        let _ = listing.matching(&image.fingerprint.into());
    }
});
