//! The store of many images that the list, alias and startup scenarios share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Result, anyhow};

use super::number;
use crate::options::Options;
use crate::payload;
use crate::server::Server;
use crate::turns::{Figures, Outcome, Pair};

/// Aliases in the store.
pub(super) const ALIASES: usize = 100;
/// Uploads at once while the store grows.
const WORKERS: usize = 8;

/// Both daemons, with as many images as were asked for.
#[derive(Debug)]
pub(crate) struct Large {
    pub(super) pair: Pair,
    images: usize,
}

impl Large {
    /// Both on empty directories.
    pub(super) fn start(options: &Options) -> Self {
        Self { pair: Pair::start(options, options.first_dir()), images: 0 }
    }

    /// Imports until there are `images`; the first ones get aliases.
    pub(super) fn grow(&mut self, images: usize) {
        let Some(missing) = images.checked_sub(self.images).filter(|n| *n > 0) else { return };
        let first = self.images == 0;
        self.pair.on_both(|server| {
            let start = Instant::now();
            let fingerprints = import(server, missing)?;
            let rate = number(missing) / start.elapsed().as_secs_f64();
            crate::progress(&format!(
                "{:?}: {missing} tiny images, {rate:.0} per second",
                server.side()
            ));
            if first {
                name_some(server, &fingerprints)?;
            }
            server.sync()
        });
        self.images = images;
    }

    /// [`Pair::take_turns`] on this store.
    pub(super) fn take_turns(
        &mut self,
        rounds: usize,
        measure: impl FnMut(&mut Server, usize) -> Result<Figures>,
    ) -> Outcome {
        self.pair.take_turns(rounds, measure)
    }
}

fn import(server: &Server, count: usize) -> Result<Vec<String>> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<String>> {
        let mut connection = server.connect_small()?;
        let mut made = Vec::new();
        while next.fetch_add(1, Ordering::Relaxed) < count {
            let image = payload::tiny("tiny")?;
            made.push(connection.upload("application/octet-stream", &[&image], None)?.fingerprint);
        }
        Ok(made)
    };
    let lists: Result<Vec<_>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|w| w.join().map_err(|_| anyhow!("an upload panicked"))?).collect()
    });
    Ok(lists?.concat())
}

fn name_some(server: &Server, fingerprints: &[String]) -> Result<()> {
    let mut connection = server.connect()?;
    for (number, fingerprint) in fingerprints.iter().cycle().take(ALIASES).enumerate() {
        let body = format!(r#"{{"name":"alias-{number}","target":"{fingerprint}"}}"#);
        connection.call("POST", "/1.0/images/aliases", &body)?;
    }
    Ok(())
}
