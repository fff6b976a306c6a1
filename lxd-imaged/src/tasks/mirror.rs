//! Running mirrors that are due.

use std::sync::Arc;

use lxd_proto::mirror::{MirrorRunPost, RunOutcome};

use crate::app::App;
use crate::db::{Change, MirrorChange};
use crate::error::Error;
use crate::service::mirrors;

/// Begins a run of every mirror that is due; waits for none of them. Tells how many.
pub fn run_once(app: &Arc<App>) -> usize {
    let now = app.clock.now();
    let mut due = app.catalog.mirrors.all();
    due.retain(|record| mirrors::next_run(record).is_some_and(|next| next <= now));
    let begin = |name: &lxd_proto::mirror::MirrorName| match mirrors::run::begin(
        app,
        name.as_str(),
        MirrorRunPost::default(),
    ) {
        Ok(_) => true,
        Err(Error::MirrorRuns(_)) => false,
        Err(error) => {
            tracing::error!(mirror = %name, %error, "a mirror cannot run");
            false
        }
    };
    due.iter().filter(|record| begin(&record.name)).count()
}

/// Marks runs that an earlier daemon did not end.
pub async fn recover(app: &App) {
    for record in app.catalog.mirrors.all() {
        let last = record.last_run.clone();
        let Some(mut run) = last.filter(|run| run.outcome == RunOutcome::Running) else {
            continue;
        };
        let name = record.name.clone();
        run.outcome = RunOutcome::Interrupted;
        if let Err(error) =
            app.db.commit(Change::Mirror(MirrorChange::Ran(name, Box::new(run)))).await
        {
            tracing::error!(%error, "cannot record that a run of a mirror was cut off");
        }
    }
}
