//! `doctor`: looks at every step between this client and a server, and says what to mend.

mod local;
mod network;
mod report;

use clap::Args;
use lxd_proto::remote::{Protocol, RemoteSpec};

use crate::command::flags::{ResultFormat, ServerArg};
use crate::command::remote::address::Address;
use crate::config::RemoteEntry;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::emit;
use crate::redact::without_password;
use crate::remotes::stranger;

use network::Subject;
use report::{CONFIGURATION, Report};

/// Find out why a server cannot be used.
#[derive(Debug, Args)]
#[command(after_help = "\
Checks, in this order: configuration, proxy, name resolution, route, TLS, certificate, protocol,
trust, clock. Each is one line with what was found, and with the remedy when it is not right.
The exit status is 1 when anything is wrong. With -q only what is wrong is told. The address of an
LXD server that is no remote yet can be given, too.

Examples:
  lxd-cli doctor
  lxd-cli doctor backup: --format json
  lxd-cli doctor https://backup.example.org:8443")]
pub(crate) struct Doctor {
    #[command(flatten)]
    server: ServerArg,
    #[command(flatten)]
    format: ResultFormat,
}

impl Doctor {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let named = self.server.name(context);
        let mut report = match (&named, &self.server.remote) {
            (Err(failure), Some(word)) => match unnamed(word) {
                Some(entry) => {
                    let mut report = Report::new(word);
                    let spec = RemoteSpec { address: entry.addr.clone(), ..RemoteSpec::default() };
                    let subject = Subject { entry: &entry, spec, access: stranger(), named: false };
                    examine(&subject, &mut report).await;
                    report
                }
                None => return Err(failure.clone()),
            },
            (Err(failure), None) => return Err(failure.clone()),
            (Ok(name), _) => {
                let mut report = Report::new(name);
                examine_named(context, name, &mut report).await;
                report
            }
        };
        self.tell(context, &mut report)
    }

    fn tell(&self, context: &Context, report: &mut Report) -> Outcome {
        if self.format.is_text() {
            emit(&report.text(context.quiet))?;
        } else {
            self.format.done(&report.checks)?;
        }
        match report.failed() {
            0 => Ok(()),
            1 => Err(Failure::new("1 check failed")),
            failed => Err(Failure::new(format!("{failed} checks failed"))),
        }
    }
}

/// A server that is no remote, by its address.
fn unnamed(word: &str) -> Option<RemoteEntry> {
    let address = Address::parse(word).ok()?;
    let addr = address.url(Protocol::Lxd);
    (word.contains(['.', ':', '/']) && !word.ends_with(':')).then_some(RemoteEntry {
        addr,
        public: true,
        ..RemoteEntry::default()
    })
}

async fn examine_named(context: &Context, name: &str, report: &mut Report) {
    let config = &context.remotes.config;
    if let Some(broken) = &config.broken {
        report.fail(CONFIGURATION, broken.clone(), "Repair that file, or move it away.");
    }
    let known = context.remotes.entry(name).and_then(|entry| {
        let (spec, access) = (context.remotes.spec(name)?, context.remotes.access(name)?);
        Ok(Subject { entry, spec, access, named: true })
    });
    match known {
        Ok(subject) => examine(&subject, report).await,
        Err(failure) => report.failure(CONFIGURATION, &failure),
    }
}

async fn examine(subject: &Subject<'_>, report: &mut Report) {
    let address = without_password(&subject.spec.address);
    let kind = if subject.entry.public { "public" } else { "to manage" };
    // A broken file has been told already.
    if report.failed() == 0 {
        report.ok(CONFIGURATION, format!("{address}, {}, {kind}", subject.spec.protocol));
    }
    if subject.spec.address.starts_with("unix:") {
        local::examine(subject, report).await;
    } else {
        network::examine(subject, report).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_from_a_mistyped_remote() {
        for (word, addr) in [
            ("h.example.org", Some("https://h.example.org:8443")),
            ("h:7", Some("https://h:7")),
            ("https://h", Some("https://h:8443")),
            ("nope:", None),
            ("nope", None),
        ] {
            assert_eq!(unnamed(word).map(|entry| entry.addr).as_deref(), addr, "{word}");
        }
    }
}
