//! `config trust edit`: the name and the rights of a trusted certificate, as YAML.

use clap::Args;
use lxd_proto::certificate::CertificatePut;
use lxd_proto::client::LxdClient;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::remote::Error;
use serde::Deserialize;

use super::CertificateArg;
use crate::command::image::edit::pick;
use crate::context::Context;
use crate::editor::{EditOptions, Editable, edit};
use crate::failure::Outcome;
use crate::output::{from_yaml, yaml};

/// Edit a trusted certificate.
#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal it opens in $VISUAL or $EDITOR; otherwise YAML is read from standard input.
Keys that the YAML leaves out stay as they are.

Examples:
  lxd-cli config trust edit 385e700e64a5
  echo 'restricted: true' | lxd-cli config trust edit 385e700e64a5")]
pub(crate) struct Edit {
    #[command(flatten)]
    certificate: CertificateArg,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Edit {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let (server, certificate) = self.certificate.open(context).await?;
        let object = EditableCertificate { server, fingerprint: certificate.fingerprint };
        edit(&object, EditOptions { dry_run: self.dry_run, quiet: context.quiet }).await
    }
}

/// One certificate on its server.
struct EditableCertificate {
    server: LxdClient,
    fingerprint: Fingerprint,
}

impl Editable for EditableCertificate {
    type Value = CertificatePut;

    const HEADER: &'static str = "\
### A trusted certificate, as YAML. Lines that start with a hash are ignored.
###
### A restricted client may only read, and only in its projects, for example:
### restricted: true
### projects:
### - default";

    async fn read(&self) -> Outcome<(CertificatePut, Option<String>)> {
        let read = self.server.get_certificate(&self.fingerprint.to_string()).await?;
        Ok((CertificatePut::from(&read.value), read.etag))
    }

    async fn save(&self, value: &CertificatePut, etag: Option<&str>) -> Result<(), Error> {
        self.server.put_certificate(&self.fingerprint.to_string(), value, etag).await
    }

    fn to_yaml(value: &CertificatePut) -> Outcome<String> {
        yaml(value)
    }

    fn parse(text: &str, base: &CertificatePut) -> Result<CertificatePut, String> {
        let edited: Edited = from_yaml(text)?;
        Ok(CertificatePut {
            name: edited.name.unwrap_or_else(|| base.name.clone()),
            kind: edited.kind.unwrap_or_else(|| base.kind.clone()),
            restricted: edited.restricted.unwrap_or(base.restricted),
            projects: edited.projects.unwrap_or_else(|| base.projects.clone()),
            certificate: edited.certificate.unwrap_or_else(|| base.certificate.clone()),
        })
    }

    fn merge(
        base: &CertificatePut,
        mine: &CertificatePut,
        theirs: &CertificatePut,
    ) -> CertificatePut {
        CertificatePut {
            name: pick(&base.name, &mine.name, &theirs.name),
            kind: pick(&base.kind, &mine.kind, &theirs.kind),
            restricted: pick(&base.restricted, &mine.restricted, &theirs.restricted),
            projects: pick(&base.projects, &mine.projects, &theirs.projects),
            certificate: pick(&base.certificate, &mine.certificate, &theirs.certificate),
        }
    }
}

/// The YAML that a person writes; `show` prints the fingerprint too.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edited {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    restricted: Option<bool>,
    projects: Option<Vec<String>>,
    certificate: Option<String>,
    #[serde(rename = "fingerprint")]
    _fingerprint: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use lxd_proto::certificate::Certificate;

    #[test]
    fn what_show_prints_is_read_back_unchanged() {
        let certificate = Certificate {
            name: "laptop".into(),
            kind: "client".into(),
            restricted: false,
            projects: vec!["default".into()],
            certificate: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".into(),
            fingerprint: Fingerprint::from_bytes([7; 32]),
        };
        let base = CertificatePut::from(&certificate);
        let text = yaml(&certificate).unwrap();
        assert_eq!(EditableCertificate::parse(&text, &base).unwrap(), base);
        let edited = EditableCertificate::parse("restricted: true\n", &base).unwrap();
        assert!(edited.restricted && edited.name == "laptop");
        assert!(EditableCertificate::parse("nmae: x", &base).is_err());
    }
}
