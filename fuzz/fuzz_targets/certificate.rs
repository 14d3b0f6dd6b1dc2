//! What is shown of a certificate that is not trusted: little, and nothing that a terminal would act on.

#![no_main]

use aquarium_egress::fuzzing::certificate_summary;
use libfuzzer_sys::fuzz_target;

/// Two names of 120 characters and an ellipsis, of four bytes each at the most, two times, and what stands between them.
const LONGEST: usize = 1_100;

fuzz_target!(|der: &[u8]| {
    if let Some(summary) = certificate_summary(der) {
        assert!(summary.len() <= LONGEST, "{} bytes", summary.len());
        assert!(!summary.chars().any(char::is_control));
    }
});
