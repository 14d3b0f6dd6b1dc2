//! The check of an event that an app posts: what it lets through is JSON, and means what it says.

#![no_main]

use aquarium_event::{Types, check};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

/// The longest message of a refusal in bytes: it quotes what was posted.
const MOST_OF_A_REFUSAL: usize = 4 * 1024;

fuzz_target!(|body: &[u8]| {
    let types = Types::default();
    let envelope = match check(body, &types) {
        Ok(envelope) => envelope,
        Err(refusal) => {
            assert!(refusal.to_string().len() <= MOST_OF_A_REFUSAL);
            return;
        }
    };
    assert!(serde_json::from_slice::<IgnoredAny>(body).is_ok(), "what is accepted is JSON");
    // JSON has numbers that no float holds, and halves of surrogate pairs: those are for the receivers to make sense of.
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    assert_eq!(value["project"], *envelope.project);
    assert!(value["event"].is_string());
    if let Some(entity) = &envelope.entity {
        let raw: Value = serde_json::from_str(entity.raw).expect("an entity is JSON");
        assert_eq!(value[entity.key.as_str()], raw);
        let ids = entity.ids();
        assert!(entity.id().is_none_or(|id| raw.is_object() && ids.contains(&id)));
    }
});
