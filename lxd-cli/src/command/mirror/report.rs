//! Reports of runs, for people.

use lxd_proto::mirror::{MirrorAction, MirrorCounts, MirrorReport};

use crate::output::{Table, human_size};

/// How much of everything, in one line.
pub(super) fn counts(counts: &MirrorCounts) -> String {
    let mut parts = Vec::new();
    let mut part = |count: u64, what: &str| {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    };
    let downloaded = format!("downloaded ({})", human_size(counts.bytes));
    part(counts.downloaded, &downloaded);
    part(counts.present, "here already");
    part(counts.kept, "kept");
    part(counts.removed, "removed");
    part(counts.skipped, "not tried");
    part(counts.failed, "failed");
    let versions = if parts.is_empty() { "nothing to do".to_owned() } else { parts.join(", ") };
    format!("{} products selected of {} images: {versions}", counts.products, counts.upstream)
}

/// The whole report; what is here already has no line of its own.
pub(super) fn text(report: &MirrorReport) -> String {
    let mut table = Table::new(&["ACTION", "PRODUCT", "SERIAL", "FINGERPRINT", "SIZE", "REASON"]);
    let told = report.items.iter().filter(|item| item.action != MirrorAction::Present);
    table.rows = told
        .map(|item| {
            vec![
                item.action.as_str().to_owned(),
                item.product.clone(),
                item.serial.clone(),
                item.fingerprint.short(),
                human_size(item.size),
                // What a server has said can be long.
                if item.action == MirrorAction::Fail { String::new() } else { item.reason.clone() },
            ]
        })
        .collect();
    let mut text = if table.rows.is_empty() { String::new() } else { table.compact(true) };
    for item in report.items.iter().filter(|item| item.action == MirrorAction::Fail) {
        text += &format!("{} {}: {}\n", item.product, item.serial, item.reason);
    }
    if report.omitted > 0 {
        text += &format!("{} more lines are left out.\n", report.omitted);
    }
    for conflict in &report.conflicts {
        text += &format!("Alias {} is not set: {}\n", conflict.alias, conflict.reason);
    }
    let would = if report.dry_run { "Nothing was done. A run would be: " } else { "" };
    text + &format!("{would}{}\n", counts(&report.counts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lxd_proto::fingerprint::Fingerprint;
    use lxd_proto::mirror::MirrorItem;

    #[test]
    fn a_report_tells_what_was_done_and_why() {
        let mut report = MirrorReport::default();
        for (action, serial, reason) in [
            (MirrorAction::Download, "20260102", ""),
            (MirrorAction::Present, "20260101", ""),
            (MirrorAction::Fail, "20260103", "its SHA-256 is wrong"),
        ] {
            report.add(MirrorItem {
                action,
                product: "debian:12".into(),
                serial: serial.into(),
                fingerprint: Fingerprint::from_bytes([1; 32]),
                size: 1 << 20,
                reason: reason.into(),
            });
        }
        let text = text(&report);
        assert!(text.contains("its SHA-256 is wrong") && !text.contains("20260101"), "{text}");
        assert!(text.ends_with("1 downloaded (1.00MiB), 1 here already, 1 failed\n"), "{text}");
    }
}
