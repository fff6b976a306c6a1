//! `streams sign`: signed twins beside the documents of a tree.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use lxd_proto::remote::Progress;
use lxd_simplestreams::builder::LocalTree;
use lxd_simplestreams::sign_tree;
use lxd_simplestreams::signed::{MAX_KEYS, Signer};
use serde::Serialize;

use crate::command::flags::ResultFormat;
use crate::editor::blocking;
use crate::failure::{Failure, Outcome};

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
pub(crate) struct Report {
    key: String,
    documents: Vec<String>,
}

impl Sign {
    pub(crate) async fn run(&self) -> Outcome {
        let (directory, key) = (self.directory.clone(), self.key.clone());
        let report = blocking(move || {
            let signer = load(&key)?;
            // Holds off whoever else changes the tree.
            let tree = LocalTree::open(&directory, false, NonZeroUsize::MIN, Progress::default())?;
            let report = signed(&directory, &signer);
            drop(tree);
            report
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

/// Signs the tree in a directory that nobody else changes meanwhile.
pub(crate) fn signed(directory: &Path, signer: &Signer) -> Outcome<Report> {
    let documents =
        sign_tree(directory, signer).map_err(|error| Failure::new(error.to_string()))?;
    Ok(Report { key: signer.fingerprint(), documents })
}
