//! What the scanner takes for JSON is what serde_json takes for it.
//!
//! serde_json is asked to skip a value, not to build one: building refuses numbers beyond the range of `f64` and
//! escapes that are half of a surrogate pair, which are JSON (RFC 8259, sections 6 and 8.2), and an entity may hold
//! them. Only depth is compared to what it builds, since skipping has no limit there.

use aquarium_event::{MAX_DEPTH, Types, check, samples};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Whether the check takes the bytes for a JSON object, event or not.
fn is_object(body: &[u8]) -> bool {
    let types = Types::default();
    check(body, &types).map_or_else(
        |refusal| match refusal.reason.code() {
            "empty-body" | "invalid-utf8" | "byte-order-mark" | "cut-off" | "invalid-json" => false,
            "control-character" | "invalid-escape" | "too-deep" | "trailing-data" => false,
            "wrong-type" => !refusal.field.is_empty(),
            _ => true,
        },
        |_| true,
    )
}

/// Whether serde_json does.
fn is_object_to_serde(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| {
        text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{')
            && serde_json::from_str::<IgnoredAny>(text).is_ok()
    })
}

/// Pieces of JSON, and of what is nearly JSON.
const PIECES: [&str; 50] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "{",
    "}",
    ",",
    ":",
    " ",
    "\n",
    "\t",
    "\r",
    "\u{b}",
    "\u{a0}",
    "\"",
    "\"a\"",
    "\"\"",
    "\"event\":",
    "\"é🚗\"",
    "\"\\u0041\"",
    "\"\\ud800\"",
    "\"\\u12\"",
    "\"\\u123\"",
    "\"\\u12345\"",
    "\"\\x\"",
    "\"\\\\\"",
    "\"\u{1}\"",
    "\\",
    "0",
    "-0",
    "01",
    "-",
    "1",
    "12",
    "1.",
    ".5",
    "1.5",
    "1e5",
    "1E+07",
    "1e",
    "1e999",
    "+1",
    "true",
    "nul",
    "null",
    "NaN",
    "'a'",
    "\u{feff}",
];

fn pieces() -> impl Strategy<Value = String> {
    vec(select(&PIECES[..]), 0..12).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A change of some bytes: where, how many go, and what comes.
type Edit = (prop::sample::Index, usize, Vec<u8>);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let bytes = select(&b"{}[],:\"\\ \n0159.-+eEtrufalsn\x00\x1f\x7f\x80\xc3\xff"[..]);
    vec((any::<prop::sample::Index>(), 0..3usize, vec(bytes, 0..3)), 0..3)
}

fn edited(text: &str, edits: Vec<Edit>) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (place, gone, come) in edits {
        let start = place.index(bytes.len() + 1);
        let end = (start + gone).min(bytes.len());
        bytes.splice(start..end, come);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(is_object(&bytes), is_object_to_serde(&bytes));
        let inside = [b"{\"issue\":", &*bytes, b"}"].concat();
        prop_assert_eq!(is_object(&inside), is_object_to_serde(&inside));
    }

    #[test]
    fn pieces_of_json_are_accepted_as_serde_json_does(text in pieces()) {
        for body in [text.clone(), format!("{{{text}}}"), format!("{{\"a\":{text}}}"), format!("{{\"a\":[{text}]}}")] {
            prop_assert_eq!(is_object(body.as_bytes()), is_object_to_serde(body.as_bytes()), "{}", body);
        }
    }

    #[test]
    fn damaged_values_are_accepted_as_serde_json_does(value in value(), pretty: bool, edits in edits()) {
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        let body = edited(&format!("{{\"a\": {text}}}"), edits);
        prop_assert_eq!(is_object(&body), is_object_to_serde(&body), "{}", String::from_utf8_lossy(&body));
    }

    #[test]
    fn damaged_samples_are_accepted_as_serde_json_does(
        sample in select(samples().collect::<Vec<_>>()),
        edits in edits(),
    ) {
        let body = edited(sample.1, edits);
        prop_assert_eq!(is_object(&body), is_object_to_serde(&body), "{}", String::from_utf8_lossy(&body));
    }

    #[test]
    fn an_entity_is_handed_out_as_it_was_sent(value in value(), pretty: bool, id: Option<String>) {
        let mut entity = serde_json::json!({ "a": value, "b": "nor this", "z": { "id": "not this one" } });
        if let Some(id) = &id {
            entity["id"] = Value::from(id.as_str());
        }
        let text = if pretty { format!("{entity:#}") } else { entity.to_string() };
        let body = format!(r#"{{ "project":"p", "issue" : {text} ,"event":"issue-updated"}}"#);
        let types = Types::default();
        let entity = check(body.as_bytes(), &types).unwrap().entity.unwrap();
        prop_assert_eq!(entity.raw, &*text);
        let found = entity.id();
        prop_assert_eq!(found.as_deref(), id.as_deref());
    }
}

#[test]
fn nesting_ends_where_it_does_for_serde_json() {
    for depth in [1, 2, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 100_000] {
        let depth = depth as usize;
        for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
            let (open, close) = (open.repeat(depth - 1), close.repeat(depth - 1));
            let body = format!("{{\"a\":{open}1{close}}}");
            assert_eq!(
                is_object(body.as_bytes()),
                serde_json::from_str::<Value>(&body).is_ok(),
                "{depth} deep"
            );
        }
    }
}

#[test]
fn an_entity_may_hold_what_few_can_read() {
    let body =
        br#"{"event": "issue-updated", "project": "p", "issue": {"a": 1e999, "b": "\ud800", "a": -0}}"#;
    assert!(check(body, &Types::default()).is_ok());
}
