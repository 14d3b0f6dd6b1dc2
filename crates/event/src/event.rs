//! Events for those who receive them: a value to match on.
//!
//! Reading fails only when the bytes are no JSON object with an `event` and a `project`. All else is lenient: what is
//! not as documented is kept in the `rest` of the object that it is in, unknown top-level keys included, so that a
//! receiver outlives a newer sender. What was read is written again whole: the same keys with equal values, though not
//! in the same order, and of a key that was there twice only the last.
//!
//! A sender accepts two things inside of an entity that cannot be held in Rust and fail here: a number beyond the range
//! of `f64`, and a string with half of a surrogate pair.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use crate::entity::{DatasetEntity, Issue, IssuesEntity};
use crate::export::ExportedIssue;
use crate::kind::Type;
use crate::shape;

/// What happened.
///
/// ```
/// use aquarium_event::{DatasetEntity, Event};
///
/// let body = br#"{"event": "dataset-failed", "project": "urban-driving", "inference_set": {"id": "inf_3"}}"#;
/// match Event::from_slice(body)? {
///     Event::DatasetFailed(e) => match e.entity {
///         Some(DatasetEntity::InferenceSet(set)) => assert_eq!(set.id.as_deref(), Some("inf_3")),
///         _ => unreachable!(),
///     },
///     Event::IssueExported(e) => println!("{} elements", e.issue.into_iter().flat_map(|i| i.elements).count()),
///     Event::Custom(e) => println!("{} in {}: {:?}", e.name, e.project, e.rest),
///     _ => {}
/// }
/// # Ok::<(), aquarium_event::NotAnEvent>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A labeled dataset, or an inference set for one, was processed.
    DatasetComplete(DatasetEvent),
    /// A labeled dataset, or an inference set for one, could not be processed.
    DatasetFailed(DatasetEvent),
    /// One or several issues were created.
    IssuesCreated(IssuesCreated),
    /// An issue changed.
    IssueUpdated(IssueUpdated),
    /// An issue was exported, with its elements.
    IssueExported(IssueExported),
    /// A test delivery: nothing happened.
    Test(TestEvent),
    /// An event that the product does not document: an operator declared it, or it is newer than this crate.
    Custom(CustomEvent),
}

/// `dataset-complete` and `dataset-failed`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct DatasetEvent {
    /// Where it happened.
    pub project: String,
    /// What was processed.
    pub entity: Option<DatasetEntity>,
    /// The keys that are not documented, or have another value than documented.
    pub rest: Map<String, Value>,
}

/// `issues-created`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct IssuesCreated {
    /// Where it happened.
    pub project: String,
    /// What was created.
    pub entity: Option<IssuesEntity>,
    /// The keys that are not documented, or have another value than documented.
    pub rest: Map<String, Value>,
}

impl IssuesCreated {
    /// The issues that were created, whether the event has one or an array of them.
    pub fn issues(&self) -> &[Issue] {
        self.entity.as_ref().map(IssuesEntity::as_slice).unwrap_or_default()
    }
}

/// `issue-updated`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct IssueUpdated {
    /// Where it happened.
    pub project: String,
    /// What changed.
    pub issue: Option<Issue>,
    /// Whether the event is written `issue-update`, which means the same.
    pub short_name: bool,
    /// The keys that are not documented, or have another value than documented.
    pub rest: Map<String, Value>,
}

/// `issue-exported`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct IssueExported {
    /// Where it happened.
    pub project: String,
    /// What was exported.
    pub issue: Option<ExportedIssue>,
    /// The keys that are not documented, or have another value than documented.
    pub rest: Map<String, Value>,
}

/// `test`.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct TestEvent {
    /// The project whose webhook is tested.
    pub project: String,
    /// The keys that are not documented.
    pub rest: Map<String, Value>,
}

/// An event that the product does not document.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct CustomEvent {
    /// The event type, as it is written.
    pub name: String,
    /// Where it happened.
    pub project: String,
    /// Every other key: the entity too, if there is one.
    pub rest: Map<String, Value>,
}

impl Event {
    /// Reads the body of a webhook call.
    ///
    /// # Errors
    /// See [`NotAnEvent`]. What an entity holds is never the cause, as long as it is JSON that Rust can hold.
    pub fn from_slice(body: &[u8]) -> Result<Event, NotAnEvent> {
        Event::try_from(serde_json::from_slice::<Value>(body)?)
    }

    /// The project in which it happened.
    pub fn project(&self) -> &str {
        match self {
            Event::DatasetComplete(e) | Event::DatasetFailed(e) => &e.project,
            Event::IssuesCreated(e) => &e.project,
            Event::IssueUpdated(e) => &e.project,
            Event::IssueExported(e) => &e.project,
            Event::Test(e) => &e.project,
            Event::Custom(e) => &e.project,
        }
    }

    /// The type of the event.
    pub fn kind(&self) -> Type {
        match self {
            Event::DatasetComplete(_) => Type::DatasetComplete,
            Event::DatasetFailed(_) => Type::DatasetFailed,
            Event::IssuesCreated(_) => Type::IssuesCreated,
            Event::IssueUpdated(_) => Type::IssueUpdated,
            Event::IssueExported(_) => Type::IssueExported,
            Event::Test(_) => Type::Test,
            Event::Custom(e) => Type::Custom(e.name.as_str().into()),
        }
    }

    /// The type of the event, as it is written in it.
    pub fn name(&self) -> &str {
        match self {
            Event::DatasetComplete(_) => "dataset-complete",
            Event::DatasetFailed(_) => "dataset-failed",
            Event::IssuesCreated(_) => "issues-created",
            Event::IssueUpdated(e) if e.short_name => "issue-update",
            Event::IssueUpdated(_) => "issue-updated",
            Event::IssueExported(_) => "issue-exported",
            Event::Test(_) => "test",
            Event::Custom(e) => &e.name,
        }
    }

    /// The keys that have no field of their own.
    pub fn rest(&self) -> &Map<String, Value> {
        match self {
            Event::DatasetComplete(e) | Event::DatasetFailed(e) => &e.rest,
            Event::IssuesCreated(e) => &e.rest,
            Event::IssueUpdated(e) => &e.rest,
            Event::IssueExported(e) => &e.rest,
            Event::Test(e) => &e.rest,
            Event::Custom(e) => &e.rest,
        }
    }
}

impl TryFrom<Value> for Event {
    type Error = NotAnEvent;

    fn try_from(value: Value) -> Result<Self, NotAnEvent> {
        let Value::Object(mut rest) = value else { return Err(NotAnEvent::NotAnObject) };
        let name: String = shape::take(&mut rest, "event").ok_or(NotAnEvent::Field { field: "event" })?;
        let project = shape::take(&mut rest, "project").ok_or(NotAnEvent::Field { field: "project" })?;
        Ok(match Type::built_in(&name) {
            Some(Type::DatasetComplete) => Event::DatasetComplete(DatasetEvent::new(project, rest)),
            Some(Type::DatasetFailed) => Event::DatasetFailed(DatasetEvent::new(project, rest)),
            Some(Type::IssuesCreated) => Event::IssuesCreated(IssuesCreated::new(project, rest)),
            Some(Type::IssueUpdated) => {
                let short_name = name == "issue-update";
                let issue = shape::take(&mut rest, "issue");
                Event::IssueUpdated(IssueUpdated { project, issue, short_name, rest })
            }
            Some(Type::IssueExported) => {
                let issue = shape::take(&mut rest, "issue");
                Event::IssueExported(IssueExported { project, issue, rest })
            }
            Some(Type::Test) => Event::Test(TestEvent { project, rest }),
            Some(Type::Custom(_)) | None => Event::Custom(CustomEvent { name, project, rest }),
        })
    }
}

impl DatasetEvent {
    fn new(project: String, mut rest: Map<String, Value>) -> Self {
        let dataset = shape::take(&mut rest, "dataset").map(DatasetEntity::Dataset);
        let entity =
            dataset.or_else(|| shape::take(&mut rest, "inference_set").map(DatasetEntity::InferenceSet));
        DatasetEvent { project, entity, rest }
    }
}

impl IssuesCreated {
    fn new(project: String, mut rest: Map<String, Value>) -> Self {
        let many = shape::take(&mut rest, "issues").map(IssuesEntity::Many);
        let entity = many.or_else(|| shape::take(&mut rest, "issue").map(IssuesEntity::One));
        IssuesCreated { project, entity, rest }
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Event::try_from(Value::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("event", self.name())?;
        object.serialize_entry("project", self.project())?;
        let entity = match self {
            Event::DatasetComplete(e) | Event::DatasetFailed(e) => match &e.entity {
                Some(DatasetEntity::Dataset(dataset)) => entry(&mut object, "dataset", Some(dataset)),
                Some(DatasetEntity::InferenceSet(set)) => entry(&mut object, "inference_set", Some(set)),
                None => Ok(None),
            },
            Event::IssuesCreated(e) => match &e.entity {
                Some(IssuesEntity::Many(issues)) => entry(&mut object, "issues", Some(issues)),
                Some(IssuesEntity::One(issue)) => entry(&mut object, "issue", Some(issue)),
                None => Ok(None),
            },
            Event::IssueUpdated(e) => entry(&mut object, "issue", e.issue.as_ref()),
            Event::IssueExported(e) => entry(&mut object, "issue", e.issue.as_ref()),
            Event::Test(_) | Event::Custom(_) => Ok(None),
        }?;
        for (key, value) in self.rest() {
            // What was set later replaces what was read.
            if key != "event" && key != "project" && Some(key.as_str()) != entity {
                object.serialize_entry(key, value)?;
            }
        }
        object.end()
    }
}

/// Writes the entity, if there is one, and says which key it took.
fn entry<M: SerializeMap>(
    object: &mut M,
    key: &'static str,
    entity: Option<&impl Serialize>,
) -> Result<Option<&'static str>, M::Error> {
    entity.map(|entity| object.serialize_entry(key, entity).map(|()| key)).transpose()
}

/// The bytes are no event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotAnEvent {
    /// They are not JSON.
    #[error("an event is JSON, this is not")]
    Json(#[from] serde_json::Error),
    /// They are JSON, but no object.
    #[error("an event is a JSON object")]
    NotAnObject,
    /// A required field is missing, or no string.
    #[error("an event has a string in {field:?}")]
    Field {
        /// The field.
        field: &'static str,
    },
}
