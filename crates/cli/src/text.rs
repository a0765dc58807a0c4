//! Words and columns for people.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};

/// A byte count in the unit that suits it.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let unit = usize::try_from(count.ilog2() / 10).unwrap_or(1).min(UNITS.len());
    let shift = unit * 10;
    let whole = count >> shift;
    // One digit after the point, cut and not rounded, so that nothing ever reads as 1024.0.
    let tenth = ((count >> (shift - 10)) & 1023) * 10 / 1024;
    format!("{whole}.{tenth} {}", UNITS[unit - 1])
}

/// `1 database`, `2 databases`.
pub(crate) fn count(number: usize, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {one}{plural}")
}

/// `group a`, `groups a, b`.
pub(crate) fn list(one: &str, names: &[&str]) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    format!("{one}{plural} {}", names.join(", "))
}

/// A time to the second.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Rows whose columns line up.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Writes the rows, each behind `indent`; nothing follows the last cell of a row.
    pub(crate) fn write(&self, text: &mut String, indent: &str) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            let mut line = indent.to_owned();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
}

/// The text with control characters made visible: a file's name must not steer a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_read_well() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1023.9 KiB"),
            (33_554_432, "32.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let mut table = Table::default();
        table.row(["a".to_owned(), "bbb".to_owned(), String::new()]);
        table.row(["größer".to_owned(), "c".to_owned(), "d".to_owned()]);
        let mut text = String::new();
        table.write(&mut text, "  ");
        assert_eq!(text, "  a       bbb\n  größer  c    d\n");
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\r"), "a\\u{1b}[2Jb\nc\\r");
    }
}
