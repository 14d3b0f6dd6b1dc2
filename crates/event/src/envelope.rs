//! The check at the door: is this an event, whose is it, and what is it about.
//!
//! [`check`] reads the bytes once, from front to back, and hands out parts of them. It does not build the entity, which
//! can be megabytes: it validates and skips it. Nothing is allocated, unless a name is written with escapes or the
//! bytes are refused.
//!
//! What is not JSON is refused first, wherever it is. Then come the keys in their order, the event type, the project,
//! and whether the entity is one for the event: the keys of an object have no order, so that can be told at its end
//! only.

use std::borrow::Cow;
use std::fmt;

use crate::kind::{Type, Types};
use crate::refusal::{InvalidProject, JsonType, Reason, Refusal};
use crate::scan::{Fault, Scanner, Skipped, Text};
use crate::word::nearest;

/// The longest name of a project, in bytes.
pub const MAX_PROJECT: usize = 128;

/// What has to be known about an event to deliver it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envelope<'a> {
    /// What happened.
    pub kind: Type,
    /// Where.
    pub project: Cow<'a, str>,
    /// To what, if the event says so.
    pub entity: Option<Entity<'a>>,
}

/// What an event is about: a part of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entity<'a> {
    /// The key that it stands under.
    pub key: EntityKey,
    /// Its JSON, exactly as it was sent.
    pub raw: &'a str,
}

impl<'a> Entity<'a> {
    /// The entity's own `id`, if it is an object that has one and it is a string. Of several the first one counts.
    ///
    /// Looks only as far as it has to, and builds nothing else.
    ///
    /// ```
    /// use aquarium_event::{Types, check};
    ///
    /// let body = br#"{"event": "issue-updated", "project": "p", "issue": {"elements": [{"id": 1}], "id": "iss_7"}}"#;
    /// let entity = check(body, &Types::default())?.entity.unwrap();
    /// assert_eq!(entity.raw, r#"{"elements": [{"id": 1}], "id": "iss_7"}"#);
    /// assert_eq!(entity.id().as_deref(), Some("iss_7"));
    /// # Ok::<(), aquarium_event::Refusal>(())
    /// ```
    pub fn id(&self) -> Option<Cow<'a, str>> {
        Text::of(&id_of(self.raw)?)?.decode().ok()
    }

    /// What it can be told from others by: its `id`, or for `issues` those of all of them, in their order. An id may be a
    /// number, which is taken as it is written. What has none is left out.
    ///
    /// ```
    /// use aquarium_event::{Types, check};
    ///
    /// let body = br#"{"event": "issues-created", "project": "p", "issues": [{"id": "a"}, {}, {"name": "x", "id": 7}]}"#;
    /// let entity = check(body, &Types::default())?.entity.unwrap();
    /// assert_eq!(entity.ids(), ["a", "7"]);
    /// # Ok::<(), aquarium_event::Refusal>(())
    /// ```
    pub fn ids(&self) -> Vec<Cow<'a, str>> {
        let mut ids = Vec::new();
        if self.key != EntityKey::Issues {
            ids.extend(id_of(self.raw).and_then(|value| identity(&value)));
            return ids;
        }
        let mut scanner = Scanner::new(self.raw);
        let mut more = scanner.open_array().and_then(|()| scanner.item(true));
        while let Ok(true) = more {
            let Ok(issue) = scanner.value() else { break };
            ids.extend(id_of(issue.raw).and_then(|value| identity(&value)));
            more = scanner.item(false);
        }
        ids
    }
}

/// The value of the first `id` of an object.
fn id_of(raw: &str) -> Option<Skipped<'_>> {
    let mut scanner = Scanner::new(raw);
    scanner.open().ok()?;
    let mut first = true;
    while let Some(key) = scanner.key(first).ok()? {
        first = false;
        let value = scanner.value().ok()?;
        if key.decode_or_raw() == "id" {
            return Some(value);
        }
    }
    None
}

fn identity<'a>(value: &Skipped<'a>) -> Option<Cow<'a, str>> {
    match Text::of(value) {
        Some(text) => Some(text.decode_or_raw()),
        None => (value.kind == JsonType::Number).then_some(Cow::Borrowed(value.raw)),
    }
}

/// The keys that an entity can stand under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntityKey {
    /// `dataset`: an object.
    Dataset,
    /// `inference_set`: an object.
    InferenceSet,
    /// `issue`: an object.
    Issue,
    /// `issues`: an array of objects.
    Issues,
}

impl EntityKey {
    /// Every key, in the order of the documentation.
    pub const ALL: [EntityKey; 4] =
        [EntityKey::Dataset, EntityKey::InferenceSet, EntityKey::Issue, EntityKey::Issues];

    /// The keys that an event of this type can have one of. A custom type can have any.
    ///
    /// ```
    /// use aquarium_event::{EntityKey, Type};
    ///
    /// assert_eq!(EntityKey::of(&Type::DatasetFailed), [EntityKey::Dataset, EntityKey::InferenceSet]);
    /// ```
    pub fn of(event: &Type) -> &'static [EntityKey] {
        match event {
            Type::DatasetComplete | Type::DatasetFailed => &[EntityKey::Dataset, EntityKey::InferenceSet],
            Type::IssuesCreated => &[EntityKey::Issues, EntityKey::Issue],
            Type::IssueUpdated | Type::IssueExported => &[EntityKey::Issue],
            Type::Test => &[],
            Type::Custom(_) => &EntityKey::ALL,
        }
    }

    /// The key itself.
    pub fn as_str(self) -> &'static str {
        match self {
            EntityKey::Dataset => "dataset",
            EntityKey::InferenceSet => "inference_set",
            EntityKey::Issue => "issue",
            EntityKey::Issues => "issues",
        }
    }

    /// Whether the value is what stands under this key.
    fn fits(self, value: &Skipped<'_>) -> Result<(), Refusal> {
        let (field, accepted, required) = match self {
            EntityKey::Issues => (self.as_str(), "an array of objects", JsonType::Array),
            _ => (self.as_str(), "an object", JsonType::Object),
        };
        if value.kind != required {
            let reason = Reason::WrongType { found: value.kind, accepted };
            return Err(Refusal::member(field, value.offset, reason));
        }
        match value.odd {
            Some(odd) if self == EntityKey::Issues => Err(Refusal {
                field: format!("/{field}/{}", odd.index),
                offset: odd.offset,
                reason: Reason::WrongType { found: odd.kind, accepted: "an object" },
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Checks that `body` is an event, and says what has to be known to deliver it.
///
/// It is one if it is UTF-8, holds one JSON object (RFC 8259) with nothing but white space around it, and this object
/// has
/// - `event`: one of `types`;
/// - `project`: a name of 1 to [`MAX_PROJECT`] bytes without a slash, a control character, or white space at either
///   end;
/// - at most one entity, under a key that [the event takes](EntityKey::of): an object, or for `issues` an array of
///   objects;
/// - no other key, and none twice. Keys are compared by what they say, not by how they are escaped.
///
/// Arrays and objects may be nested [`MAX_DEPTH`](crate::MAX_DEPTH) deep. Inside of the entity all that is JSON is
/// accepted.
///
/// # Errors
/// The first thing that is wrong.
///
/// ```
/// use aquarium_event::{EntityKey, Type, Types, check};
///
/// let body = br#"{"event": "issue-update", "project": "urban-driving", "issue": {"id": "iss_7"}}"#;
/// let envelope = check(body, &Types::default())?;
/// assert_eq!(envelope.kind, Type::IssueUpdated);
/// assert_eq!(envelope.project, "urban-driving");
/// assert_eq!(envelope.entity.unwrap().key, EntityKey::Issue);
///
/// let refusal = check(br#"{"event": "test", "projct": "urban-driving"}"#, &Types::default()).unwrap_err();
/// assert_eq!(
///     refusal.to_string(),
///     "/projct: unknown key; did you mean \"project\"? \
///      Accepted are: event, project, dataset, inference_set, issue, issues (byte 18)"
/// );
/// # Ok::<(), aquarium_event::Refusal>(())
/// ```
pub fn check<'a>(body: &'a [u8], types: &Types) -> Result<Envelope<'a>, Refusal> {
    let members = Members::read(text(body)?)?;
    let kind = members.event(types)?;
    let project = members.project()?;
    let entity = match members.entity {
        Some((key, offset, _)) if !EntityKey::of(&kind).contains(&key) => {
            return Err(Refusal::member(key.as_str(), offset, Reason::EntityNotForEvent { event: kind }));
        }
        Some((key, _, value)) => {
            key.fits(&value)?;
            Some(Entity { key, raw: value.raw })
        }
        None => None,
    };
    Ok(Envelope { kind, project, entity })
}

/// The bytes as text.
fn text(body: &[u8]) -> Result<&str, Refusal> {
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(Refusal::document(0, Reason::ByteOrderMark));
    }
    std::str::from_utf8(body).map_err(|error| {
        let reason = match error.error_len() {
            None => Reason::CutOff { inside: "a character" },
            Some(_) => Reason::NotUtf8,
        };
        Refusal::document(error.valid_up_to(), reason)
    })
}

/// What the keys of the outermost object can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Event,
    Project,
    Entity(EntityKey),
}

impl Key {
    fn parse(key: &str) -> Option<Key> {
        match key {
            "event" => Some(Key::Event),
            "project" => Some(Key::Project),
            _ => EntityKey::ALL.into_iter().find(|entity| entity.as_str() == key).map(Key::Entity),
        }
    }

    /// The key that was probably meant: case, and `-` for `_`, make no difference.
    fn nearest(key: &str) -> Option<&'static str> {
        let names = ["event", "project"].into_iter().chain(EntityKey::ALL.map(EntityKey::as_str));
        nearest(&key.to_lowercase().replace('-', "_"), names)
    }
}

/// The members of the outermost object, before it is known what they have to do with each other.
#[derive(Default)]
struct Members<'a> {
    /// Where the object starts.
    start: usize,
    /// Where the key is, and its value.
    event: Option<(usize, Skipped<'a>)>,
    project: Option<(usize, Skipped<'a>)>,
    entity: Option<(EntityKey, usize, Skipped<'a>)>,
}

impl<'a> Members<'a> {
    fn read(text: &'a str) -> Result<Members<'a>, Refusal> {
        let document = |fault: Fault| Refusal::document(fault.offset, fault.reason);
        let mut scanner = Scanner::new(text);
        let mut members = Members { start: scanner.open().map_err(document)?, ..Members::default() };
        let (mut refusal, mut first) = (None, true);
        while let Some(key) = scanner.key(first).map_err(document)? {
            first = false;
            let name = key.decode_or_raw();
            let value =
                scanner.value().map_err(|fault| Refusal::member(&name, fault.offset, fault.reason))?;
            if refusal.is_none() {
                let reason = members.add(&name, key.offset, value).err();
                refusal = reason.map(|reason| Refusal::member(&name, key.offset, reason));
            }
        }
        scanner.end().map_err(document)?;
        refusal.map_or(Ok(members), Err)
    }

    fn add(&mut self, name: &str, offset: usize, value: Skipped<'a>) -> Result<(), Reason> {
        let Some(key) = Key::parse(name) else {
            return Err(Reason::UnknownKey { nearest: Key::nearest(name) });
        };
        let slot = match key {
            Key::Event => &mut self.event,
            Key::Project => &mut self.project,
            Key::Entity(key) => {
                return match self.entity {
                    None => {
                        self.entity = Some((key, offset, value));
                        Ok(())
                    }
                    Some((same, first, _)) if same == key => Err(Reason::DuplicateKey { first }),
                    Some((first, ..)) => Err(Reason::SecondEntity { first }),
                };
            }
        };
        match slot {
            None => {
                *slot = Some((offset, value));
                Ok(())
            }
            Some((first, _)) => Err(Reason::DuplicateKey { first: *first }),
        }
    }

    fn event(&self, types: &Types) -> Result<Type, Refusal> {
        let (offset, name) = self.string("event", self.event)?;
        types
            .parse(&name)
            .map_err(|unknown| Refusal::member("event", offset, Reason::UnknownEventType(unknown)))
    }

    fn project(&self) -> Result<Cow<'a, str>, Refusal> {
        let (offset, name) = self.string("project", self.project)?;
        match check_project(&name) {
            Ok(()) => Ok(name),
            Err(invalid) => Err(Refusal::member("project", offset, Reason::Project(invalid))),
        }
    }

    /// The string that a required member is, and where it is.
    fn string(
        &self,
        field: &'static str,
        member: Option<(usize, Skipped<'a>)>,
    ) -> Result<(usize, Cow<'a, str>), Refusal> {
        const ACCEPTED: &str = "a string";
        let Some((_, value)) = member else {
            return Err(Refusal::member(field, self.start, Reason::Missing { accepted: ACCEPTED }));
        };
        let Some(text) = Text::of(&value) else {
            let reason = Reason::WrongType { found: value.kind, accepted: ACCEPTED };
            return Err(Refusal::member(field, value.offset, reason));
        };
        match text.decode() {
            Ok(decoded) => Ok((value.offset, decoded)),
            Err(fault) => Err(Refusal::member(field, fault.offset, fault.reason)),
        }
    }
}

/// The rule for the parts of a webhook's name, one of which the project is.
fn check_project(name: &str) -> Result<(), InvalidProject> {
    if name.is_empty() {
        Err(InvalidProject::Empty)
    } else if name.len() > MAX_PROJECT {
        Err(InvalidProject::TooLong { length: name.len() })
    } else if let Some(found) = name.chars().find(|c| *c == '/' || c.is_control()) {
        Err(InvalidProject::Character { found })
    } else if name.trim() != name {
        Err(InvalidProject::Space)
    } else {
        Ok(())
    }
}
