//! What travels: the envelope of an event, its types, its typed payloads, and samples of them.
//!
//! An event is one JSON object, `{"event": …, "project": …, "<entity>": …}`. The crate looks at it in two ways:
//!
//! - The sender uses [`check`]: it accepts or refuses the bytes as they are, in one pass, and builds nothing of the
//!   entity. What it refuses comes with the field, the place and the reason: a [`Refusal`].
//! - The receiver uses [`Event`]: a value to match on. It never fails on what an entity holds, and keeps what it does
//!   not know.
//!
//! ```
//! use aquarium_event::{Event, Type, Types, check};
//!
//! let body = br#"{"event": "dataset-complete", "project": "urban-driving", "dataset": {"id": "ds_1"}}"#;
//!
//! let envelope = check(body, &Types::default())?;
//! assert_eq!(envelope.kind, Type::DatasetComplete);
//! assert_eq!(envelope.entity.unwrap().id().as_deref(), Some("ds_1"));
//!
//! match Event::from_slice(body)? {
//!     Event::DatasetComplete(e) => assert_eq!(e.entity.unwrap().id(), Some("ds_1")),
//!     other => println!("not interested in {}", other.name()),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod entity;
mod envelope;
mod event;
mod export;
mod kind;
mod refusal;
mod sample;
mod scan;
mod shape;
mod word;

pub use entity::{Dataset, DatasetEntity, InferenceSet, Issue, IssuesEntity};
pub use envelope::{Entity, EntityKey, Envelope, MAX_PROJECT, check};
pub use event::{
    CustomEvent, DatasetEvent, Event, IssueExported, IssueUpdated, IssuesCreated, NotAnEvent, TestEvent,
};
pub use export::{
    Attributes, CoordinateFrame, DataUrls, Element, ElementType, ExportedIssue, FrameData, Label, Metric,
    Metrics, SensorData,
};
pub use kind::{InvalidType, Type, Types, UnknownType};
pub use refusal::{InvalidProject, JsonType, Reason, Refusal};
pub use sample::{minimal, sample, samples};
pub use scan::MAX_DEPTH;
pub use word::{is_visible, nearest};
