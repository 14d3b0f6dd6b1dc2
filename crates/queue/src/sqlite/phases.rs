//! The phases of an attempt, and whether the breaker was open, in one number.
//!
//! Five times twelve bits, and a flag. The number always has eight bytes as SQLite stores it, so that what stands for an
//! attempt that was not made yet is as wide as what will take its place.
//!
//! | bits | |
//! |---|---|
//! | 0 to 59 | twelve for each phase, in the order of [`Phases`]: see [`compress`] |
//! | 60 | the breaker was open |
//! | 61 | always set |

use std::time::Duration;

use aquarium_delivery::Phases;

/// Stands for no phases and a closed breaker.
pub(super) const NONE: i64 = 1 << 61;
const BREAKER_OPEN: i64 = 1 << 60;

/// The bits of one phase.
const WIDTH: u32 = 12;
/// Of these, those behind the leading one of a number of microseconds.
const MANTISSA: u32 = 6;
/// Longer ones become this long: some 35 years.
const LONGEST: u64 = 1 << 50;

/// Packs what an attempt's time was spent on. A phase is stored in microseconds, with an error of at most one in 128.
pub(super) fn pack(phases: &Phases, breaker_open: bool) -> i64 {
    let Phases { dns, connect, tls, first_byte, body } = phases;
    let flag = if breaker_open { BREAKER_OPEN } else { 0 };
    let packed = [dns, connect, tls, first_byte, body]
        .into_iter()
        .zip((0..).step_by(WIDTH as usize))
        .fold(0, |packed, (phase, shift)| packed | phase.map_or(0, compress) << shift);
    NONE | flag | packed
}

/// What was packed. Nothing is known of attempts that were stored before there was such a number.
pub(super) fn unpack(packed: Option<i64>) -> (Phases, bool) {
    let packed = packed.unwrap_or(NONE);
    let phase = |index: u32| expand(packed >> (index * WIDTH) & ((1 << WIDTH) - 1));
    let phases =
        Phases { dns: phase(0), connect: phase(1), tls: phase(2), first_byte: phase(3), body: phase(4) };
    (phases, packed & BREAKER_OPEN != 0)
}

/// A floating-point number of microseconds: six bits of exponent, six of mantissa, and one added, for zero is what did not
/// happen.
fn compress(time: Duration) -> i64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(LONGEST).min(LONGEST);
    let places = u64::BITS - micros.leading_zeros();
    // Below 128 microseconds it is exact.
    let dropped = places.saturating_sub(MANTISSA + 1);
    let rounded = (micros + ((1 << dropped) >> 1)) >> dropped;
    // Rounded up to the next power of two, it carries into the exponent, as it should.
    ((u64::from(dropped) << MANTISSA) + rounded + 1).cast_signed()
}

fn expand(code: i64) -> Option<Duration> {
    let code = code.cast_unsigned().checked_sub(1)?;
    let dropped = (code >> MANTISSA).saturating_sub(1);
    Some(Duration::from_micros((code - (dropped << MANTISSA)) << dropped))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros() -> impl Strategy<Value = Option<u64>> {
        // As many short ones as long ones.
        prop::option::of((0_u32..50, any::<u64>()).prop_map(|(places, number)| number & ((1 << places) - 1)))
    }

    proptest! {
        #[test]
        fn phases_are_read_back_within_a_hundredth_and_are_always_as_wide(
            phases in prop::array::uniform5(micros()), breaker_open: bool
        ) {
            let [dns, connect, tls, first_byte, body] = phases.map(|phase| phase.map(Duration::from_micros));
            let packed = pack(&Phases { dns, connect, tls, first_byte, body }, breaker_open);
            prop_assert!(packed >= 1 << 47, "eight bytes");
            let (read, flag) = unpack(Some(packed));
            prop_assert_eq!(flag, breaker_open);
            let read = [read.dns, read.connect, read.tls, read.first_byte, read.body];
            for (given, read) in phases.into_iter().zip(read) {
                let read = read.map(|read| u64::try_from(read.as_micros()).unwrap());
                prop_assert_eq!(given.is_some(), read.is_some());
                let (given, read) = (given.unwrap_or(0), read.unwrap_or(0));
                prop_assert!(given.abs_diff(read) <= given / 100, "{} was read as {}", given, read);
            }
        }
    }

    #[test]
    fn what_is_absent_differs_from_what_took_no_time_and_what_lasts_for_ever_has_an_end() {
        assert_eq!(unpack(None), (Phases::default(), false));
        assert_eq!(pack(&Phases::default(), false), NONE);
        for (given, read) in
            [(Duration::ZERO, Duration::ZERO), (Duration::MAX, Duration::from_micros(LONGEST))]
        {
            let phases = Phases { body: Some(given), ..Phases::default() };
            assert_eq!(unpack(Some(pack(&phases, true))), (Phases { body: Some(read), ..phases }, true));
        }
    }
}
