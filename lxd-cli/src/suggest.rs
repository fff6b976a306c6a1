//! "Did you mean": the known words that a mistyped one is close to.

/// The closest of `known`, best first, at most three.
pub(crate) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    let mut close: Vec<_> = known
        .into_iter()
        .filter(|candidate| *candidate != word)
        .filter_map(|candidate| {
            let distance = distance(word, candidate);
            let begins = word.len() >= 3 && candidate.starts_with(word);
            (distance <= allowed || begins).then_some((distance, candidate))
        })
        .collect();
    close.sort_unstable();
    close.dedup();
    close.into_iter().map(|(_, candidate)| candidate).take(3).collect()
}

/// A sentence with the closest of `known`, if any is close.
pub(crate) fn did_you_mean<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let close = closest(word, known);
    if close.is_empty() {
        return None;
    }
    let quoted: Vec<_> = close.iter().map(|word| format!("\"{word}\"")).collect();
    Some(format!("Did you mean {}?", quoted.join(" or ")))
}

/// Letters to add, drop, change or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let changed = last[j] + usize::from(x != y);
            let mut best = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_words_are_found_and_far_ones_are_not() {
        let known = ["busybox", "debian/12", "local", "images"];
        for (word, found) in [
            ("bsuybox", "busybox"),
            ("debian/13", "debian/12"),
            ("loca", "local"),
            ("image", "images"),
        ] {
            assert_eq!(closest(word, known).first(), Some(&found), "{word}");
        }
        assert!(closest("zzz", known).is_empty());
        assert_eq!(did_you_mean("lcoal", known).unwrap(), "Did you mean \"local\"?");
    }
}
