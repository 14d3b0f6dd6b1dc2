//! A strict JSON scanner (RFC 8259) over borrowed text: it validates and skips, and builds nothing.
//!
//! One pass, no recursion, no allocation: the containers that are open are bits of one `u128`, so that no input can
//! exhaust the stack. The caller pulls the members of the outermost object ([`Scanner::open`], [`Scanner::key`]) and
//! skips their values ([`Scanner::value`]).
//!
//! What RFC 8259 leaves open is accepted: numbers that no machine can hold (`1e999`), duplicate keys, and escapes that
//! are half of a surrogate pair. Only [`Text::decode`] refuses the last.

use std::borrow::Cow;

use crate::refusal::{JsonType, Reason};

/// The most arrays and objects that may be open at once, the document's own object included.
///
/// It is what serde_json reads by default (its limit of 128 is exclusive), as do most receivers: what they could not
/// read is better refused before it is accepted for delivery.
pub const MAX_DEPTH: u32 = 127;

/// What is wrong with the text, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    /// In bytes, from 0.
    pub(crate) offset: usize,
    pub(crate) reason: Reason,
}

/// A string as it stands in the text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    /// What is between the quotes.
    raw: &'a str,
    escaped: bool,
    /// Where its opening quote is.
    pub(crate) offset: usize,
}

/// A value that was validated and skipped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Skipped<'a> {
    pub(crate) raw: &'a str,
    pub(crate) offset: usize,
    pub(crate) kind: JsonType,
    /// Of an array: its first item that is not an object.
    pub(crate) odd: Option<Odd>,
}

/// An item of an array that is not an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Odd {
    pub(crate) index: usize,
    pub(crate) offset: usize,
    pub(crate) kind: JsonType,
}

/// Where we are in the text.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    /// One bit per open container, the innermost lowest: set for an object.
    open: u128,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Scanner { text, at: 0, depth: 0, open: 0 }
    }

    /// Enters the outermost object, and returns where it starts.
    pub(crate) fn open(&mut self) -> Result<usize, Fault> {
        self.white();
        let start = self.at;
        match self.peek() {
            None => Err(self.fault(Reason::Empty)),
            Some(b'{') => self.push(true).map(|()| start),
            Some(byte) => match JsonType::starting_with(byte) {
                Some(found) => Err(self.fault(Reason::WrongType { found, accepted: "an object" })),
                None => Err(self.unexpected("an object, which starts with '{'", "")),
            },
        }
    }

    /// The next key of the innermost object, up to its value; `None` when the object is closed instead.
    pub(crate) fn key(&mut self, first: bool) -> Result<Option<Text<'a>>, Fault> {
        self.white();
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                self.pop();
                return Ok(None);
            }
            Some(b',') if !first => {
                self.at += 1;
                self.white();
            }
            _ if !first => return Err(self.unexpected("',' or '}'", "an object")),
            _ => {}
        }
        if self.peek() != Some(b'"') {
            let expected = if first { "a key in double quotes, or '}'" } else { "a key in double quotes" };
            return Err(self.unexpected(expected, "an object"));
        }
        let key = self.string()?;
        self.white();
        if self.peek() != Some(b':') {
            return Err(self.unexpected("':'", "an object"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Enters the outermost array.
    pub(crate) fn open_array(&mut self) -> Result<(), Fault> {
        self.white();
        if self.peek() != Some(b'[') {
            return Err(self.unexpected("an array", ""));
        }
        self.push(false)
    }

    /// Goes to the next item of the innermost array; `false` when the array is closed instead.
    pub(crate) fn item(&mut self, first: bool) -> Result<bool, Fault> {
        self.white();
        match self.peek() {
            Some(b']') => {
                self.at += 1;
                self.pop();
                return Ok(false);
            }
            Some(b',') if !first => self.at += 1,
            _ if !first => return Err(self.unexpected("',' or ']'", "an array")),
            _ => {}
        }
        Ok(true)
    }

    /// Validates the value that comes next, with all that is in it, and steps over it.
    pub(crate) fn value(&mut self) -> Result<Skipped<'a>, Fault> {
        self.white();
        let (base, offset) = (self.depth, self.at);
        let kind = self.peek().and_then(JsonType::starting_with);
        let (mut items, mut odd) = (0, None);
        loop {
            let mut first = self.start()?;
            loop {
                if self.depth == base {
                    let kind = kind.unwrap_or(JsonType::Null); // `start` has accepted it
                    return Ok(Skipped { raw: &self.text[offset..self.at], offset, kind, odd });
                }
                let object = self.open & 1 == 1;
                let more = if object { self.key(first)?.is_some() } else { self.item(first)? };
                if !more {
                    first = false;
                    continue;
                }
                self.white();
                if !object && self.depth == base + 1 {
                    odd = odd.or_else(|| self.odd(items));
                    items += 1;
                }
                break;
            }
        }
    }

    /// Only white space may be left.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        self.white();
        match self.found() {
            None => Ok(()),
            Some(found) => Err(self.fault(Reason::Trailing { found })),
        }
    }

    /// Steps over a scalar (`false`), or into a container (`true`).
    fn start(&mut self) -> Result<bool, Fault> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| false),
            Some(b'{') => self.push(true).map(|()| true),
            Some(b'[') => self.push(false).map(|()| true),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| false),
            Some(b't') => self.literal("true").map(|()| false),
            Some(b'f') => self.literal("false").map(|()| false),
            Some(b'n') => self.literal("null").map(|()| false),
            Some(b'N' | b'I') => Err(self.unexpected("a value (JSON has no NaN and no Infinity)", "")),
            Some(b'\'') => Err(self.unexpected("a value (JSON has strings in double quotes only)", "")),
            Some(_) => Err(self.unexpected("a value", "")),
            None => {
                Err(self.unexpected("a value", if self.open & 1 == 1 { "an object" } else { "an array" }))
            }
        }
    }

    fn odd(&self, index: usize) -> Option<Odd> {
        let kind = self.peek().and_then(JsonType::starting_with)?;
        (kind != JsonType::Object).then_some(Odd { index, offset: self.at, kind })
    }

    fn push(&mut self, object: bool) -> Result<(), Fault> {
        if self.depth == MAX_DEPTH {
            return Err(self.fault(Reason::TooDeep { limit: MAX_DEPTH }));
        }
        self.at += 1;
        self.depth += 1;
        self.open = self.open << 1 | u128::from(object);
        Ok(())
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.open >>= 1;
    }

    /// Steps over a string; its opening quote is known to be next.
    fn string(&mut self) -> Result<Text<'a>, Fault> {
        let offset = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at += plain(&self.text.as_bytes()[self.at..]);
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(control) => return Err(self.fault(Reason::Control { found: char::from(control) })),
                None => return Err(self.fault(Reason::CutOff { inside: "a string" })),
            }
        }
        self.at += 1;
        Ok(Text { raw: &self.text[offset + 1..self.at - 1], escaped, offset })
    }

    /// Steps over an escape in a string; its backslash is known to be next.
    fn escape(&mut self) -> Result<(), Fault> {
        self.at += 1;
        match self.found() {
            Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => self.at += 1,
            Some('u') => {
                for _ in 0..4 {
                    self.at += 1;
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.unexpected("four hexadecimal digits after \\u", "a string"));
                    }
                }
                self.at += 1;
            }
            Some(found) => return Err(self.fault(Reason::Escape { found })),
            None => return Err(self.fault(Reason::CutOff { inside: "a string" })),
        }
        Ok(())
    }

    /// Steps over a number; its first byte is known to be one of a number's (RFC 8259, section 6).
    fn number(&mut self) -> Result<(), Fault> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return Err(self.unexpected("no digit after a leading zero", ""));
            }
        } else {
            self.digits("a digit (JSON has no NaN and no Infinity)")?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits("a digit after the decimal point")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("a digit of the exponent")?;
        }
        Ok(())
    }

    /// Steps over one digit or more.
    fn digits(&mut self, expected: &'static str) -> Result<(), Fault> {
        let count = self.text.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(self.unexpected(expected, "a number")) } else { Ok(()) }
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Fault> {
        for byte in word.bytes() {
            if self.peek() != Some(byte) {
                return Err(self.unexpected(word, word));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn white(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The character here, for a message.
    fn found(&self) -> Option<char> {
        self.text.get(self.at..)?.chars().next()
    }

    fn fault(&self, reason: Reason) -> Fault {
        Fault { offset: self.at, reason }
    }

    /// What is here is not what was `expected`; or nothing is, in the middle of what we are `inside`.
    #[cold]
    fn unexpected(&self, expected: &'static str, inside: &'static str) -> Fault {
        self.fault(match self.found() {
            Some(found) => Reason::Syntax { expected, found },
            None => Reason::CutOff { inside },
        })
    }
}

impl<'a> Text<'a> {
    /// What the string says.
    ///
    /// # Errors
    /// An escape that is half of a surrogate pair stands for no character; the error is where it is.
    pub(crate) fn decode(&self) -> Result<Cow<'a, str>, Fault> {
        if !self.escaped {
            return Ok(Cow::Borrowed(self.raw));
        }
        let mut decoded = String::with_capacity(self.raw.len());
        let mut rest = self.raw;
        while let Some((plain, escape)) = rest.split_once('\\') {
            decoded.push_str(plain);
            let (length, character) = unescape(escape);
            let Some(character) = character else {
                let offset = self.offset + self.raw.len() - escape.len();
                return Err(Fault { offset, reason: Reason::Surrogate });
            };
            decoded.push(character);
            rest = escape.get(length..).unwrap_or_default();
        }
        decoded.push_str(rest);
        Ok(Cow::Owned(decoded))
    }

    /// What the string says, or the text of it as it stands if it says nothing.
    pub(crate) fn decode_or_raw(&self) -> Cow<'a, str> {
        self.decode().unwrap_or(Cow::Borrowed(self.raw))
    }

    /// The string that a scanned value is, if it is one.
    pub(crate) fn of(value: &Skipped<'a>) -> Option<Text<'a>> {
        let raw = value.raw.strip_prefix('"')?.strip_suffix('"')?;
        Some(Text { raw, escaped: raw.contains('\\'), offset: value.offset })
    }
}

/// The length and the meaning of a valid escape, whose backslash was taken off.
fn unescape(escape: &str) -> (usize, Option<char>) {
    let unit = |at: usize| escape.get(at..at + 4).and_then(|hex| u16::from_str_radix(hex, 16).ok());
    let simple = match escape.as_bytes().first() {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let first = unit(1);
            let second = if escape.get(5..7) == Some("\\u") { unit(7) } else { None };
            let units = first.into_iter().chain(second);
            let character = char::decode_utf16(units).next().and_then(Result::ok);
            return (if character.is_some_and(|c| c.len_utf16() == 2) { 11 } else { 5 }, character);
        }
        Some(same) => char::from(*same),
        None => return (0, None),
    };
    (1, Some(simple))
}

/// How many bytes there are before the first that means something in a string: a quote, a backslash, or a control
/// character.
///
/// Eight bytes at a time: a byte minus its bound borrows into the top bit exactly when it is below it, and exclusive
/// or with a letter makes that letter the only byte below 1. A borrow can only mark bytes above the first true hit,
/// and only the lowest mark is read.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;

    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let special = (below(word, 0x20) | quote | backslash) & TOPS;
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    bytes[at..].iter().position(special).map_or(bytes.len(), |found| at + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_special_byte_is_found_wherever_it_stands() {
        for special in (0..0x20).chain([b'"', b'\\']) {
            for place in 0..24 {
                for filler in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                    let mut bytes = [filler; 24];
                    bytes[place] = special;
                    assert_eq!(plain(&bytes), place, "{special:#x} among {filler:#x}");
                    bytes[place] = filler;
                    assert_eq!(plain(&bytes), 24, "{filler:#x}");
                }
            }
        }
    }

    #[test]
    fn a_string_is_decoded_as_serde_json_does() {
        for json in [
            r#""""#,
            r#""plain ä""#,
            r#""\"\\\/\b\f\n\r\t""#,
            r#""a\u0041\u00e9\u20AC""#,
            r#""\ud83d\ude97!""#,
        ] {
            let decoded = Scanner::new(json).string().unwrap().decode().unwrap();
            assert_eq!(decoded, serde_json::from_str::<String>(json).unwrap());
        }
        for (json, offset) in
            [(r#""\ud83d""#, 1), (r#""ab\ude97""#, 3), (r#""\ud83dA""#, 1), (r#""\ud83d\u0041""#, 1)]
        {
            let fault = Scanner::new(json).string().unwrap().decode().unwrap_err();
            assert_eq!((fault.offset, fault.reason), (offset, Reason::Surrogate), "{json}");
        }
    }
}
