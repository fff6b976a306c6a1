//! One file, whatever happens to the connection.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lxd_proto::net::{Access, Authorities, Download, DownloadOptions, Http, Limits, Proxies};
use lxd_proto::remote::{Error, Result};

use crate::server::{Reply, Request, Server, noise};

const MIB: usize = 1 << 20;

pub fn access() -> Access {
    let limits = Limits {
        connect: Duration::from_secs(5),
        idle: Duration::from_millis(300),
        backoff: Duration::from_millis(1),
        retries: 4,
        ..Limits::default()
    };
    Access {
        identity: None,
        proxies: Proxies::none(),
        authorities: Authorities::from_pem(""),
        user_agent: "tests".into(),
        cache: None,
        limits,
    }
}

pub fn http(access: &Access) -> Http {
    // A pinned certificate, so that no authority is asked for.
    let pinned = lxd_proto::net::Identity::generate("pinned").unwrap();
    Http::new(access, pinned.certificate_pem()).unwrap()
}

async fn read(mut download: Download) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(bytes) = download.next().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

async fn get(server: &Server, options: DownloadOptions) -> Result<Vec<u8>> {
    read(http(&access()).open(&server.url("/file"), options).await?).await
}

#[tokio::test]
async fn a_file_that_is_cut_ten_times_arrives_with_each_byte_once() {
    let file = noise(3 * MIB);
    let served = file.clone();
    let server = Server::start(move |request: &Request| {
        let mut reply = Reply::file(request, &served, "\"v1\"");
        reply.cut = (request.number < 10).then_some(100_000 + 7 * request.number);
        reply
    })
    .await;
    assert!(get(&server, DownloadOptions::default()).await.unwrap() == file);
    let requests = server.requests();
    assert_eq!(requests.len(), 11);
    assert_eq!(requests[0].header("range"), None);
    assert_eq!(requests[0].header("accept-encoding"), Some("identity"));
    for request in &requests[1..] {
        assert!(request.range().unwrap().0 > 0);
        assert_eq!(request.header("if-range"), Some("\"v1\""));
    }
    // What was cut off is asked for again, and nothing else.
    assert!(server.sent() < file.len() + 10 * MIB / 8, "{}", server.sent());
}

#[tokio::test]
async fn the_time_of_the_last_change_serves_where_there_is_no_tag() {
    let file = noise(MIB);
    let served = file.clone();
    let date = "Mon, 23 Nov 2026 10:00:00 GMT";
    let server = Server::start(move |request| {
        let mut reply = Reply::file(request, &served, date);
        for (name, _) in &mut reply.headers {
            if name == "ETag" {
                *name = "Last-Modified".to_owned();
            }
        }
        reply.cut = (request.number == 0).then_some(1000);
        reply
    })
    .await;
    assert!(get(&server, DownloadOptions::default()).await.unwrap() == file);
    assert_eq!(server.requests()[1].header("if-range"), Some(date));
}

#[tokio::test]
async fn where_the_server_cannot_range_the_file_begins_again_and_what_is_known_is_dropped() {
    let file = noise(MIB);
    let served = file.clone();
    let server = Server::start(move |request| {
        let mut reply = Reply::new(200, served.clone());
        reply.chunked = true;
        reply.cut = [Some(300_000), Some(200_000), Some(400_000), None][request.number.min(3)];
        reply
    })
    .await;
    assert!(get(&server, DownloadOptions::default()).await.unwrap() == file);
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|request| request.header("range").is_none()));
}

#[tokio::test]
async fn the_whole_instead_of_a_part_is_no_harm_while_it_is_the_same_file() {
    let file = noise(MIB);
    let served = file.clone();
    let server = Server::start(move |request| {
        let mut reply = Reply::new(200, served.clone())
            .header("ETag", "\"v1\"")
            .header("Accept-Ranges", "bytes");
        reply.cut = (request.number == 0).then_some(500_000);
        reply
    })
    .await;
    assert!(get(&server, DownloadOptions::default()).await.unwrap() == file);
}

#[tokio::test]
async fn another_file_under_the_same_name_is_noticed() {
    let (old, new) = (noise(MIB), Bytes::from(vec![1; MIB]));
    let server = Server::start(move |request| {
        let (file, tag) = if request.number == 0 { (&old, "\"1\"") } else { (&new, "\"2\"") };
        let mut reply = Reply::file(request, file, tag);
        reply.cut = (request.number == 0).then_some(500_000);
        reply
    })
    .await;
    let error = get(&server, DownloadOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    assert!(error.to_string().contains("/file"), "{error}");
}

#[tokio::test]
async fn a_wrong_part_is_not_taken() {
    let file = noise(MIB);
    for wrong in ["bytes 0-1048575/1048576", "bytes 500000-1048575/999", "bytes x", ""] {
        let served = file.clone();
        let server = Server::start(move |request| {
            if request.range().is_none() {
                let mut reply = Reply::file(request, &served, "\"v1\"");
                reply.cut = (request.number == 0).then_some(500_000);
                return reply;
            }
            Reply::new(206, served.slice(..MIB / 2)).header("Content-Range", wrong)
        })
        .await;
        // From its start, then, and without ranges.
        assert!(get(&server, DownloadOptions::default()).await.unwrap() == file, "{wrong}");
        let requests = server.requests();
        assert_eq!(requests.len(), 3, "{wrong}");
        assert_eq!(requests[2].header("range"), None);
    }
}

#[tokio::test]
async fn a_peer_that_sends_byte_by_byte_is_given_up_too() {
    let server = Server::start(|request| {
        let mut reply = Reply::file(request, &noise(MIB), "\"v1\"");
        reply.stall = Some(100_000);
        reply.trickle = Some(Duration::from_millis(50));
        reply
    })
    .await;
    let begun = Instant::now();
    let error = get(&server, DownloadOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Slow { bytes: 1..100, .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_peer_that_stalls_is_given_up_and_named() {
    let server = Server::start(|request| {
        let mut reply = Reply::file(request, &noise(MIB), "\"v1\"");
        reply.stall = Some(100_000);
        reply
    })
    .await;
    let begun = Instant::now();
    let error = get(&server, DownloadOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Silent { .. }), "{error}");
    assert!(error.to_string().contains(&server.address), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_peer_that_brings_nothing_new_is_given_up() {
    let server = Server::start(|request| {
        let mut reply = Reply::new(200, noise(MIB));
        reply.chunked = true;
        reply.cut = Some(100_000 - request.number.min(5));
        reply
    })
    .await;
    let error = get(&server, DownloadOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error}");
    assert_eq!(server.requests().len(), 13);
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_some() {
    let server = Server::start(|request| {
        if request.number < 2 {
            return Reply::new(503, "busy");
        }
        Reply::new(200, "done")
    })
    .await;
    assert_eq!(get(&server, DownloadOptions::default()).await.unwrap(), b"done");
    let server = Server::start(|_| Reply::new(404, "nothing")).await;
    let error = get(&server, DownloadOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Api { status: 404, .. }), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn too_much_is_refused_announced_or_not() {
    let most = |most| DownloadOptions { most: Some(most), ..DownloadOptions::default() };
    let server = Server::start(|request| Reply::file(request, &noise(MIB), "\"v1\"")).await;
    let error = get(&server, most(1000)).await.unwrap_err();
    assert!(matches!(error, Error::Size { .. }), "{error}");
    assert!(server.sent() <= MIB);

    let endless = Server::start(|_| {
        let mut reply = Reply::new(200, noise(MIB));
        reply.endless = true;
        reply
    })
    .await;
    let error = get(&endless, most(5_000_000)).await.unwrap_err();
    assert!(matches!(error, Error::Size { .. }), "{error}");

    for length in [MIB as u64 - 1, MIB as u64 + 1] {
        let exact = DownloadOptions { length: Some(length), ..DownloadOptions::default() };
        let error = get(&server, exact).await.unwrap_err();
        assert!(matches!(error, Error::Size { .. }), "{error}");
    }
    let exact = DownloadOptions { length: Some(MIB as u64), ..DownloadOptions::default() };
    assert_eq!(get(&server, exact).await.unwrap().len(), MIB);
}

#[tokio::test]
async fn a_part_that_is_there_already_is_not_fetched() {
    let file = noise(MIB);
    for ranges in [true, false] {
        let served = file.clone();
        let server = Server::start(move |request| {
            if ranges {
                Reply::file(request, &served, "\"v1\"")
            } else {
                Reply::new(200, served.clone())
            }
        })
        .await;
        let from = DownloadOptions { from: 700_000, ..DownloadOptions::default() };
        assert!(get(&server, from).await.unwrap() == file[700_000..], "{ranges}");
        if ranges {
            assert_eq!(server.sent(), MIB - 700_000);
        }
        let whole = DownloadOptions {
            from: MIB as u64,
            length: Some(MIB as u64),
            ..DownloadOptions::default()
        };
        assert_eq!(get(&server, whole).await.unwrap(), b"");

        let mut download =
            http(&access()).open(&server.url("/file"), DownloadOptions::default()).await.unwrap();
        assert_eq!(download.length(), Some(MIB as u64));
        download.skip_to(900_000);
        assert!(read(download).await.unwrap() == file[900_000..], "{ranges}");
    }
}

#[tokio::test]
async fn large_files_from_far_away_come_in_parallel_and_in_order() {
    let file = noise(70 * MIB);
    for broken in [false, true] {
        let served = file.clone();
        let server = Server::start(move |request| {
            let mut reply = Reply::file(request, &served, "\"v1\"");
            reply.delay = Duration::from_millis(15);
            if broken && request.number == 6 {
                reply.cut = Some(12_345);
            }
            reply
        })
        .await;
        assert!(get(&server, DownloadOptions::default()).await.unwrap() == file);
        let requests = server.requests();
        let pieces =
            requests.iter().filter(|request| request.range().is_some_and(|r| r.1.is_some()));
        assert!(pieces.count() > if broken { 4 } else { 15 });
        // The first stream is cut when the pieces take over: its window is lost, no more.
        assert!(server.sent() < file.len() + 24 * MIB, "{}", server.sent());
    }
}

#[tokio::test]
async fn near_servers_get_one_request() {
    let file = noise(65 * MIB);
    let served = file.clone();
    let server = Server::start(move |request| Reply::file(request, &served, "\"v1\"")).await;
    let alone = Access { limits: Limits { parallel: 1, ..access().limits }, ..access() };
    let download =
        http(&alone).open(&server.url("/file"), DownloadOptions::default()).await.unwrap();
    assert!(read(download).await.unwrap() == file);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn dropping_a_download_closes_its_connection() {
    let server = Server::start(|request| {
        let mut reply = Reply::file(request, &noise(8 * MIB), "\"v1\"");
        reply.endless = true;
        reply
    })
    .await;
    let mut download =
        http(&access()).open(&server.url("/file"), DownloadOptions::default()).await.unwrap();
    download.next().await.unwrap().unwrap();
    drop(download);
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.open.load(std::sync::atomic::Ordering::Relaxed) > 0 {
        assert!(Instant::now() < deadline, "the server still sends");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn redirects_are_followed_within_bounds() {
    let server = Server::start(|request| {
        let to = match request.target.as_str() {
            "/file" => "/a?x=1",
            "/a?x=1" => "b",
            "/b" => return Reply::new(200, "here"),
            "/loop" => "/loop2",
            "/loop2" => "/loop",
            "/ftp" => "ftp://127.0.0.1/x",
            deep => return Reply::new(302, "").header("Location", format!("{deep}/x")),
        };
        Reply::new(302, "").header("Location", to)
    })
    .await;
    assert_eq!(get(&server, DownloadOptions::default()).await.unwrap(), b"here");
    for (path, words) in
        [("/loop", "loop"), ("/deep", "too many"), ("/ftp", "neither http:// nor https://")]
    {
        let opened = http(&access()).open(&server.url(path), DownloadOptions::default()).await;
        let error = opened.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn credentials_stay_with_the_server_they_are_for() {
    let other = Server::start(|_| Reply::new(200, "there")).await;
    let away = other.url("/file");
    let server = Server::start(move |request| match request.target.as_str() {
        "/file" => Reply::new(302, "").header("Location", "/same"),
        _ => Reply::new(302, "").header("Location", &away),
    })
    .await;
    let url = server.url("/file").replace("http://", "http://me:secret@");
    let download = http(&access()).open(&url, DownloadOptions::default()).await.unwrap();
    assert_eq!(read(download).await.unwrap(), b"there");
    let seen = server.requests();
    assert!(seen.iter().all(|request| request.header("authorization").is_some()), "{seen:?}");
    assert_eq!(other.requests()[0].header("authorization"), None);
    let error = http(&access())
        .open(&url.replace("/file", "/\u{20}"), DownloadOptions::default())
        .await
        .map(|_| ())
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(!error.contains("secret"), "{error}");
}

#[tokio::test]
async fn nobody_there_is_told_at_once_and_what_to_do() {
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let url = format!("http://{address}/x");
    let error = http(&access()).open(&url, DownloadOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
    for wrong in ["", "ftp://x", "x", "https://", "file:///etc/passwd"] {
        let opened = http(&access()).open(wrong, DownloadOptions::default()).await;
        assert!(matches!(opened, Err(Error::Address { .. })), "{wrong}");
    }
}
