//! Whom we believe, and what we say when we do not.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lxd_proto::client::LxdClient;
use lxd_proto::net::{
    Access, Authorities, Http, Identity, KnownVersion, checked_certificate, peer_certificate,
};
use lxd_proto::remote::{Error, RemoteSpec};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{self, DistinguishedName, ServerConfig};

use crate::download::access;
use crate::server::{Reply, Server};

/// A certificate with its key, and the acceptor that shows it.
pub struct Shown {
    pub pem: String,
    pub acceptor: TlsAcceptor,
}

/// Takes any client certificate, and none.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let mut params =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .unwrap();
    params.distinguished_name.push(DnType::CommonName, "a server");
    params
}

fn shown(pem: String, der: CertificateDer<'static>, key: &KeyPair) -> Shown {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::new(AnyClient(provider)))
        .with_single_cert(vec![der], key)
        .unwrap();
    Shown { pem, acceptor: TlsAcceptor::from(Arc::new(config)) }
}

pub fn self_signed(params: &CertificateParams) -> Shown {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    shown(certificate.pem(), certificate.der().clone(), &key)
}

/// Also the PEM of the authority.
pub fn signed(params: &CertificateParams) -> (Shown, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "an authority");
    let authority_key = KeyPair::generate().unwrap();
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::from_params(&authority, &authority_key);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (shown(certificate.pem(), certificate.der().clone(), &key), pem)
}

const HOUR: Duration = Duration::from_hours(1);

async fn get(access: &Access, pinned: &str, server: &Server) -> Result<(), Error> {
    let http = Http::new(access, pinned)?;
    http.document(&server.url("/"), &KnownVersion::default(), 100).await.map(|_| ())
}

fn believing(pem: &str) -> Access {
    Access { authorities: Authorities::from_pem(pem), ..access() }
}

fn spec(server: &Server, certificate: &str) -> RemoteSpec {
    RemoteSpec {
        address: server.address.clone(),
        certificate: certificate.to_owned(),
        ..RemoteSpec::default()
    }
}

#[tokio::test]
async fn a_pinned_certificate_is_taken_whatever_its_names_and_dates() {
    let mut params = params(&["elsewhere.example"]);
    params.not_before = (SystemTime::now() - 3 * HOUR).into();
    params.not_after = (SystemTime::now() - 2 * HOUR).into();
    let shown = self_signed(&params);
    let server = Server::tls(shown.acceptor.clone(), |_| Reply::new(200, "x")).await;
    get(&access(), &shown.pem, &server).await.unwrap();

    let other = self_signed(&params);
    let error = get(&access(), &other.pem, &server).await.unwrap_err();
    let Error::Tls { endpoint, reason } = &error else { panic!("{error:?}") };
    assert_eq!(*endpoint, server.address);
    assert!(
        reason.contains("was pinned") && reason.contains("somebody may be in between"),
        "{reason}"
    );
    let seen = peer_certificate(&server.address, &access()).await.unwrap();
    assert_eq!(seen.pem.trim(), shown.pem.replace("\r\n", "\n").trim());
    assert!(reason.contains(&seen.fingerprint.short()), "{reason}");
    let facts = seen.facts.unwrap();
    assert_eq!(facts.common_name, "a server");
    assert_eq!(facts.dns_names, ["elsewhere.example"]);
    assert!(checked_certificate(&server.address, &access(), &other.pem).await.is_err());
    checked_certificate(&server.address, &access(), &shown.pem).await.unwrap();
}

#[tokio::test]
async fn authorities_are_believed_about_names_and_dates() {
    let (good, authority) = signed(&params(&["127.0.0.1", "x.example"]));
    let server = Server::tls(good.acceptor, |_| Reply::new(200, "x")).await;
    get(&believing(&authority), "", &server).await.unwrap();
    let (_, stranger) = signed(&params(&["127.0.0.1"]));

    let mut past = params(&["127.0.0.1"]);
    past.not_before = (SystemTime::now() - 3 * HOUR).into();
    past.not_after = (SystemTime::now() - 2 * HOUR).into();
    let (past, past_authority) = signed(&past);
    let past = Server::tls(past.acceptor, |_| Reply::new(200, "x")).await;
    let mut future = params(&["127.0.0.1"]);
    future.not_before = (SystemTime::now() + 2 * HOUR).into();
    let (future, future_authority) = signed(&future);
    let future = Server::tls(future.acceptor, |_| Reply::new(200, "x")).await;
    let (named, named_authority) = signed(&params(&["x.example"]));
    let named = Server::tls(named.acceptor, |_| Reply::new(200, "x")).await;

    for (server, authority, words) in [
        (&server, &stranger, "SSL_CERT_FILE"),
        (&past, &past_authority, "has expired"),
        (&future, &future_authority, "not valid yet"),
        (&named, &named_authority, "x.example"),
    ] {
        let error = get(&believing(authority), "", server).await.unwrap_err();
        let Error::Tls { reason, .. } = &error else { panic!("{error:?}") };
        assert!(reason.contains(words), "{reason}");
        // The same words where the connection is of our own making.
        let error = checked_certificate(&server.address, &believing(authority), "").await;
        assert!(error.unwrap_err().to_string().contains(words));
    }
    let error = get(&believing(""), "", &server).await.unwrap_err();
    assert!(error.to_string().contains("ca-certificates"), "{error}");
}

#[tokio::test]
async fn a_self_signed_certificate_among_the_authorities_is_believed() {
    let mut authority_like = params(&["127.0.0.1"]);
    authority_like.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (params, good) in
        [(params(&["127.0.0.1"]), true), (authority_like, true), (params(&["x.example"]), false)]
    {
        let shown = self_signed(&params);
        let server = Server::tls(shown.acceptor, |_| Reply::new(200, "x")).await;
        let got = get(&believing(&shown.pem), "", &server).await;
        assert_eq!(got.is_ok(), good, "{got:?}");
    }
}

#[tokio::test]
async fn who_we_are_is_shown_to_servers_and_not_when_only_looking() {
    let shown = self_signed(&params(&["x"]));
    let server = Server::tls(shown.acceptor, |_| Reply::new(200, "x")).await;
    let me = Access { identity: Some(Identity::generate("me").unwrap()), ..access() };
    peer_certificate(&server.address, &me).await.unwrap();
    assert!(server.requests().is_empty());
    get(&access(), &shown.pem, &server).await.unwrap();
    get(&me, &shown.pem, &server).await.unwrap();
    let with: Vec<_> = server.requests().iter().map(|request| request.with_certificate).collect();
    assert_eq!(with, [false, true]);
}

#[tokio::test]
async fn plain_servers_and_plain_addresses_are_told_apart() {
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            // A close with bytes unread would be a reset.
            let mut rest = [0; 4096];
            let _ = stream.try_read(&mut rest);
            stream
        });
        let access = access();
        let looking = peer_certificate(&address, &access);
        let (error, ()) = tokio::join!(looking, async { drop(peer.await.unwrap()) });
        let error = error.unwrap_err();
        assert!(error.to_string().contains("does not speak TLS"), "{error}");
    }
    let plain = Server::start(|_| Reply::new(200, "x")).await;
    let error = LxdClient::new(spec(&plain, ""), &access()).unwrap_err();
    assert!(matches!(error, Error::Address { .. }), "{error}");
    assert!(peer_certificate(&plain.address, &access()).await.is_err());
}

#[tokio::test]
async fn an_lxd_server_over_https_is_asked_with_its_project() {
    let shown = self_signed(&params(&["x"]));
    let server = Server::tls(shown.acceptor, |_| {
        Reply::new(200, r#"{"type":"sync","status":"Success","status_code":200,"metadata":[]}"#)
    })
    .await;
    let spec = RemoteSpec { project: "p 1".into(), ..spec(&server, &shown.pem) };
    let client = LxdClient::new(spec, &access()).unwrap();
    assert!(client.list_aliases().await.unwrap().is_empty());
    let reply = client.query("get", "/1.0/images?a=b", None).await.unwrap();
    assert_eq!(reply.status, 200);
    let seen = server.requests();
    assert_eq!(seen[0].target, "/1.0/images/aliases?recursion=1&project=p+1");
    assert_eq!(seen[1].target, "/1.0/images?a=b&project=p+1");
    assert_eq!(seen[0].header("user-agent"), Some("tests"));
    let error = client.events(&[]).await.unwrap_err();
    assert!(matches!(error, Error::Api { status: 200, .. }), "{error:?}");
}
