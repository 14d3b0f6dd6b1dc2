//! What is wrong with a configuration, and where.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use aquarium_event::is_visible;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but probably does not do what is wanted.
    Warning,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// The bytes of the file that are meant.
    pub span: Range<usize>,
}

/// One finding: what is wrong, where, and what would be right.
///
/// [`Display`](fmt::Display) is one line, for logs; [`Diagnostic::render`] shows the line of the file as well, the
/// way a compiler does. Neither holds a secret or a header's value, even if one stands in that line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was reached from the directory that was given.
    pub file: PathBuf,
    /// Where in the file; nowhere if it could not be read.
    pub location: Option<Location>,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
    /// What would be accepted.
    pub accepted: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    pub(crate) excerpt: Option<Excerpt>,
}

/// The part of a line that is shown, fit to be printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excerpt {
    pub(crate) text: String,
    /// What is meant, in bytes of `text`.
    pub(crate) span: Range<usize>,
}

impl Diagnostic {
    /// A finding about a file as a whole.
    pub(crate) fn of_file(severity: Severity, file: PathBuf, message: String) -> Self {
        Self {
            severity,
            file,
            location: None,
            message,
            suggestion: None,
            accepted: None,
            help: None,
            excerpt: None,
        }
    }

    /// Several lines that show the place in the file, as a compiler would; with ANSI colors if `color`.
    pub fn render(&self, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let file = shown(&self.file);
        let mut group = level.primary_title(&self.message).elements(None::<Origin<'_>>);
        group = match (&self.location, &self.excerpt) {
            (Some(location), Some(excerpt)) => self.source(group, file, location, excerpt),
            _ => group.element(Origin::path(file)),
        };
        if let Some(accepted) = &self.accepted {
            group = group.element(Level::NOTE.message(format!("accepted: {accepted}")));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.decor_style(DecorStyle::Ascii).render(&[group])
    }

    fn source<'a>(
        &'a self,
        group: Group<'a>,
        file: String,
        location: &Location,
        excerpt: &'a Excerpt,
    ) -> Group<'a> {
        let label = self.suggestion.as_ref().map(|suggestion| format!("did you mean {suggestion:?}?"));
        let snippet = Snippet::source(&excerpt.text)
            .line_start(location.line)
            .annotation(AnnotationKind::Primary.span(excerpt.span.clone()).label(label));
        let visible = excerpt.text.get(..excerpt.span.start).map_or(0, |text| text.chars().count()) + 1;
        if visible == location.column {
            group.element(snippet.path(file))
        } else {
            // What stands before it is not shown in full, so the column cannot be counted from what is.
            let origin = Origin::path(file).line(location.line).char_column(location.column);
            group.element(origin).element(snippet)
        }
    }
}

impl fmt::Display for Diagnostic {
    /// `organizations/acme.toml:12:1: unknown key "evnts"; did you mean "events"? accepted: url, events`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.file))?;
        if let Some(location) = &self.location {
            write!(f, ":{}:{}", location.line, location.column)?;
        }
        f.write_str(match self.severity {
            Severity::Error => ": ",
            Severity::Warning => ": warning: ",
        })?;
        f.write_str(&self.message)?;
        let mut separator = "; ";
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean {suggestion:?}?")?;
            separator = " ";
        }
        if let Some(accepted) = &self.accepted {
            write!(f, "{separator}accepted: {accepted}")?;
            separator = "; ";
        }
        if let Some(help) = &self.help {
            write!(f, "{separator}{help}")?;
        }
        Ok(())
    }
}

/// The character, unless it would break the line or steer a terminal.
pub(crate) fn printable(character: char) -> char {
    if is_visible(character) || character == '\t' { character } else { char::REPLACEMENT_CHARACTER }
}

/// A path fit to be printed.
pub(crate) fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().map(printable).collect()
}

/// A text from a file as it is repeated in a message: quoted, escaped and of bounded length.
pub(crate) fn quote(text: &str) -> String {
    const MAX: usize = 80;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("\"{}…\"", text[..end].escape_debug()),
        None => format!("{text:?}"),
    }
}
