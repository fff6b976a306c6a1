//! Downloads over bad lines: cut, held, interrupted by a restart of the daemon; from our own
//! servers, from real LXD, and from a simplestreams server.

use std::time::{Duration, Instant};

use lxd_tests::fixtures::{Compression, Recipe, big};
use lxd_tests::server::{Server, streams_offer};
use lxd_tests::streams::Tree;
use lxd_tests::wait;
use lxd_tests::web::{Authority, Web};
use lxd_tests::wire::Wire;
use serde_json::Value;

/// The long form is for a machine with time: `LXD_TEST_LONG=1`.
fn large() -> usize {
    if std::env::var_os("LXD_TEST_LONG").is_some() { 256 } else { 64 }
}

/// An image somewhere, and how a daemon is told to fetch it.
struct Offer {
    fingerprint: String,
    size: u64,
    wire: Wire,
    request: Value,
    _origin: Origin,
}

#[expect(dead_code, reason = "kept running until the end of the test")]
enum Origin {
    Daemon(Server),
    Web(Web),
}

impl Offer {
    fn daemon(server: Server, mib: usize, split: bool) -> Self {
        let fingerprint = server.import_large("big", mib, split);
        let wire = Wire::to(server.port);
        Self {
            size: server.size(&fingerprint),
            request: server.offer(wire.port(), "big"),
            fingerprint,
            wire,
            _origin: Origin::Daemon(server),
        }
    }

    fn streams(authority: &Authority, mib: usize, split: bool) -> Self {
        let mut tree = Tree::default();
        let (fingerprint, size) = if split {
            let metadata = Recipe::new("big").metadata(Compression::Xz);
            let root = big::root(Vec::new(), mib, Compression::Plain).unwrap();
            let size = metadata.len() + root.len();
            (tree.split("big:1", "20260101_0000", &metadata, ("root.tar.xz", &root)), size)
        } else {
            let image = big::unified(Vec::new(), "big", mib, Compression::Plain).unwrap();
            (tree.unified("big:1", "20260101_0000", &image), image.len())
        };
        let web = Web::start(authority);
        web.publish(tree.files());
        let wire = Wire::to(web.port());
        let request = streams_offer(wire.port(), "big");
        Self { fingerprint, size: size as u64, wire, request, _origin: Origin::Web(web) }
    }

    /// Fetches it and sees that it is whole.
    fn arrives(&self, at: &Server) {
        let ended = at.pull(&self.request);
        assert_eq!(ended["status"], "Success", "{ended}");
        self.is_whole(at);
    }

    fn is_whole(&self, at: &Server) {
        let out = at.daemon.work().join("exported");
        at.lxc(&format!("image export {} {}", &self.fingerprint[..12], out.display())).ok();
        let verified = at.cli(&format!("image verify {}", self.fingerprint)).ok();
        assert!(!verified.stdout.is_empty());
        assert_eq!(at.size(&self.fingerprint), self.size);
        assert_eq!(at.daemon.files_in("partial"), [""; 0]);
        for name in ["exported", "exported.root", "exported.tar", "exported.rootfs"] {
            let _ = std::fs::remove_file(at.daemon.work().join(name));
        }
    }

    /// Ten cuts; what may come twice is what was under way at each.
    fn survives_ten_cuts(&self, at: &Server) {
        /// What kernels and this wire hold, and the requests and answers around it.
        const UNDER_WAY: u64 = 1 << 20;
        self.wire.cut(10, self.size / 12);
        self.arrives(at);
        assert!(self.wire.cuts_left() <= 0, "{} cuts did not happen", self.wire.cuts_left());
        let most = self.size + self.size / 50 + 11 * UNDER_WAY;
        let came = self.wire.bytes();
        assert!(came < most, "{came} bytes for an image of {}", self.size);
    }
}

#[test]
fn ten_cuts_on_the_way_from_a_real_lxd() {
    let target = Server::ours();
    Offer::daemon(Server::lxd(), large(), false).survives_ten_cuts(&target);
}

#[test]
fn ten_cuts_on_the_way_from_ours() {
    let target = Server::ours();
    for split in [false, true] {
        let offer = Offer::daemon(Server::ours(), large(), split);
        offer.survives_ten_cuts(&target);
    }
}

#[test]
fn ten_cuts_on_the_way_from_a_simplestreams_server() {
    let authority = Authority::new();
    let target = Server::ours_with(&authority, &[]);
    for split in [false, true] {
        let offer = Offer::streams(&authority, large(), split);
        offer.survives_ten_cuts(&target);
    }
}

#[test]
fn cuts_of_a_download_in_parallel_pieces() {
    let target = Server::ours();
    let offer = Offer::daemon(Server::ours(), 72, false);
    // So far away that a single stream would be slow.
    offer.wire.delay(Duration::from_millis(30));
    offer.wire.cut(4, 15 << 20);
    offer.arrives(&target);
    assert!(offer.wire.connections() > 5, "{} connections", offer.wire.connections());
    let most = offer.size + 4 * (16 << 20) + (8 << 20);
    assert!(offer.wire.bytes() < most, "{} bytes for {}", offer.wire.bytes(), offer.size);
}

#[test]
fn a_split_image_of_a_real_lxd_is_fetched_again_from_its_start() {
    let target = Server::ours();
    // LXD sends it in chunks and takes no range.
    let offer = Offer::daemon(Server::lxd(), 16, true);
    offer.wire.cut(3, offer.size / 2);
    offer.arrives(&target);
    assert!(offer.wire.cuts_left() <= 0);
}

#[test]
fn a_killed_daemon_goes_on_where_it_was() {
    let authority = Authority::new();
    let mut target = Server::ours_with(&authority, &[]);
    let offers = [
        Offer::streams(&authority, 24, true),
        Offer::streams(&authority, 24, false),
        Offer::daemon(Server::ours(), 24, true),
        Offer::daemon(Server::lxd(), 24, false),
    ];
    for offer in offers {
        offer.wire.slow_to(24 << 20);
        target.daemon.http().json("POST", "/1.0/images", &offer.request).expect(202);
        wait::until("half of it", || target.daemon.bytes_in("partial") > offer.size / 2);
        target.daemon.kill();
        let kept = target.daemon.bytes_in("partial");
        assert!(kept > offer.size / 2, "{kept} of {} kept", offer.size);
        target.daemon.launch();
        let before = offer.wire.bytes();
        offer.arrives(&target);
        let again = offer.wire.bytes() - before;
        let left = offer.size - kept;
        assert!(again < left + (2 << 20), "{again} bytes came for {left}");
        target.lxc(&format!("image delete {}", &offer.fingerprint[..12])).ok();
    }
}

#[test]
fn a_silent_server_is_given_up_by_name() {
    let authority = Authority::new();
    let target = Server::ours_with(&authority, &[("LXD_IMAGED_IDLE_TIMEOUT", "2")]);
    for offer in [
        Offer::daemon(Server::ours(), 16, false),
        Offer::daemon(Server::ours(), 16, true),
        Offer::streams(&authority, 16, true),
    ] {
        offer.wire.hold_after(offer.size / 2);
        let start = Instant::now();
        let ended = target.pull(&offer.request);
        let took = start.elapsed();
        assert_eq!(ended["status"], "Failure", "{ended}");
        let said = ended["err"].as_str().unwrap();
        assert!(said.contains(&format!("127.0.0.1:{}", offer.wire.port())), "{said}");
        assert!(said.contains("silent for 2 seconds"), "{said}");
        assert!(took < Duration::from_secs(20), "given up after {took:?}");
        assert!(!target.has(&offer.fingerprint));
        // What has come is not lost: the next attempt goes on from there.
        let kept = target.daemon.bytes_in("partial");
        assert!(kept > offer.size / 2 - (1 << 20), "{kept} of {} kept", offer.size);
        offer.wire.release();
        // Slow enough that no kernel holds much.
        offer.wire.slow_to(24 << 20);
        let before = offer.wire.bytes();
        offer.arrives(&target);
        let again = offer.wire.bytes() - before;
        assert!(
            again < offer.size - kept + (2 << 20),
            "{again} came, {kept} of {} were here",
            offer.size
        );
        target.lxc(&format!("image delete {}", &offer.fingerprint[..12])).ok();
    }
}

#[test]
fn a_client_that_gives_up_ends_the_download() {
    let target = Server::ours();
    let offer = Offer::daemon(Server::ours(), 16, false);
    offer.wire.slow_to(2 << 20);
    let http = target.daemon.http();
    let accepted = http.json("POST", "/1.0/images", &offer.request).expect(202).json();
    let operation = accepted["operation"].as_str().unwrap();
    wait::until("a beginning", || offer.wire.bytes() > 1 << 20);
    http.json("DELETE", operation, &Value::Null);
    let mut last = offer.wire.bytes();
    wait::until("silence on the wire", || {
        std::thread::sleep(Duration::from_millis(300));
        last == std::mem::replace(&mut last, offer.wire.bytes())
    });
    assert!(offer.wire.bytes() < offer.size, "it was downloaded to its end");
    assert!(!target.has(&offer.fingerprint));
    // And it can be had later.
    offer.wire.slow_to(1 << 30);
    offer.arrives(&target);
}
