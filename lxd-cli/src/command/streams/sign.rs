//! `streams sign`: signed twins beside the documents of a tree.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use lxd_simplestreams::sign_tree;
use lxd_simplestreams::signed::{MAX_KEYS, Signer};
use serde::Serialize;

use crate::command::flags::ResultFormat;
use crate::editor::blocking;
use crate::failure::{Failure, Outcome};

/// The file that is locked while a tree is changed.
const LOCK: &str = ".lock";

/// Sign the documents of a tree.
#[derive(Debug, Args)]
#[command(after_help = "\
Beside the index and each catalog comes a twin with an OpenPGP signature (streams/v1/index.sjson and
so on), for clients that ask for one: `remote add --keyring`, sstream-query and sstream-mirror. The
key is a file as `gpg --export-secret-keys` writes it, without a passphrase. After each change of the
tree it has to be signed anew.

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
            let _lock = lock(&directory)?;
            signed(&directory, &signer)
        });
        let report = report.await??;
        let text = format!("{} documents are signed by {}\n", report.documents.len(), report.key);
        self.format.print(&report, &text)
    }
}

/// Reads a key that signs trees.
pub(crate) fn load(path: &Path) -> Outcome<Signer> {
    let cannot = |why: String| Failure::new(format!("cannot use {}: {why}", path.display()));
    let file = File::open(path).map_err(|error| cannot(error.to_string()))?;
    let mut bytes = Vec::new();
    let most = MAX_KEYS as u64 + 1;
    file.take(most).read_to_end(&mut bytes).map_err(|error| cannot(error.to_string()))?;
    Signer::from_bytes(&bytes).map_err(|error| cannot(error.to_string()))
}

/// Holds off whoever else changes the tree.
fn lock(directory: &Path) -> Outcome<File> {
    let path = directory.join(LOCK);
    let cannot =
        |error: std::io::Error| Failure::new(format!("cannot lock {}: {error}", path.display()));
    if !directory.is_dir() {
        return Err(Failure::new(format!("{} is no directory", directory.display())));
    }
    let lock = fs::OpenOptions::new().create(true).append(true).open(&path).map_err(cannot)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new(format!("{} is being changed by somebody else", directory.display()))
                .hint("Try again when that has ended."))
        }
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

fn signed(directory: &Path, signer: &Signer) -> Outcome<Report> {
    let documents =
        sign_tree(directory, signer).map_err(|error| Failure::new(error.to_string()))?;
    Ok(Report { key: signer.fingerprint(), documents })
}
