//! `streams verify`: a tree held against what its documents say.

use std::path::PathBuf;

use clap::Args;
use lxd_proto::remote::Progress;
use lxd_simplestreams::builder::verify;

use super::JobsFlag;
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::editor::blocking;
use crate::failure::{Failure, Outcome};
use crate::output::human_size;
use crate::progress::show;

/// Check every file of a tree against what its documents say.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads the index, the catalogs and their compressed twins, and every file that they list: size,
hash, and what metadata and root are together. Applies every delta (with xdelta3). Tells what lies
there that nothing lists. All faults are told, not only the first; the exit status is 1 when there
are any. Nothing is changed.

Example:
  lxd-cli streams verify /srv/images --format json")]
pub(crate) struct Verify {
    /// The tree
    #[arg(value_name = "DIR")]
    directory: PathBuf,
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
        let report = blocking(move || verify(&directory, jobs, &counted)).await??;
        shown.done();
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
