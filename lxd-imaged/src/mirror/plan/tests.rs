//! Tables of plans: what is here and there, and what becomes of it.

use super::*;

/// Image number `n`: a version of a release of one system.
fn image(n: u8, release: &str, serial: &str, aliases: &[&str]) -> Image {
    let fingerprint = Fingerprint::from_bytes([n; 32]).to_string();
    let aliases: Vec<_> =
        aliases.iter().map(|name| serde_json::json!({"name": name, "description": ""})).collect();
    serde_json::from_value(serde_json::json!({
        "fingerprint": fingerprint, "architecture": "x86_64", "size": 10,
        "created_at": "2026-01-01T00:00:00Z", "aliases": aliases,
        "properties": {"os": "debian", "release": release, "serial": serial},
    }))
    .unwrap()
}

fn held(release: &str, serial: &str) -> Held {
    let member = Member {
        product: format!("debian:{release}:x86_64:default:container"),
        serial: serial.into(),
        shared: false,
    };
    Held { member, size: 10, whole: true, bound: None }
}

fn print(n: u8) -> Fingerprint {
    Fingerprint::from_bytes([n; 32])
}

/// Each version's number with what becomes of it.
fn forecast(keep: u32, upstream: Vec<Image>, here: &[(u8, Held)]) -> Vec<(u8, MirrorAction)> {
    let held = here.iter().map(|(n, held)| (print(*n), held.clone())).collect();
    let here = Here { held: &held, stored: &|it| held.contains_key(it), owner: &|_| Owner::Nobody };
    let config = MirrorConfig { keep, ..MirrorConfig::default() };
    let report = plan(&config, upstream, &here).forecast(&config, &here);
    report
        .items
        .iter()
        .map(|item| {
            (u8::from_str_radix(&item.fingerprint.to_string()[..2], 16).unwrap(), item.action)
        })
        .collect()
}

#[test]
fn the_newest_versions_come_and_the_others_go() {
    use MirrorAction::{Download, Keep, Present, Remove};
    let v = |n: u8| image(n, "12", &format!("2026010{n}"), &[]);
    let h = |n: u8| (n, held("12", &format!("2026010{n}")));
    let bound = |n: u8| {
        let mut held = held("12", &format!("2026010{n}"));
        held.bound = Some("an instance uses it".into());
        (n, held)
    };
    let broken = |n: u8| {
        let mut held = held("12", &format!("2026010{n}"));
        held.whole = false;
        (n, held)
    };
    for (keep, upstream, here, expected) in [
        // Nothing here yet.
        (1, vec![v(1), v(3), v(2)], vec![], vec![(3, Download)]),
        (2, vec![v(1), v(3), v(2)], vec![], vec![(3, Download), (2, Download)]),
        // A newer one.
        (1, vec![v(2), v(1)], vec![h(1)], vec![(2, Download), (1, Remove)]),
        (2, vec![v(2), v(1)], vec![h(1)], vec![(2, Download), (1, Present)]),
        // The server keeps fewer than we do.
        (2, vec![v(3)], vec![h(2), h(1)], vec![(3, Download), (2, Keep), (1, Remove)]),
        // It has withdrawn the newest.
        (1, vec![v(1)], vec![h(2), h(1)], vec![(2, Remove), (1, Present)]),
        (2, vec![v(1)], vec![h(2), h(1)], vec![(2, Keep), (1, Present)]),
        // It has dropped the product.
        (1, vec![], vec![h(2), h(1)], vec![(2, Keep), (1, Remove)]),
        (3, vec![], vec![h(2), h(1)], vec![(2, Keep), (1, Keep)]),
        // A broken one does not count.
        (1, vec![], vec![broken(2), h(1)], vec![(2, Remove), (1, Keep)]),
        // Used by somebody.
        (1, vec![v(3)], vec![bound(2), h(1)], vec![(3, Download), (2, Keep), (1, Remove)]),
        (1, vec![v(3)], vec![h(3), h(2)], vec![(3, Present), (2, Remove)]),
    ] {
        assert_eq!(forecast(keep, upstream, &here), expected, "keep {keep}, here {here:?}");
    }
}

#[test]
fn what_fails_to_come_keeps_the_older_one() {
    let held: BTreeMap<_, _> = [(print(1), held("12", "20260101"))].into();
    let here = Here { held: &held, stored: &|_| false, owner: &|_| Owner::Nobody };
    let config = MirrorConfig::default();
    let plan = plan(&config, vec![image(2, "12", "20260102", &["a"])], &here);
    let retired = plan.retire(&config, &held);
    assert_eq!(retired.len(), 1);
    assert_eq!(retired[0].action, MirrorAction::Keep);
    // Its aliases stay where they are.
    assert_eq!(plan.leaders(&held), []);
}

#[test]
fn aliases_lead_to_the_newest_that_is_here_unless_somebody_has_them() {
    let held: BTreeMap<_, _> = [(print(1), held("12", "20260101"))].into();
    let owner = |alias: &AliasName| match alias.as_str() {
        "m/mine" => Owner::Other("a person".into()),
        "m/a" => Owner::Mirror,
        _ => Owner::Nobody,
    };
    let here = Here { held: &held, stored: &|_| false, owner: &owner };
    let mut vm = image(3, "12", "20260102", &["a", "vm"]);
    vm.kind = InstanceType::VirtualMachine;
    let upstream =
        vec![image(2, "12", "20260102", &["a", "mine"]), image(1, "12", "20260101", &[]), vm];
    let config = MirrorConfig { keep: 2, alias_prefix: "m/".into(), ..MirrorConfig::default() };
    let plan = plan(&config, upstream.clone(), &here);
    let names = |name: &str| -> Vec<&str> {
        plan.products[name].aliases.iter().map(AliasName::as_str).collect()
    };
    assert_eq!(names("debian:12:x86_64:default:container"), ["m/a"]);
    assert_eq!(names("debian:12:x86_64:default:virtual-machine"), ["m/vm"]);
    assert_eq!(plan.conflicts.len(), 1);
    assert_eq!(plan.conflicts[0].alias.as_str(), "m/mine");
    let leaders = plan.leaders(&held);
    assert_eq!(leaders.len(), 1);
    assert_eq!(leaders[0].0, print(1));
    assert!(plan.drops("m/old", "debian:12:x86_64:default:container"));
    assert!(!plan.drops("m/a", "debian:12:x86_64:default:container"));
    assert!(!plan.drops("m/old", "gone:1:x86_64:default:container"));
    let silent = MirrorConfig { aliases: false, ..config };
    assert!(super::plan(&silent, upstream, &here).products.values().all(|p| p.aliases.is_empty()));
}

#[test]
fn images_with_names_of_their_own_are_products_of_their_own() {
    let upstream = vec![
        image(1, "12", "20260101", &["web"]),
        image(2, "12", "20260102", &["db"]),
        image(3, "12", "20260103", &[]),
        image(4, "11", "20260101", &["old"]),
        image(5, "11", "20260102", &[]),
    ];
    let held = BTreeMap::new();
    let here = Here { held: &held, stored: &|_| false, owner: &|_| Owner::Nobody };
    let plan = plan(&MirrorConfig::default(), upstream, &here);
    let got: Vec<_> =
        plan.products.iter().map(|(name, it)| (&**name, it.wanted[0].image.fingerprint)).collect();
    assert_eq!(
        got,
        [
            ("debian:11:x86_64:default:container", print(4)),
            ("debian:12:x86_64:default:container", print(3)),
            ("debian:12:x86_64:default:container:db", print(2)),
            ("debian:12:x86_64:default:container:web", print(1)),
        ]
    );
}

#[test]
fn what_an_image_is_does_not_depend_on_the_names_of_others() {
    let config = MirrorConfig::default();
    let (web, db) = (image(1, "12", "20260101", &["web"]), image(2, "12", "20260102", &["db"]));
    let unnamed = image(3, "12", "20260103", &[]);
    let upstream = vec![web.clone(), db, unnamed.clone()];
    let none = BTreeMap::new();
    let here = |held| Here { held, stored: &|_| true, owner: &|_| Owner::Mirror };
    let first = plan(&config, upstream, &here(&none));
    let mut held = BTreeMap::new();
    for (name, product) in &first.products {
        for version in &product.wanted {
            let member =
                Member { product: name.clone(), serial: version.serial.clone(), shared: false };
            let one = Held { member, size: 10, whole: true, bound: None };
            held.insert(version.image.fingerprint, one);
        }
    }
    assert_eq!(held.len(), 3);
    // One loses its name: all stay where they are.
    let lost = image(2, "12", "20260102", &[]);
    let second = plan(&config, vec![web.clone(), lost.clone(), unnamed.clone()], &here(&held));
    assert_eq!(second.retire(&config, &held).len(), 0);
    assert!(second.products.keys().eq(first.products.keys()));
    assert!(second.drops("db", &held[&print(2)].member.product));
    // Another one takes the name: it is the newer version of what had it.
    let newer = image(4, "12", "20260104", &["db"]);
    let third = plan(&config, vec![web, lost, newer, unnamed], &here(&held));
    let kept = third.retire(&config, &held);
    assert_eq!((kept.len(), kept[0].fingerprint), (1, print(2)));
    assert_eq!(kept[0].action, MirrorAction::Keep, "the newer one has not come yet");
    assert_eq!(
        third.products[&held[&print(2)].member.product].wanted[0].image.fingerprint,
        print(4)
    );
}

#[test]
fn two_images_with_names_are_never_one_product() {
    let held: BTreeMap<_, _> =
        [(print(1), held("12", "20260101")), (print(2), held("12", "20260102"))].into();
    let here = Here { held: &held, stored: &|_| true, owner: &|_| Owner::Mirror };
    let upstream =
        vec![image(1, "12", "20260101", &["previous"]), image(2, "12", "20260102", &["stable"])];
    let plan = plan(&MirrorConfig { keep: 2, ..MirrorConfig::default() }, upstream, &here);
    let leads: BTreeMap<_, _> = plan
        .leaders(&held)
        .into_iter()
        .flat_map(|(image, names)| names.iter().map(move |name| (name.to_string(), image)))
        .collect();
    assert_eq!(leads, [("previous".into(), print(1)), ("stable".into(), print(2))].into());
}
