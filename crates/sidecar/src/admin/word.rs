//! Words in messages: what was probably meant, and how much of what was sent is repeated.

/// The most characters of what somebody sent that a message repeats.
const MAX_ECHO: usize = 400;

/// What is said of it: `; did you mean "…"?`, or nothing.
pub(super) fn suggestion<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    aquarium_event::nearest(name, candidates)
        .map(|meant| format!("; did you mean {meant:?}?"))
        .unwrap_or_default()
}

/// What is said of it, and then `rest`: `; did you mean "…"? rest`, or `; rest`.
pub(super) fn suggestion_and<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    rest: &str,
) -> String {
    match suggestion(name, candidates) {
        none if none.is_empty() => format!("; {rest}"),
        suggestion => format!("{suggestion} {rest}"),
    }
}

/// The start of `text`, with an ellipsis when there is more.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(MAX_ECHO) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_word_that_is_close_is_suggested() {
        let known = ["organization", "project", "until"];
        assert_eq!(suggestion("organisation", known), "; did you mean \"organization\"?");
        assert_eq!(suggestion("colour", known), "");
        assert_eq!(
            suggestion_and("untill", known, "accepted: none"),
            "; did you mean \"until\"? accepted: none"
        );
        assert_eq!(suggestion_and("colour", known, "accepted: none"), "; accepted: none");
        assert_eq!(suggestion(&"x".repeat(1 << 20), known), "");
    }
}
