//! Samples of every event, for test deliveries, demonstrations and documentation.
//!
//! All of them are about the project `urban-driving`, and pass [`check`](crate::check).

use serde_json::json;

use crate::kind::Type;

/// Every sample, with a name for the shape it shows: the event type, and what is special.
const SAMPLES: [(&str, &str); 9] = [
    ("dataset-complete", include_str!("../samples/dataset-complete.json")),
    ("dataset-complete-inference-set", include_str!("../samples/dataset-complete-inference-set.json")),
    ("dataset-failed", include_str!("../samples/dataset-failed.json")),
    ("dataset-failed-inference-set", include_str!("../samples/dataset-failed-inference-set.json")),
    ("issues-created", include_str!("../samples/issues-created.json")),
    ("issues-created-single", include_str!("../samples/issues-created-single.json")),
    ("issue-updated", include_str!("../samples/issue-updated.json")),
    ("issue-exported", include_str!("../samples/issue-exported.json")),
    ("test", include_str!("../samples/test.json")),
];

/// A sample of an event of this type; `None` for a custom one, of which only the operator knows what it holds: see
/// [`minimal`].
///
/// ```
/// use aquarium_event::{Type, sample};
///
/// assert!(sample(&Type::IssueExported).unwrap().contains("label_data"));
/// ```
pub fn sample(kind: &Type) -> Option<&'static str> {
    match kind {
        Type::Custom(_) => None,
        built_in => samples().find(|(name, _)| *name == built_in.as_str()).map(|(_, json)| json),
    }
}

/// Every sample with its name. The name is that of the event type, or starts with it where a type has several shapes.
///
/// ```
/// assert!(aquarium_event::samples().any(|(name, _)| name == "dataset-complete-inference-set"));
/// ```
pub fn samples() -> impl Iterator<Item = (&'static str, &'static str)> {
    SAMPLES.into_iter()
}

/// The least that an event of this type can be: no entity. For `test`, it is the payload of a test delivery.
///
/// It passes [`check`](crate::check) where the type is known and `project` is a name.
///
/// ```
/// use aquarium_event::{Type, minimal};
///
/// assert_eq!(minimal(&Type::Test, "urban-driving"), r#"{"event":"test","project":"urban-driving"}"#);
/// ```
pub fn minimal(kind: &Type, project: &str) -> String {
    json!({ "event": kind.as_str(), "project": project }).to_string()
}
