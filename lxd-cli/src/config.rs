//! The client's files: remotes and command aliases in `config.yml`, and where the socket is.

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};
use crate::output::{Node, Times, from_yaml};

/// The name of the remote that is this machine.
pub(crate) const LOCAL: &str = "local";
/// State directory of our daemon.
const OUR_DIR: &str = "/var/lib/lxd-imaged";
/// State directory of a real LXD.
const LXD_DIR: &str = "/var/lib/lxd";

/// A server with a name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct RemoteEntry {
    pub(crate) addr: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) auth_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) domain: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) project: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) protocol: String,
    pub(crate) public: bool,
    /// Built in: cannot be changed.
    #[serde(rename = "static", skip_deserializing)]
    pub(crate) is_static: bool,
    /// From the machine's configuration, not the user's.
    #[serde(skip_deserializing)]
    pub(crate) global: bool,
}

/// What `config.yml` says, on top of what is built in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// The directory of the client's files.
    pub(crate) dir: PathBuf,
    pub(crate) default_remote: String,
    pub(crate) remotes: BTreeMap<String, RemoteEntry>,
    pub(crate) aliases: BTreeMap<String, String>,
    /// Why the file could not be read; then only what is built in is known.
    pub(crate) broken: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigFile {
    #[serde(rename = "default-remote")]
    default_remote: Option<String>,
    remotes: Option<BTreeMap<String, RemoteEntry>>,
    aliases: Option<BTreeMap<String, String>>,
}

impl Config {
    /// Reads the configuration of this user; `force_local` looks at nothing but the socket.
    pub(crate) fn load(force_local: bool) -> Self {
        let dir = config_dir();
        let mut config = Self { dir, default_remote: LOCAL.into(), ..Self::default() };
        config.remotes = builtin();
        if force_local {
            return config;
        }
        let global = env::var_os("LXD_GLOBAL_CONF").map_or("/etc/lxd".into(), PathBuf::from);
        config.merge(&global.join("config.yml"), true);
        config.merge(&config.path(), false);
        if let Ok(name) = env::var("LXC_REMOTE")
            && !name.is_empty()
        {
            config.default_remote = name;
        }
        config
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("config.yml")
    }

    fn merge(&mut self, path: &Path, global: bool) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => {
                self.broken = Some(format!("cannot read {}: {error}", path.display()));
                return;
            }
        };
        match parse(&text) {
            Ok(file) => self.take(file, global),
            Err(error) => {
                self.broken = Some(format!("cannot read {}: {error}", path.display()));
            }
        }
    }

    fn take(&mut self, file: ConfigFile, global: bool) {
        for (name, mut entry) in file.remotes.unwrap_or_default() {
            entry.global = global;
            if name == LOCAL {
                // Only its project can be changed.
                if let Some(local) = self.remotes.get_mut(LOCAL) {
                    local.project = entry.project;
                }
            } else if !self.remotes.get(&name).is_some_and(|known| known.is_static) {
                self.remotes.insert(name, entry);
            }
        }
        self.aliases.extend(file.aliases.unwrap_or_default());
        if let Some(name) = file.default_remote.filter(|name| !name.is_empty()) {
            self.default_remote = name;
        }
    }

    /// Replaces the command aliases in the file; everything else in it stays.
    pub(crate) fn save_aliases(&self, aliases: &BTreeMap<String, String>) -> Outcome {
        if let Some(broken) = &self.broken {
            return Err(Failure::new(broken.clone()).hint("Repair that file first."));
        }
        let path = self.path();
        let mut file = match std::fs::read_to_string(&path) {
            Ok(text) => parse_node(&text).map_err(|error| {
                Failure::new(format!("cannot read {}: {error}", path.display()))
            })?,
            Err(_) => Vec::new(),
        };
        let entries = aliases.iter().map(|(k, v)| (k.clone(), Node::Text(v.clone()))).collect();
        file.retain(|(key, _)| key != "aliases");
        file.push(("aliases".to_owned(), Node::Map(entries)));
        self.write(&path, &Node::Map(file).yaml(Times::Plain))
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
    }

    /// A temporary file and a rename, so that no reader ever sees half a file.
    fn write(&self, path: &Path, text: &str) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let mut file = tempfile::Builder::new().prefix(".config").tempfile_in(&self.dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

fn parse(text: &str) -> Result<ConfigFile, String> {
    if text.trim().is_empty() {
        return Ok(ConfigFile::default());
    }
    from_yaml(text)
}

fn parse_node(text: &str) -> Result<Vec<(String, Node)>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    match from_yaml(text)? {
        Node::Map(entries) => Ok(entries),
        _ => Err("it is not a map".to_owned()),
    }
}

fn config_dir() -> PathBuf {
    match env::var_os("LXD_CONF").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => env::home_dir().unwrap_or_default().join(".config/lxc"),
    }
}

fn builtin() -> BTreeMap<String, RemoteEntry> {
    let streams = |addr: &str, is_static| RemoteEntry {
        addr: addr.into(),
        protocol: "simplestreams".into(),
        public: true,
        is_static,
        ..RemoteEntry::default()
    };
    let local = RemoteEntry { addr: "unix://".into(), is_static: true, ..RemoteEntry::default() };
    BTreeMap::from([
        (LOCAL.to_owned(), local),
        ("images".to_owned(), streams("https://images.linuxcontainers.org", false)),
        ("ubuntu".to_owned(), streams("https://cloud-images.ubuntu.com/releases", true)),
        ("ubuntu-daily".to_owned(), streams("https://cloud-images.ubuntu.com/daily", true)),
    ])
}

/// Where the local daemon listens: `LXD_SOCKET`, else in `LXD_DIR`, else ours, else a real
/// LXD's when only that one is there.
pub(crate) fn local_socket() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(socket) = set("LXD_SOCKET") {
        return socket;
    }
    let in_dir = |dir: &Path| dir.join("unix.socket");
    if let Some(dir) = set("LXD_DIR") {
        return in_dir(&dir);
    }
    let (ours, theirs) = (in_dir(Path::new(OUR_DIR)), in_dir(Path::new(LXD_DIR)));
    if !ours.exists() && theirs.exists() { theirs } else { ours }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
default-remote: s2
remotes:
  images:
    addr: https://example.org
    protocol: simplestreams
    public: true
  local:
    addr: unix://
    public: false
  s2:
    addr: https://127.0.0.1:37444
    auth_type: tls
    project: default
    protocol: lxd
    public: false
    something_new: 7
aliases:
  il: image list -f csv
";

    fn with_file(text: &str) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.yml"), text).unwrap();
        let mut config = Config {
            dir: dir.path().to_owned(),
            remotes: builtin(),
            default_remote: LOCAL.into(),
            ..Config::default()
        };
        config.merge(&config.path(), false);
        (dir, config)
    }

    #[test]
    fn remotes_are_added_to_the_built_in_ones() {
        let (_dir, config) = with_file(FILE);
        assert_eq!(config.default_remote, "s2");
        assert_eq!(config.remotes["images"].addr, "https://example.org");
        assert_eq!(config.remotes["local"].addr, "unix://");
        assert!(config.remotes["local"].is_static && config.remotes["ubuntu"].is_static);
        assert_eq!(config.remotes["s2"].auth_type, "tls");
        assert_eq!(config.aliases["il"], "image list -f csv");
    }

    #[test]
    fn saving_aliases_keeps_everything_else() {
        let (_dir, config) = with_file(FILE);
        config.save_aliases(&BTreeMap::from([("ll".into(), "image list @ARGS@".into())])).unwrap();
        let text = std::fs::read_to_string(config.path()).unwrap();
        assert!(text.contains("something_new: 7"), "{text}");
        assert!(text.contains("  s2:\n    addr: https://127.0.0.1:37444\n"), "{text}");
        let (_dir, again) = with_file(&text);
        assert_eq!(again.remotes, config.remotes);
        assert_eq!(again.aliases.len(), 1);
    }

    #[test]
    fn a_broken_file_leaves_the_built_in_remotes_and_is_never_overwritten() {
        let (_dir, config) = with_file("remotes: [");
        assert!(config.remotes.contains_key(LOCAL) && config.broken.is_some());
        config.save_aliases(&BTreeMap::new()).unwrap_err();
        assert_eq!(std::fs::read_to_string(config.path()).unwrap(), "remotes: [");
    }
}
