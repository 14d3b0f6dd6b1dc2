//! Words in messages: what was probably meant, and how much of what was sent is repeated.

use std::fmt;

/// The most characters of what somebody sent that a message repeats.
pub(crate) const MAX_ECHO: usize = 60;

/// The candidate that `name` was probably meant to be: at most a third of its letters differ.
///
/// A name of more than 128 bytes is like none: the comparison takes time in proportion to its length.
///
/// ```
/// assert_eq!(aquarium_event::nearest("isseu", ["dataset", "issue"]), Some("issue"));
/// ```
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const MAX: usize = 128;
    if name.len() > MAX {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, candidate)| *distance * 3 <= candidate.len().max(3))
        .map(|(_, candidate)| candidate)
}

/// Whether a terminal, a log or a page shows the character, and does nothing else: it is no control character (C0, DEL and
/// C1 of ECMA-48), and none that hides others or changes the direction in which they are shown (Unicode, UAX #9).
///
/// ```
/// assert!("naïve 日本".chars().all(aquarium_event::is_visible));
/// assert!(!"\u{1b}\u{9b}\u{202e}\n".chars().any(aquarium_event::is_visible));
/// ```
pub fn is_visible(c: char) -> bool {
    let hides = matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    );
    !c.is_control() && !hides
}

/// The first [`MAX_ECHO`] characters of `text`, with an ellipsis when there are more.
pub(crate) fn clip(text: &str) -> String {
    match text.char_indices().nth(MAX_ECHO) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Prints `a, b, c`.
pub(crate) fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    words: impl IntoIterator<Item = T>,
) -> fmt::Result {
    for (index, word) in words.into_iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{word}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(clip("kurz"), "kurz");
        assert_eq!(clip(&"é".repeat(60)), "é".repeat(60));
        assert_eq!(clip(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }

    #[test]
    fn only_a_word_that_is_close_is_suggested() {
        let known = ["dataset", "issue", "issues"];
        assert_eq!(nearest("datset", known), Some("dataset"));
        assert_eq!(nearest("isseu", known), Some("issue"));
        assert_eq!(nearest("payload", known), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
