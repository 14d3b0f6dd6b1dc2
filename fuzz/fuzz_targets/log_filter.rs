//! A log filter, as an operator writes it: it is read, or refused.

#![no_main]

#[path = "../../crates/sidecar/src/log/filter.rs"]
mod filter;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(filter) = filter::parse(text) {
        assert!(filter.max_level_hint().is_some());
        let _ = filter.to_string();
    }
});
