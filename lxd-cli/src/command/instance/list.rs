//! `list`: instances as rows.

use clap::Args;
use lxd_proto::instance::{Devices, InstanceFull, key};
use lxd_proto::time::is_unset;

use super::filter::{Filters, networks};
use crate::command::flags::ListFormat;
use crate::command::image::info::minute;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Table, human_size, print_list, sort_rows};

/// The columns of `lxc list`.
const DEFAULT_COLUMNS: &str = "ns46tS";
/// Those that need no look at running processes.
const FAST_COLUMNS: &str = "nsacPt";

/// List instances.
#[derive(Debug, Args)]
#[command(after_help = "\
A filter without \"=\" is the beginning of a name, or a regular expression for all of it. KEY=VALUE
looks at type, status, architecture, location, ipv4 or ipv6 (with commas between several values,
for the last two also networks such as 10.0.3.0/24), or else at a configuration key, which may be
abbreviated; VALUE is a regular expression then. All filters must match.

Columns, as letters; with commas between, also configuration keys such as image.os, as KEY[:HEADER]:
  n name           s state            4 IPv4 addresses    6 IPv6 addresses
  t type           S snapshots        a architecture      c created
  l last used      P profiles         d description       p pid of its init
  N processes      m memory           u CPU seconds       D disk usage
  b storage pool   e project          f, F base image's fingerprint, short and full

Examples:
  lxd-cli list
  lxd-cli list web status=running
  lxd-cli list -c n,image.os:OS,4 -f csv,header
  lxd-cli list images-server: --fast")]
pub(crate) struct List {
    /// A remote ("NAME:") and filters
    #[arg(value_name = "REMOTE: | FILTER")]
    pub(crate) filters: Vec<String>,
    /// Which columns
    #[arg(short, long, default_value = DEFAULT_COLUMNS)]
    columns: String,
    /// Only what is quickly found out: -c nsacPt
    #[arg(long, conflicts_with = "columns")]
    fast: bool,
    #[command(flatten)]
    format: ListFormat,
}

impl List {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let columns = if self.fast { FAST_COLUMNS } else { &self.columns };
        let columns = Column::parse_all(columns)?;
        let (remote, words) = self.words(context)?;
        let filters = Filters::parse(&words)?;
        let server = context.remotes.server(&remote)?;
        let objects = !matches!(
            self.format.format.shape,
            crate::output::Shape::Table | crate::output::Shape::Csv | crate::output::Shape::Compact
        );
        let needs_state =
            objects || filters.need_state() || columns.iter().any(Column::needs_state);
        let mut instances = if needs_state {
            server.list_instances_full().await?
        } else {
            let plain = server.list_instances().await?.into_iter();
            plain.map(bare).collect()
        };
        instances.retain(|instance| filters.matches(instance));
        let headers: Vec<_> = columns.iter().map(Column::header).collect();
        let mut table = Table { headers, rows: Vec::new() };
        for instance in &instances {
            table.rows.push(columns.iter().map(|column| column.cell(instance)).collect());
        }
        sort_rows(&mut table.rows);
        print_list(self.format.format, &table, &instances)
    }

    /// The remote, and the filters.
    fn words(&self, context: &Context) -> Outcome<(String, Vec<String>)> {
        let default = context.remotes.config.default_remote.clone();
        let Some((first, rest)) = self.filters.split_first() else {
            return Ok((default, Vec::new()));
        };
        let colon_first = match (first.find(':'), first.find('=')) {
            (Some(colon), Some(equals)) => colon < equals,
            (colon, _) => colon.is_some(),
        };
        if !colon_first {
            return Ok((default, self.filters.clone()));
        }
        let reference = context.remotes.parse(first)?;
        let name = Some(reference.name).filter(|name| !name.is_empty());
        Ok((reference.remote, name.into_iter().chain(rest.iter().cloned()).collect()))
    }
}

fn bare(instance: lxd_proto::instance::Instance) -> InstanceFull {
    InstanceFull { instance, backups: None, state: None, snapshots: None }
}

/// Everything a column can show.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Letter(char),
    Config { key: String, header: String },
}

/// Letter, header and whether the state or the snapshots must be asked for.
const LETTERS: &[(char, &str, bool)] = &[
    ('n', "NAME", false),
    ('s', "STATE", false),
    ('4', "IPV4", true),
    ('6', "IPV6", true),
    ('t', "TYPE", false),
    ('S', "SNAPSHOTS", true),
    ('a', "ARCHITECTURE", false),
    ('b', "STORAGE POOL", false),
    ('c', "CREATED AT", false),
    ('d', "DESCRIPTION", false),
    ('D', "DISK USAGE", true),
    ('e', "PROJECT", false),
    ('f', "BASE IMAGE", false),
    ('F', "BASE IMAGE", false),
    ('l', "LAST USED AT", false),
    ('m', "MEMORY USAGE", true),
    ('N', "PROCESSES", true),
    ('p', "PID", true),
    ('P', "PROFILES", false),
    ('u', "CPU USAGE", true),
];

impl Column {
    fn parse_all(text: &str) -> Outcome<Vec<Self>> {
        let mut columns = Vec::new();
        for word in text.split(',').map(str::trim) {
            if word.is_empty() {
                return Err(Failure::usage(format!(
                    "Empty column entry (redundant, leading or trailing comma) in '{text}'"
                )));
            }
            if word.contains('.') {
                let word = word.strip_prefix("config:").unwrap_or(word);
                let (key, header) = word.split_once(':').unwrap_or((word, word));
                let header = if header.is_empty() { key } else { header };
                columns.push(Self::Config { key: key.into(), header: header.to_uppercase() });
                continue;
            }
            for letter in word.chars() {
                if !LETTERS.iter().any(|(known, _, _)| *known == letter) {
                    return Err(Failure::usage(format!(
                        "Unknown column shorthand char '{letter}' in '{text}'"
                    )));
                }
                columns.push(Self::Letter(letter));
            }
        }
        Ok(columns)
    }

    fn row(&self) -> Option<&'static (char, &'static str, bool)> {
        let Self::Letter(letter) = self else { return None };
        LETTERS.iter().find(|(known, _, _)| known == letter)
    }

    fn needs_state(&self) -> bool {
        self.row().is_some_and(|(_, _, needs)| *needs)
    }

    fn header(&self) -> String {
        match self {
            Self::Config { header, .. } => header.clone(),
            Self::Letter(_) => self.row().map(|row| row.1.to_owned()).unwrap_or_default(),
        }
    }

    fn cell(&self, full: &InstanceFull) -> String {
        let instance = &full.instance;
        let letter = match self {
            Self::Config { key, .. } => {
                return instance.expanded_config.get(key).cloned().unwrap_or_default();
            }
            Self::Letter(letter) => *letter,
        };
        let base = || instance.config.get(key::BASE_IMAGE).cloned().unwrap_or_default();
        match letter {
            'n' => instance.name.clone(),
            's' => instance.status.name().to_uppercase(),
            't' if instance.ephemeral => {
                format!("{} (EPHEMERAL)", instance.kind.as_str().to_uppercase())
            }
            't' => instance.kind.as_str().to_uppercase(),
            'a' => instance.architecture.clone(),
            'b' => pool(&instance.expanded_devices),
            'c' => minute(instance.created_at),
            'd' => instance.description.clone(),
            'e' => instance.project.clone(),
            'f' => base().chars().take(12).collect(),
            'F' => base(),
            'l' if is_unset(instance.last_used_at) => String::new(),
            'l' => minute(instance.last_used_at),
            'P' => instance.profiles.join("\n"),
            '4' => addresses(full, "inet"),
            '6' => addresses(full, "inet6"),
            'S' => full.snapshots.as_ref().map_or(0, Vec::len).to_string(),
            _ => usage(letter, full),
        }
    }
}

/// What only a running instance has.
fn usage(letter: char, full: &InstanceFull) -> String {
    let Some(state) = full.state.as_ref().filter(|_| full.instance.status.is_up()) else {
        return String::new();
    };
    let size = |bytes: i64| u64::try_from(bytes).ok().filter(|b| *b > 0).map(human_size);
    match letter {
        'p' => state.pid.to_string(),
        'N' => state.processes.to_string(),
        'm' => size(state.memory.usage).unwrap_or_default(),
        'u' => format!("{}s", state.cpu.usage / 1_000_000_000),
        'D' => size(state.disk.get("root").map_or(0, |root| root.usage)).unwrap_or_default(),
        _ => String::new(),
    }
}

fn pool(devices: &Devices) -> String {
    let root = devices.values().find(|device| {
        device.get("type").is_some_and(|kind| kind == "disk")
            && device.get("path").is_some_and(|path| path == "/")
    });
    root.and_then(|device| device.get("pool").cloned()).unwrap_or_default()
}

/// `ADDRESS (INTERFACE)`, one a line.
fn addresses(full: &InstanceFull, family: &str) -> String {
    let mut all = Vec::new();
    for (name, network) in networks(full).filter(|(_, network)| network.kind != "loopback") {
        let reachable = network
            .addresses
            .iter()
            .filter(|a| a.family == family && !matches!(a.scope.as_str(), "link" | "local"));
        all.extend(reachable.map(|a| format!("{} ({name})", a.address)));
    }
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.join("\n")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A running instance.
    pub(in super::super) fn sample() -> InstanceFull {
        serde_json::from_str(
            r#"{"architecture":"x86_64","config":{"image.os":"busybox",
            "volatile.base_image":"a65894de6c07f624ba0f5081f52986186dadd9ea069692e7b5b0335fd8a96d31"},
            "devices":{},"ephemeral":false,"profiles":["default","two"],"stateful":false,
            "description":"","created_at":"2026-11-24T01:57:31.67Z",
            "expanded_config":{"image.os":"busybox"},
            "expanded_devices":{"root":{"path":"/","pool":"default","type":"disk"}},
            "name":"c1","status":"Running","status_code":103,"last_used_at":"1970-01-01T00:00:00Z",
            "location":"none","type":"container","project":"default","backups":null,
            "state":{"status":"Running","status_code":103,"disk":{},
            "memory":{"usage":638976,"usage_peak":1126400,"swap_usage":0,"swap_usage_peak":0},
            "network":{"eth0":{"addresses":[
            {"family":"inet","address":"10.0.3.7","netmask":"24","scope":"global"},
            {"family":"inet6","address":"fd00::7","netmask":"64","scope":"global"},
            {"family":"inet6","address":"fe80::7","netmask":"64","scope":"link"}],
            "hwaddr":"00:16:3e:00:00:01","host_name":"veth1","mtu":1500,"state":"up","type":"broadcast"},
            "lo":{"addresses":[{"family":"inet","address":"127.0.0.1","netmask":"8","scope":"local"}],
            "hwaddr":"","host_name":"","mtu":65536,"state":"up","type":"loopback"}},
            "pid":25178,"processes":2,"cpu":{"usage":2219079000}},"snapshots":null}"#,
        )
        .unwrap()
    }

    fn csv(columns: &str) -> String {
        let columns = Column::parse_all(columns).unwrap();
        columns.iter().map(|column| column.cell(&sample())).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn cells_are_those_of_lxc() {
        assert_eq!(csv("ns46tS"), "c1,RUNNING,10.0.3.7 (eth0),fd00::7 (eth0),CONTAINER,0");
        assert_eq!(csv("acPlbf"), "x86_64,2026/11/24 01:57 UTC,default\ntwo,,default,a65894de6c07");
        assert_eq!(csv("pNmu"), "25178,2,624.00KiB,2s");
        assert_eq!(csv("n,image.os:OS,e"), "c1,busybox,default");
    }

    #[test]
    fn columns_are_letters_or_keys() {
        let columns = Column::parse_all("n,config:image.os:OS,user.a").unwrap();
        let headers: Vec<_> = columns.iter().map(Column::header).collect();
        assert_eq!(headers, ["NAME", "OS", "USER.A"]);
        assert!(!columns.iter().any(Column::needs_state));
        for wrong in ["nZ", "n,,s", ""] {
            assert!(Column::parse_all(wrong).is_err(), "{wrong}");
        }
    }
}
