//! The configuration of an instance: keys, and the whole of it as YAML.

use std::collections::BTreeMap;

use lxd_proto::instance::{Config, Devices, InstancePut, Snapshot, key};
use lxd_proto::remote::Error;
use serde::{Deserialize, Serialize};

use super::Named;
use crate::command::image::edit::{merge_maps, pick};
use crate::editor::{EditOptions, Editable, edit};
use crate::failure::{Failure, Outcome};
use crate::output::{from_yaml, yaml};
use crate::suggest::did_you_mean;

/// How often a change is made anew on a newer version.
const RETRIES: usize = 5;

/// The value of a key, of the instance alone or, `expanded`, with its profiles.
pub(crate) async fn get(named: &Named, key: &str, expanded: bool) -> Outcome<Option<String>> {
    let (own, all) = read_config(named).await?;
    Ok(if expanded { all } else { own }.get(key).cloned())
}

async fn read_config(named: &Named) -> Outcome<(Config, Config)> {
    if let Some(snapshot) = &named.snapshot {
        let read = named.server.get_snapshot(&named.name, snapshot).await;
        let snapshot = named.ok(read).await?.value;
        return Ok((snapshot.config, snapshot.expanded_config));
    }
    let read = named.server.get_instance(&named.name).await;
    let instance = named.ok(read).await?.value;
    Ok((instance.config, instance.expanded_config))
}

/// Sets keys; an empty value unsets its key.
pub(crate) async fn set(named: &Named, values: &BTreeMap<String, String>) -> Outcome {
    update(named, |config| {
        for (key, value) in values {
            if value.is_empty() {
                config.remove(key);
            } else {
                config.insert(key.clone(), value.clone());
            }
        }
        Ok(())
    })
    .await
}

/// Unsets a key that is set.
pub(crate) async fn unset(named: &Named, key: &str) -> Outcome {
    update(named, |config| {
        if config.remove(key).is_some() {
            return Ok(());
        }
        let known = config.keys().filter(|known| !known.starts_with(key::VOLATILE));
        let error = format!("Can't unset key '{key}', it's not currently set");
        Err(Failure::new(error).maybe_hint(did_you_mean(key, known.map(String::as_str))))
    })
    .await
}

/// Changes the configuration in one step, again when somebody else was faster.
async fn update(named: &Named, change: impl Fn(&mut Config) -> Outcome) -> Outcome {
    let object = EditableInstance { named: only_instance(named)? };
    let mut tries = 0;
    loop {
        let (mut put, etag) = object.read().await?;
        change(&mut put.config)?;
        match object.save(&put, etag.as_deref()).await {
            Err(error) if error.is_changed_meanwhile() && tries < RETRIES => tries += 1,
            saved => return named.ok(saved).await,
        }
    }
}

/// What is shown of a configuration.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Shown {
    /// What can be edited about an instance.
    Instance(InstancePut),
    /// All of a snapshot, which cannot be edited.
    Snapshot(Box<Snapshot>),
}

/// The configuration, and the same as YAML; `expanded` with the profiles.
pub(crate) async fn show(named: &Named, expanded: bool) -> Outcome<(Shown, String)> {
    let shown = if let Some(snapshot) = &named.snapshot {
        let read = named.server.get_snapshot(&named.name, snapshot).await;
        Shown::Snapshot(Box::new(named.ok(read).await?.value))
    } else {
        let read = named.server.get_instance(&named.name).await;
        let instance = named.ok(read).await?.value;
        let mut put = InstancePut::from(&instance);
        if expanded {
            put.config = instance.expanded_config;
            put.devices = instance.expanded_devices;
        }
        Shown::Instance(put)
    };
    let text = yaml(&shown)?;
    Ok((shown, text))
}

/// Edits the whole of it, in an editor or from standard input.
pub(crate) async fn edit_whole(named: &Named, options: EditOptions) -> Outcome {
    edit(&EditableInstance { named: only_instance(named)? }, options).await
}

fn only_instance(named: &Named) -> Outcome<Named> {
    match &named.snapshot {
        None => Ok(named.clone()),
        Some(_) => Err(Failure::usage("the configuration of a snapshot cannot be changed")),
    }
}

/// One instance on its server.
struct EditableInstance {
    named: Named,
}

impl Editable for EditableInstance {
    type Value = InstancePut;

    const HEADER: &'static str = "\
### The configuration of an instance, as YAML. Lines that start with a hash are ignored.
###
### A key is one line below \"config:\", for example
###   limits.memory: 512MiB";

    async fn read(&self) -> Outcome<(InstancePut, Option<String>)> {
        let read = self.named.server.get_instance(&self.named.name).await;
        let read = self.named.ok(read).await?;
        Ok((InstancePut::from(&read.value), read.etag))
    }

    async fn save(&self, value: &InstancePut, etag: Option<&str>) -> Result<(), Error> {
        let server = &self.named.server;
        let operation = server.put_instance(&self.named.name, value, etag).await?;
        server.finish(operation, |_| ()).await.map(drop)
    }

    fn to_yaml(value: &InstancePut) -> Outcome<String> {
        yaml(value)
    }

    fn parse(text: &str, base: &InstancePut) -> Result<InstancePut, String> {
        let edited: Edited = from_yaml(text)?;
        Ok(edited.over(base.clone()))
    }

    fn merge(base: &InstancePut, mine: &InstancePut, theirs: &InstancePut) -> InstancePut {
        InstancePut {
            architecture: pick(&base.architecture, &mine.architecture, &theirs.architecture),
            config: merge_maps(&base.config, &mine.config, &theirs.config),
            devices: merge_maps(&base.devices, &mine.devices, &theirs.devices),
            ephemeral: pick(&base.ephemeral, &mine.ephemeral, &theirs.ephemeral),
            profiles: pick(&base.profiles, &mine.profiles, &theirs.profiles),
            restore: String::new(),
            stateful: pick(&base.stateful, &mine.stateful, &theirs.stateful),
            description: pick(&base.description, &mine.description, &theirs.description),
        }
    }
}

/// The YAML that describes a new instance.
pub(super) fn parse_document(text: &str) -> Result<InstancePut, String> {
    let edited: Edited = from_yaml(text)?;
    Ok(edited.over(InstancePut::default()))
}

/// The YAML that a person writes. What `lxc config show` prints besides is read over.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edited {
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    config: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    devices: Option<Devices>,
    #[serde(default)]
    ephemeral: Option<bool>,
    #[serde(default)]
    profiles: Option<Vec<String>>,
    #[serde(default)]
    stateful: Option<bool>,
    #[serde(default)]
    description: Option<String>,
}

impl Edited {
    /// What was said over what was; an empty value of the configuration is none.
    fn over(self, mut put: InstancePut) -> InstancePut {
        if let Some(config) = self.config {
            let texts = config.into_iter().map(|(key, value)| (key, value.unwrap_or_default()));
            put.config = texts.filter(|(_, value)| !value.is_empty()).collect();
        }
        put.architecture = self.architecture.unwrap_or(put.architecture);
        put.devices = self.devices.unwrap_or(put.devices);
        put.ephemeral = self.ephemeral.unwrap_or(put.ephemeral);
        put.profiles = self.profiles.or(put.profiles);
        put.stateful = self.stateful.unwrap_or(put.stateful);
        put.description = self.description.unwrap_or(put.description);
        put
    }
}

#[cfg(test)]
mod tests {
    use super::super::list::tests::sample;
    use super::*;

    fn base() -> InstancePut {
        InstancePut::from(&sample().instance)
    }

    #[test]
    fn what_is_shown_is_read_back_unchanged() {
        let text = EditableInstance::to_yaml(&base()).unwrap();
        assert!(text.starts_with("architecture: x86_64\nconfig:\n  image.os: busybox\n"), "{text}");
        assert!(
            text.ends_with("profiles:\n- default\n- two\nstateful: false\ndescription: \"\"\n")
        );
        assert_eq!(EditableInstance::parse(&text, &base()).unwrap(), base());
    }

    #[test]
    fn absent_keys_stay_and_unknown_ones_are_refused() {
        let edited = EditableInstance::parse("config: {user.a: 1, user.b: }\n", &base()).unwrap();
        assert_eq!(edited.config, Config::from([("user.a".into(), "1".into())]));
        assert_eq!(edited.profiles, base().profiles);
        for wrong in ["confg: {}", "ephemeral: 7", "devices: [a]", "i2 i3"] {
            assert!(parse_document(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_merge_takes_both_sides() {
        let mut mine = base();
        mine.config.insert("user.a".into(), "1".into());
        let mut theirs = base();
        theirs.description = "theirs".into();
        let merged = EditableInstance::merge(&base(), &mine, &theirs);
        assert_eq!(
            (merged.config["user.a"].as_str(), merged.description.as_str()),
            ("1", "theirs")
        );
    }
}
