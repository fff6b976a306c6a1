//! What the daemon does by itself: one loop, one pass after the other.
//!
//! Each task is a plain function that looks at the store once and does what is due by
//! [`Clock`](crate::clock::Clock); how often the loop asks does not matter.

pub mod expiry;
pub mod mirror;
pub mod update;
pub mod withdrawn;

use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::service::{instances, signing};

/// Time between two passes.
const EVERY: Duration = Duration::from_mins(1);

/// Runs all tasks until the daemon ends.
pub async fn run(app: Arc<App>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        app.origins.tidy();
        // The file of the key may be another one by now.
        let signing = app.clone();
        let _ = tokio::task::spawn_blocking(move || signing::apply(&signing)).await;
        if let Err(error) = expiry::run_once(&app).await {
            tracing::error!(%error, "cannot remove expired images");
        }
        match withdrawn::run_once(&app).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "withdrawn files are served no longer"),
            Err(error) => tracing::error!(%error, "cannot remove withdrawn files"),
        }
        let removed = instances::prune(&app).await;
        if removed > 0 {
            tracing::info!(removed, "removed expired snapshots");
        }
        mirror::run_once(&app);
        update::run_once(&app).await;
    }
}
