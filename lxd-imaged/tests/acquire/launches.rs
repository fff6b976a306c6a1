//! Images that come for an instance: asked for as little as can be, and cached.

use super::*;

#[tokio::test]
async fn a_launch_asks_only_what_it_must() {
    let (first, second) = (unified("1"), unified("2"));
    let server = Fake::with(&[("debian", &first)]);
    let daemon = Daemon::new(&[&server]).await;
    let entry = daemon.ensure(&server, "debian").await.unwrap();
    assert!(entry.image.cached && entry.image.auto_update && !entry.image.public);
    let asked = server.questions();
    // Kept current: no question at all, even when the alias has moved.
    server.add("debian", &second);
    assert_eq!(
        daemon.ensure(&server, "debian").await.unwrap().image,
        daemon.get(&first.fingerprint()).unwrap().image
    );
    daemon.ensure(&server, &first.fingerprint().to_string()).await.unwrap();
    assert_eq!(server.questions(), asked);
    // Not kept current: one question, and the alias is followed.
    daemon.configure("images.auto_update_interval", "0").await;
    let entry = daemon.ensure(&server, "debian").await.unwrap();
    assert_eq!(entry.image.fingerprint, second.fingerprint());
    let asked = server.questions();
    daemon.ensure(&server, "debian").await.unwrap();
    assert_eq!((server.questions(), server.downloads()), (asked + 1, 2));
}

#[tokio::test]
async fn a_short_fingerprint_is_found_and_an_ambiguous_one_names_its_candidates() {
    let images: Vec<Made> = (0..40).map(|salt| unified(&salt.to_string())).collect();
    let named: Vec<(String, &Made)> =
        images.iter().enumerate().map(|(n, image)| (n.to_string(), image)).collect();
    let named: Vec<(&str, &Made)> = named.iter().map(|(n, image)| (n.as_str(), *image)).collect();
    let server = Fake::with(&named);
    let daemon = Daemon::new(&[&server]).await;
    let full = images[0].fingerprint().to_string();
    let entry = daemon.ensure(&server, &full[..20]).await.unwrap();
    assert_eq!(entry.image.fingerprint, images[0].fingerprint());
    assert!(!entry.image.auto_update && entry.image.update_source.is_none());
    // Among forty images two begin with the same digit.
    let digit = "0123456789abcdef"
        .chars()
        .find(|digit| {
            let begins = |image: &&Made| image.fingerprint().to_string().starts_with(*digit);
            images.iter().filter(begins).count() > 1 && !digit.is_ascii_digit()
        })
        .unwrap();
    let error = daemon.ensure(&server, &digit.to_string()).await.unwrap_err();
    let Error::Origin { source, .. } = &error else { panic!("{error}") };
    let lxd_proto::remote::Error::Ambiguous { candidates, .. } = &**source else {
        panic!("{error}")
    };
    assert!(candidates.len() > 1);
}

#[tokio::test]
async fn a_person_who_copies_a_cached_image_keeps_it() {
    let image = unified("1");
    let server = Fake::with(&[("debian", &image)]);
    let daemon = Daemon::new(&[&server]).await;
    daemon.ensure(&server, "debian").await.unwrap();
    let entry = daemon.copy(&server, "debian", Wish::default()).await.unwrap();
    assert!(!entry.image.cached && !entry.image.auto_update);
    daemon.pass(24 * 400);
    assert_eq!(expiry::run_once(daemon.app()).await.unwrap().images, 0);
    assert_eq!(server.downloads(), 1);
}
