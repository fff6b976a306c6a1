//! How clients get in, what they are then, and how they are put out again.

use http::{Method, StatusCode};
use lxd_proto::certificate::{JoinToken, TokenMetadata};
use lxd_proto::time;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::daemon::Daemon;
use crate::https::{Client, request};

async fn join(client: &Client, password: &str) -> (u16, String) {
    let body = json!({
        "name": "", "type": "client", "restricted": false, "projects": null,
        "certificate": "", "password": password, "token": false,
    });
    let answer = client.call("POST", "/1.0/certificates", body).await;
    (answer.status, answer.error())
}

async fn token(daemon: &Daemon, name: &str) -> (String, TokenMetadata) {
    let body = json!({ "name": name, "type": "client", "token": true, "projects": null });
    let (status, answer) = daemon.local(Method::POST, "/1.0/certificates", body).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    let operation = &answer["metadata"];
    assert_eq!(operation["class"], "token");
    assert_eq!(operation["description"], "Executing operation");
    let metadata = serde_json::from_value(operation["metadata"].clone()).unwrap();
    (answer["operation"].as_str().unwrap().to_owned(), metadata)
}

#[tokio::test]
async fn a_password_lets_a_client_in() {
    let daemon = Daemon::new().await;
    let client = daemon.client(Client::with_certificate()).await;
    let unauthorized = (403, "not authorized".to_owned());
    assert_eq!(join(&client, "x").await, unauthorized, "no password is set");
    daemon.set("core.trust_password", "open sesame").await;
    let (_, server) = daemon.local(Method::GET, "/1.0", Value::Null).await;
    assert_eq!(server["metadata"]["config"]["core.trust_password"], "true");
    for wrong in ["", "x", "true"] {
        assert_eq!(join(&client, wrong).await, unauthorized, "{wrong}");
    }
    let nobody = daemon.client(Client::anonymous()).await;
    assert_eq!(join(&nobody, "open sesame").await.1, "No client certificate provided");
    assert_eq!(client.get("/1.0").await.metadata()["auth"], "untrusted");
    assert_eq!(join(&client, "open sesame").await.0, 201);
    let server = client.get("/1.0").await.metadata();
    assert_eq!(server["auth"], "trusted");
    assert_eq!(server["config"]["core.https_address"], "127.0.0.1:0");
    assert_eq!(join(&client, "open sesame").await, (400, "Client is already trusted".into()));
    let list = client.get("/1.0/certificates").await.metadata();
    assert_eq!(list, json!([format!("/1.0/certificates/{}", client.fingerprint())]));
}

#[tokio::test]
async fn a_token_lets_one_client_in_once() {
    let daemon = Daemon::new().await;
    let (operation, metadata) = token(&daemon, "newcli").await;
    assert_eq!(metadata.addresses, [daemon.address().await]);
    let identity = daemon.started.app.identity.get();
    assert_eq!(metadata.fingerprint, identity.fingerprint().to_string());
    assert_eq!(metadata.secret.len(), 64);
    let text = metadata.token().encode();

    // Twenty at once: one of them comes in.
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(daemon.client(Client::with_certificate()).await);
    }
    // Each address may guess only so often, and all of these share one.
    let answers =
        futures_util::future::join_all(clients.iter().take(9).map(|client| join(client, &text)))
            .await;
    let welcome: Vec<_> = answers.iter().filter(|(status, _)| *status == 201).collect();
    assert_eq!(welcome.len(), 1, "{answers:?}");
    for (status, error) in answers.iter().filter(|(status, _)| *status != 201) {
        let expected = (403, "No matching certificate add operation found");
        assert_eq!((*status, error.as_str()), expected);
    }
    let (_, list) = daemon.local(Method::GET, "/1.0/certificates?recursion=1", Value::Null).await;
    assert_eq!(list["metadata"].as_array().unwrap().len(), 1);
    assert_eq!(list["metadata"][0]["name"], "newcli");
    let (_, ended) = daemon.local(Method::GET, &operation, Value::Null).await;
    assert_eq!(ended["metadata"]["status"], "Cancelled");
}

#[tokio::test]
async fn tokens_are_cancelled_expire_and_carry_their_limits() {
    let daemon = Daemon::new().await;
    let client = daemon.client(Client::with_certificate()).await;
    let unknown = (403, "No matching certificate add operation found".to_owned());

    let (operation, metadata) = token(&daemon, "cancelled").await;
    let other = JoinToken { client_name: "another".into(), ..metadata.token() };
    assert_eq!(join(&client, &other.encode()).await, unknown, "the name is part of it");
    daemon.local(Method::DELETE, &operation, Value::Null).await;
    assert_eq!(join(&client, &metadata.token().encode()).await, unknown);

    daemon.set("core.remote_token_expiry", "1H").await;
    let (_, metadata) = token(&daemon, "expiring").await;
    assert!(metadata.expires_at.is_some_and(|end| end > time::epoch()));
    let restricted = json!({
        "name": "reader", "type": "client", "token": true,
        "restricted": true, "projects": ["default"],
    });
    let (_, answer) = daemon.local(Method::POST, "/1.0/certificates", restricted).await;
    let metadata: TokenMetadata =
        serde_json::from_value(answer["metadata"]["metadata"].clone()).unwrap();
    // As Incus sends it, and with a wish that the token does not grant.
    let body = json!({
        "name": "root", "type": "client", "restricted": false,
        "trust_token": metadata.token().encode(),
    });
    let answer = client.call("POST", "/1.0/certificates", body).await;
    assert_eq!(answer.status, 201, "{}", answer.error());
    let path = format!("/1.0/certificates/{}", client.fingerprint());
    let own = client.get(&path).await.metadata();
    assert_eq!((&own["name"], &own["restricted"]), (&"reader".into(), &true.into()));
    assert_eq!(own["projects"], json!(["default"]));

    for (body, error) in [
        (json!({ "token": true, "name": "x", "type": "metrics" }), "Tokens can only be issued"),
        (json!({ "token": true, "name": "", "type": "client" }), "needs the name"),
        (
            json!({ "token": true, "name": "x", "type": "client", "certificate": "AAAA" }),
            "Can't use certificate if token is requested",
        ),
    ] {
        let (status, answer) = daemon.local(Method::POST, "/1.0/certificates", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer["error"].as_str().unwrap().contains(error), "{answer}");
    }
    daemon.set("core.https_address", "").await;
    let body = json!({ "token": true, "name": "x", "type": "client" });
    let (_, answer) = daemon.local(Method::POST, "/1.0/certificates", body).await;
    assert_eq!(answer["error"], "Can't issue token when server isn't listening on network");
}

#[tokio::test]
async fn guessing_ends_soon() {
    let daemon = Daemon::new().await;
    daemon.set("core.trust_password", "right").await;
    let client = daemon.client(Client::with_certificate()).await;
    let mut refused = Vec::new();
    for n in 0..12 {
        refused.push(join(&client, &format!("guess {n}")).await.0);
    }
    assert_eq!(refused[..10], [403; 10]);
    assert_eq!(refused[10..], [429; 2]);
    assert_eq!(join(&client, "right").await.0, 429, "the right one has to wait too");
}

#[tokio::test]
async fn certificates_are_edited_under_their_entity_tag() {
    let daemon = Daemon::new().await;
    let client = Client::with_certificate();
    daemon.trust(&client, false, &[]).await;
    let client = daemon.client(client).await;
    let path = format!("/1.0/certificates/{}", &client.fingerprint()[..12]);
    let before = client.get(&path).await;
    let etag = before.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    assert_eq!(before.metadata()["name"], "tester");
    assert!(before.metadata()["certificate"].as_str().unwrap().starts_with("-----BEGIN"));
    let mut object = before.metadata();
    object["name"] = "renamed".into();
    let put = async |tag: &str| {
        let headers = format!("If-Match: {tag}\r\n");
        client.send("PUT", &path, &headers, object.to_string().as_bytes()).await.status
    };
    assert_eq!(put("\"stale\"").await, 412);
    assert_eq!(put(etag).await, 200);
    assert_eq!(client.get(&path).await.metadata()["name"], "renamed");
    assert_eq!(client.call("PATCH", &path, json!({ "name": "again" })).await.status, 200);
    for wrong in [json!({ "type": "server" }), json!({ "projects": ["none"] })] {
        assert_eq!(client.call("PATCH", &path, wrong).await.status, 400);
    }
    let body = json!({ "name": "x", "type": "client", "certificate": client.certificate_base64() });
    let answer = client.call("POST", "/1.0/certificates", body).await;
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (409, "Certificate already in trust store")
    );
    let missing = client.get("/1.0/certificates/0000").await;
    assert_eq!((missing.status, missing.error().as_str()), (404, "Certificate not found"));
}

#[tokio::test]
async fn trust_ends_at_once_on_open_connections_too() {
    let daemon = Daemon::new().await;
    let client = Client::with_certificate();
    daemon.trust(&client, false, &[]).await;
    let client = daemon.client(client).await;
    let mut open = client.connect().await;
    let mut events = client.connect().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    events.write_all(&request("GET", "/1.0/events", upgrade, b"")).await.unwrap();
    assert!(answer_of(&mut events).await.starts_with("HTTP/1.1 101"));
    let fingerprint = daemon.image("secret", false, "secret").await;
    let secret = format!("/1.0/images/{fingerprint}/secret");
    let (_, answer) = daemon.local(Method::POST, &secret, Value::Null).await;
    let operation = answer["operation"].as_str().unwrap().to_owned();
    let mut waiting = client.connect().await;
    let wait = format!("{operation}/wait");
    waiting.write_all(&request("GET", &wait, "", b"")).await.unwrap();
    open.write_all(&request("GET", "/1.0/certificates", "", b"")).await.unwrap();
    assert!(answer_of(&mut open).await.starts_with("HTTP/1.1 200"));

    let path = format!("/1.0/certificates/{}", client.fingerprint());
    let (status, _) = daemon.local(Method::DELETE, &path, Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    open.write_all(&request("GET", "/1.0/certificates", "", b"")).await.unwrap();
    assert!(answer_of(&mut open).await.starts_with("HTTP/1.1 403"));
    let (status, _) = daemon.local(Method::DELETE, &operation, Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let answer = answer_of(&mut waiting).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "it is not told any more: {answer}");
    let mut rest = Vec::new();
    // Ends, whether with a farewell or without.
    let _ = events.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).contains("certificate-deleted"));
    let (status, _) = daemon.local(Method::DELETE, &path, Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

async fn answer_of(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut buffer = vec![0; 64 << 10];
    let read = stream.read(&mut buffer).await.unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

#[tokio::test]
async fn only_the_key_that_was_proven_counts() {
    let daemon = Daemon::new().await;
    let admin = Client::with_certificate();
    daemon.trust(&admin, false, &[]).await;
    // Certificates are public: anyone can add the administrator's to a chain of their own.
    let impostor = daemon.client(Client::pretending(&admin)).await;
    assert_eq!(impostor.get("/1.0").await.metadata()["auth"], "untrusted");
    assert_eq!(impostor.get("/1.0/certificates").await.status, 403);
}

#[tokio::test]
async fn weak_and_outdated_certificates_stay_out() {
    let daemon = Daemon::new().await;
    daemon.set("core.trust_password", "p").await;
    let mut expired = rcgen::CertificateParams::default();
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut early = rcgen::CertificateParams::default();
    early.not_before = rcgen::date_time_ymd(2999, 1, 1);
    for (params, error) in [(expired, "is expired"), (early, "isn't valid yet")] {
        let kind = &rcgen::PKCS_ECDSA_P256_SHA256;
        let client = Client::with_params(params, kind, &[&rustls::version::TLS13]);
        let client = daemon.client(client).await;
        let (status, text) = join(&client, "p").await;
        assert!(status == 400 && text.contains(error), "{status} {text}");
        let body =
            json!({ "name": "x", "type": "client", "certificate": client.certificate_base64() });
        let (status, _) = daemon.local(Method::POST, "/1.0/certificates", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
}
