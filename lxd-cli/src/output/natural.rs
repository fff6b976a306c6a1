//! The order of table rows: column by column, numbers by value, empty cells last.

use std::cmp::Ordering;

/// Sorts rows as `lxc` does: by the first displayed column that differs.
pub(crate) fn sort_rows(rows: &mut [Vec<String>]) {
    rows.sort_by(|a, b| {
        let cells = a.iter().zip(b);
        cells.map(|(a, b)| compare_cells(a, b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    });
}

fn compare_cells(a: &str, b: &str) -> Ordering {
    match (a.is_empty(), b.is_empty()) {
        (false, false) => natural(a, b),
        // `false` sorts first: a cell with text comes before an empty one.
        (a, b) => a.cmp(&b),
    }
}

/// Compares runs of digits as numbers and all else as bytes; equal numbers with different
/// zeros in front are told apart at the end, so that this is a total order.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        match (run(left), run(right)) {
            (None, None) => return a.cmp(b),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some((a, rest_a)), Some((b, rest_b))) => {
                let order = match (number(a), number(b)) {
                    (Some(a), Some(b)) => (a.len(), a).cmp(&(b.len(), b)),
                    _ => a.cmp(b),
                };
                if order.is_ne() {
                    return order;
                }
                (left, right) = (rest_a, rest_b);
            }
        }
    }
}

/// The first run of digits, or of anything else, and what follows.
fn run(text: &str) -> Option<(&str, &str)> {
    let digit = text.chars().next()?.is_ascii_digit();
    let end = text.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(text.len());
    Some(text.split_at(end))
}

/// The digits without zeros in front; longer is larger.
fn number(run: &str) -> Option<&str> {
    run.starts_with(|c: char| c.is_ascii_digit()).then(|| run.trim_start_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_by_value_and_empty_cells_last() {
        let order = ["5e18", "41f3", "482f", "a99", "a100", "a658", "bb2", "bb/1", ""];
        let mut rows: Vec<_> = order.iter().rev().map(|s| vec![(*s).to_owned()]).collect();
        sort_rows(&mut rows);
        assert_eq!(rows.concat(), order);
    }

    #[test]
    fn the_next_column_decides_between_equals() {
        let rows = |list: &[[&str; 2]]| -> Vec<Vec<String>> {
            list.iter().map(|row| row.iter().map(|s| (*s).to_owned()).collect()).collect()
        };
        let mut given = rows(&[["no", ""], ["yes", "a"], ["no", "big"], ["no", "bb"]]);
        sort_rows(&mut given);
        assert_eq!(given, rows(&[["no", "bb"], ["no", "big"], ["no", ""], ["yes", "a"]]));
    }
}
