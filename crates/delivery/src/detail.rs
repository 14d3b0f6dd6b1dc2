//! Words about a failure, which others can influence.

use std::fmt::{self, Display, Write};
use std::ops::Deref;

use aquarium_event::is_visible;

/// What went wrong, in words for an operator: one line of at most [`Detail::MAX`] bytes.
///
/// Much of it is what an endpoint, a name server, a proxy or a certificate says, and they may say anything: an HTTP/2 endpoint
/// can end a connection with 16 KiB of text. So this is the only form in which an attempt's failure is told, and it is cut when
/// it is made. What would not be shown, or would steer a terminal, is replaced.
///
/// ```
/// use aquarium_delivery::Detail;
///
/// assert_eq!(&*Detail::new("connection refused"), "connection refused");
/// assert_eq!(&*Detail::new("two\r\nlines"), "two\u{fffd}\u{fffd}lines");
/// assert!(Detail::new("x".repeat(100_000)).len() <= Detail::MAX);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Detail(String);

impl Detail {
    /// The most bytes that it has.
    pub const MAX: usize = 1024;

    /// What `text` prints, cut at a character with an ellipsis. No more of it is kept at any time, however much it prints.
    pub fn new(text: impl Display) -> Self {
        let mut cut = Cut { text: String::new(), full: false };
        // What fails is that it is full, and then the rest need not be printed.
        let _ = write!(cut, "{text}");
        if cut.full {
            cut.text.push(ELLIPSIS);
        }
        Self(cut.text)
    }

    /// As a string.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Deref for Detail {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

const ELLIPSIS: char = '…';

struct Cut {
    text: String,
    full: bool,
}

impl Write for Cut {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for c in part.chars() {
            let c = if is_visible(c) { c } else { char::REPLACEMENT_CHARACTER };
            if self.text.len() + c.len_utf8() + ELLIPSIS.len_utf8() > Detail::MAX {
                self.full = true;
                return Err(fmt::Error);
            }
            self.text.push(c);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_long_is_cut_at_a_character_and_what_is_not_shown_is_replaced() {
        let most = Detail::MAX - ELLIPSIS.len_utf8();
        assert_eq!(&*Detail::new("x".repeat(most)), "x".repeat(most));
        assert_eq!(&*Detail::new("x".repeat(most + 1)), format!("{}…", "x".repeat(most)));
        let wide = Detail::new("日".repeat(1_000));
        assert!(wide.ends_with("日…") && wide.len() > Detail::MAX - 4, "{}", wide.len());
        assert_eq!(&*Detail::new("\u{1b}[2Ja\u{9b}b\u{202e}c\n"), "\u{fffd}[2Ja\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(&*Detail::new(""), "");
    }

    proptest! {
        #[test]
        fn whatever_is_said_it_is_one_line_within_the_bound(parts in prop::collection::vec(any::<String>(), 0..40)) {
            let detail = Detail::new(parts.concat());
            prop_assert!(detail.len() <= Detail::MAX);
            prop_assert!(detail.chars().all(is_visible));
            prop_assert_eq!(&Detail::new(&detail), &detail);
        }
    }
}
