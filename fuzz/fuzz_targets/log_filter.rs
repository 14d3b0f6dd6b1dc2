//! A log filter, as an operator writes it: it is read, or refused.

#![no_main]

#[path = "../../crates/sidecar/src/log/directives.rs"]
#[allow(dead_code, unreachable_pub)]
mod directives;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match directives::Directives::or_default(text) {
        Ok(directives) => {
            let filter = directives.filter().expect("what was checked is taken");
            assert!(filter.max_level_hint().is_some());
            let _ = filter.to_string();
        }
        Err(refused) => assert!(!refused.to_string().contains(char::is_control)),
    }
});
