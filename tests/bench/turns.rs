//! Taking turns: both sides run each round, who goes first alternates, medians come out.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::options::Options;
use crate::server::{Server, Side};

/// Why LXD has no figures with `--ours-only`.
pub(crate) const NOT_ASKED: &str = "not asked for";

/// Figures of one round, by name.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

/// Both daemons, each started or the reason why not.
#[derive(Debug)]
pub(crate) struct Pair {
    ours: Result<Server>,
    lxd: Result<Server>,
}

/// What both sides came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ours: Result<Figures>,
    pub(crate) lxd: Result<Figures>,
}

impl Pair {
    /// Starts both on empty directories in `parent`.
    pub(crate) fn start(options: &Options, parent: &Path) -> Self {
        Self::with(options, |side| Server::start(side, parent))
    }

    /// Makes each side's server with `make`.
    pub(crate) fn with(options: &Options, make: impl Fn(Side) -> Result<Server>) -> Self {
        let lxd = if options.ours_only { Err(anyhow!(NOT_ASKED)) } else { make(Side::Lxd) };
        Self { ours: make(Side::Ours), lxd }
    }

    /// Runs `measure` for each side, `rounds` times; the median of each figure. A side that
    /// fails once is out, the other goes on.
    pub(crate) fn take_turns(
        &mut self,
        rounds: usize,
        mut measure: impl FnMut(&mut Server, usize) -> Result<Figures>,
    ) -> Outcome {
        let mut samples = [(Side::Ours, Ok(Vec::new())), (Side::Lxd, Ok(Vec::new()))];
        for round in 0..rounds {
            for turn in 0..2 {
                let (side, collected) = &mut samples[(round + turn) % 2];
                let Ok(list) = collected else { continue };
                match self.server(*side).and_then(|server| measure(server, round)) {
                    Ok(figures) => list.push(figures),
                    Err(error) => *collected = Err(error),
                }
            }
        }
        let [(_, ours), (_, lxd)] = samples;
        Outcome { ours: ours.map(|list| medians(&list)), lxd: lxd.map(|list| medians(&list)) }
    }

    /// Does `work` with both; a side that fails is out from then on.
    pub(crate) fn on_both(&mut self, mut work: impl FnMut(&mut Server) -> Result<()>) {
        for side in [&mut self.ours, &mut self.lxd] {
            let Ok(server) = side else { continue };
            if let Err(error) = work(server) {
                *side = Err(error);
            }
        }
    }

    fn server(&mut self, side: Side) -> Result<&mut Server> {
        let server = if side == Side::Ours { &mut self.ours } else { &mut self.lxd };
        server.as_mut().map_err(|error| anyhow!("{error:#}"))
    }
}

impl Outcome {
    /// One figure of both sides.
    pub(crate) fn figure(&self, name: &str) -> (Result<f64>, Result<f64>) {
        let of = |side: &Result<Figures>| match side {
            Ok(figures) => figures.get(name).copied().with_context(|| format!("no figure {name}")),
            Err(error) => Err(anyhow!("{error:#}")),
        };
        (of(&self.ours), of(&self.lxd))
    }

    /// A figure of ours, for targets that hang on another figure.
    pub(crate) fn of_ours(&self, name: &str) -> Option<f64> {
        self.ours.as_ref().ok()?.get(name).copied()
    }
}

/// The median of each figure.
pub(crate) fn medians(samples: &[Figures]) -> Figures {
    let names = samples.first().into_iter().flat_map(Figures::keys);
    names
        .map(|name| {
            let values = samples.iter().filter_map(|figures| figures.get(name).copied());
            (*name, median(values.collect()))
        })
        .collect()
}

/// The middle of `values`; of two middles the mean; NaN of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_middle_of_some_values() {
        assert!(median(Vec::new()).is_nan());
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0]) - 2.5).abs() < f64::EPSILON);
    }
}
