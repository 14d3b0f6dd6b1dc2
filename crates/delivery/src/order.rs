//! In which order deliveries go out, and what makes two of them belong together.

use std::fmt;

/// The order in which the deliveries of one webhook go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Order {
    /// As they come, side by side: one that fails is overtaken by others.
    #[default]
    None,
    /// One at a time, in the order in which they were accepted. One that fails holds all others.
    Fifo,
    /// Deliveries about the same entity go one at a time, in the order in which they were accepted; others side by side.
    Entity,
}

impl Order {
    /// How it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Order::None => "none",
            Order::Fifo => "fifo",
            Order::Entity => "entity",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What deliveries of one webhook have to be about to stay in order: 64 bits that stand for it.
///
/// The bits are stored: the same entity has the same ones in every version. Two entities that have the same bits by
/// chance stay in order with each other, which does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(u64);

impl Subject {
    /// What every delivery of a webhook is about: the webhook itself.
    pub const WEBHOOK: Subject = Subject(0);

    /// An entity, by its kind (such as `issue`) and its id.
    ///
    /// ```
    /// use aquarium_delivery::Subject;
    ///
    /// assert_eq!(Subject::of("issue", "iss_7"), Subject::of("issue", "iss_7"));
    /// assert_ne!(Subject::of("issue", "7"), Subject::of("dataset", "7"));
    /// ```
    pub fn of(kind: &str, id: &str) -> Self {
        // FNV-1a with 64 bits, over the kind, a byte that is in no text, and the id; then the finalizer of MurmurHash3,
        // without which similar ids have similar bits.
        let bytes = kind.bytes().chain([0xff]).chain(id.bytes());
        let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
            hash = (hash ^ hash >> 33).wrapping_mul(factor);
        }
        Self((hash ^ hash >> 33).max(1))
    }

    /// From the bits that [`Subject::to_bits`] gave.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits that stand for it, as they are stored.
    pub const fn to_bits(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_bits_of_an_entity_are_frozen() {
        for (kind, id, bits) in [
            ("issue", "iss_7", 0x4b7a_c592_12bb_34a0),
            ("dataset", "ds_1", 0x880c_9ee7_6230_e673),
            ("inference_set", "", 0x2ba3_de66_762e_1160),
            ("issue", "ä/1", 0x6076_1f0a_ca37_29d9),
        ] {
            assert_eq!(Subject::of(kind, id).to_bits(), bits, "{kind} {id}");
        }
    }

    #[test]
    fn similar_entities_are_told_apart() {
        let ids = (0..50_000).map(|number| number.to_string());
        let subjects = ids.flat_map(|id| [Subject::of("issue", &id), Subject::of("dataset", &id)]);
        assert_eq!(subjects.collect::<HashSet<_>>().len(), 100_000);
    }
}
