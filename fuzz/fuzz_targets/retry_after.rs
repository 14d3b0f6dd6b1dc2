//! `Retry-After`: whatever it says, the wait is from now on and a day at the most.

#![no_main]

use aquarium_delivery::{RetryAfter, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    let Some(hint) = RetryAfter::parse(value) else { return };
    for now in [0, 784_111_777_000, 1_800_000_000_000, u64::MAX - 1, u64::MAX] {
        let now = Timestamp::from_millis(now);
        let at = hint.at(now);
        assert!(at >= now && at.since(now) <= RetryAfter::LONGEST);
    }
});
