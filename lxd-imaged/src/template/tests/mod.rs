//! Tests of the renderer: the language feature by feature, templates of images, hostile ones.

mod errors;
mod features;
mod hostile;
mod images;

use std::collections::BTreeMap;

use super::{Context, render};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A container that is created.
fn context() -> Context {
    Context {
        trigger: "create".into(),
        path: "/etc/hostname".into(),
        instance: map(&[
            ("name", "c1"),
            ("type", "container"),
            ("architecture", "x86_64"),
            ("ephemeral", "false"),
            ("privileged", "false"),
        ]),
        config: map(&[
            ("user.user-data", "#cloud-config\nx: 1\n"),
            ("user.access_interfaces", "eth0"),
            ("limits.cpu", "2"),
            ("user.crlf", "a\r\n\r\n"),
            ("empty", ""),
        ]),
        devices: BTreeMap::from([
            ("root".into(), map(&[("path", "/"), ("type", "disk")])),
            ("eth0".into(), map(&[("type", "nic"), ("hwaddr", "aa")])),
        ]),
        properties: map(&[("default", "dflt"), ("n", "20")]),
    }
}
