//! `traceparent`: what is read is written and stored as it is.

#![no_main]

use aquarium_delivery::TraceContext;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(context) = TraceContext::from_bytes(data) {
        assert_eq!(context.to_bytes(), data);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(context) = text.parse::<TraceContext>() else { return };
    let written = context.to_string();
    assert_eq!(written.len(), 55);
    assert_eq!(written[2..53], text[2..53], "the ids are passed on");
    assert_eq!(written.parse::<TraceContext>().ok(), Some(context));
    assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
});
