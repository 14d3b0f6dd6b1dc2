//! Checksums of stored rows, so that a damaged one is never sent.
//!
//! SQLite notices damage to the structure of its file, not to the values in it. So each event and each delivery bears a
//! checksum of what makes up a request, and it is compared whenever they are read to be sent or shown:
//!
//! * **Event**: key, identifier, organization, project, type, time, trace, hops and payload. The names of organization and project
//!   count, not the number of their row: a damaged row of `projects` damages what refers to it.
//! * **Delivery**: key, identifier and the webhook's name. So a damaged reference, or a damaged row of `webhooks`, does not
//!   lead an event to another organization's endpoint.
//!
//! What a settlement changes (state, attempts, due times) is not covered: it would have to be read before each settlement.
//! Such damage can repeat a delivery or end it early, but sends nothing wrong.
//!
//! The checksum is CRC-32 (ISO-HDLC, as in zlib): it finds every damage of up to 32 adjacent bits, and leaves any other
//! undetected once in 4 billion times. It is not meant against someone who can write to the file.
//!
//! The encoding is frozen. Each text and each blob is preceded by its length (8 bytes); all numbers are little-endian. A row
//! without a checksum (NULL) was stored before there were checksums, and is not checked.

use crc32fast::Hasher;

/// What is checked of an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventRow<'a> {
    pub(super) key: i64,
    pub(super) id: &'a [u8],
    pub(super) organization: &'a str,
    pub(super) project: &'a str,
    pub(super) kind: &'a str,
    pub(super) accepted_at: i64,
    pub(super) trace: Option<&'a [u8]>,
    pub(super) hops: i64,
    pub(super) body: &'a [u8],
}

/// The checksum of an event, as it is stored.
pub(super) fn of_event(row: EventRow<'_>) -> i64 {
    let EventRow { key, id, organization, project, kind, accepted_at, trace, hops, body } = row;
    let mut sum = Sum::default();
    sum.number(key);
    sum.bytes(id);
    sum.bytes(organization.as_bytes());
    sum.bytes(project.as_bytes());
    sum.bytes(kind.as_bytes());
    sum.number(accepted_at);
    sum.bytes(trace.unwrap_or_default());
    sum.number(hops);
    sum.bytes(body);
    sum.stored()
}

/// The checksum of a delivery, as it is stored.
pub(super) fn of_delivery(key: i64, id: &[u8], webhook: &str) -> i64 {
    let mut sum = Sum::default();
    sum.number(key);
    sum.bytes(id);
    sum.bytes(webhook.as_bytes());
    sum.stored()
}

/// Whether a row has the checksum that was stored with it.
pub(super) fn matches(stored: Option<i64>, computed: impl FnOnce() -> i64) -> bool {
    stored.is_none_or(|stored| stored == computed())
}

#[derive(Default)]
struct Sum(Hasher);

impl Sum {
    fn number(&mut self, number: i64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// As a signed number it takes four bytes in the file at the most.
    fn stored(self) -> i64 {
        self.0.finalize().cast_signed().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: EventRow<'static> = EventRow {
        key: 7,
        id: &[1; 16],
        organization: "acme",
        project: "urban",
        kind: "test",
        accepted_at: 1_800_000_000_000,
        trace: Some(&[3; 25]),
        hops: 1,
        body: b"{\"event\":\"test\"}",
    };

    #[test]
    fn the_encoding_is_frozen() {
        // Computed with zlib's crc32: what is in files already must be read by every later version.
        assert_eq!(of_event(EVENT), 1_462_306_934);
        assert_eq!(of_event(EventRow { trace: None, body: b"", ..EVENT }), 1_657_898_862);
        assert_eq!(of_delivery(7 << 20, &[2; 16], "acme/urban/ops"), -1_136_948_088);
    }

    #[test]
    fn every_flipped_bit_and_every_moved_border_is_found() {
        let whole = of_event(EVENT);
        let mut found = vec![
            of_event(EventRow { key: 8, ..EVENT }),
            of_event(EventRow { accepted_at: 0, ..EVENT }),
            of_event(EventRow { organization: "acmeu", project: "rban", ..EVENT }),
            of_event(EventRow { organization: "bcme", ..EVENT }),
            of_event(EventRow { project: "", kind: "urbantest", ..EVENT }),
            of_event(EventRow { trace: None, ..EVENT }),
            of_event(EventRow { hops: 2, ..EVENT }),
        ];
        let flipped = |bytes: &[u8]| -> Vec<Vec<u8>> {
            let bits = 0..bytes.len() * 8;
            let flip = |bit: usize| {
                let mut bytes = bytes.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            };
            bits.map(flip).collect()
        };
        found.extend(flipped(EVENT.body).iter().map(|body| of_event(EventRow { body, ..EVENT })));
        found.extend(flipped(EVENT.id).iter().map(|id| of_event(EventRow { id, ..EVENT })));
        let trace = flipped(EVENT.trace.unwrap());
        found.extend(trace.iter().map(|trace| of_event(EventRow { trace: Some(trace), ..EVENT })));
        assert_eq!(found.iter().position(|sum| *sum == whole), None);

        let whole = of_delivery(9, &[2; 16], "acme/urban/ops");
        for (key, id, name) in
            [(8, [2; 16], "acme/urban/ops"), (9, [3; 16], "acme/urban/ops"), (9, [2; 16], "acme/urban/opr")]
        {
            assert_ne!(of_delivery(key, &id, name), whole);
        }
    }

    #[test]
    fn a_row_without_a_checksum_is_not_checked() {
        assert!(matches(None, || 1));
        assert!(matches(Some(1), || 1));
        assert!(!matches(Some(2), || 1));
    }
}
