//! Keys that must have signed what a simplestreams remote says: `keyrings/NAME.pgp`, beside
//! `config.yml` rather than in it, since lxc writes that file anew without what it does not know.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lxd_simplestreams::signed::{Keyring, MAX_KEYS};

use crate::config::{Config, lock, replace};
use crate::failure::{Failure, Outcome};

/// The directory of the keyrings.
const DIRECTORY: &str = "keyrings";
/// What their names end in.
const EXTENSION: &str = "pgp";
/// What the first line says, before the address.
const SIGNERS_OF: &str = "Signers of ";

/// Where the keyrings are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keyrings<'a> {
    config: &'a Config,
}

impl<'a> Keyrings<'a> {
    pub(crate) fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// The keys for a remote at `address`; `None` when it needs no signature.
    ///
    /// A remote that lxc has renamed is known by its address: it keeps its keys.
    pub(crate) fn of(self, remote: &str, address: &str) -> Outcome<Option<Keyring>> {
        let global = self.config.remotes.get(remote).is_some_and(|entry| entry.global);
        let places = [&self.config.dir, &self.config.global_dir];
        for dir in places.into_iter().take(if global { 2 } else { 1 }) {
            let path = dir.join(DIRECTORY).join(file_name(remote));
            if let Some(bytes) = read(&path)? {
                return parse(&path, &bytes).map(Some);
            }
        }
        let Some((path, bytes)) = self.left_behind(address)? else { return Ok(None) };
        parse(&path, &bytes).map(Some)
    }

    /// Keeps the keys for a remote from now on.
    pub(crate) fn set(self, remote: &str, address: &str, keyring: &Keyring) -> Outcome {
        let path = self.path(remote);
        let cannot =
            |error: io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
        let _lock = lock(&self.config.dir.join(DIRECTORY)).map_err(cannot)?;
        let text = format!("{SIGNERS_OF}{address}\n\n{}", keyring.armored());
        replace(&path, text.as_bytes(), 0o644).map_err(cannot)
    }

    /// The remote has moved; its keys stay.
    pub(crate) fn moved(self, remote: &str, from: &str, to: &str) -> Outcome {
        match self.own(remote, from)? {
            Some((path, bytes)) => {
                self.set(remote, to, &parse(&path, &bytes)?)?;
                if path == self.path(remote) { Ok(()) } else { remove(&path) }
            }
            None => Ok(()),
        }
    }

    /// Forgets the keys of a remote that is or was at `address`, under whatever name.
    pub(crate) fn remove(self, remote: &str, address: &str) -> Outcome {
        remove(&self.path(remote))?;
        while let Some((path, _)) = self.left_behind(address)? {
            remove(&path)?;
        }
        Ok(())
    }

    /// The keys go with their remote.
    pub(crate) fn rename(self, old: &str, new: &str, address: &str) -> Outcome {
        let Some((path, _)) = self.own(old, address)? else { return Ok(()) };
        fs::rename(&path, self.path(new))
            .map_err(|error| Failure::new(format!("cannot rename {}: {error}", path.display())))
    }

    /// The user's own file for a remote.
    fn own(self, remote: &str, address: &str) -> Outcome<Option<(PathBuf, Vec<u8>)>> {
        let path = self.path(remote);
        match read(&path)? {
            Some(bytes) => Ok(Some((path, bytes))),
            None => self.left_behind(address),
        }
    }

    fn path(self, remote: &str) -> PathBuf {
        self.config.dir.join(DIRECTORY).join(file_name(remote))
    }

    /// The keyring for this address whose remote is not there any more.
    fn left_behind(self, address: &str) -> Outcome<Option<(PathBuf, Vec<u8>)>> {
        let Ok(entries) = fs::read_dir(self.config.dir.join(DIRECTORY)) else { return Ok(None) };
        let known: Vec<String> = self.config.remotes.keys().map(|name| file_name(name)).collect();
        let wanted = format!("{SIGNERS_OF}{address}");
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            let is_keyring = path.extension().is_some_and(|extension| extension == EXTENSION);
            if !is_keyring || known.contains(&name) {
                continue;
            }
            if let Some(bytes) = read(&path)?
                && bytes.split(|byte| *byte == b'\n').next() == Some(wanted.as_bytes())
            {
                return Ok(Some((path, bytes)));
            }
        }
        Ok(None)
    }
}

/// Reads a keyring that a person names.
pub(crate) fn load(path: &Path) -> Outcome<Keyring> {
    let missing = || Failure::new(format!("cannot read {}: there is no such file", path.display()));
    let bytes = read(path)?.ok_or_else(missing)?;
    Keyring::from_bytes(&bytes)
        .map_err(|error| Failure::new(format!("cannot use {}: {error}", path.display())))
}

/// The bytes of a file; `None` when there is none.
fn read(path: &Path) -> Outcome<Option<Vec<u8>>> {
    let cannot = |why: String| Failure::new(format!("cannot read {}: {why}", path.display()));
    match fs::metadata(path) {
        Ok(about) if !about.is_file() => Err(cannot("it is no regular file".to_owned())),
        Ok(about) if about.len() > MAX_KEYS as u64 * 2 => Err(cannot("it is too large".to_owned())),
        Ok(_) => fs::read(path).map(Some).map_err(|error| cannot(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // Not to be told from one that asks for signatures.
        Err(error) => Err(cannot(error.to_string())),
    }
}

fn remove(path: &Path) -> Outcome {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Outcome<Keyring> {
    Keyring::from_bytes(bytes).map_err(|error| {
        Failure::new(format!("cannot use {}: {error}", path.display()))
            .hint("Repair that file; or remove the remote, and add it again with --keyring.")
    })
}

/// `NAME.pgp`. Names that would lead elsewhere cannot be added, but a file of lxc's may hold any.
fn file_name(remote: &str) -> String {
    format!("{}.{EXTENSION}", remote.replace(['/', '\0'], "_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RemoteEntry;

    /// The public key of nobody in particular.
    const KEY: &str = "\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEZ3SFgBYJKwYBBAHaRw8BAQdAO0vhtotZ8juGG4gvD4In7w3V/zFKDFwURDHZ
ZdHwtn60BHRlc3SIkAQTFggAOBYhBIH4qh3L/ieKxRPGaWPcJ2auqugtBQJndIWA
AhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEGPcJ2auqugtMf0A/jNawBEx
2bqSPX2SIuERRMtBjPUltmwkP21HQfemTjpBAP9Q3xaJxo//+gFSYg88Xe/9RZHo
xbcdPKxDX4lYFP+QBg==
=ThJy
-----END PGP PUBLIC KEY BLOCK-----";

    fn config(dir: &tempfile::TempDir, remotes: &[(&str, &str)]) -> Config {
        let entry = |addr: &str| RemoteEntry { addr: addr.into(), ..RemoteEntry::default() };
        Config {
            dir: dir.path().join("conf"),
            remotes: remotes.iter().map(|(name, addr)| ((*name).into(), entry(addr))).collect(),
            ..Config::default()
        }
    }

    #[test]
    fn keys_follow_their_remote_whoever_renames_it() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::from_bytes(KEY.as_bytes()).unwrap();
        let before = config(&dir, &[("s", "https://a")]);
        let keyrings = Keyrings::new(&before);
        let known = |keyring: Option<Keyring>| keyring.map(|keyring| keyring.fingerprints());
        assert_eq!(known(keyrings.of("s", "https://a").unwrap()), None);
        keyrings.set("s", "https://a", &keyring).unwrap();
        let expected = Some(keyring.fingerprints());
        assert_eq!(known(keyrings.of("s", "https://a").unwrap()), expected);
        // The file belongs to a remote, so it is nobody else's.
        assert_eq!(known(keyrings.of("t", "https://a").unwrap()), None);
        // lxc has renamed it.
        let after = config(&dir, &[("t", "https://a"), ("u", "https://b")]);
        let renamed = Keyrings::new(&after);
        assert_eq!(known(renamed.of("t", "https://a").unwrap()), expected);
        assert_eq!(known(renamed.of("u", "https://b").unwrap()), None);

        keyrings.moved("s", "https://a", "https://b").unwrap();
        keyrings.moved("nobody", "https://x", "https://b").unwrap();
        assert_eq!(known(renamed.of("t", "https://a").unwrap()), None);
        assert_eq!(known(renamed.of("u", "https://b").unwrap()), expected);
        keyrings.rename("s", "v", "https://b").unwrap();
        assert_eq!(known(renamed.of("u", "https://b").unwrap()), expected);
        renamed.rename("u", "u", "https://b").unwrap();
        assert_eq!(known(renamed.of("u", "https://other").unwrap()), expected);
        renamed.remove("u", "https://b").unwrap();
        renamed.remove("u", "https://b").unwrap();
        assert_eq!(known(renamed.of("u", "https://b").unwrap()), None);
        // What lxc left behind does not come back with a remote that is removed and added again.
        keyrings.set("s", "https://b", &keyring).unwrap();
        renamed.remove("u", "https://b").unwrap();
        assert_eq!(known(renamed.of("u", "https://b").unwrap()), None);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_no_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&dir, &[("s", "https://a"), ("d", "https://b")]);
        let keyrings = Keyrings::new(&config);
        fs::create_dir_all(config.dir.join(DIRECTORY).join("d.pgp")).unwrap();
        fs::write(config.dir.join(DIRECTORY).join("s.pgp"), "").unwrap();
        for (name, address) in [("s", "https://a"), ("d", "https://b")] {
            let failure = keyrings.of(name, address).unwrap_err();
            assert!(failure.error.contains("keyrings/"), "{failure:?}");
        }
        assert_eq!(file_name("../../x"), ".._.._x.pgp");
        assert!(load(Path::new("/nowhere/at/all")).is_err());
    }
}
