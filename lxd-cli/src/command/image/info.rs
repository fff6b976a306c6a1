//! `image info`: everything about one image, for people.

use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;
use lxd_proto::extensions;
use lxd_proto::image::{Image, Verified};
use lxd_proto::remote::Protocol;
use lxd_proto::time::is_unset;

use crate::command::flags::{ImageArg, ResultFormat};
use crate::command::image::list::yes_no;
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::mebibytes;

/// Show everything about an image.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lxd-cli image info debian/12
  lxd-cli image info a65894de6c07 --format json")]
pub(crate) struct Info {
    #[command(flatten)]
    image: ImageArg,
    #[command(flatten)]
    format: ResultFormat,
}

impl Info {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let found = self.image.read(context).await?;
        let image = &found.resolved.image;
        // An absent "verified" means "passed" only where the server checks at all.
        let checks = found.server.spec().protocol == Protocol::Lxd
            && match context.remotes.server(&found.remote) {
                Ok(server) => server
                    .server()
                    .await?
                    .value
                    .api_extensions
                    .iter()
                    .any(|extension| extension == extensions::VERIFIED),
                Err(_) => false,
            };
        self.format.print(image, &text(image, checks))
    }
}

fn text(image: &Image, server_checks: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(&mut out, image, server_checks);
    out
}

fn write_text(out: &mut String, image: &Image, server_checks: bool) -> std::fmt::Result {
    writeln!(out, "Fingerprint: {}", image.fingerprint)?;
    writeln!(out, "Size: {} ({} bytes)", mebibytes(image.size), image.size)?;
    writeln!(out, "Architecture: {}", image.architecture)?;
    writeln!(out, "Type: {}", image.kind)?;
    writeln!(out, "Public: {}", yes_no(image.public))?;
    if server_checks || image.verified != Verified::Yes {
        writeln!(out, "Verified: {}", image.verified)?;
    }
    writeln!(out, "Timestamps:")?;
    if !is_unset(image.created_at) {
        writeln!(out, "    Created: {}", minute(image.created_at))?;
    }
    writeln!(out, "    Uploaded: {}", minute(image.uploaded_at))?;
    writeln!(out, "    Expires: {}", minute_or_never(image.expires_at))?;
    writeln!(out, "    Last used: {}", minute_or_never(image.last_used_at))?;
    writeln!(out, "Properties:")?;
    for (key, value) in &image.properties {
        writeln!(out, "    {key}: {value}")?;
    }
    writeln!(out, "Aliases:")?;
    for alias in &image.aliases {
        if alias.description.is_empty() {
            writeln!(out, "    - {}", alias.name)?;
        } else {
            writeln!(out, "    - {} ({})", alias.name, alias.description)?;
        }
    }
    writeln!(out, "Cached: {}", yes_no(image.cached))?;
    writeln!(out, "Auto update: {}", if image.auto_update { "enabled" } else { "disabled" })?;
    if let Some(source) = &image.update_source {
        writeln!(out, "Source:")?;
        writeln!(out, "    Server: {}", source.server)?;
        writeln!(out, "    Protocol: {}", source.protocol)?;
        writeln!(out, "    Alias: {}", source.alias)?;
        if let Some(refresh) = &image.refresh {
            writeln!(out, "    Last check: {}", minute_or_never(refresh.checked_at))?;
            writeln!(out, "    Next check: {}", minute_or_never(refresh.next_check_at))?;
            if !refresh.error.is_empty() {
                writeln!(out, "    Last error: {}", refresh.error)?;
            }
        }
    }
    if image.profiles.is_empty() {
        writeln!(out, "Profiles: []")?;
    } else {
        writeln!(out, "Profiles:")?;
        for profile in &image.profiles {
            writeln!(out, "    - {profile}")?;
        }
    }
    Ok(())
}

fn minute_or_never(time: Timestamp) -> String {
    if is_unset(time) { "never".to_owned() } else { minute(time) }
}

/// `2026/11/24 01:53 UTC`.
pub(crate) fn minute(time: Timestamp) -> String {
    time.strftime("%Y/%m/%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::image::list::tests::sample;

    #[test]
    fn info_is_lxcs_with_sorted_keys_and_an_exact_size() {
        let expected = "\
Fingerprint: a65894de6c07f624ba0f5081f52986186dadd9ea069692e7b5b0335fd8a96d31
Size: 0.84MiB (878472 bytes)
Architecture: x86_64
Type: container
Public: no
Timestamps:
    Created: 2016/03/15 11:10 UTC
    Uploaded: 2026/11/24 01:53 UTC
    Expires: never
    Last used: never
Properties:
    description: BusyBox x86_64
    os: busybox
    release: 1
Aliases:
    - busybox
    - bb/1 (x)
Cached: no
Auto update: disabled
Profiles:
    - default
";
        assert_eq!(text(&sample(), false), expected);
        let mut followed = sample();
        followed.update_source = Some(lxd_proto::image::UpdateSource {
            alias: "bb".into(),
            protocol: "lxd".into(),
            server: "https://h:8443".into(),
            ..Default::default()
        });
        followed.refresh = Some(lxd_proto::image::Refresh {
            checked_at: followed.uploaded_at,
            next_check_at: lxd_proto::time::zero(),
            error: "cannot reach https://h:8443".into(),
        });
        let expected = "\
Source:
    Server: https://h:8443
    Protocol: lxd
    Alias: bb
    Last check: 2026/11/24 01:53 UTC
    Next check: never
    Last error: cannot reach https://h:8443
";
        assert!(text(&followed, false).contains(expected));
        assert!(text(&sample(), true).contains("Public: no\nVerified: yes\n"));
    }
}
