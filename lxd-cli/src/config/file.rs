//! Changing `config.yml`: under a lock, in one step, and with everything else in it kept.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{ALIASES, Config, LOCAL, REMOTES, RemoteEntry, builtin};
use crate::failure::{Failure, Outcome};
use crate::output::{Node, Times, from_yaml};

const DEFAULT_REMOTE: &str = "default-remote";

type Entries = Vec<(String, Node)>;

/// `config.yml` with every key in it, known or not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document(Entries);

impl Config {
    /// Changes the file in one step: whoever reads it sees the old or the new one. `change` gets
    /// what the file says now, which may differ from what was read at the start; when it fails,
    /// the file stays as it is.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Document) -> Outcome<T>) -> Outcome<T> {
        if let Some(broken) = &self.broken {
            return Err(Failure::new(broken.clone()).hint("Repair that file first."));
        }
        let path = self.path();
        let cannot = |error| Failure::new(format!("cannot write {}: {error}", path.display()));
        let _lock = lock(&self.dir).map_err(cannot)?;
        let mut document = Document::read(&path)?;
        let done = change(&mut document)?;
        write(&path, &document.yaml()).map_err(cannot)?;
        Ok(done)
    }
}

impl Document {
    /// Reads the file; one that is not there yet has what lxc would write into it.
    fn read(path: &Path) -> Outcome<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text)
                .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::fresh()),
            Err(error) => Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::fresh());
        }
        match from_yaml(text)? {
            Node::Map(entries) => Ok(Self(entries)),
            _ => Err("it is not a map".to_owned()),
        }
    }

    fn fresh() -> Self {
        let mut document = Self(Vec::new());
        document.set_default_remote(LOCAL);
        for (name, entry) in builtin() {
            if !entry.is_static || name == LOCAL {
                document.set_remote(&name, &entry);
            }
        }
        section(&mut document.0, ALIASES);
        document
    }

    fn yaml(&self) -> String {
        Node::Map(self.0.clone()).yaml(Times::Plain)
    }

    /// Which remote is meant where none is named.
    pub(crate) fn set_default_remote(&mut self, name: &str) {
        put(&mut self.0, DEFAULT_REMOTE, Node::Text(name.to_owned()));
    }

    /// The name of the default remote, where the file has one.
    pub(crate) fn default_remote(&self) -> Option<&str> {
        match find(&self.0, DEFAULT_REMOTE) {
            Some(Node::Text(name)) => Some(name),
            _ => None,
        }
    }

    /// Whether the file has a remote with this name.
    pub(crate) fn has_remote(&self, name: &str) -> bool {
        match find(&self.0, REMOTES) {
            Some(Node::Map(remotes)) => find(remotes, name).is_some(),
            _ => false,
        }
    }

    /// Adds a remote, or changes what is known about it and leaves its other keys.
    pub(crate) fn set_remote(&mut self, name: &str, entry: &RemoteEntry) {
        let remotes = section(&mut self.0, REMOTES);
        let fields = section(remotes, name);
        put(fields, "addr", Node::Text(entry.addr.clone()));
        for (key, value) in [
            ("auth_type", &entry.auth_type),
            ("domain", &entry.domain),
            ("project", &entry.project),
            ("protocol", &entry.protocol),
        ] {
            if value.is_empty() {
                fields.retain(|(known, _)| known != key);
            } else {
                put(fields, key, Node::Text(value.clone()));
            }
        }
        put(fields, "public", Node::Bool(entry.public));
    }

    /// Takes a remote out.
    pub(crate) fn remove_remote(&mut self, name: &str) {
        section(&mut self.0, REMOTES).retain(|(known, _)| known != name);
    }

    /// Renames a remote; the default stays the default.
    pub(crate) fn rename_remote(&mut self, old: &str, new: &str) {
        let remotes = section(&mut self.0, REMOTES);
        if let Some(at) = remotes.iter().position(|(known, _)| known == old) {
            let (_, entry) = remotes.remove(at);
            put(remotes, new, entry);
        }
        if self.default_remote() == Some(old) {
            self.set_default_remote(new);
        }
    }

    /// Whether the file has a command alias with this name.
    pub(crate) fn has_alias(&self, name: &str) -> bool {
        match find(&self.0, ALIASES) {
            Some(Node::Map(aliases)) => find(aliases, name).is_some(),
            _ => false,
        }
    }

    /// Adds a command alias, or lets it stand for something else.
    pub(crate) fn set_alias(&mut self, name: &str, target: &str) {
        put(section(&mut self.0, ALIASES), name, Node::Text(target.to_owned()));
    }

    /// Takes a command alias out; says what it stood for.
    pub(crate) fn remove_alias(&mut self, name: &str) -> Option<String> {
        let aliases = section(&mut self.0, ALIASES);
        let at = aliases.iter().position(|(known, _)| known == name)?;
        match aliases.remove(at).1 {
            Node::Text(target) => Some(target),
            _ => Some(String::new()),
        }
    }
}

fn find<'a>(entries: &'a Entries, key: &str) -> Option<&'a Node> {
    entries.iter().find(|(known, _)| known == key).map(|(_, value)| value)
}

/// Sets a key where it is; a new one goes before the first that sorts after it.
fn put(entries: &mut Entries, key: &str, value: Node) {
    let at = slot(entries, key);
    entries[at].1 = value;
}

/// The map below `key`, made if there is none.
fn section<'a>(entries: &'a mut Entries, key: &str) -> &'a mut Entries {
    let at = slot(entries, key);
    let value = &mut entries[at].1;
    if !matches!(value, Node::Map(_)) {
        *value = Node::Map(Vec::new());
    }
    match value {
        Node::Map(map) => map,
        _ => unreachable!("it was made a map above"),
    }
}

/// Where `key` stands, or its new place.
fn slot(entries: &mut Entries, key: &str) -> usize {
    if let Some(at) = entries.iter().position(|(known, _)| known == key) {
        return at;
    }
    // At the top lxc has an order of its own, in which the aliases come last.
    let rank = |key: &str| match key {
        DEFAULT_REMOTE => (0, String::new()),
        ALIASES => (2, String::new()),
        other => (1, other.to_owned()),
    };
    let at = entries.iter().position(|(known, _)| rank(known) > rank(key));
    let at = at.unwrap_or(entries.len());
    entries.insert(at, (key.to_owned(), Node::Null));
    at
}

/// Holds off other clients of ours that want to change files in `dir`, which is made if need be.
pub(crate) fn lock(dir: &Path) -> io::Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
    // The directory itself: a lock file would stay behind.
    let lock = File::open(dir)?;
    lock.lock()?;
    Ok(lock)
}

/// A temporary file and a rename, so that no reader ever sees half a file. A file that is there
/// keeps its permissions, and a symbolic link stays one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = fs::metadata(&path).map_or(0o644, |file| file.permissions().mode());
    replace(&path, text.as_bytes(), mode)
}

/// Replaces a file by one with this content in one step.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(content)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode & 0o777))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FILE, with_file};
    use super::*;

    fn text(config: &Config) -> String {
        fs::read_to_string(config.path()).unwrap()
    }

    fn entry(addr: &str) -> RemoteEntry {
        RemoteEntry { addr: addr.into(), protocol: "lxd".into(), ..RemoteEntry::default() }
    }

    #[test]
    fn a_new_file_has_what_lxc_writes() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { dir: dir.path().join("new/conf"), ..Config::default() };
        config
            .change(|document| {
                document.set_remote("s2", &entry("https://127.0.0.1:37444"));
                Ok(())
            })
            .unwrap();
        let expected = "\
default-remote: local
remotes:
  images:
    addr: https://images.linuxcontainers.org
    protocol: simplestreams
    public: true
  local:
    addr: unix://
    public: false
  s2:
    addr: https://127.0.0.1:37444
    protocol: lxd
    public: false
aliases: {}
";
        assert_eq!(text(&config), expected);
        let mode = fs::metadata(config.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn changes_keep_everything_else() {
        let (_dir, config) = with_file(FILE);
        let change = |document: &mut Document| {
            assert!(document.has_alias("il") && !document.has_alias("ll"));
            assert_eq!(document.remove_alias("il").as_deref(), Some("image list -f csv"));
            document.set_alias("ll", "image list @ARGS@");
            document.rename_remote("s2", "a2");
            document.set_remote("a2", &entry("https://b:8443"));
            document.remove_remote("images");
            Ok(())
        };
        config.change(change).unwrap();
        let expected = "\
default-remote: a2
remotes:
  a2:
    addr: https://b:8443
    protocol: lxd
    public: false
    something_new: 7
  local:
    addr: unix://
    public: false
aliases:
  ll: image list @ARGS@
";
        assert_eq!(text(&config), expected);
    }

    #[test]
    fn an_odd_entry_survives_until_it_is_taken_out() {
        let (_dir, config) = with_file("remotes:\n  odd: null\n  s2:\n    addr: https://a\n");
        config
            .change(|document| {
                document.set_remote("s3", &entry("https://b"));
                Ok(())
            })
            .unwrap();
        assert!(text(&config).contains("  odd: null\n"), "{}", text(&config));
        config
            .change(|document| {
                document.remove_remote("odd");
                Ok(())
            })
            .unwrap();
        assert!(!text(&config).contains("odd"), "{}", text(&config));
    }

    #[test]
    fn a_failed_change_and_a_broken_file_change_nothing() {
        let (_dir, config) = with_file(FILE);
        let fail = |document: &mut Document| -> Outcome {
            document.remove_remote("s2");
            Err(Failure::new("no"))
        };
        config.change(fail).unwrap_err();
        assert_eq!(text(&config), FILE);
        let (_dir, config) = with_file("remotes: [");
        config.change(|_| Ok(())).unwrap_err();
        assert_eq!(text(&config), "remotes: [");
    }

    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let (dir, config) = with_file(FILE);
        fs::rename(config.path(), dir.path().join("real.yml")).unwrap();
        std::os::unix::fs::symlink("real.yml", config.path()).unwrap();
        let change = |document: &mut Document| {
            document.set_default_remote("local");
            Ok(())
        };
        config.change(change).unwrap();
        assert!(fs::symlink_metadata(config.path()).unwrap().is_symlink());
        assert!(text(&config).starts_with("default-remote: local\n"));
    }
}
