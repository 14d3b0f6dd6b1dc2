//! How many sidecars an event has come through: `Aquarium-Hops`, which ends loops.

use std::fmt;
use std::num::NonZeroU8;

/// How many sidecars an event has come through, the one that holds it included: 1 for what an app posts.
///
/// A webhook can lead, through other services, back to where its events came from. Each sidecar adds one and sends the number
/// on in `Aquarium-Hops`. So a loop ends after [`Hops::MOST`] turns instead of never, as `Max-Forwards` does it for proxies
/// (RFC 9110, section 7.6.2).
///
/// ```
/// use aquarium_delivery::{Hops, InvalidHops};
///
/// assert_eq!(Hops::FIRST.to_string(), "1");
/// assert_eq!(Hops::received(b"1").unwrap().get(), 2);
/// assert_eq!(Hops::received(b"8"), Err(InvalidHops::TooMany));
/// assert_eq!(Hops::received(b"one"), Err(InvalidHops::Malformed));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hops(NonZeroU8);

impl Hops {
    /// The hops of an event that an app posts.
    pub const FIRST: Hops = Hops(NonZeroU8::MIN);
    /// The most that an event may have; with as many it is not accepted any more.
    pub const MOST: u8 = 8;

    /// The hops of an event that was received with this value of `Aquarium-Hops`.
    ///
    /// # Errors
    /// It is no number of up to five digits, or too many.
    pub fn received(value: &[u8]) -> Result<Hops, InvalidHops> {
        if !(1..=5).contains(&value.len()) || !value.iter().all(u8::is_ascii_digit) {
            return Err(InvalidHops::Malformed);
        }
        let number = value.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
        match u8::try_from(number) {
            Ok(number) if number < Self::MOST => Ok(Self::new(number + 1)),
            _ => Err(InvalidHops::TooMany),
        }
    }

    /// As it was stored. Zero, which nothing has, is one.
    pub fn new(hops: u8) -> Hops {
        Hops(NonZeroU8::new(hops).unwrap_or(NonZeroU8::MIN))
    }

    /// The number, at least 1.
    pub fn get(self) -> u8 {
        self.0.get()
    }
}

impl Default for Hops {
    fn default() -> Hops {
        Hops::FIRST
    }
}

impl fmt::Display for Hops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why an event with this `Aquarium-Hops` is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHops {
    /// It is not a number.
    #[error("Aquarium-Hops is not a number; it is sent by sidecars, and an app leaves it out")]
    Malformed,
    /// The event goes round in a loop.
    #[error(
        "the event has come through {} sidecars: a webhook leads back, through other services, to where its events come from",
        Hops::MOST
    )]
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sidecar_adds_one_until_there_are_too_many() {
        let mut hops = Hops::FIRST;
        for expected in 2..=8 {
            hops = Hops::received(hops.to_string().as_bytes()).unwrap();
            assert_eq!(hops.get(), expected);
        }
        for (value, expected) in [
            (&b"0"[..], Ok(1)),
            (b"007", Ok(8)),
            (b"8", Err(InvalidHops::TooMany)),
            (b"255", Err(InvalidHops::TooMany)),
            (b"256", Err(InvalidHops::TooMany)),
            (b"99999", Err(InvalidHops::TooMany)),
            (b"999999", Err(InvalidHops::Malformed)),
            (b"", Err(InvalidHops::Malformed)),
            (b"-1", Err(InvalidHops::Malformed)),
            (b"+1", Err(InvalidHops::Malformed)),
            (b"1, 2", Err(InvalidHops::Malformed)),
            (b" 1", Err(InvalidHops::Malformed)),
            (b"\xd9\xa1", Err(InvalidHops::Malformed)),
        ] {
            assert_eq!(Hops::received(value).map(Hops::get), expected, "{value:?}");
        }
        assert_eq!(Hops::new(0), Hops::FIRST);
    }
}
