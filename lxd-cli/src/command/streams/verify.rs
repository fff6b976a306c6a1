//! `streams verify`: a tree held against what its documents say.

use std::path::PathBuf;

use clap::Args;
use lxd_proto::remote::Progress;
use lxd_simplestreams::builder::verify_signed;

use super::JobsFlag;
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::editor::blocking;
use crate::failure::{Failure, Outcome};
use crate::keyrings;
use crate::output::{human_size, note};
use crate::progress::show;

/// Check every file of a tree against what its documents say.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads the index, the catalogs and their compressed twins, and every file that they list: size,
hash, what metadata and root are together, and whether a server would take them. Applies every delta
(with xdelta3). Where there are signed documents, they have to say what the others say; with --keyring
there have to be some, signed by one of its keys. Tells what lies there that nothing lists. All faults
are told, not only the first, and those of documents before the rest; the exit status is 1 when there
are any. Nothing is changed.

Examples:
  lxd-cli streams verify /srv/images --format json
  lxd-cli streams verify /srv/images --keyring signer.pgp")]
pub(crate) struct Verify {
    /// The tree
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Public OpenPGP keys, one of which must have signed the documents
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    #[command(flatten)]
    jobs: JobsFlag,
    #[command(flatten)]
    format: ResultFormat,
}

impl Verify {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let progress = Progress::default();
        let (directory, jobs, counted) =
            (self.directory.clone(), self.jobs.get(), progress.clone());
        let shown = show(context.progress, "Verifying the tree", &progress);
        let keyring = self.keyring.as_deref().map(keyrings::load).transpose()?;
        let verified =
            blocking(move || verify_signed(&directory, keyring.as_ref(), jobs, &counted)).await?;
        let report = verified?;
        shown.done();
        if self.format.is_text() {
            for one in &report.warnings {
                note(&format!("Warning: {}: {}", one.path, one.reason));
            }
        }
        let mut text: String = report
            .faults
            .iter()
            .map(|fault| format!("{}: {}\n", fault.path, fault.reason))
            .collect();
        if report.faults.is_empty() && !context.quiet {
            text.push_str(&format!(
                "The tree is sound: {} products with {} versions, {} files ({}), {} deltas \
                 applied\n",
                report.products,
                report.versions,
                report.files,
                human_size(report.bytes),
                report.deltas,
            ));
        }
        self.format.print(&report, &text)?;
        match report.faults.len() {
            0 => Ok(()),
            1 => Err(Failure::new("the tree has 1 fault")),
            count => Err(Failure::new(format!("the tree has {count} faults"))),
        }
    }
}
