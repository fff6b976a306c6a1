//! The steps to a server on the network: the way there, TLS, and what answers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use lxd_proto::certificate::x509::Facts;
use lxd_proto::client::LxdClient;
use lxd_proto::filter::Filter;
use lxd_proto::net::{Access, Http, PeerCertificate, checked_certificate, peer_certificate};
use lxd_proto::remote::{Error, Protocol, RemoteSpec};
use lxd_proto::routes;
use lxd_proto::server::Server;
use lxd_simplestreams::connect;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use url::Url;

use super::report::{CERTIFICATE, CLOCK, NAME, PROTOCOL, PROXY, ROUTE, Report, TLS, TRUST};
use crate::config::RemoteEntry;
use crate::failure::Failure;
use crate::redact::without_password;

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clocks that differ by more make certificates and tokens look expired, or not yet valid.
const MAX_SKEW: u64 = 60;
/// A certificate that ends sooner is worth a word.
const SOON: i64 = 30 * 86_400;

/// The remote that is looked at.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) entry: &'a RemoteEntry,
    pub(super) spec: RemoteSpec,
    pub(super) access: Access,
    /// Whether it has a name: commands about remotes can only mend one that has.
    pub(super) named: bool,
}

impl Subject<'_> {
    /// The remedy for a remote, or the one for a mere address.
    fn fix<'a>(&self, remote: &'a str, address: &'a str) -> &'a str {
        if self.named { remote } else { address }
    }

    /// What may be wrong when nobody listens.
    fn nobody_listens(&self, by_proxy: bool) -> &'static str {
        if by_proxy {
            return "Nobody listens there: correct the proxy in the environment (https_proxy), or \
                    name the server in no_proxy.";
        }
        match self.spec.protocol {
            Protocol::Lxd => {
                "Nobody listens on that port: start the server there, or open the port there with \
                 `lxd-cli config set core.https_address :8443`, or correct the port."
            }
            Protocol::Simplestreams => {
                "Nobody listens on that port: the web server there is down, or the port is wrong."
            }
        }
    }
}

/// Looks at every step until one fails on which the others depend.
pub(super) async fn examine(remote: &Subject<'_>, report: &mut Report) {
    let after_way = [TLS, CERTIFICATE, PROTOCOL, TRUST, CLOCK];
    let Ok(url) = remote.spec.address.parse::<Url>() else {
        let detail = format!("\"{}\" is no URL", without_password(&remote.spec.address));
        report.fail(ROUTE, detail, "Correct it: `lxd-cli remote set-url REMOTE URL`.");
        return report.skip(&after_way);
    };
    let proxy = proxy(remote, &url, report);
    let via = proxy.as_ref().unwrap_or(&url);
    let spelling = remote.fix(
        "Check the spelling (`lxd-cli remote set-url REMOTE URL`), the network, and \
         /etc/resolv.conf.",
        "Check the spelling, the network, and /etc/resolv.conf.",
    );
    let Some(addresses) = resolve(via, spelling, report).await else {
        report.skip(&[ROUTE]);
        return report.skip(&after_way);
    };
    if !route(&addresses, remote.nobody_listens(proxy.is_some()), report).await {
        return report.skip(&after_way);
    }
    let shown = match peer_certificate(&remote.spec.address, &remote.access).await {
        Ok(shown) => shown,
        Err(error) => {
            report.fail(
                TLS,
                error.to_string(),
                "Another service may use this port, or a proxy is in between.",
            );
            return report.skip(&after_way[1..]);
        }
    };
    report.ok(TLS, "the handshake succeeds");
    if !certificate(remote, &shown, report).await {
        return report.skip(&after_way[2..]);
    }
    match remote.spec.protocol {
        Protocol::Lxd => lxd(remote, report).await,
        Protocol::Simplestreams => simplestreams(remote, report).await,
    }
}

/// The proxy that the environment prescribes.
fn proxy(remote: &Subject<'_>, url: &Url, report: &mut Report) -> Option<Url> {
    let proxy = remote.access.proxies.proxy_for(url);
    match &proxy {
        Some(proxy) => report.ok(PROXY, format!("through {}", without_password(proxy.as_str()))),
        None => report.ok(PROXY, "none"),
    }
    proxy
}

async fn resolve(url: &Url, spelling: &str, report: &mut Report) -> Option<Vec<SocketAddr>> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    if let Ok(address) = host.parse::<IpAddr>() {
        report.ok(NAME, format!("{host} is an address"));
        return Some(vec![SocketAddr::new(address, port)]);
    }
    let found = timeout(PATIENCE, lookup_host((host.as_str(), port))).await;
    let (detail, addresses) = match found {
        Ok(Ok(addresses)) => (String::from("it has no address"), addresses.collect::<Vec<_>>()),
        Ok(Err(error)) => (error.to_string(), Vec::new()),
        Err(_) => (format!("no answer within {} seconds", PATIENCE.as_secs()), Vec::new()),
    };
    if addresses.is_empty() {
        report.fail(NAME, format!("{host}: {detail}"), spelling);
        return None;
    }
    let shown: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    report.ok(NAME, format!("{host} is {}", shown.join(", ")));
    Some(addresses)
}

/// Whether any of the addresses takes a connection.
async fn route(addresses: &[SocketAddr], nobody_listens: &str, report: &mut Report) -> bool {
    let mut refused = Vec::new();
    let mut last = io::ErrorKind::TimedOut;
    for address in addresses {
        let begun = Instant::now();
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                let took = begun.elapsed().as_millis();
                report.ok(ROUTE, format!("{address} answers in {took} ms"));
                return true;
            }
            Ok(Err(error)) => {
                last = error.kind();
                refused.push(format!("{address}: {error}"));
            }
            Err(_) => refused.push(format!("{address}: no answer")),
        }
    }
    let fix = match last {
        io::ErrorKind::ConnectionRefused => nobody_listens,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            "There is no way to that network: check this machine's addresses and routes (`ip route`)."
        }
        _ => "Check that the machine is up, and that no firewall drops the connection.",
    };
    report.fail(ROUTE, refused.join("; "), fix);
    false
}

/// Whether the certificate is the one that is expected.
async fn certificate(remote: &Subject<'_>, shown: &PeerCertificate, report: &mut Report) -> bool {
    let pinned = &remote.spec.certificate;
    let checked = checked_certificate(&remote.spec.address, &remote.access, pinned).await;
    let fingerprint = shown.fingerprint;
    match checked {
        Ok(_) => {
            let by =
                if pinned.is_empty() { "an authority vouches for it" } else { "it is accepted" };
            let facts = shown.facts.as_ref().map(described).unwrap_or_default();
            report.ok(CERTIFICATE, format!("{}: {by}{facts}", fingerprint.short()));
            true
        }
        Err(Error::Tls { reason, .. }) => {
            let fix = remote.fix(
                "Ask the server's owner for its fingerprint; if it is this one, accept it: \
                 `lxd-cli remote trust REMOTE`.",
                "Ask the server's owner for its fingerprint; if it is this one, give the server a \
                 name and accept it: `lxd-cli remote add NAME REMOTE` (an image server on the \
                 web: with --protocol simplestreams).",
            );
            report.fail(CERTIFICATE, format!("{fingerprint}: {reason}"), fix);
            false
        }
        Err(error) => {
            report.fail(CERTIFICATE, error.to_string(), "");
            false
        }
    }
}

/// When a certificate ends.
fn described(facts: &Facts) -> String {
    let day = facts.not_after.strftime("%Y-%m-%d");
    let left = facts.not_after.as_second() - Timestamp::now().as_second();
    match left {
        i64::MIN..0 => format!(", though it has expired on {day}"),
        0..SOON => format!(", only until {day}"),
        _ => format!(", until {day}"),
    }
}

async fn lxd(remote: &Subject<'_>, report: &mut Report) {
    let client = match LxdClient::new(remote.spec.clone(), &remote.access) {
        Ok(client) => client,
        Err(error) => {
            report.failure(PROTOCOL, &Failure::from(error));
            return report.skip(&[TRUST, CLOCK]);
        }
    };
    match client.server().await {
        Ok(server) => {
            speaks(&server.value, report);
            trusts(&server.value, remote, report);
        }
        Err(error) => {
            report.fail(
                PROTOCOL,
                format!("this is no LXD server: {error}"),
                remote.fix(
                    "For an image server on the web: `lxd-cli remote remove REMOTE`, and add it \
                     again with --protocol simplestreams.",
                    "For an image server on the web: `lxd-cli remote add NAME REMOTE --protocol \
                     simplestreams`, then `lxd-cli doctor NAME:`.",
                ),
            );
            report.skip(&[TRUST]);
        }
    }
    let answer = client.query("GET", &routes::ROOT.url(&[]), None).await;
    clock(answer.ok().and_then(|answer| answer.date).as_deref(), report);
}

/// What an LXD server says it is.
pub(super) fn speaks(server: &Server, report: &mut Report) {
    let extensions = server.api_extensions.len();
    let version = match &server.environment {
        Some(environment) => format!("{} {}", environment.server, environment.server_version),
        None => "a version it does not tell strangers".to_owned(),
    };
    report.ok(PROTOCOL, format!("LXD {}, {version}, {extensions} extensions", server.api_version));
}

/// Whether an LXD server lets this client do what the remote is for.
pub(super) fn trusts(server: &Server, remote: &Subject<'_>, report: &mut Report) {
    if server.auth == "trusted" {
        let who = match &remote.access.identity {
            Some(identity) => format!("as {}", identity.fingerprint().short()),
            None => "over the socket".to_owned(),
        };
        return report.ok(TRUST, format!("this client is trusted, {who}"));
    }
    if remote.entry.public {
        return report.ok(TRUST, "not needed: only public images are read");
    }
    let detail = match &remote.access.identity {
        Some(identity) => format!("{} is not trusted there", identity.fingerprint().short()),
        None => "this client has no certificate (client.crt)".to_owned(),
    };
    report.fail(
        TRUST,
        detail,
        "On the server: `lxd-cli config trust add --name ME`. Here: `lxd-cli remote remove REMOTE`, \
         then `lxd-cli remote add REMOTE TOKEN`.",
    );
}

async fn simplestreams(remote: &Subject<'_>, report: &mut Report) {
    let spec = remote.spec.clone();
    let images = match connect(spec, &remote.access) {
        Ok(server) => server.images(&Filter::default()).await,
        Err(error) => Err(error),
    };
    match images {
        Ok(images) => {
            report.ok(PROTOCOL, format!("simplestreams, {} images", images.len()));
            report.ok(TRUST, "not needed: only public images are read");
        }
        Err(error) => {
            report.fail(
                PROTOCOL,
                error.to_string(),
                "Check the path of the address; the tree begins at ADDRESS/streams/v1/index.json.",
            );
            report.skip(&[TRUST]);
        }
    }
    let head = async {
        let http = Http::new(&remote.access, &remote.spec.certificate).ok()?;
        let head = http.head(&remote.spec.address, &[]).await.ok()?;
        head.header("date").map(str::to_owned)
    };
    clock(head.await.as_deref(), report);
}

/// Compares this machine's clock with the server's.
fn clock(date: Option<&str>, report: &mut Report) {
    let Some(theirs) = date.and_then(parse_date) else {
        return report.ok(CLOCK, "the server does not tell its time");
    };
    let skew = Timestamp::now().as_second() - theirs.as_second();
    let seconds = skew.unsigned_abs();
    if seconds <= MAX_SKEW {
        return report.ok(CLOCK, format!("within {} s of the server's", seconds.max(1)));
    }
    let direction = if skew > 0 { "ahead of" } else { "behind" };
    report.fail(
        CLOCK,
        format!("this machine is {seconds} s {direction} the server"),
        "Set the clock that is wrong: `timedatectl set-ntp true`.",
    );
}

/// `Tue, 24 Nov 2026 01:53:00 GMT`.
fn parse_date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::report::Status;

    fn clock_of(date: Option<&str>) -> (Status, String) {
        let mut report = Report::new("r");
        clock(date, &mut report);
        let check = report.checks.remove(0);
        (check.status, check.detail)
    }

    fn http_date(seconds_from_now: i64) -> String {
        let time = Timestamp::from_second(Timestamp::now().as_second() + seconds_from_now).unwrap();
        time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    #[test]
    fn a_wrong_clock_is_told_with_its_direction() {
        assert_eq!(clock_of(Some(&http_date(0))).0, Status::Ok);
        assert_eq!(clock_of(None).0, Status::Ok);
        assert_eq!(clock_of(Some("yesterday")).0, Status::Ok);
        let (status, detail) = clock_of(Some(&http_date(3600)));
        assert_eq!(status, Status::Fail);
        assert!(detail.contains("behind"), "{detail}");
        assert!(clock_of(Some(&http_date(-3600))).1.contains("ahead of"));
    }

    #[test]
    fn remedies_are_those_that_the_server_can_have() {
        let entry = RemoteEntry::default();
        let mut subject = Subject {
            entry: &entry,
            spec: RemoteSpec::default(),
            access: crate::remotes::stranger(),
            named: false,
        };
        assert_eq!(subject.fix("of a remote", "of an address"), "of an address");
        assert!(subject.nobody_listens(false).contains("core.https_address"));
        assert!(subject.nobody_listens(true).contains("https_proxy"));
        subject.named = true;
        subject.spec.protocol = Protocol::Simplestreams;
        assert_eq!(subject.fix("of a remote", "of an address"), "of a remote");
        assert!(!subject.nobody_listens(false).contains("lxd-cli"));
    }

    #[tokio::test]
    async fn a_closed_port_is_told_apart_from_a_missing_name() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut report = Report::new("r");
        assert!(route(&[address], "Nobody listens", &mut report).await);
        drop(listener);
        assert!(!route(&[address], "Nobody listens", &mut report).await);
        let failed = report.checks.last().unwrap();
        assert!(failed.fix.as_ref().unwrap().contains("Nobody listens"), "{failed:?}");
        let url = "https://no-such-name.invalid".parse().unwrap();
        assert!(resolve(&url, "", &mut report).await.is_none());
        let url = "https://[::1]:8443".parse().unwrap();
        assert_eq!(resolve(&url, "", &mut report).await.unwrap()[0].port(), 8443);
    }
}
