//! `mirror create`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lxd_proto::mirror::{Globs, MirrorConfig, MirrorsPost};
use lxd_proto::remote::RemoteSpec;
use serde_json::json;

use super::MirrorArg;
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::keyrings;
use crate::output::note;

/// Make a mirror.
#[derive(Debug, Args)]
#[command(after_help = "\
SOURCE is a remote (\"images:\") or an https:// address. The daemon asks it and fetches from it, not
this client. Filters are patterns with * and ?; one that begins with ! excludes. Each can be given
several times, or once with commas. Without a schedule the mirror runs by `mirror run` only; without
a source it is fed by `mirror import` only.

Examples:
  lxd-cli mirror create debian images: --os debian --arch amd64 --keep 2 --schedule @daily
  lxd-cli mirror create lts https://images.example.org --release jammy,noble --type container --public
  lxd-cli mirror create airgap")]
pub(crate) struct Create {
    #[command(flatten)]
    mirror: MirrorArg,
    /// A remote, or the address of a server
    #[arg(value_name = "SOURCE")]
    source: Option<String>,
    /// How the server at an address is spoken to
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    protocol: Option<ProtocolName>,
    /// Refuse what the server at an address says unless one of the keys in this file has signed it
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// Only these systems
    #[arg(long, value_delimiter = ',', value_name = "GLOB")]
    os: Vec<String>,
    /// Only these releases
    #[arg(long, value_delimiter = ',', value_name = "GLOB")]
    release: Vec<String>,
    /// Only these architectures
    #[arg(long, value_delimiter = ',', value_name = "GLOB")]
    arch: Vec<String>,
    /// Only these variants; images without one have "default"
    #[arg(long, value_delimiter = ',', value_name = "GLOB")]
    variant: Vec<String>,
    /// Only containers, or only virtual machines: container, virtual-machine
    #[arg(long = "type", value_delimiter = ',', value_name = "GLOB")]
    kind: Vec<String>,
    /// Only these kinds of root file system: squashfs, root.tar.xz, disk-kvm.img
    #[arg(long, value_delimiter = ',', value_name = "GLOB")]
    ftype: Vec<String>,
    /// Versions to keep of each product
    #[arg(long, default_value_t = 1, value_name = "N")]
    keep: u32,
    /// When to run: cron with five fields, @hourly, @daily, @weekly or @monthly, in UTC
    #[arg(long, default_value = "", hide_default_value = true, value_name = "CRON")]
    schedule: String,
    /// Put this before every alias
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    alias_prefix: String,
    /// Take no aliases over
    #[arg(long)]
    no_aliases: bool,
    /// Show the images to everybody
    #[arg(long)]
    public: bool,
    /// Downloads at once, 8 at most
    #[arg(long, default_value_t = 2, value_name = "N")]
    parallel: u32,
    /// Bytes a second of all downloads together, such as 500k or 2M
    #[arg(long, default_value = "0", hide_default_value = true, value_name = "RATE", value_parser = rate)]
    limit_rate: u64,
    /// What it is for
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    description: String,
    #[command(flatten)]
    format: ResultFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProtocolName {
    Simplestreams,
    Lxd,
}

impl Create {
    pub(super) async fn run(&self, context: &Context) -> Outcome {
        let (server, name) = self.mirror.open(context)?;
        let source = match &self.source {
            Some(source) => self.source(context, source)?,
            None => RemoteSpec {
                protocol: "simplestreams".parse().unwrap_or_default(),
                ..RemoteSpec::default()
            },
        };
        let config = self.config(source);
        server.create_mirror(&MirrorsPost { name: name.clone(), config }).await?;
        if self.format.is_text() && !context.quiet && self.source.is_some() {
            note(&format!("`lxd-cli mirror run {}` fetches the images.", self.mirror.mirror));
        }
        self.format.done(&json!({ "name": name }))
    }

    /// The server that is meant.
    fn source(&self, context: &Context, source: &str) -> Outcome<RemoteSpec> {
        if source.starts_with("https://") {
            let protocol = match self.protocol {
                Some(ProtocolName::Lxd) => "lxd",
                Some(ProtocolName::Simplestreams) | None => "simplestreams",
            };
            let protocol = protocol.parse().unwrap_or_default();
            let keyring = self.keyring.as_deref().map(keyrings::load).transpose()?;
            let keyring = keyring.map(|keyring| keyring.armored());
            let address = source.to_owned();
            return Ok(RemoteSpec { address, protocol, keyring, ..RemoteSpec::default() });
        }
        let Some(remote) = context.remotes.parse_bare(source) else {
            return Err(Failure::usage(format!("\"{source}\" is neither a remote nor an address"))
                .hint("A remote ends with a colon, as in \"images:\"; an address begins with https://."));
        };
        if self.protocol.is_some() || self.keyring.is_some() {
            return Err(Failure::usage(
                "a remote has its own protocol and keys: leave --protocol and --keyring out",
            ));
        }
        let spec = context.remotes.spec(&remote?)?;
        if !spec.address.starts_with("https://") {
            return Err(Failure::usage(format!("\"{source}\" is not on the network"))
                .hint("The daemon mirrors servers with an https:// address."));
        }
        Ok(spec)
    }

    fn config(&self, source: RemoteSpec) -> MirrorConfig {
        let globs = |given: &[String]| Globs::new(given.to_vec());
        MirrorConfig {
            description: self.description.clone(),
            enabled: true,
            server: source.address,
            protocol: source.protocol.as_str().to_owned(),
            certificate: source.certificate,
            project: source.project,
            keyring: source.keyring.unwrap_or_default(),
            os: globs(&self.os),
            release: globs(&self.release),
            architecture: globs(&self.arch),
            variant: globs(&self.variant),
            kind: globs(&self.kind),
            ftype: globs(&self.ftype),
            keep: self.keep,
            schedule: self.schedule.clone(),
            alias_prefix: self.alias_prefix.clone(),
            aliases: !self.no_aliases,
            public: self.public,
            parallel: self.parallel,
            bandwidth: self.limit_rate,
        }
    }
}

/// Bytes a second: a number, perhaps with k, M or G (thousands) or Ki, Mi, Gi behind it.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].trim_end_matches(['B', 'b']) {
        "" => 1,
        "k" | "K" => 1000,
        "M" | "m" => 1_000_000,
        "G" | "g" => 1_000_000_000,
        "Ki" | "ki" => 1 << 10,
        "Mi" | "mi" => 1 << 20,
        "Gi" | "gi" => 1 << 30,
        _ => return Err(format!("\"{text}\" is no rate; write 500k, 2M or 1Mi")),
    };
    let number: u64 =
        digits.parse().map_err(|_| format!("\"{text}\" is no rate; write 500k, 2M or 1Mi"))?;
    number.checked_mul(unit).ok_or_else(|| format!("\"{text}\" is too much"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("500k", 500_000), ("2MB", 2_000_000), ("1MiB", 1 << 20)]
        {
            assert_eq!(rate(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "1.5M", "-1", "5x", "99999999999G"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
