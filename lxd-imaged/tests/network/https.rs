//! A small HTTPS client that shows whatever certificate a test wants, and hides nothing.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Someone on the network.
#[derive(Clone)]
pub(crate) struct Client {
    certificate: Option<CertificateDer<'static>>,
    config: Arc<ClientConfig>,
    address: String,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn metadata(&self) -> Value {
        self.json()["metadata"].clone()
    }

    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    /// Without a certificate.
    pub(crate) fn anonymous() -> Self {
        Self::new(None, &[&TLS13])
    }

    /// With a new self-signed certificate, as LXD's client makes it.
    pub(crate) fn with_certificate() -> Self {
        Self::with_key(&rcgen::PKCS_ECDSA_P384_SHA384, &[&TLS13])
    }

    /// With a new self-signed certificate over some kind of key.
    pub(crate) fn with_key(
        algorithm: &'static SignatureAlgorithm,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        Self::with_params(params, algorithm, versions)
    }

    /// With a self-signed certificate that says something of its own.
    pub(crate) fn with_params(
        params: CertificateParams,
        algorithm: &'static SignatureAlgorithm,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Self::new(Some((vec![certificate.der().clone()], key)), versions)
    }

    /// With a certificate of the old version 1: no extensions, and a signature that nobody checks.
    pub(crate) fn of_version_1() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        let der = certificate.der();
        let certificate = fields(fields(der)[0].1);
        let (body, rest) = certificate.split_first().unwrap();
        let old: Vec<u8> = fields(body.1)
            .iter()
            .filter(|(tag, ..)| !matches!(tag, 0xa0 | 0xa3))
            .flat_map(|(_, _, whole)| whole.to_vec())
            .collect();
        let rest: Vec<u8> = rest.iter().flat_map(|(_, _, whole)| whole.to_vec()).collect();
        let der = CertificateDer::from(sequence(&[sequence(&old), rest].concat()));
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = provider.key_provider.load_private_key(key).unwrap();
        let resolver = SingleCertAndKey::from(CertifiedKey::new(vec![der.clone()], key));
        let mut client = Self::new(None, &[&TLS13]);
        let mut config = (*client.config).clone();
        config.client_auth_cert_resolver = Arc::new(resolver);
        client.config = Arc::new(config);
        client.certificate = Some(der);
        client
    }

    /// With the certificate of this client, followed by others that are not its own.
    pub(crate) fn pretending(others: &Self) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let own = CertificateParams::default().self_signed(&key).unwrap();
        let chain = vec![own.der().clone(), others.certificate.clone().unwrap()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Self::new(Some((chain, key)), &[&TLS13])
    }

    /// TLS 1.2, without a certificate.
    pub(crate) fn old() -> Self {
        Self::new(None, &[&TLS12])
    }

    fn new(
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
        let certificate = identity.as_ref().map(|(chain, _)| chain[0].clone());
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        };
        Self { certificate, config: Arc::new(config), address: String::new() }
    }

    /// The same client, calling another server.
    pub(crate) fn to(mut self, address: &str) -> Self {
        address.clone_into(&mut self.address);
        self
    }

    pub(crate) fn certificate_base64(&self) -> String {
        STANDARD.encode(self.certificate.as_ref().unwrap())
    }

    pub(crate) fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(self.certificate.as_ref().unwrap()))
    }

    /// A connection that requests can be written to.
    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        self.try_connect().await.unwrap()
    }

    pub(crate) async fn try_connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.address).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(self.config.clone()).connect(name, stream).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"").await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send(method, path, "", body.to_string().as_bytes()).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Answer {
        let mut stream = self.connect().await;
        let request = request(method, path, &format!("Connection: close\r\n{headers}"), body);
        stream.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: answer[end + 4..].to_vec() }
    }
}

/// The values of a DER structure: tag, content, content with tag and length.
fn fields(mut der: &[u8]) -> Vec<(u8, &[u8], &[u8])> {
    let mut found = Vec::new();
    while let [tag, first, rest @ ..] = der {
        let (digits, length) = match usize::from(*first) {
            short @ ..0x80 => (0, short),
            long => {
                let digits = long & 0x7f;
                (digits, rest[..digits].iter().fold(0, |n, byte| n << 8 | usize::from(*byte)))
            }
        };
        let end = 2 + digits + length;
        found.push((*tag, &der[2 + digits..end], &der[..end]));
        der = &der[end..];
    }
    found
}

fn sequence(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[0x30, 0x82], &length[..], content].concat()
}

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
