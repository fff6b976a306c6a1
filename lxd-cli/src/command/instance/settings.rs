//! The flags that say what a new instance or a copy gets: configuration, devices, profiles.

use std::collections::BTreeMap;

use clap::Args;
use lxd_proto::instance::{Config, Devices, InstancePut};

use crate::failure::{Failure, Outcome};

/// Configuration, devices and profiles.
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// A configuration key; may be repeated
    #[arg(short, long = "config", value_name = "KEY=VALUE")]
    config: Vec<String>,
    /// A device, or a key of one that a profile has; may be repeated
    #[arg(short, long = "device", value_name = "DEVICE,KEY=VALUE,...")]
    devices: Vec<String>,
    /// Delete the instance when it stops
    #[arg(short, long)]
    ephemeral: bool,
    /// A profile; may be repeated
    #[arg(short, long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// No profile at all
    #[arg(long, conflicts_with = "profiles")]
    no_profiles: bool,
    /// The storage pool of its root disk
    #[arg(short, long, value_name = "POOL")]
    storage: Option<String>,
}

impl Settings {
    /// Applies the flags.
    pub(super) fn apply(&self, put: &mut InstancePut) -> Outcome {
        for word in &self.config {
            let (key, value) = pair(word)?;
            put.config.insert(key, value);
        }
        for (name, keys) in self.given_devices()? {
            put.devices.entry(name).or_default().extend(keys);
        }
        if let Some(pool) = &self.storage {
            let root = put.devices.entry("root".to_owned()).or_default();
            for (key, value) in [("type", "disk"), ("path", "/"), ("pool", pool)] {
                root.insert(key.to_owned(), value.to_owned());
            }
        }
        if self.no_profiles {
            put.profiles = Some(Vec::new());
        } else if !self.profiles.is_empty() {
            put.profiles = Some(self.profiles.clone());
        }
        put.ephemeral |= self.ephemeral;
        Ok(())
    }

    fn given_devices(&self) -> Outcome<Devices> {
        let mut devices = Devices::new();
        for word in &self.devices {
            let wrong = || Failure::usage(format!("\"{word}\" is not DEVICE,KEY=VALUE"));
            let (name, keys) = word.split_once(',').ok_or_else(wrong)?;
            let keys: BTreeMap<_, _> = keys.split(',').map(pair).collect::<Outcome<_>>()?;
            if name.is_empty() {
                return Err(wrong());
            }
            devices.entry(name.to_owned()).or_default().extend(keys);
        }
        Ok(devices)
    }
}

/// `KEY=VALUE`.
pub(super) fn pair(word: &str) -> Outcome<(String, String)> {
    match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("\"{word}\" is not KEY=VALUE"))),
    }
}

/// The keys of an instance that a copy of it may have.
pub(super) fn copied(config: &Config) -> Config {
    use lxd_proto::instance::key;
    let stays = |name: &str| !name.starts_with(key::VOLATILE) || name == key::BASE_IMAGE;
    config.iter().filter(|(k, _)| stays(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn put(words: &[&str]) -> Outcome<InstancePut> {
        let line = Line::try_parse_from([&["x"], words].concat()).unwrap();
        let mut put = InstancePut::default();
        line.settings.apply(&mut put).map(|()| put)
    }

    #[test]
    fn flags_become_the_request() {
        let put = put(&[
            "-c",
            "user.a=b=c",
            "-d",
            "root,size=1GiB",
            "-s",
            "fast",
            "-p",
            "one",
            "-p",
            "two",
            "-e",
        ]);
        let put = put.unwrap();
        assert_eq!(put.config["user.a"], "b=c");
        assert_eq!(put.devices["root"]["size"], "1GiB");
        assert_eq!(put.devices["root"]["pool"], "fast");
        assert_eq!(put.profiles.unwrap(), ["one", "two"]);
        assert!(put.ephemeral);
    }

    #[test]
    fn nothing_said_is_nothing_sent_and_mistakes_are_told() {
        assert_eq!(put(&[]).unwrap(), InstancePut::default());
        assert_eq!(put(&["--no-profiles"]).unwrap().profiles, Some(Vec::new()));
        for wrong in [["-c", "bad"], ["-c", "=x"], ["-d", "eth0"], ["-d", ",a=b"], ["-d", "a,b"]] {
            assert!(put(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_copy_has_no_volatile_keys_but_its_base() {
        let config = ["user.a", "volatile.uuid", "volatile.base_image", "image.os"];
        let config: Config = config.iter().map(|k| ((*k).to_owned(), String::new())).collect();
        let left = copied(&config);
        assert_eq!(
            left.into_keys().collect::<Vec<_>>(),
            ["image.os", "user.a", "volatile.base_image"]
        );
    }
}
