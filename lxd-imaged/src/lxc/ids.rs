//! The range of the host's ids that instances live in.

use std::path::Path;

/// Where ids begin when nothing says otherwise, as in LXD.
const BASE: u32 = 1_000_000;
/// How many ids an instance has when nothing says otherwise, as in LXD.
const SIZE: u32 = 1_000_000_000;
/// How many ids an instance needs: all that files of ordinary systems have.
const LEAST: u32 = 65_536;

/// Ids of the host, `base` up to and without `base + size`; an instance's root is `base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The id of the host that is root in an instance.
    pub base: u32,
    /// How many ids there are.
    pub size: u32,
}

impl Default for Range {
    fn default() -> Self {
        Self { base: BASE, size: SIZE }
    }
}

impl Range {
    /// The range that `/etc/subuid` and `/etc/subgid` both give to root, or the usual one.
    pub(super) fn of_this_machine() -> Self {
        Self::delegated(Path::new("/etc/subuid"), Path::new("/etc/subgid")).unwrap_or_default()
    }

    fn delegated(users: &Path, groups: &Path) -> Option<Self> {
        let users = std::fs::read_to_string(users).ok()?;
        let groups = std::fs::read_to_string(groups).ok()?;
        let groups: Vec<_> = lines(&groups).collect();
        let common = |(start, end): (u32, u32)| {
            groups.iter().find_map(|(first, last)| {
                let (start, end) = (start.max(*first), end.min(*last));
                let size = end.checked_sub(start)?;
                (size >= LEAST).then_some(Self { base: start, size })
            })
        };
        lines(&users).find_map(common)
    }
}

/// The ranges of root, as first id and first id after.
fn lines(text: &str) -> impl Iterator<Item = (u32, u32)> {
    text.lines().filter_map(|line| {
        let mut parts = line.split(':');
        let owner = parts.next()?;
        let (start, count): (u32, u32) =
            (parts.next()?.trim().parse().ok()?, parts.next()?.trim().parse().ok()?);
        // A range that began at 0 would make the host's root the instance's.
        (matches!(owner, "root" | "0") && start >= LEAST)
            .then_some((start, start.saturating_add(count)))
    })
}

#[cfg(test)]
mod tests {
    use super::Range;

    fn delegated(users: &str, groups: &str) -> Option<Range> {
        let temp = tempfile::tempdir().unwrap();
        let (u, g) = (temp.path().join("u"), temp.path().join("g"));
        std::fs::write(&u, users).unwrap();
        std::fs::write(&g, groups).unwrap();
        Range::delegated(&u, &g)
    }

    #[test]
    fn both_files_must_agree() {
        let range = delegated("me:5:9\nroot:100000:10000001\n", "root:200000:70000\n");
        assert_eq!(range, Some(Range { base: 200_000, size: 70_000 }));
        assert_eq!(delegated("root:100000:65536\n", "root:165536:65536\n"), None);
    }

    #[test]
    fn ranges_that_hold_the_hosts_own_ids_do_not_count() {
        assert_eq!(delegated("root:0:4294967295\n", "root:0:4294967295\n"), None);
        assert_eq!(delegated("root:x:1\nroot\n", ""), None);
    }
}
