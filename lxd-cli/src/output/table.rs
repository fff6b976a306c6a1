//! Tables, compact tables and csv, in the bytes that `lxc` prints.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr;

use super::visible;

/// Headers and rows; every row has as many cells as there are headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// Names of the columns, upper case.
    pub(crate) headers: Vec<String>,
    /// Cells, which may have several lines.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headers: &[&str]) -> Self {
        Self { headers: headers.iter().map(|h| (*h).to_owned()).collect(), rows: Vec::new() }
    }

    /// With rules of `+---+`, one after every row.
    pub(crate) fn boxed(&self, with_header: bool) -> String {
        let this = self.visible();
        let widths = this.widths(with_header);
        let mut rule = String::from("+");
        for width in &widths {
            rule.extend(std::iter::repeat_n('-', width + 2));
            rule.push('+');
        }
        rule.push('\n');
        let mut out = rule.clone();
        if with_header {
            let cells = this.headers.iter().zip(&widths).map(|(h, w)| centred(h, *w));
            let _ = writeln!(out, "| {} |", cells.collect::<Vec<_>>().join(" | "));
            out.push_str(&rule);
        }
        for row in &this.rows {
            for line in lines(row) {
                let cells = line.iter().zip(&widths).map(|(cell, w)| padded(cell, *w));
                let _ = writeln!(out, "| {} |", cells.collect::<Vec<_>>().join(" | "));
            }
            out.push_str(&rule);
        }
        out
    }

    /// Without rules: two spaces around every column.
    pub(crate) fn compact(&self, with_header: bool) -> String {
        let this = self.visible();
        let widths = this.widths(with_header);
        let mut out = String::new();
        if with_header {
            let cells = this.headers.iter().zip(&widths).map(|(h, w)| centred(h, *w));
            let _ = writeln!(out, "  {}  ", cells.collect::<Vec<_>>().join("  "));
        }
        for row in &this.rows {
            for line in lines(row) {
                let cells = line.iter().zip(&widths).map(|(cell, w)| padded(cell, *w));
                let _ = writeln!(out, "  {}  ", cells.collect::<Vec<_>>().join("  "));
            }
        }
        out
    }

    /// Comma-separated, RFC 4180 quotes where they are needed, line feeds.
    pub(crate) fn csv(&self, with_header: bool) -> String {
        let header = with_header.then_some(&self.headers);
        let mut out = String::new();
        for row in header.into_iter().chain(&self.rows) {
            let cells: Vec<_> = row.iter().map(|cell| quoted(cell)).collect();
            out.push_str(&cells.join(","));
            out.push('\n');
        }
        out
    }

    /// The table as people may see it: without control characters that a terminal obeys.
    fn visible(&self) -> Self {
        let cell = |cell: &String| visible(cell).replace('\t', "\\t");
        let row = |row: &Vec<String>| row.iter().map(cell).collect();
        Self { headers: self.headers.clone(), rows: self.rows.iter().map(row).collect() }
    }

    fn widths(&self, with_header: bool) -> Vec<usize> {
        (0..self.headers.len())
            .map(|column| {
                let header = with_header.then(|| self.headers[column].width());
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let lines = cells.flat_map(|cell| cell.split('\n')).map(UnicodeWidthStr::width);
                lines.chain(header).max().unwrap_or(0)
            })
            .collect()
    }
}

/// The lines of a row whose cells may have several.
fn lines(row: &[String]) -> Vec<Vec<&str>> {
    let height = row.iter().map(|cell| cell.split('\n').count()).max().unwrap_or(1);
    let line = |n| row.iter().map(|cell| cell.split('\n').nth(n).unwrap_or_default()).collect();
    (0..height).map(line).collect()
}

fn padded(cell: &str, width: usize) -> String {
    let gap = width.saturating_sub(cell.width());
    format!("{cell}{:gap$}", "")
}

fn centred(cell: &str, width: usize) -> String {
    let gap = width.saturating_sub(cell.width());
    let left = gap / 2;
    let right = gap - left;
    format!("{:left$}{cell}{:right$}", "", "")
}

fn quoted(cell: &str) -> String {
    let special = cell.contains([',', '"', '\n', '\r']) || cell.starts_with([' ', '\t']);
    if special || cell == r"\." {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["ALIAS", "TYPE", "SIZE"]);
        table.rows = vec![
            vec!["bb/1\nbusybox".into(), "CONTAINER".into(), "0.84MB".into()],
            vec!["日本".into(), String::new(), "a,\"b\"".into()],
        ];
        table
    }

    #[test]
    fn a_boxed_table_has_a_rule_after_every_row() {
        let expected = "\
+---------+-----------+--------+
|  ALIAS  |   TYPE    |  SIZE  |
+---------+-----------+--------+
| bb/1    | CONTAINER | 0.84MB |
| busybox |           |        |
+---------+-----------+--------+
| 日本    |           | a,\"b\"  |
+---------+-----------+--------+
";
        assert_eq!(sample().boxed(true), expected);
    }

    #[test]
    fn an_empty_table_is_its_header() {
        let table = Table::new(&["ALIAS", "TARGET"]);
        let expected = "+-------+--------+\n| ALIAS | TARGET |\n+-------+--------+\n";
        assert_eq!(table.boxed(true), expected);
        assert_eq!(table.compact(true), "  ALIAS  TARGET  \n");
        assert_eq!(table.csv(false), "");
    }

    #[test]
    fn no_cell_commands_the_terminal() {
        let mut table = Table::new(&["A"]);
        table.rows = vec![vec!["\x1b[2J\t".into()]];
        let expected = "+-------------+\n| \\u{1b}[2J\\t |\n+-------------+\n";
        assert_eq!(table.boxed(false), expected);
        assert_eq!(table.csv(false), "\x1b[2J\t\n");
    }

    #[test]
    fn compact_and_csv_are_as_recorded() {
        let mut table = Table::new(&["ALIAS", "PUBLIC", "TYPE"]);
        table.rows = vec![vec!["bb/1 (1 more)".into(), "no".into(), "CONTAINER".into()]];
        let expected =
            "      ALIAS      PUBLIC    TYPE     \n  bb/1 (1 more)  no      CONTAINER  \n";
        assert_eq!(table.compact(true), expected);
        assert_eq!(
            sample().csv(true),
            "ALIAS,TYPE,SIZE\n\"bb/1\nbusybox\",CONTAINER,0.84MB\n日本,,\"a,\"\"b\"\"\"\n"
        );
    }
}
