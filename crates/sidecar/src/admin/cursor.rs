//! Where a list goes on, as a text that only this API can read.
//!
//! A cursor is base64url (RFC 4648, section 5) of a version, eight bytes that bind it to the question that it belongs to,
//! and the place. So a cursor of another question is refused, where it would otherwise lead to nonsense.

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};

const VERSION: u8 = 1;
const BOUND: usize = 8;
/// The most bytes that a place takes: the name of a webhook.
const MAX_PLACE: usize = 512;

/// Why a text is no cursor of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this cursor belongs to another list, or to one with other filters: give `next` as it was, and ask for the same"
)]
pub(super) struct Foreign;

/// The cursor of a place in the answers to a question.
pub(super) fn encode(question: &str, place: &[u8]) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend(bound(question, place));
    bytes.extend(place);
    BASE64URL_NOPAD.encode(&bytes)
}

/// The place that a cursor of this question stands for.
///
/// # Errors
/// It is not one.
pub(super) fn decode(question: &str, text: &str) -> Result<Vec<u8>, Foreign> {
    if text.len() > (1 + BOUND + MAX_PLACE) * 2 {
        return Err(Foreign);
    }
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| Foreign)?;
    let (&VERSION, rest) = bytes.split_first().ok_or(Foreign)? else { return Err(Foreign) };
    let (bound_to, place) = rest.split_at_checked(BOUND).ok_or(Foreign)?;
    if bound_to == bound(question, place) { Ok(place.to_owned()) } else { Err(Foreign) }
}

fn bound(question: &str, place: &[u8]) -> [u8; BOUND] {
    let mut hash = Sha256::new();
    hash.update((question.len() as u64).to_be_bytes());
    hash.update(question);
    hash.update(place);
    let hash: [u8; 32] = hash.finalize().into();
    std::array::from_fn(|index| hash[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_for_its_own_question_only() {
        let cursor = encode("deliveries state=pending", &[1, 2, 3]);
        assert_eq!(decode("deliveries state=pending", &cursor), Ok(vec![1, 2, 3]));
        assert_eq!(decode("deliveries state=skipped", &cursor), Err(Foreign));
        assert_eq!(decode("events state=pending", &cursor), Err(Foreign));
    }

    #[test]
    fn what_was_changed_is_no_cursor() {
        let cursor = encode("q", &7_u64.to_be_bytes());
        for index in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(decode("q", std::str::from_utf8(&changed).unwrap()), Err(Foreign), "{index}");
        }
        for text in ["", "A", "AQ", "not base64!", &"A".repeat(100_000)] {
            assert_eq!(decode("q", text), Err(Foreign), "{text:.20}");
        }
    }
}
