//! Identifiers: UUIDv7 (RFC 9562, section 5.7) behind a prefix that tells what they name.

use std::fmt;
use std::str::FromStr;

use uuid::{Builder, Uuid};

use crate::Timestamp;

/// The length of a printed identifier, in bytes: a prefix of four characters, and a hyphenated UUID.
pub const ENCODED_LENGTH: usize = 4 + 36;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// An identifier made at `now` from `random` bits; those made later sort after those made earlier.
            pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
                Self(Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid())
            }

            /// When it was made, by the clock of who made it.
            pub fn made_at(&self) -> Timestamp {
                let bytes = self.0.as_bytes();
                let [a, b, c, d, e, f] = [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]];
                Timestamp::from_millis(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
            }

            /// The sixteen bytes that a queue stores.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The identifier that [`Self::as_bytes`] was taken from.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl $name {
            /// Prints the identifier into `buffer`: what its `Display` prints, without the detour.
            pub fn encode<'b>(&self, buffer: &'b mut [u8; ENCODED_LENGTH]) -> &'b str {
                let (prefix, uuid) = buffer.split_at_mut($prefix.len());
                prefix.copy_from_slice($prefix.as_bytes());
                self.0.as_hyphenated().encode_lower(uuid);
                // Both parts are ASCII.
                std::str::from_utf8(buffer).unwrap_or($prefix)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.encode(&mut [0; ENCODED_LENGTH]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix($prefix)
                    .and_then(|uuid| Uuid::try_parse(uuid).ok())
                    .map(Self)
                    .ok_or_else(|| InvalidId { found: text.to_owned(), prefix: $prefix })
            }
        }
    };
}

id!(
    /// Names an event: `evt_` and a UUIDv7. Receivers see it as `Webhook-Id`.
    EventId,
    "evt_"
);
id!(
    /// Names a delivery: `dlv_` and a UUIDv7. Receivers see it as `Aquarium-Delivery`.
    DeliveryId,
    "dlv_"
);
id!(
    /// Names a replay in bulk: `rpl_` and a UUIDv7.
    ReplayId,
    "rpl_"
);

/// A text that is no identifier of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not an identifier of the form {prefix}<uuid>")]
pub struct InvalidId {
    found: String,
    prefix: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_text_and_sorts_by_time() {
        let earlier = EventId::new(Timestamp::from_millis(1_000), [0xff; 10]);
        let later = EventId::new(Timestamp::from_millis(1_001), [0; 10]);
        assert!(earlier < later);
        assert_eq!(later.made_at(), Timestamp::from_millis(1_001));
        assert_eq!(earlier.to_string().parse(), Ok(earlier));
        assert!(earlier.to_string().starts_with("evt_"));
        assert!(earlier.to_string().parse::<DeliveryId>().is_err(), "the prefix is part of the identifier");
    }
}
