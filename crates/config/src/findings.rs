//! Collects what is found in one file, and then looks up where it is.
//!
//! Findings are kept as byte spans while a file is read. Lines, columns and excerpts are worked out once at the end,
//! in one pass over the file, and only if there is something to report.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;

use crate::diagnostic::{Excerpt, printable};
use crate::{Diagnostic, Location, Severity, syntax};

/// A finding that has no line yet.
#[derive(Debug)]
pub(crate) struct Problem {
    severity: Severity,
    span: Range<usize>,
    message: String,
    suggestion: Option<String>,
    accepted: Option<String>,
    help: Option<String>,
    /// The place is in text that was not understood: what is secret there cannot be told.
    unparsed: bool,
}

impl Problem {
    pub(crate) fn error(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            span,
            message: message.into(),
            suggestion: None,
            accepted: None,
            help: None,
            unparsed: false,
        }
    }

    pub(crate) fn warning(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// An error in text that is no TOML.
    pub(crate) fn syntax(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { unparsed: true, ..Self::error(span, message) }
    }

    /// What was probably meant.
    pub(crate) fn suggestion(self, suggestion: Option<impl Into<String>>) -> Self {
        Self { suggestion: suggestion.map(Into::into), ..self }
    }

    /// What would be accepted.
    pub(crate) fn accepted(self, accepted: impl Into<String>) -> Self {
        Self { accepted: Some(accepted.into()), ..self }
    }

    /// What to do about it.
    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// What was found in one file.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: RefCell<Vec<Problem>>,
    masks: RefCell<Vec<Range<usize>>>,
}

impl Findings {
    pub(crate) fn add(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Keeps these bytes of the file from ever being shown.
    pub(crate) fn mask(&self, span: Range<usize>) {
        self.masks.borrow_mut().push(span);
    }

    /// Whether an error was added since there were `before` findings.
    pub(crate) fn failed_since(&self, before: usize) -> bool {
        self.problems.borrow()[before..].iter().any(|problem| problem.severity == Severity::Error)
    }

    /// How many findings there are.
    pub(crate) fn len(&self) -> usize {
        self.problems.borrow().len()
    }

    /// Everything found, in the order of the file.
    pub(crate) fn into_diagnostics(self, file: &Path, text: &str) -> Vec<Diagnostic> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.span.start);
        let masks = merged(self.masks.into_inner());
        let mut cursor = Cursor::new(text);
        problems
            .into_iter()
            .map(|problem| {
                let span = within(text, problem.span);
                let (line, column) = cursor.advance(span.start);
                let unseen = if problem.unparsed { syntax::unseen(text, cursor.line_start) } else { None };
                let excerpt = excerpt(text, cursor.line_start, &span, &masks, unseen);
                Diagnostic {
                    severity: problem.severity,
                    file: file.to_owned(),
                    location: Some(Location { line, column, span }),
                    message: problem.message,
                    suggestion: problem.suggestion,
                    accepted: problem.accepted,
                    help: problem.help,
                    excerpt: Some(excerpt),
                }
            })
            .collect()
    }
}

/// The span with both ends on characters of the text, past a byte order mark.
fn within(text: &str, span: Range<usize>) -> Range<usize> {
    let start = floor(text, span.start).max(first(text));
    start..floor(text, span.end).max(start)
}

/// Where the text starts: a byte order mark is not part of it.
fn first(text: &str) -> usize {
    if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
}

/// The last start of a character that is not past `index`.
fn floor(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// Walks forward through a text and knows the line and column of where it is.
struct Cursor<'t> {
    text: &'t str,
    position: usize,
    line: usize,
    column: usize,
    line_start: usize,
}

impl<'t> Cursor<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, position: first(text), line: 1, column: 1, line_start: first(text) }
    }

    /// The line and column of `target`, which is not before the last one.
    fn advance(&mut self, target: usize) -> (usize, usize) {
        let passed = &self.text[self.position..target];
        match passed.rfind('\n') {
            Some(newline) => {
                self.line += passed.bytes().filter(|byte| *byte == b'\n').count();
                self.line_start = self.position + newline + 1;
                self.column = 1 + passed[newline + 1..].chars().count();
            }
            None => self.column += passed.chars().count(),
        }
        self.position = target;
        (self.line, self.column)
    }
}

/// Sorted, and none overlaps another.
fn merged(mut masks: Vec<Range<usize>>) -> Vec<Range<usize>> {
    masks.sort_by_key(|mask| mask.start);
    let mut out: Vec<Range<usize>> = Vec::with_capacity(masks.len());
    for mask in masks {
        match out.last_mut() {
            Some(last) if mask.start <= last.end => last.end = last.end.max(mask.end),
            _ => out.push(mask),
        }
    }
    out
}

/// The line around `span`: a window of it if it is long, and `…` in place of what is masked.
fn excerpt(
    text: &str,
    line_start: usize,
    span: &Range<usize>,
    masks: &[Range<usize>],
    unseen: Option<Range<usize>>,
) -> Excerpt {
    const BEFORE: usize = 120;
    const AFTER: usize = 160;
    let start = floor(text, span.start.saturating_sub(BEFORE)).max(line_start);
    let limit = floor(text, span.start.saturating_add(AFTER));
    let end = text[span.start..limit].find('\n').map_or(limit, |newline| span.start + newline);
    let end = if text[..end].ends_with('\r') && end > span.start { end - 1 } else { end };

    let nearby = &masks[masks.partition_point(|mask| mask.end <= start)..];
    let hidden: Vec<_> = nearby.iter().take_while(|mask| mask.start < end).chain(&unseen).collect();
    let mut shown = String::from(if start > line_start { "…" } else { "" });
    let (mut from, mut to) = (shown.len(), shown.len());
    let mut within = None;
    for (offset, character) in text[start..end].char_indices() {
        let index = start + offset;
        let mask = hidden.iter().position(|mask| mask.contains(&index));
        if mask.is_some() && mask == within {
            continue;
        }
        within = mask;
        if index <= span.start {
            from = shown.len();
        }
        match mask {
            Some(_) => shown.push('…'),
            None => shown.push(printable(character)),
        }
        if index < span.end {
            to = shown.len();
        }
    }
    if span.start >= end {
        from = shown.len();
    }
    if end == limit && limit < text.len() {
        shown.push('…');
    }
    Excerpt { span: from..to.max(from), text: shown }
}
