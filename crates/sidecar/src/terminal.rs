//! What others wrote, on a terminal: it must not steer it.
//!
//! An event, an endpoint's answer and a name can hold escape sequences, which move the cursor, set the title of the window
//! or write to the clipboard (ECMA-48, C0 and C1), and characters that change the direction in which text is shown
//! (UAX #9). Texts for people never show them: [`visible`]. Data is written as it is, byte for byte, unless stdout is a
//! terminal: there, what a terminal would act on is escaped as JSON does it, which changes nothing of what the JSON says.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};

use aquarium_event::is_visible;
use serde_json::Value;

/// One line of text: what would not be shown is replaced.
pub(crate) fn visible(text: &str) -> String {
    text.chars().map(|c| if is_visible(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// The same for text of several lines.
pub(crate) fn visible_lines(text: &str) -> String {
    let shown = |c| if is_visible(c) || matches!(c, '\n' | '\t') { c } else { char::REPLACEMENT_CHARACTER };
    text.chars().map(shown).collect()
}

/// JSON as a terminal may get it.
pub(crate) fn escaped(json: &str) -> Cow<'_, str> {
    let stays = |c: char| is_visible(c) || matches!(c, '\n' | '\t');
    if json.chars().all(stays) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            c if stays(c) => escaped.push(c),
            // Between two tokens it is a space, and in a string it cannot stand.
            '\r' => escaped.push(' '),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    escaped += &format!("\\u{unit:04x}");
                }
            }
        }
    }
    Cow::Owned(escaped)
}

/// Writes data to stdout.
pub(crate) struct Data<W: Write = io::StdoutLock<'static>> {
    out: io::BufWriter<W>,
    terminal: bool,
}

impl Data {
    pub(crate) fn stdout() -> Self {
        let out = io::stdout().lock();
        let terminal = out.is_terminal();
        Self { out: io::BufWriter::new(out), terminal }
    }
}

impl<W: Write> Data<W> {
    /// Writes JSON, or lines of it. Nothing is added.
    pub(crate) fn write(&mut self, json: &[u8]) -> io::Result<()> {
        if self.terminal {
            self.out.write_all(escaped(&String::from_utf8_lossy(json)).as_bytes())
        } else {
            self.out.write_all(json)
        }
    }

    pub(crate) fn flush(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Prints JSON of several lines.
pub(crate) fn print_json(value: &Value) -> io::Result<()> {
    print_data(format!("{value:#}\n").as_bytes())
}

/// Prints data as it is.
pub(crate) fn print_data(json: &[u8]) -> io::Result<()> {
    let mut out = Data::stdout();
    out.write(json)?;
    out.flush()
}

/// Log lines go through it: it leaves out what the formatter lets pass. That escapes control characters in text, but not
/// in JSON, and knows nothing of directions. A line comes in one piece.
pub(crate) struct Log<W> {
    out: W,
    json: bool,
}

impl<W: Write> Log<W> {
    pub(crate) fn new(out: W, json: bool) -> Self {
        Self { out, json }
    }
}

impl<W: Write> Write for Log<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Escape sequences of our own, for colours, are ASCII.
        let text = String::from_utf8_lossy(line);
        let stays = |c: char| c.is_ascii() || is_visible(c);
        if text.chars().all(stays) {
            self.out.write_all(line)?;
        } else if self.json {
            self.out.write_all(escaped(&text).as_bytes())?;
        } else {
            let shown: String =
                text.chars().map(|c| if stays(c) { c } else { char::REPLACEMENT_CHARACTER }).collect();
            self.out.write_all(shown.as_bytes())?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a terminal acts on, or shows in another order, each with a name.
    const HARMFUL: [&str; 14] = [
        "\u{1b}]0;title\u{7}",
        "\u{1b}[2J",
        "\u{9b}2J",
        "\u{9d}52;c;AAAA\u{9c}",
        "\u{90}q\u{9c}",
        "\u{8}\u{8}",
        "\u{7f}",
        "\u{0}",
        "\u{202e}txt.exe",
        "\u{2066}a\u{2069}",
        "\u{200f}",
        "\u{200b}",
        "\u{2028}",
        "\u{feff}",
    ];

    fn shows(text: &str) -> bool {
        text.chars().all(|c| is_visible(c) || c == '\n')
    }

    #[test]
    fn text_for_people_cannot_steer_the_terminal() {
        for harmful in HARMFUL {
            let text = format!("before {harmful} after\rover\n");
            assert!(visible(&text).chars().all(is_visible), "{text:?}");
            let lines = visible_lines(&text);
            assert!(shows(&lines) && lines.ends_with('\n'), "{text:?}");
        }
        assert_eq!(visible("straße, 日本, 🚀"), "straße, 日本, 🚀");
    }

    #[test]
    fn json_on_a_terminal_is_escaped_and_means_the_same() {
        for harmful in HARMFUL {
            // As an app may post it: every character that JSON lets stand in a string as it is.
            let text: String = harmful.chars().filter(|c| *c >= ' ').collect();
            let json = format!("{{\"text\":\r\n\t\"{text}\"}}\n");
            let on_terminal = escaped(&json);
            assert!(
                on_terminal.chars().all(|c| is_visible(c) || matches!(c, '\n' | '\t')),
                "{on_terminal:?}"
            );
            let meant: Value = serde_json::from_str(&on_terminal).unwrap();
            assert_eq!(meant["text"], *text);
        }
        for (terminal, expected) in [(true, "\"\\u009b\\u007f\""), (false, "\"\u{9b}\u{7f}\"")] {
            let mut data = Data { out: io::BufWriter::new(Vec::new()), terminal };
            data.write("\"\u{9b}\u{7f}\"".as_bytes()).unwrap();
            assert_eq!(data.out.into_inner().unwrap(), expected.as_bytes());
        }
    }

    #[test]
    fn a_log_line_keeps_its_colours_and_nothing_else_that_steers() {
        let logged = |line: &str, json| {
            let mut log = Log::new(Vec::new(), json);
            log.write_all(line.as_bytes()).unwrap();
            String::from_utf8(log.out).unwrap()
        };
        let colours = "\u{1b}[32m INFO\u{1b}[0m ";
        assert_eq!(
            logged(&format!("{colours}é \u{202e}\u{9b}\n"), false),
            format!("{colours}é \u{fffd}\u{fffd}\n")
        );
        assert_eq!(logged("{\"a\":\"\u{9b}\u{202e}\"}\n", true), "{\"a\":\"\\u009b\\u202e\"}\n");
    }
}
