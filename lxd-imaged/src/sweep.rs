//! Removing files that no image uses: what a crash left between bytes and row.

use std::sync::Arc;

use crate::app::App;
use crate::error::Result;

/// Looks at every unsettled blob; returns how many no image uses.
pub async fn run_once(app: &Arc<App>) -> Result<usize> {
    let mut unused = 0;
    for digest in app.blobs.unsettled().await? {
        unused += usize::from(!app.catalog.uses(&digest));
        let catalog = app.catalog.clone();
        app.blobs.remove_unless(digest, move |digest| catalog.uses(digest)).await?;
    }
    if unused > 0 {
        tracing::info!(unused, "removed files of imports and deletions that were interrupted");
    }
    Ok(unused)
}
