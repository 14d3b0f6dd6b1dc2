//! Text that is no TOML: what to say about it, and how much of it may be shown.

use std::ops::Range;

use toml::de::DeTable;

use crate::findings::{Findings, Problem};

/// How many syntax errors of one file are reported: what follows the first few is mostly their echo.
const MAX_ERRORS: usize = 20;
/// How many lines up the key of an array is looked for.
const LINES: usize = 64;

/// The tree of a file; none if it was not understood, since what was left out would only be reported as missing.
///
/// A key that is there twice does not stop the rest from being read.
pub(crate) fn parse<'i>(text: &'i str, findings: &Findings) -> Option<DeTable<'i>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let is_duplicate = |error: &toml::de::Error| error.message() == "duplicate key";
    let understood = errors.iter().all(is_duplicate);
    let mut last_line = None;
    for error in errors.iter().take(MAX_ERRORS) {
        let span = error.span().unwrap_or_default();
        let line = text.get(..span.start).and_then(|before| before.rfind('\n'));
        if last_line.replace(line) != Some(line) {
            findings.add(Problem::syntax(span.clone(), message(text, span, error, is_duplicate(error))));
        }
    }
    understood.then(|| root.into_inner())
}

/// What is wrong, in words that stand on their own.
fn message(text: &str, span: Range<usize>, error: &toml::de::Error, duplicate: bool) -> String {
    let rest = text.get(span.start..).unwrap_or_default().trim_start_matches([' ', '\t', '\r']);
    if duplicate {
        "this key is there already".to_owned()
    } else if error.message().starts_with("string values must be quoted")
        && (rest.is_empty() || rest.starts_with(['\n', '#']))
    {
        "there is no value after \"=\"".to_owned()
    } else {
        error.message().to_owned()
    }
}

/// The part of a line that must not be shown, since it may hold a secret: all but headers, the values of keys that
/// are known to be harmless, and further lines of their arrays.
///
/// The text could not be parsed, so this goes by the shape of the lines, and hides what it is not sure of.
pub(crate) fn unseen(text: &str, line_start: usize) -> Option<Range<usize>> {
    let line_end = text[line_start..].find('\n').map_or(text.len(), |newline| line_start + newline);
    let line = &text[line_start..line_end];
    let above = &text[..line_start];
    let harmless = match key(line) {
        _ if is_header(line) => return None,
        // A second sign may be that of another key, when a line break is what is missing.
        Some(key) => is_harmless(key) && line.matches('=').count() == 1,
        None => line.trim_start().starts_with(['"', '\'', ']']) && in_harmless_array(above),
    };
    if harmless && !in_headers(above) {
        return None;
    }
    let from = key(line).and(line.find('=')).map_or(0, |equals| equals + 1);
    let from = line_end - line[from..].trim_start().len();
    (from < line_end).then_some(from..line_end)
}

/// Whether what comes after this text is in an array that a harmless key has.
fn in_harmless_array(above: &str) -> bool {
    for line in above.lines().rev().take(LINES) {
        match key(line) {
            _ if is_header(line) => return false,
            Some(key) => return is_harmless(key) && line.contains('[') && !line.contains(']'),
            None if line.contains(']') => return false,
            None => {}
        }
    }
    false
}

/// Whether what comes after this text is in a table of headers, whose keys can be anything.
fn in_headers(above: &str) -> bool {
    let header = above.lines().rev().find(|line| line.trim_start().starts_with('['));
    header.is_some_and(|header| header.contains("headers"))
}

/// Whether a line is shaped like `[a.b]` or `[[a]]`, closed or not.
fn is_header(line: &str) -> bool {
    line.starts_with('[')
        && line.trim().chars().all(|c| c.is_alphanumeric() || matches!(c, '[' | ']' | '.' | '_' | '-' | ' '))
}

/// The key of a line shaped like `key = …`.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (!key.is_empty() && key.chars().all(bare)).then_some(key)
}

/// Whether a key's value holds no secret.
pub(crate) fn is_harmless(key: &str) -> bool {
    const HARMLESS: [&str; 21] = [
        "version",
        "listen",
        "max_event_size",
        "engine",
        "path",
        "max_size",
        "retention",
        "timeout",
        "connect_timeout",
        "concurrency",
        "retry",
        "jitter",
        "give_up_after",
        "breaker_failures",
        "rate_limit",
        "order",
        "allow",
        "roots",
        "custom",
        "events",
        "active",
    ];
    let mut parts = key.rsplit('.');
    parts.next().is_some_and(|last| HARMLESS.contains(&last)) && !parts.any(|part| part == "headers")
}
