//! Tables that fit the terminal.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use tabled::builder::Builder;
use tabled::settings::peaker::Peaker;
use tabled::settings::{Padding, Style as Borders, Width};

use crate::terminal::visible;

/// As wide as a line is where nobody says otherwise: what reads it is a program, or a file.
const UNBOUNDED: usize = usize::MAX;
/// What a column is not made narrower than.
const NARROWEST: usize = 8;

/// Rows below a head. When they are too wide, then the columns after the first are cut, the last one first; what stands
/// in the first column is whole, so that it can be copied.
pub(super) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const N: usize>(head: [&'static str; N]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| visible(&cell)).to_vec());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints it, as wide as the terminal. `head` tells whether the head is printed, too.
    pub(super) fn print(self, head: bool) -> io::Result<()> {
        writeln!(anstream::stdout(), "{}", self.render(width(), head))
    }

    fn render(self, width: usize, head: bool) -> String {
        let mut builder = Builder::default();
        if head {
            let dimmed = Style::new().dimmed();
            builder.push_record(self.head.iter().map(|name| format!("{dimmed}{name}{dimmed:#}")));
        }
        for row in self.rows {
            builder.push_record(row.iter().map(|cell| styled(cell)));
        }
        let mut table = builder.build();
        table.with(Borders::empty()).with(Padding::new(0, 2, 0, 0));
        if width != UNBOUNDED {
            table.with(Width::truncate(width).suffix("…").priority(LastFirst));
        }
        let lines = table.to_string();
        lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// Which column is made narrower: the last one that still can be, and never the first.
#[derive(Debug, Clone, Copy)]
struct LastFirst;

impl Peaker for LastFirst {
    fn peak(&mut self, least: &[usize], widths: &[usize]) -> Option<usize> {
        let least = |column: usize| least.get(column).copied().unwrap_or_default().max(NARROWEST + 2);
        (1..widths.len()).rev().find(|column| widths[*column] > least(*column))
    }
}

/// States have colours. Those are left out where the output is no terminal.
pub(super) fn styled(cell: &str) -> String {
    let color = match cell {
        "delivered" | "active" | "closed" | "done" | "yes" => AnsiColor::Green,
        "exhausted" | "suspended" | "failed" | "open" | "removed" => AnsiColor::Red,
        "pending" | "running" | "probing" | "answered-with-error" => AnsiColor::Yellow,
        "skipped" | "inactive" | "cancelled" | "no" => AnsiColor::BrightBlack,
        _ => return cell.to_owned(),
    };
    let style = Style::new().fg_color(Some(color.into()));
    format!("{style}{cell}{style:#}")
}

fn width() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(UNBOUNDED, |(width, _)| usize::from(width.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["ID", "STATE", "DETAIL"]);
        table.row(["dlv_0123456789012345".into(), "delivered".into(), "d".repeat(60)]);
        table.row(["dlv_1".into(), "pending".into(), "\u{1b}[2Jgone".into()]);
        table
    }

    #[test]
    fn a_table_is_as_wide_as_the_terminal_and_its_first_column_is_whole() {
        for width in [50, 60, 80, 200, UNBOUNDED] {
            let rendered = anstream::adapter::strip_str(&table().render(width, true)).to_string();
            let lines: Vec<_> = rendered.lines().collect();
            assert_eq!(lines.len(), 3, "{rendered}");
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}\n{rendered}");
            assert!(lines[1].starts_with("dlv_0123456789012345  delivered"), "{width}\n{rendered}");
            assert_eq!(lines[1].contains('…'), width < 100, "{width}\n{rendered}");
        }
    }

    #[test]
    fn what_came_from_outside_cannot_move_the_cursor() {
        assert!(!table().render(UNBOUNDED, false).contains("\u{1b}[2J"));
    }
}
