//! Removing files that no image uses: what a crash left between bytes and row.

use std::sync::Arc;

use crate::app::App;
use crate::error::Result;

/// What a sweep did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files looked at.
    pub blobs: usize,
    /// Files removed.
    pub removed: usize,
}

/// Looks at every blob once.
pub async fn run_once(app: &Arc<App>) -> Result<Report> {
    let (digests, strangers) = app.blobs.list().await?;
    let mut report = Report { blobs: digests.len(), removed: 0 };
    for name in strangers {
        tracing::warn!(name, "a file among the blobs is none; fsck --repair moves it away");
    }
    for digest in digests {
        if !app.catalog.uses(&digest) {
            let catalog = app.catalog.clone();
            app.blobs.remove_unless(digest, move |digest| catalog.uses(digest)).await?;
            report.removed += 1;
        }
    }
    if report.removed > 0 {
        tracing::info!(removed = report.removed, "removed files that no image uses");
    }
    Ok(report)
}
