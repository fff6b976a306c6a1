//! The difference between two texts, line by line.

/// Lines that go get a `-`, lines that come a `+`; unchanged lines are left out except the
/// nearest one before a change, so that nested keys can be placed. Empty when equal.
pub(crate) fn diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let common = longest_common(&old, &new);
    let mut out = String::new();
    let (mut i, mut j) = (0, 0);
    let mut context = None;
    for (next_i, next_j) in common.into_iter().chain([(old.len(), new.len())]) {
        if (i, j) != (next_i, next_j)
            && let Some(line) = context.take()
        {
            push(&mut out, ' ', line);
        }
        old[i..next_i].iter().for_each(|line| push(&mut out, '-', line));
        new[j..next_j].iter().for_each(|line| push(&mut out, '+', line));
        context = old.get(next_i).copied();
        (i, j) = (next_i + 1, next_j + 1);
    }
    out
}

fn push(out: &mut String, mark: char, line: &str) {
    out.push(mark);
    out.push(' ');
    out.push_str(line);
    out.push('\n');
}

/// Positions of a longest common subsequence. The texts are a screenful, so a table will do.
fn longest_common(old: &[&str], new: &[&str]) -> Vec<(usize, usize)> {
    let mut lengths = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            lengths[i][j] = if old[i] == new[j] {
                lengths[i + 1][j + 1] + 1
            } else {
                lengths[i + 1][j].max(lengths[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut common = Vec::new();
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            common.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[i + 1][j] >= lengths[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_shown() {
        let old = "auto_update: false\nproperties:\n  a: 1\n  b: 2\npublic: false\n";
        let new = "auto_update: false\nproperties:\n  a: 1\n  c: 3\npublic: true\n";
        assert_eq!(
            diff(old, new),
            "    a: 1\n-   b: 2\n- public: false\n+   c: 3\n+ public: true\n"
        );
        assert_eq!(diff(old, old), "");
        assert_eq!(diff("", "a\n"), "+ a\n");
    }
}
