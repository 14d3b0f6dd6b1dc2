//! What was measured, as tables for people and as JSON for programs.

mod verdict;

use std::io::Write as _;

use anyhow::Result;
use serde_json::{Map, Value, json};

pub(crate) use verdict::{Verdict, Wanted, table as verdicts};

/// Figures of several subjects, side by side.
#[derive(Debug, Default)]
pub(crate) struct Table {
    title: String,
    subjects: Vec<String>,
    rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Table {
    /// A table without figures. The subjects are its columns.
    pub(crate) fn new(title: &str, subjects: &[&str]) -> Table {
        let subjects = subjects.iter().map(|&subject| subject.to_owned()).collect();
        Table { title: title.to_owned(), subjects, rows: Vec::new() }
    }

    /// A figure of each subject; none, where there is no such thing. The unit belongs to the name.
    pub(crate) fn row(&mut self, name: &str, figures: impl IntoIterator<Item = Option<f64>>) {
        let figures: Vec<_> = figures.into_iter().collect();
        if figures.iter().any(Option::is_some) {
            self.rows.push((name.to_owned(), figures));
        }
    }

    fn lines(&self) -> Vec<Vec<String>> {
        let head = std::iter::once(self.title.clone()).chain(self.subjects.iter().cloned()).collect();
        let rows = self.rows.iter().map(|(name, figures)| {
            let figures = figures.iter().map(|figure| figure.map_or("–".to_owned(), figure_text));
            std::iter::once(name.clone()).chain(figures).collect()
        });
        std::iter::once(head).chain(rows).collect()
    }

    fn json(&self) -> Value {
        let row = |(name, figures): &(String, Vec<Option<f64>>)| {
            let by_subject = self.subjects.iter().cloned().zip(figures.iter().map(|figure| json!(figure)));
            (name.clone(), Value::from(by_subject.collect::<Map<_, _>>()))
        };
        json!({ "title": self.title, "rows": self.rows.iter().map(row).collect::<Map<_, _>>() })
    }
}

/// Where the report goes, piece by piece.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    machine: Map<String, Value>,
    tables: Vec<Value>,
    notes: Vec<String>,
    verdicts: Vec<Verdict>,
    failures: Vec<String>,
}

impl Report {
    /// A report that begins with facts about the machine.
    pub(crate) fn new(json: bool, machine: &[(&str, String)]) -> Result<Report> {
        let facts = machine.iter().map(|(name, fact)| ((*name).to_owned(), Value::from(fact.as_str())));
        let report = Report {
            json,
            machine: facts.collect(),
            tables: Vec::new(),
            notes: Vec::new(),
            verdicts: Vec::new(),
            failures: Vec::new(),
        };
        let lines: Vec<_> = machine.iter().map(|(name, fact)| format!("{name:12} {fact}\n")).collect();
        report.print(&format!("{}\n", lines.concat()))?;
        Ok(report)
    }

    /// Adds a table.
    pub(crate) fn table(&mut self, table: &Table) -> Result<()> {
        self.tables.push(table.json());
        self.print(&format!("{}\n", aligned(&table.lines())))
    }

    /// Adds a sentence about the tables before it.
    pub(crate) fn note(&mut self, text: impl Into<String>) -> Result<()> {
        let text = text.into();
        self.print(&format!("{text}\n\n"))?;
        self.notes.push(text);
        Ok(())
    }

    /// Adds what a figure has to be compared with.
    pub(crate) fn verdict(&mut self, what: &'static str, value: f64, wanted: Wanted) {
        self.verdicts.push(Verdict { what, value, wanted });
    }

    /// A scenario that came to nothing.
    pub(crate) fn failure(&mut self, text: String) -> Result<()> {
        self.print(&format!("FAILED {text}\n\n"))?;
        self.failures.push(text);
        Ok(())
    }

    /// Prints what is left. True if nothing failed.
    pub(crate) fn end(self) -> Result<bool> {
        if !self.verdicts.is_empty() {
            self.print(&aligned(&verdicts(&self.verdicts)))?;
        }
        if self.json {
            let report = json!({
                "machine": self.machine,
                "tables": self.tables,
                "notes": self.notes,
                "targets": self.verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
                "failures": self.failures,
            });
            writeln!(std::io::stdout(), "{report:#}")?;
        }
        Ok(self.failures.is_empty())
    }

    fn print(&self, text: &str) -> Result<()> {
        match self.json {
            true => std::io::stderr().write_all(text.as_bytes())?,
            false => std::io::stdout().write_all(text.as_bytes())?,
        }
        Ok(())
    }
}

/// Says what is being done.
pub(crate) fn progress(text: &str) {
    // If stderr is gone, there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "… {text}");
}

/// A figure with three digits that count, or as a whole number.
fn figure_text(figure: f64) -> String {
    let decimals = match figure.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{figure:.decimals$}");
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

/// Columns of equal width: the first to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let width = widths[column];
            text += &if column == 0 { format!("{cell:width$}") } else { format!("  {cell:>width$}") };
        }
        text.push('\n');
        if number == 0 {
            text += &"─".repeat(widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_digits_that_count() {
        let texts = [0.0, 0.126, 9.87, 12.34, 123.4, 1_234.5, 1_234_567.0].map(figure_text);
        assert_eq!(texts, ["0", "0.13", "9.87", "12.3", "123", "1,234", "1,234,567"]);
    }

    #[test]
    fn tables_are_aligned_and_their_json_has_the_numbers() {
        let mut table = Table::new("relay", &["hyper", "sidecar"]);
        table.row("accepted/s", [Some(40_000.0), Some(9_999.9)]);
        table.row("bytes", [None, Some(1.5)]);
        table.row("nobody has it", [None, None]);
        let text = "relay        hyper  sidecar\n───────────────────────────\naccepted/s  40,000   10,000\nbytes            –     1.50\n";
        assert_eq!(aligned(&table.lines()), text);
        assert_eq!(table.json()["rows"]["bytes"], json!({ "hyper": null, "sidecar": 1.5 }));
    }
}
