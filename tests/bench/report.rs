//! The table and the JSON file: each figure of both sides beside what it should have reached.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::options::Options;
use crate::turns::{NOT_ASKED, Outcome};

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// What a figure should reach.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// This many times better than LXD in the same run.
    Times(f64),
    /// At most this, whatever LXD does.
    AtMost(f64),
    /// At least this, whatever LXD does.
    AtLeast(f64),
    /// No target: context for the others.
    Context,
}

/// A figure's name, unit and direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metric {
    pub(crate) figure: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
}

impl Metric {
    pub(crate) const fn lower(
        figure: &'static str,
        title: &'static str,
        unit: &'static str,
    ) -> Self {
        Self { figure, title, unit, better: Better::Lower }
    }

    pub(crate) const fn higher(
        figure: &'static str,
        title: &'static str,
        unit: &'static str,
    ) -> Self {
        Self { figure, title, unit, better: Better::Higher }
    }
}

#[derive(Debug)]
struct Row {
    scenario: String,
    metric: Metric,
    target: Target,
    ours: Result<f64, String>,
    lxd: Result<f64, String>,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let load = format!(
            "load: lxd-bench itself, threads with one connection each (unix socket, or TLS without resumption), 256 KiB per write; {} rounds, alternating who goes first, medians",
            options.rounds()
        );
        let cpu = "CPU seconds are the daemon's and its ended children's, background work included, per GB (1e9) of image";
        Self { rows: Vec::new(), notes: vec![load, cpu.to_owned()] }
    }

    /// A sentence below the table.
    pub(crate) fn note(&mut self, note: String) {
        crate::progress(&note);
        self.notes.push(note);
    }

    /// A line of the table.
    pub(crate) fn row(
        &mut self,
        scenario: &str,
        metric: Metric,
        target: Target,
        outcome: &Outcome,
    ) {
        let (ours, lxd) = outcome.figure(metric.figure);
        let said = |r: Result<f64>| r.map_err(|error| format!("{error:#}"));
        let row =
            Row { scenario: scenario.to_owned(), metric, target, ours: said(ours), lxd: said(lxd) };
        crate::progress(&row.cells().join("  "));
        self.rows.push(row);
    }

    /// Prints the table, then the notes and the reasons of what could not be measured.
    pub(crate) fn print(&self) -> Result<()> {
        let head =
            ["scenario", "figure", "target", "ours", "LXD 5.0.2", "ratio", ""].map(str::to_owned);
        let mut lines = vec![head];
        lines.extend(self.rows.iter().map(Row::cells));
        let width =
            |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..7).map(width).collect();
        let mut out = std::io::stdout().lock();
        for (number, line) in lines.iter().enumerate() {
            for (column, cell) in line.iter().enumerate() {
                let pad = widths[column];
                if column < 3 {
                    write!(out, "{cell:<pad$}  ")?;
                } else {
                    write!(out, "{cell:>pad$}  ")?;
                }
            }
            writeln!(out)?;
            if number == 0 {
                writeln!(out, "{}", "-".repeat(widths.iter().sum::<usize>() + 14))?;
            }
        }
        for reason in self.reasons() {
            writeln!(out, "failed: {reason}")?;
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        let missed = self.rows.iter().filter(|row| row.reached() == Some(false)).count();
        let judged = self.rows.iter().filter(|row| row.reached().is_some()).count();
        writeln!(out, "{} of {judged} targets reached, {missed} missed", judged - missed)?;
        Ok(())
    }

    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for row in &self.rows {
            for (who, side) in [("ours", &row.ours), ("LXD", &row.lxd)] {
                if let Err(error) = side
                    && error != NOT_ASKED
                {
                    let reason = format!("{}, {who}: {error}", row.scenario);
                    if !reasons.contains(&reason) {
                        reasons.push(reason);
                    }
                }
            }
        }
        reasons
    }

    /// Writes the figures to `path` as JSON.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let all = json!({ "rows": rows, "notes": self.notes });
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Row {
    /// How many times better ours is.
    fn ratio(&self) -> Option<f64> {
        let (ours, lxd) = (*self.ours.as_ref().ok()?, *self.lxd.as_ref().ok()?);
        let ratio = if self.metric.better == Better::Higher { ours / lxd } else { lxd / ours };
        ratio.is_finite().then_some(ratio)
    }

    fn reached(&self) -> Option<bool> {
        let ours = *self.ours.as_ref().ok()?;
        match self.target {
            Target::Times(times) => Some(self.ratio()? >= times),
            Target::AtMost(most) => Some(ours <= most),
            Target::AtLeast(least) => Some(ours >= least),
            Target::Context => None,
        }
    }

    fn cells(&self) -> [String; 7] {
        let shown = |side: &Result<f64, String>| match side {
            Ok(value) => format!("{} {}", figure(*value), self.metric.unit).trim_end().to_owned(),
            Err(reason) if reason == NOT_ASKED => String::new(),
            Err(_) => "failed".to_owned(),
        };
        let target = match self.target {
            Target::Times(times) => format!("≥ {times}×"),
            Target::AtMost(most) => {
                format!("≤ {} {}", figure(most), self.metric.unit).trim_end().to_owned()
            }
            Target::AtLeast(least) => {
                format!("≥ {} {}", figure(least), self.metric.unit).trim_end().to_owned()
            }
            Target::Context => String::new(),
        };
        let verdict = match self.reached() {
            Some(true) => "yes",
            Some(false) => "MISSED",
            None => "",
        };
        [
            self.scenario.clone(),
            self.metric.title.to_owned(),
            target,
            shown(&self.ours),
            shown(&self.lxd),
            self.ratio().map(|ratio| format!("{}×", figure(ratio))).unwrap_or_default(),
            verdict.to_owned(),
        ]
    }

    fn json(&self) -> Value {
        let target = match self.target {
            Target::Times(times) => json!({ "times_better": times }),
            Target::AtMost(most) => json!({ "at_most": most }),
            Target::AtLeast(least) => json!({ "at_least": least }),
            Target::Context => Value::Null,
        };
        json!({
            "scenario": self.scenario, "figure": self.metric.title, "unit": self.metric.unit, "target": target,
            "ours": self.ours.as_ref().ok(), "lxd": self.lxd.as_ref().ok(), "ratio": self.ratio(),
            "reached": self.reached(),
        })
    }
}

/// Three significant digits.
fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
