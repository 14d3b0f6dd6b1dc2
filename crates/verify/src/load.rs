//! Secrets and keys from where a service keeps them: in a file, one a line, or in an environment variable.

use std::fmt::{self, Display};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use zeroize::{Zeroize, Zeroizing};

/// The most that a file may have, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Why secrets or keys cannot be read from where they are. It repeats nothing of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{from}: {reason}")]
pub struct LoadError {
    from: String,
    reason: String,
}

impl LoadError {
    pub(crate) fn in_file(path: &Path, reason: impl Display) -> LoadError {
        LoadError { from: path.display().to_string(), reason: reason.to_string() }
    }
}

/// What an environment variable holds, as `parse` reads it.
pub(crate) fn from_env<T, E: Display>(
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, LoadError> {
    let unusable = |reason: String| LoadError { from: format!("environment variable {name}"), reason };
    match std::env::var(name) {
        Ok(text) => parse(&Zeroizing::new(text)).map_err(|error| unusable(error.to_string())),
        Err(std::env::VarError::NotPresent) => Err(unusable("it is not set".to_owned())),
        Err(std::env::VarError::NotUnicode(_)) => Err(unusable("it is not text".to_owned())),
    }
}

/// What a file holds, as `parse` reads it.
pub(crate) fn from_file<T, E: Display>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, LoadError> {
    let text = read(path)?;
    parse(&text).map_err(|error| LoadError::in_file(path, error))
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>, LoadError> {
    let unreadable = |error: std::io::Error| LoadError::in_file(path, error);
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_or(0, |metadata| metadata.len()).min(MAX_FILE) + 1;
    // Room for all of it at once: a buffer that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or_default()));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(LoadError::in_file(path, format!("it has more than {MAX_FILE} bytes")));
    }
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            Err(LoadError::in_file(path, "it is not UTF-8 text"))
        }
    }
}

/// Where a secret or key stands in what was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum At {
    /// In a list, counted from 0.
    Index(usize),
    /// In a file or text, counted from 1.
    Line(usize),
    /// In an environment variable, counted from 1.
    Word(usize),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Index(index) => write!(f, "at index {index}"),
            At::Line(line) => write!(f, "in line {line}"),
            At::Word(word) => write!(f, "at position {word}"),
        }
    }
}

/// What is wrong with how a secret or key is written in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misplaced {
    /// Its line has more than a label and it.
    #[error("has more than two words in its line; accepted: [label] secret")]
    Words,
    /// The label is as long as a secret, and may be one.
    #[error(
        "has a label of {length} characters; accepted: 1 to {MAX_LABEL} visible ASCII characters. Several secrets stand in \
         a line each"
    )]
    Label {
        /// How many characters it has.
        length: usize,
    },
    /// It looks commented out.
    #[error(
        "is commented out with {mark:?}; in a file, a comment is a line of its own that begins with #. A variable holds no \
         comments"
    )]
    Comment {
        /// What it begins with.
        mark: &'static str,
    },
    /// It has a comma, which divides secrets in a variable and nowhere else.
    #[error(
        "has a comma; several secrets stand in a line each, and one with a comma is given by its SHA-256"
    )]
    Comma,
}

/// A secret or key in a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'t> {
    pub(crate) at: At,
    pub(crate) label: Option<&'t str>,
    pub(crate) value: &'t str,
}

/// The most characters of a label in a text. A secret has more, so that none is ever taken for a label, which is shown.
const MAX_LABEL: usize = 15;

/// The entries of a file: one a line, with or without a label. A line ends with LF, CRLF or CR.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Result<Entry<'_>, (At, Misplaced)>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // The LF of a CRLF ends an empty line of its own, which must not count.
    let mut number = 0;
    let mut after_cr = false;
    let numbered = text.split_inclusive(['\n', '\r']).map(move |line| {
        if !(after_cr && line == "\n") {
            number += 1;
        }
        after_cr = line.ends_with('\r');
        (At::Line(number), line.trim())
    });
    numbered
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| entry(at, line).map_err(|misplaced| (at, misplaced)))
}

fn entry(at: At, line: &str) -> Result<Entry<'_>, Misplaced> {
    let mut words = line.split_ascii_whitespace();
    let (label, value) = match (words.next(), words.next(), words.next()) {
        (Some(label), Some(value), None) => (Some(label), value),
        (Some(value), None, None) => (None, value),
        (Some(first), ..) => {
            uncommented(first)?;
            return Err(Misplaced::Words);
        }
        (None, ..) => return Err(Misplaced::Words),
    };
    for word in label.into_iter().chain([value]) {
        uncommented(word)?;
    }
    if value.contains(',') {
        return Err(Misplaced::Comma);
    }
    match label.map(|label| (label.chars().count(), label)) {
        Some((length, label)) if length > MAX_LABEL || !label.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(Misplaced::Label { length })
        }
        _ => Ok(Entry { at, label, value }),
    }
}

/// The entries of an environment variable, divided by blanks, commas or line breaks. They have no labels.
pub(crate) fn words(text: &str) -> impl Iterator<Item = Result<Entry<'_>, (At, Misplaced)>> {
    let divides = |c: char| c == ',' || c.is_ascii_whitespace();
    (1..).map(At::Word).zip(text.split(divides).filter(|word| !word.is_empty())).map(|(at, value)| {
        uncommented(value).map_err(|misplaced| (at, misplaced))?;
        Ok(Entry { at, label: None, value })
    })
}

/// Refuses what somebody commented out: it must not be accepted any more, neither with the mark nor without.
fn uncommented(word: &str) -> Result<(), Misplaced> {
    let mark = ["#", "//", ";", "--"].into_iter().find(|mark| word.starts_with(mark));
    mark.map_or(Ok(()), |mark| Err(Misplaced::Comment { mark }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "correct-horse-battery-staple";
    const B: &str = "another-horse-another-battery";

    /// A text, and the line, label and secret of each entry in it.
    type Row<'t> = (&'t str, &'t [(usize, Option<&'t str>, &'t str)]);

    /// Texts with `A` and `B` in them.
    fn text(template: &str) -> String {
        template.replace("$A", A).replace("$B", B)
    }

    #[test]
    fn a_line_of_a_file_has_a_secret_and_a_label_or_is_a_comment_or_an_error() {
        let both = &[(1, None, A), (2, None, B)][..];
        let table: &[Row<'_>] = &[
            ("$A", &both[..1]),
            ("\u{feff}$A\r\n", &both[..1]),
            ("$A\n$B", both),
            ("$A\r$B\r", both),
            ("$A\r\n$B\r\n", both),
            ("\r\n\r\n  new\t$A \r\n", &[(3, Some("new"), A)]),
            ("new $A\n#old $B", &[(1, Some("new"), A)]),
            ("new $A\n##old $B", &[(1, Some("new"), A)]),
            ("new $A\n \t# old $B", &[(1, Some("new"), A)]),
            ("#$B\n#\n123456789012345 $A", &[(3, Some("123456789012345"), A)]),
        ];
        for (template, expected) in table {
            let text = text(template);
            let found: Result<Vec<_>, _> = lines(&text).collect();
            let expected =
                expected.iter().map(|&(line, label, value)| Entry { at: At::Line(line), label, value });
            assert_eq!(found, Ok(expected.collect()), "{template:?}");
        }
        let comment = |mark| Misplaced::Comment { mark };
        let table = [
            ("//old $B", 1, comment("//")),
            ("$A\n;old $B", 2, comment(";")),
            ("$A\r--$B", 2, comment("--")),
            ("old #$B", 1, comment("#")),
            ("; the old one was $B", 1, comment(";")),
            ("// $A", 1, comment("//")),
            ("$A # new", 1, Misplaced::Words),
            ("new $A $B", 1, Misplaced::Words),
            ("$A $B", 1, Misplaced::Label { length: A.len() }),
            ("$A\t$B", 1, Misplaced::Label { length: A.len() }),
            ("1234567890123456 $A", 1, Misplaced::Label { length: 16 }),
            ("n\u{9b}w $A", 1, Misplaced::Label { length: 3 }),
            ("$A,$B", 1, Misplaced::Comma),
            ("$A, $B", 1, Misplaced::Label { length: A.len() + 1 }),
        ];
        for (template, line, expected) in table {
            let text = text(template);
            let found: Result<Vec<_>, _> = lines(&text).collect();
            assert_eq!(found, Err((At::Line(line), expected)), "{template:?}");
        }
    }

    #[test]
    fn a_variable_has_secrets_without_labels_however_they_are_divided() {
        for template in ["$A $B", "$A,$B", "$A, $B", "$A\n$B\n", "$A\r$B", " $A\t,\r\n, $B ,"] {
            let text = text(template);
            let found: Result<Vec<_>, _> = words(&text).collect();
            let expected = [A, B].into_iter().zip(1..);
            let expected = expected.map(|(value, word)| Entry { at: At::Word(word), label: None, value });
            assert_eq!(found, Ok(expected.collect()), "{template:?}");
        }
        for (template, mark) in [("$A #$B", "#"), ("$A\n//$B", "//"), ("$A;$B ;$B", ";"), ("$A --$B", "--")] {
            let text = text(template);
            let found: Result<Vec<_>, _> = words(&text).collect();
            assert_eq!(found, Err((At::Word(2), Misplaced::Comment { mark })), "{template:?}");
        }
        assert_eq!(words(" ,\n").count(), 0);
    }
}
