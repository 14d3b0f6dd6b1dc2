//! What a certificate says about itself, for a message.
//!
//! It reads as much of DER (X.690) as that takes. What it reads comes from somebody who is not trusted yet: it decides
//! nothing, and what is not as it should be is left out.

use std::fmt;

use aquarium_event::is_visible;

/// The longest text that is shown of a name, in characters.
const LONGEST: usize = 120;

/// Who a certificate is for, who says so, and when it holds (RFC 5280, section 4.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    subject: String,
    issuer: String,
    not_before: String,
    not_after: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, issuer, not_before, not_after } = self;
        write!(f, "subject {subject}, issued by {issuer}, valid from {not_before} until {not_after}")
    }
}

/// The summary of a certificate; none, if it cannot be read.
pub(crate) fn summary(der: &[u8]) -> Option<Summary> {
    let mut certificate = Reader(Reader(der).expect(SEQUENCE)?);
    let mut body = Reader(certificate.expect(SEQUENCE)?);
    // The version is left out of those of version 1.
    let (tag, _) = body.next()?;
    if tag == VERSION {
        body.expect(INTEGER)?;
    }
    body.expect(SEQUENCE)?; // the algorithm
    let issuer = name(body.expect(SEQUENCE)?);
    let mut validity = Reader(body.expect(SEQUENCE)?);
    let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
    let subject = name(body.expect(SEQUENCE)?);
    Some(Summary { subject, issuer, not_before, not_after })
}

/// A text of somebody who is not trusted, fit for a log: short, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let plain = |c: char| if is_visible(c) { c } else { char::REPLACEMENT_CHARACTER };
    let mut shown: String = text.chars().take(LONGEST).map(plain).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const TELETEX_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;

/// The parts of a name that are shown, by the last number of 2.5.4.n (X.520).
const ATTRIBUTES: [(u8, &str); 4] = [(3, "CN"), (11, "OU"), (10, "O"), (6, "C")];

/// Elements, one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The tag and the content of the next one.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            if digits.is_empty() || digits.len() > 4 {
                return None;
            }
            length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
            rest = after;
        }
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next one, if it has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

/// `CN=ops.example.com, O=Example`
fn name(content: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut sets = Reader(content);
    while let Some(set) = sets.expect(SET) {
        let mut attributes = Reader(set);
        while let Some(attribute) = attributes.expect(SEQUENCE) {
            parts.extend(self::attribute(attribute));
        }
    }
    // The name itself comes last there, and matters most.
    parts.sort_by_key(|(place, _)| *place);
    match parts.is_empty() {
        true => "(no name)".to_owned(),
        false => shown(&parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(", ")),
    }
}

fn attribute(content: &[u8]) -> Option<(usize, String)> {
    let mut reader = Reader(content);
    let [0x55, 0x04, kind] = reader.expect(OBJECT_IDENTIFIER)? else { return None };
    let place = ATTRIBUTES.iter().position(|(number, _)| number == kind)?;
    let (tag, value) = reader.next()?;
    let known = matches!(tag, UTF8_STRING | PRINTABLE_STRING | TELETEX_STRING | IA5_STRING);
    known.then(|| (place, format!("{}={}", ATTRIBUTES[place].1, String::from_utf8_lossy(value))))
}

/// `2027-01-31T12:00:00Z`
fn time((tag, content): (u8, &[u8])) -> Option<String> {
    let text = str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let (century, rest) = match tag {
        // RFC 5280, section 4.1.2.5.1
        UTC_TIME if text.len() == 12 => (if *content.first()? >= b'5' { "19" } else { "20" }, text),
        GENERALIZED_TIME if text.len() == 14 && text.is_ascii() => text.split_at(2),
        _ => return None,
    };
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |at: usize| &rest[at..at + 2];
    Some(format!("{century}{}-{}-{}T{}:{}:{}Z", part(0), part(2), part(4), part(6), part(8), part(10)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_out() {
        for (tag, text, shown) in [
            (UTC_TIME, "010203040506Z", Some("2001-02-03T04:05:06Z")),
            (UTC_TIME, "500101000000Z", Some("1950-01-01T00:00:00Z")),
            (GENERALIZED_TIME, "20500102030405Z", Some("2050-01-02T03:04:05Z")),
            (UTC_TIME, "0102030405Z", None),
            (UTC_TIME, "01020304050éZ", None),
            (GENERALIZED_TIME, "2050010203040xZ", None),
            (GENERALIZED_TIME, "20500102030405+0100", None),
            (SEQUENCE, "20500102030405Z", None),
        ] {
            assert_eq!(time((tag, text.as_bytes())).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn what_a_stranger_says_is_made_fit_for_a_log() {
        assert_eq!(shown("a\nb\u{1b}[31m\u{202e}c"), "a\u{fffd}b\u{fffd}[31m\u{fffd}c");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn no_damage_makes_it_stumble() {
        let authority = aquarium_testkit::certificates::Authority::new();
        let der = authority.certificate();
        let whole = summary(der).unwrap().to_string();
        assert!(
            whole.starts_with("subject CN=testkit ") && whole.contains(", valid from 1975-01-01T00:00:00Z")
        );
        for end in 0..der.len() {
            summary(&der[..end]);
        }
        for at in 0..der.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut damaged = der.to_vec();
                damaged[at] = value;
                summary(&damaged);
            }
        }
    }
}
