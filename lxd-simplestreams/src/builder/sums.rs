//! `SHA256SUMS`: the hashes of a version's files, as `sha256sum` writes and checks them.

use std::collections::BTreeMap;

use lxd_proto::fingerprint::Fingerprint;

/// The file's name.
pub(super) const SHA256SUMS: &str = "SHA256SUMS";
/// The largest one that is read, in bytes.
pub(super) const LARGEST: u64 = 1 << 20;

/// Hashes by the names of the files beside it.
pub(super) type Sums = BTreeMap<String, Fingerprint>;

/// Reads it, as GNU's or BSD's programs write it. Lines of other kinds (comments, signatures, files
/// elsewhere) say nothing about the files beside it.
pub(super) fn parse(text: &str) -> Sums {
    let lines = text.lines().filter_map(|line| gnu(line).or_else(|| bsd(line)));
    let beside = lines.filter_map(|(name, hash)| {
        let name = name.strip_prefix("./").unwrap_or(name);
        (!name.is_empty() && !name.contains('/')).then(|| (name.to_owned(), hash))
    });
    beside.collect()
}

/// `HASH  NAME`, or `HASH *NAME`.
fn gnu(line: &str) -> Option<(&str, Fingerprint)> {
    let (hash, rest) = line.split_once([' ', '\t'])?;
    let name = rest.trim_start().trim_start_matches('*').trim_end();
    Some((name, hash.parse().ok()?))
}

/// `SHA256 (NAME) = HASH`.
fn bsd(line: &str) -> Option<(&str, Fingerprint)> {
    let (name, hash) = line.strip_prefix("SHA256 (")?.rsplit_once(") = ")?;
    Some((name, hash.trim_end().parse().ok()?))
}

/// The text with those of `files` that it does not list; `None` when it lists all.
pub(super) fn with(text: &str, files: &[(&str, Fingerprint)]) -> Option<String> {
    let known = parse(text);
    let missing = files.iter().filter(|(name, _)| !known.contains_key(*name));
    let lines: String = missing.map(|(name, hash)| format!("{hash}  {name}\n")).collect();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    (!lines.is_empty()).then(|| format!("{text}{end}{lines}"))
}

/// The text without the lines of a file; `None` when there are none.
pub(super) fn without(text: &str, name: &str) -> Option<String> {
    let is_other = |line: &&str| !parse(line).contains_key(name);
    let (left, all) = (text.lines().filter(is_other).count(), text.lines().count());
    let lines = || text.lines().filter(is_other).map(|line| format!("{line}\n")).collect();
    (left < all).then(lines)
}

/// The file for these hashes.
pub(super) fn text(sums: &Sums) -> String {
    sums.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sha256sum_writes_is_read() {
        let hash = "0123456789abcdef".repeat(4);
        let lines =
            format!("# by hand\n{hash}  a b.tar\n{hash} *c\n{hash}  ./d\nnothing  e\n\n{hash}\n");
        let sums = parse(&lines);
        assert_eq!(sums.keys().collect::<Vec<_>>(), ["a b.tar", "c", "d"]);
        assert_eq!(parse(&text(&sums)), sums);
        let more = with(&lines, &[("c", sums["c"]), ("e", sums["c"])]).unwrap();
        assert_eq!(more, format!("{lines}{hash}  e\n"));
        assert_eq!(with(&lines, &[("c", sums["c"])]), None);
        let less = without(&more, "c").unwrap();
        assert_eq!(parse(&less).into_keys().collect::<Vec<_>>(), ["a b.tar", "d", "e"]);
        assert!(less.starts_with("# by hand\n"));
        assert_eq!(without(&less, "c"), None);
        for wrong in ["../x", "/x", "a/b", ""] {
            assert!(parse(&format!("{hash}  {wrong}")).is_empty(), "{wrong}");
        }
        let bsd = parse(&format!("SHA256 (a (1).tar) = {hash}\nMD5 (b) = 00\n"));
        assert_eq!(bsd.into_keys().collect::<Vec<_>>(), ["a (1).tar"]);
    }
}
