//! Files of deleted public images go when nobody can have a catalog any more that lists them.

use std::sync::Arc;

use crate::app::App;
use crate::error::Result;
use crate::service::withdrawn;

/// Removes what is due now; returns how many files.
pub async fn run_once(app: &Arc<App>) -> Result<usize> {
    withdrawn::expire(app).await
}
