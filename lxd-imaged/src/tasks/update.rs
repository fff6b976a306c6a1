//! Keeping images current: asks the origins of those that are due.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use crate::acquire::Follow;
use crate::acquire::follow::{self, Checked};
use crate::app::App;

/// Servers that are asked at once.
const ORIGINS_AT_ONCE: usize = 4;

/// Asks the origin of every image that is due. Servers do not wait for one another: what one of
/// them does wrong stays with its images.
pub async fn run_once(app: &Arc<App>) -> Checked {
    let groups = follow::due_by_origin(app, app.clock.now());
    if groups.is_empty() {
        return Checked::default();
    }
    let follow = Follow::silently(app.shutdown.child_token());
    let sum = stream::iter(groups)
        .map(|(spec, entries)| {
            let (app, follow) = (app.clone(), follow.clone());
            async move { follow::check(&app, &spec, entries, &follow).await }
        })
        .buffer_unordered(ORIGINS_AT_ONCE)
        .fold(Checked::default(), async |sum, checked| Checked {
            current: sum.current + checked.current,
            updated: sum.updated + checked.updated,
            failed: sum.failed + checked.failed,
        })
        .await;
    tracing::info!(
        current = sum.current,
        updated = sum.updated,
        failed = sum.failed,
        "asked the origins of images"
    );
    sum
}
