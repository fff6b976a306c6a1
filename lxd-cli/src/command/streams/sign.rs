//! `streams sign`: signed twins beside the documents of a tree.

use std::fs::{self, File};
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use lxd_proto::remote::Progress;
use lxd_simplestreams::builder::LocalTree;
use lxd_simplestreams::signed::{MAX_KEYS, Signer};
use serde::Serialize;

use crate::command::flags::ResultFormat;
use crate::editor::blocking;
use crate::failure::{Failure, Outcome};

/// Permissions that a file with a secret key must not have: others may neither read nor write it.
const TOO_OPEN: u32 = 0o027;

/// Sign the documents of a tree.
#[derive(Debug, Args)]
#[command(after_help = "\
Beside the index and each catalog comes a twin with an OpenPGP signature (streams/v1/index.sjson and
so on), for clients that ask for one: `remote add --keyring`, sstream-query and sstream-mirror. The
key is a file as `gpg --export-secret-keys` writes it, without a passphrase, and with mode 0600. After
each change the tree has to be signed anew: `build` and `prune` do both with --sign-key.

Example:
  lxd-cli streams sign /srv/images --key signer.key")]
pub(crate) struct Sign {
    /// The directory with the tree
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The file with the secret OpenPGP key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    format: ResultFormat,
}

/// What was signed.
#[derive(Debug, Serialize)]
struct Report {
    key: String,
    documents: Vec<String>,
}

impl Sign {
    pub(crate) async fn run(&self) -> Outcome {
        let (directory, key) = (self.directory.clone(), self.key.clone());
        let report = blocking(move || {
            let signer = load(&key)?;
            let key = signer.fingerprint();
            // Holds off whoever else changes the tree.
            let tree = LocalTree::open(&directory, false, NonZeroUsize::MIN, Progress::default())?;
            let documents = tree.signed_by(Some(signer)).sign()?;
            Outcome::Ok(Report { key, documents })
        });
        let report = report.await??;
        let text = format!("{} documents are signed by {}\n", report.documents.len(), report.key);
        self.format.print(&report, &text)
    }
}

/// Whose key signs what is published.
#[derive(Debug, Args)]
pub(super) struct SignKeyFlag {
    /// Sign the documents with the secret OpenPGP key in this file, as `streams sign` does
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
}

impl SignKeyFlag {
    /// Reads the key.
    pub(super) fn load(&self) -> Outcome<Option<Signer>> {
        self.sign_key.as_deref().map(load).transpose()
    }
}

/// Reads a key that signs trees.
fn load(path: &Path) -> Outcome<Signer> {
    let cannot = |why: String| Failure::new(format!("cannot use {}: {why}", path.display()));
    // Opening a pipe would wait for its other end.
    let is_file = fs::metadata(path).map_err(|error| cannot(error.to_string()))?.is_file();
    if !is_file {
        return Err(cannot("it is no regular file".to_owned()));
    }
    let file = File::open(path).map_err(|error| cannot(error.to_string()))?;
    let mode = file.metadata().map_err(|error| cannot(error.to_string()))?.permissions().mode();
    let mut bytes = Vec::new();
    let most = MAX_KEYS as u64 + 1;
    file.take(most).read_to_end(&mut bytes).map_err(|error| cannot(error.to_string()))?;
    let signer = Signer::from_bytes(&bytes).map_err(|error| cannot(error.to_string()))?;
    if mode & TOO_OPEN != 0 {
        let mode = mode & 0o7777;
        return Err(cannot(format!("others can read or change it (mode {mode:04o}); chmod 600")));
    }
    Ok(signer)
}
