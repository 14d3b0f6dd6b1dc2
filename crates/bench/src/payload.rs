//! The events that are sent: all alike, but for the project and a number that each has to itself.
//!
//! Both are digits at fixed places, so that an event is made by writing over a few bytes of the one before, and checked
//! on arrival by comparing all the others.

/// Digits of a project's number.
const PROJECT: usize = 5;
/// Digits of an event's number.
const SEQUENCE: usize = 16;
/// What fills an entity, as often as there is room.
const ELEMENT: &str = r#"{"id":"el_4711","type":"BBOX_2D","frame":12480,"box":[816.3,491.5,1266.4,1312.75],"label":"car","confidence":0.875,"attributes":{"occluded":false,"note":null}}"#;

/// What every event of a run looks like.
#[derive(Debug)]
pub(crate) struct Payload {
    kind: &'static str,
    bytes: Vec<u8>,
    project_at: usize,
    sequence_at: usize,
}

/// What tells one event from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The number of its project.
    pub(crate) project: u32,
    /// Its own number.
    pub(crate) sequence: u64,
}

impl Payload {
    /// Events `dataset-complete` of this many bytes, at least 160.
    pub(crate) fn dataset(length: usize) -> Payload {
        Payload::new("dataset-complete", "dataset", length)
    }

    /// Events `issue-exported` of this many bytes, at least 160.
    pub(crate) fn issue(length: usize) -> Payload {
        Payload::new("issue-exported", "issue", length)
    }

    fn new(kind: &'static str, entity: &str, length: usize) -> Payload {
        let mut text = format!(r#"{{"event":"{kind}","project":"p"#);
        let project_at = text.len();
        text += &"0".repeat(PROJECT);
        text += &format!(r#"","{entity}":{{"id":""#);
        let sequence_at = text.len();
        text += &"0".repeat(SEQUENCE);
        text += r#"","elements":["#;
        let (closing, end) = (r#"],"notes":""#, r#""}}"#);
        let room = |text: &str| length.saturating_sub(text.len() + closing.len() + end.len());
        let mut separator = "";
        while room(&text) > ELEMENT.len() {
            text += separator;
            text += ELEMENT;
            separator = ",";
        }
        text += closing;
        text += &"n".repeat(length.saturating_sub(text.len() + end.len()));
        text += end;
        Payload { kind, bytes: text.into_bytes(), project_at, sequence_at }
    }

    /// The type of the event.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// The event, for `write` to write over.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Makes the event that starts at `body` the one with this mark.
    pub(crate) fn write(&self, body: &mut [u8], mark: Mark) {
        write_digits(&mut body[self.project_at..][..PROJECT], mark.project.into());
        write_digits(&mut body[self.sequence_at..][..SEQUENCE], mark.sequence);
    }

    /// The mark of an event that came as it was sent, every byte of it; none for anything else.
    pub(crate) fn read(&self, body: &[u8]) -> Option<Mark> {
        let rest = [
            (0, self.project_at),
            (self.project_at + PROJECT, self.sequence_at),
            (self.sequence_at + SEQUENCE, self.bytes.len()),
        ];
        let intact = body.len() == self.bytes.len()
            && rest.into_iter().all(|(from, to)| body[from..to] == self.bytes[from..to]);
        if !intact {
            return None;
        }
        let project = read_digits(&body[self.project_at..][..PROJECT])?;
        let sequence = read_digits(&body[self.sequence_at..][..SEQUENCE])?;
        Some(Mark { project: u32::try_from(project).ok()?, sequence })
    }
}

/// Writes a number over all of `place`, with leading zeros.
pub(crate) fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

/// The number that is written here, if it is one.
pub(crate) fn read_digits(place: &[u8]) -> Option<u64> {
    place.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_json_of_its_length_and_carries_its_mark() {
        for length in [160, 256, 1_024, 1_000_000] {
            let payload = Payload::issue(length);
            let mut body = payload.bytes().to_vec();
            payload.write(&mut body, Mark { project: 123, sequence: 9_876_543_210 });
            assert_eq!(body.len(), length);
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(value["event"], "issue-exported");
            assert_eq!(value["project"], "p00123");
            assert_eq!(value["issue"]["id"], "0000009876543210");
            assert_eq!(payload.read(&body), Some(Mark { project: 123, sequence: 9_876_543_210 }));
        }
    }

    #[test]
    fn a_payload_that_lost_or_changed_a_byte_is_not_taken_for_itself() {
        let payload = Payload::dataset(1_024);
        let body = payload.bytes().to_vec();
        for at in 0..body.len() {
            let mut changed = body.clone();
            changed[at] ^= 0x80;
            assert_eq!(payload.read(&changed), None, "byte {at}");
        }
        assert_eq!(payload.read(&body[..1_023]), None);
    }
}
