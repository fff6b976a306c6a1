//! The client's configuration: remotes and command aliases in `config.yml`, and where the socket is.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::output::{Node, Times, from_yaml};

pub(crate) use file::{Document, lock, replace};

/// The name of the remote that is this machine.
pub(crate) const LOCAL: &str = "local";
/// The name of the configuration file.
const FILE_NAME: &str = "config.yml";
/// The key of the remotes in it.
const REMOTES: &str = "remotes";
/// The key of the command aliases in it.
const ALIASES: &str = "aliases";
/// The one remote of lxc's that is built in until a file of the user's leaves it out.
const IMAGES: &str = "images";
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
    /// Fingerprints of the keys that must have signed what it says; to be told, since the keys
    /// lie in a file of their own.
    #[serde(skip_deserializing, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keyring: Vec<String>,
}

/// What `config.yml` says, on top of what is built in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// The directory of the client's files.
    pub(crate) dir: PathBuf,
    /// The directory of the machine's files.
    pub(crate) global_dir: PathBuf,
    pub(crate) default_remote: String,
    /// Whether `LXC_REMOTE` says so.
    pub(crate) default_is_from_env: bool,
    pub(crate) remotes: BTreeMap<String, RemoteEntry>,
    /// Remotes whose entries cannot be used, with where and why. They stay in the file.
    pub(crate) unusable: BTreeMap<String, String>,
    pub(crate) aliases: BTreeMap<String, String>,
    /// Names of aliases that the machine's configuration has.
    pub(crate) global_aliases: BTreeSet<String>,
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
        let mut config = Self {
            dir: config_dir(),
            global_dir: set("LXD_GLOBAL_CONF").unwrap_or_else(|| "/etc/lxd".into()),
            default_remote: LOCAL.into(),
            remotes: builtin(),
            ..Self::default()
        };
        if force_local {
            return config;
        }
        config.merge(&config.global_dir.join(FILE_NAME), true);
        config.merge(&config.path(), false);
        if let Ok(name) = env::var("LXC_REMOTE")
            && !name.is_empty()
        {
            config.default_remote = name;
            config.default_is_from_env = true;
        }
        config
    }

    /// Why a remote that is in a file cannot be used; `None` when there is no such entry.
    pub(crate) fn unusable(&self, name: &str) -> Option<Failure> {
        let why = self.unusable.get(name)?;
        Some(Failure::new(format!("The remote \"{name}\" cannot be used: {why}")).hint(format!(
            "Repair its entry in that file, or take it out: `lxd-cli remote remove {name}`."
        )))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(FILE_NAME)
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
        match parse(&text, path) {
            Ok((file, odd)) => {
                let names: Vec<_> = file.remotes.iter().flatten().map(|(name, _)| name).collect();
                self.unusable.retain(|name, _| !names.contains(&name));
                self.take(file, global);
                for (name, why) in odd {
                    // A static one is not taken from files.
                    if !self.remotes.get(&name).is_some_and(|known| known.is_static) {
                        self.remotes.remove(&name);
                        self.unusable.insert(name, format!("{why} in {}", path.display()));
                    }
                }
            }
            Err(error) => {
                self.broken = Some(format!("cannot read {}: {error}", path.display()));
            }
        }
    }

    fn take(&mut self, file: ConfigFile, global: bool) {
        if file.remotes.is_some() && !global {
            self.remotes.remove(IMAGES);
        }
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
        let aliases = file.aliases.unwrap_or_default();
        if global {
            self.global_aliases.extend(aliases.keys().cloned());
        }
        self.aliases.extend(aliases);
        if let Some(name) = file.default_remote.filter(|name| !name.is_empty()) {
            self.default_remote = name;
        }
    }
}

/// What a file says, and the remotes whose entries cannot be read, with why: the others are as
/// good as ever. An odd command alias is warned of and left out: it cannot be told from another
/// unknown word when it is used.
fn parse(text: &str, path: &Path) -> Result<(ConfigFile, BTreeMap<String, String>), String> {
    if text.trim().is_empty() {
        return Ok(Default::default());
    }
    let wrong = match from_yaml(text) {
        Ok(file) => return Ok((file, BTreeMap::new())),
        Err(wrong) => wrong,
    };
    let Ok(Node::Map(mut file)) = from_yaml(text) else { return Err(wrong) };
    let mut odd = BTreeMap::new();
    for (key, value) in &mut file {
        match (key.as_str(), value) {
            (REMOTES, Node::Map(remotes)) => remotes.retain(|(name, entry)| {
                let why = unreadable(entry);
                odd.extend(why.map(|why| (name.clone(), why.to_owned())));
                why.is_none()
            }),
            (ALIASES, Node::Map(aliases)) => aliases.retain(|(name, target)| {
                let odd = matches!(target, Node::Null | Node::List(_) | Node::Map(_));
                if odd {
                    tracing::warn!(
                        file = %path.display(),
                        "the command alias \"{name}\" is left out: what it stands for is no text"
                    );
                }
                !odd
            }),
            _ => {}
        }
    }
    // Numbers and texts as they were written: what was no trouble before is none now.
    Ok((from_yaml(&Node::Map(file).yaml(Times::Plain))?, odd))
}

/// Why the entry of a remote cannot be read.
fn unreadable(entry: &Node) -> Option<&'static str> {
    match entry {
        Node::Null => Some("its entry is empty"),
        Node::Map(_) => {
            let entry: Result<RemoteEntry, _> = from_yaml(&entry.yaml(Times::Plain));
            entry.is_err().then_some("its entry holds a value of a wrong kind")
        }
        _ => Some("its entry is no map"),
    }
}

fn config_dir() -> PathBuf {
    set("LXD_CONF").unwrap_or_else(|| env::home_dir().unwrap_or_default().join(".config/lxc"))
}

/// The path in an environment variable that is set and not empty.
fn set(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where catalogs of image servers are kept: with the configuration where that was moved, else
/// where the user's caches are.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    if let Some(dir) = set("LXD_CONF") {
        return Some(dir.join("cache"));
    }
    let caches = set("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")))?;
    Some(caches.join("lxd-cli"))
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
        (IMAGES.to_owned(), streams("https://images.linuxcontainers.org", false)),
        ("ubuntu".to_owned(), streams("https://cloud-images.ubuntu.com/releases", true)),
        ("ubuntu-daily".to_owned(), streams("https://cloud-images.ubuntu.com/daily", true)),
    ])
}

/// Where the local daemon listens, as an absolute path: `LXD_SOCKET`, else in `LXD_DIR`, else
/// ours, else a real LXD's when only that one is there.
pub(crate) fn local_socket() -> PathBuf {
    let socket = named_socket();
    std::path::absolute(&socket).unwrap_or(socket)
}

fn named_socket() -> PathBuf {
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
pub(super) mod tests {
    use super::*;

    pub(super) const FILE: &str = "\
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

    pub(super) fn with_file(text: &str) -> (tempfile::TempDir, Config) {
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
    fn the_images_remote_is_built_in_until_a_file_leaves_it_out() {
        assert!(with_file("").1.remotes.contains_key("images"));
        assert!(with_file("aliases: {}").1.remotes.contains_key("images"));
        assert!(!with_file("remotes: {}").1.remotes.contains_key("images"));
    }

    #[test]
    fn one_odd_entry_is_the_trouble_of_that_remote_alone() {
        for (odd, why) in [
            ("null", "its entry is empty"),
            ("", "its entry is empty"),
            ("[1]", "its entry is no map"),
            ("{addr: [1]}", "its entry holds a value of a wrong kind"),
            ("{addr: 'https://h', public: maybe}", "its entry holds a value of a wrong kind"),
        ] {
            let text = FILE.replace("  s2:\n", &format!("  odd: {odd}\n  s2:\n"));
            let text = text.replace("project: default", "project: 12");
            let (_dir, config) = with_file(&text);
            assert_eq!(config.broken, None, "{odd}");
            assert_eq!(config.remotes["s2"].project, "12");
            assert_eq!(config.default_remote, "s2");
            assert_eq!(config.aliases["il"], "image list -f csv");
            let failure = config.unusable("odd").unwrap();
            assert!(
                failure.error.starts_with("The remote \"odd\" cannot be used: "),
                "{failure:?}"
            );
            assert!(
                failure.error.contains(why) && failure.error.contains("config.yml"),
                "{failure:?}"
            );
            assert!(config.unusable("s2").is_none() && !config.remotes.contains_key("odd"));
        }
        let (_dir, config) = with_file(&format!("{FILE}  odd:\n"));
        assert!(config.broken.is_none() && config.remotes.contains_key("s2"));
        assert_eq!(config.aliases.len(), 1);
        // Neither hidden nor repaired by an entry that has no say.
        let (_dir, config) = with_file("remotes: {local: null, s3: {addr: 'https://h'}}");
        assert!(config.remotes.contains_key(LOCAL) && config.remotes.contains_key("s3"));
        assert!(config.unusable("local").is_none());
    }

    #[test]
    fn a_broken_file_leaves_the_built_in_remotes() {
        let (_dir, config) = with_file("remotes: [");
        assert!(config.remotes.contains_key(LOCAL) && config.broken.is_some());
    }
}
