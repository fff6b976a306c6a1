//! What `build` and `prune` say.

use std::fmt::Write;

use lxd_simplestreams::builder::{BuildReport, DeltaReport, Double};

use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{human_size, note};

/// Tells what was done, and fails when something is not published.
pub(super) fn tell(
    context: &Context,
    format: &ResultFormat,
    report: &BuildReport,
    dry_run: bool,
) -> Outcome {
    if format.is_text() {
        for one in &report.warnings {
            note(&format!("Warning: {}: {}", one.path, one.reason));
        }
        for one in &report.broken {
            note(&format!("Error: {}: {}", one.path, one.reason));
        }
        if report.is_signature_old {
            note(
                "Warning: the signed documents are older than the tree: clients that check \
                 signatures see nothing new, and no files are removed. Sign it again, with \
                 --sign-key or streams sign.",
            );
        }
    }
    let text = if context.quiet { String::new() } else { text(report, dry_run) };
    format.print(report, &text)?;
    match report.broken.len() {
        0 => Ok(()),
        1 => Err(Failure::new("1 thing could not be published")),
        count => Err(Failure::new(format!("{count} things could not be published"))),
    }
}

fn text(report: &BuildReport, dry_run: bool) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    for taken in &report.taken {
        let _ = writeln!(text, "Taken: {} {} from {}", taken.product, taken.serial, taken.from);
    }
    for delta in &report.deltas {
        if let Some(line) = delta_line(delta) {
            let _ = writeln!(text, "{line}");
        }
    }
    let [restored, withdrawn, removed] = if dry_run {
        ["Would publish again", "Would withdraw", "Would remove"]
    } else {
        ["Published again", "Withdrawn", "Removed"]
    };
    for (what, removals) in
        [(restored, &report.restored), (withdrawn, &report.withdrawn), (removed, &report.removed)]
    {
        for removal in removals {
            let _ = writeln!(text, "{what}: {}: {}", removal.path, removal.reason);
        }
    }
    for double in &report.doubles {
        let Double { path, first, .. } = double;
        let _ = writeln!(text, "Published once: {path}: it is the same image as {first}");
    }
    for gone in &report.gone {
        let _ = writeln!(text, "Still published: {}: {}", gone.path, gone.reason);
    }
    if !report.gone.is_empty() {
        let _ = writeln!(text, "To take out an image, remove its directory and build again.");
    }
    if report.present > 0 || report.older > 0 {
        let _ = writeln!(
            text,
            "Not taken: {} already present, {} too old to stay",
            count(report.present, "image"),
            report.older
        );
    }
    let _ = writeln!(
        text,
        "{}: {} with {}, {}; {} read ({})",
        match (dry_run, report.changed) {
            (true, _) => "Nothing was changed",
            (false, true) => "Published",
            (false, false) => "Nothing has changed",
        },
        count(report.products, "product"),
        count(report.versions, "version"),
        count(report.images, "image"),
        count(report.hashed_files, "file"),
        human_size(report.hashed_bytes),
    );
    text
}

fn delta_line(delta: &DeltaReport) -> Option<String> {
    let DeltaReport { path, size, full, .. } = delta;
    match &delta.reason {
        Some(reason) => Some(format!("No delta: {path}: {reason}")),
        None if delta.made => {
            let percent = u128::from(*size) * 100 / u128::from((*full).max(1));
            let (size, full) = (human_size(*size), human_size(*full));
            Some(format!("Delta: {path}: {size}, {percent}% of {full}"))
        }
        None => None,
    }
}

fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
