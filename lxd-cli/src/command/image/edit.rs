//! `image edit`: what can be edited about an image, as YAML.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use lxd_proto::client::LxdClient;
use lxd_proto::fingerprint::{Fingerprint, Prefix};
use lxd_proto::image::{ImagePut, Properties};
use lxd_proto::remote::Error;
use serde::{Deserialize, Deserializer};

use crate::command::flags::ImageArg;
use crate::context::Context;
use crate::editor::{EditOptions, Editable, edit};
use crate::failure::Outcome;
use crate::output::{from_yaml, yaml};

/// Edit an image.
#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal the image opens in $VISUAL or $EDITOR; otherwise YAML is read from standard input.
Keys that the YAML leaves out stay as they are.

Examples:
  lxd-cli image edit debian/12
  echo 'public: true' | lxd-cli image edit debian/12
  lxd-cli image edit debian/12 --dry-run < new.yaml")]
pub(crate) struct Edit {
    #[command(flatten)]
    image: ImageArg,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Edit {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let found = self.image.open(context).await?;
        let fingerprint = found.resolved.image.fingerprint;
        let object = EditableImage { server: found.server, fingerprint };
        edit(&object, EditOptions { dry_run: self.dry_run, quiet: context.quiet }).await
    }
}

/// One image on its server.
pub(crate) struct EditableImage {
    pub(crate) server: LxdClient,
    pub(crate) fingerprint: Fingerprint,
}

impl Editable for EditableImage {
    type Value = ImagePut;

    const HEADER: &'static str = "\
### The editable part of an image, as YAML. Lines that start with a hash are ignored.
###
### A property is one line below \"properties:\", for example
###   description: Debian 12 with our tools";

    async fn read(&self) -> Outcome<(ImagePut, Option<String>)> {
        let read = self.server.get_image(&Prefix::from(self.fingerprint), None).await?;
        Ok((ImagePut::from(&read.value), read.etag))
    }

    async fn save(&self, value: &ImagePut, etag: Option<&str>) -> Result<(), Error> {
        self.server.put_image(&self.fingerprint, value, etag).await
    }

    fn to_yaml(value: &ImagePut) -> Outcome<String> {
        yaml(value)
    }

    fn parse(text: &str, base: &ImagePut) -> Result<ImagePut, String> {
        let edited: Edited = from_yaml(text)?;
        let mut image = base.clone();
        if let Some(auto_update) = edited.auto_update {
            image.auto_update = auto_update;
        }
        if let Some(public) = edited.public {
            image.public = public;
        }
        if let Some(properties) = edited.properties {
            let texts = properties.into_iter().map(|(key, value)| (key, value.unwrap_or_default()));
            // The server drops what is empty: so that the difference is told truly.
            image.properties = texts.filter(|(_, value)| !value.is_empty()).collect();
        }
        if let Some(text) = edited.expires_at {
            image.expires_at = parse_time(&text)?;
        }
        if let Some(profiles) = edited.profiles {
            image.profiles = Some(profiles);
        }
        Ok(image)
    }

    fn merge(base: &ImagePut, mine: &ImagePut, theirs: &ImagePut) -> ImagePut {
        ImagePut {
            auto_update: pick(&base.auto_update, &mine.auto_update, &theirs.auto_update),
            properties: merge_maps(&base.properties, &mine.properties, &theirs.properties),
            public: pick(&base.public, &mine.public, &theirs.public),
            expires_at: pick(&base.expires_at, &mine.expires_at, &theirs.expires_at),
            profiles: pick(&base.profiles, &mine.profiles, &theirs.profiles),
        }
    }
}

/// The YAML that a person writes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edited {
    #[serde(default)]
    auto_update: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    properties: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    public: Option<bool>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default, deserialize_with = "present")]
    profiles: Option<Vec<String>>,
}

/// A key that is there without a value is empty, not absent.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Some(Option::<T>::deserialize(deserializer)?.unwrap_or_default()))
}

/// A point in time, or a day, at whose start it lies.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    whole
        .parse()
        .map_err(|_| format!("\"{text}\" is no date; write 2030-01-31 or 2030-01-31T12:00:00Z"))
}

/// Mine where I changed it, else theirs.
pub(crate) fn pick<T: Clone + PartialEq>(base: &T, mine: &T, theirs: &T) -> T {
    if mine == base { theirs.clone() } else { mine.clone() }
}

/// Key by key: mine where I changed it, else theirs.
pub(crate) fn merge_maps<V: Clone + PartialEq>(
    base: &BTreeMap<String, V>,
    mine: &BTreeMap<String, V>,
    theirs: &BTreeMap<String, V>,
) -> BTreeMap<String, V> {
    let keys = base.keys().chain(mine.keys()).chain(theirs.keys());
    keys.filter_map(|key| {
        let value = pick(&base.get(key), &mine.get(key), &theirs.get(key))?;
        Some((key.clone(), value.clone()))
    })
    .collect()
}

/// Sets what is not empty and removes what is.
pub(crate) fn overlay(properties: &mut Properties, key: &str, value: &str) {
    if value.is_empty() {
        properties.remove(key);
    } else {
        properties.insert(key.to_owned(), value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::image::list::tests::sample;

    fn base() -> ImagePut {
        ImagePut::from(&sample())
    }

    #[test]
    fn what_is_shown_is_read_back_unchanged() {
        let yaml = EditableImage::to_yaml(&base()).unwrap();
        let expected = "\
auto_update: false
properties:
  description: BusyBox x86_64
  os: busybox
  release: \"1\"
public: false
expires_at: 1970-01-01T00:00:00Z
profiles:
- default
";
        assert_eq!(yaml, expected);
        assert_eq!(EditableImage::parse(&yaml, &base()).unwrap(), base());
        let with_header = format!("{}\n\n{yaml}", EditableImage::HEADER);
        assert_eq!(EditableImage::parse(&with_header, &base()).unwrap(), base());
    }

    #[test]
    fn absent_keys_stay_and_unknown_ones_are_refused() {
        let edited =
            EditableImage::parse("public: true\nexpires_at: 2030-01-01\n", &base()).unwrap();
        assert!(edited.public);
        assert_eq!(edited.properties, base().properties);
        assert_eq!(edited.expires_at.to_string(), "2030-01-01T00:00:00Z");
        let edited = EditableImage::parse("properties: {release: 12, os: }", &base()).unwrap();
        assert_eq!(edited.properties, Properties::from([("release".into(), "12".into())]));
        let edited = EditableImage::parse("properties:\n", &base()).unwrap();
        assert!(edited.properties.is_empty());
        for wrong in
            ["publik: true", "public: 7", "properties: [a]", "a: [", "expires_at: soon", "x"]
        {
            EditableImage::parse(wrong, &base()).unwrap_err();
        }
    }

    #[test]
    fn a_merge_takes_both_sides() {
        let mut mine = base();
        mine.public = true;
        mine.properties.remove("os");
        let mut theirs = base();
        theirs.auto_update = true;
        theirs.properties.insert("release".into(), "2".into());
        let merged = EditableImage::merge(&base(), &mine, &theirs);
        assert!(merged.public && merged.auto_update);
        assert_eq!(merged.properties.get("os"), None);
        assert_eq!(merged.properties["release"], "2");
    }
}
