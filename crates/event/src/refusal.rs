//! Why the bytes that an app sent are no event: the field, the place, and the reason.
//!
//! A message is one line, says what is accepted, and repeats at most 60 characters of what was sent.

use std::fmt;

use crate::envelope::{EntityKey, MAX_PROJECT};
use crate::kind::{Type, UnknownType};
use crate::word::{clip, list};

/// The bytes are not an event that can be accepted.
///
/// ```
/// use aquarium_event::{Types, check};
///
/// let refusal = check(br#"{"event": "dataset-completed", "project": "p"}"#, &Types::default()).unwrap_err();
/// assert_eq!((refusal.field.as_str(), refusal.offset), ("/event", 10));
/// assert_eq!(refusal.reason.code(), "unknown-event-type");
/// assert!(refusal.to_string().starts_with(
///     r#"/event: unknown event type "dataset-completed"; did you mean "dataset-complete"? Known are: "#
/// ));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{reason} (byte {offset})", field.escape_debug(), if field.is_empty() { "" } else { ": " })]
#[non_exhaustive]
pub struct Refusal {
    /// Where in the document, as a JSON Pointer (RFC 6901); empty for the document as a whole. A long key is cut.
    pub field: String,
    /// Where in the bytes, from 0: the key or the value that is at fault, or the start of the object that lacks one.
    pub offset: usize,
    /// What is wrong.
    pub reason: Reason,
}

impl Refusal {
    /// A refusal of the document as a whole.
    pub(crate) fn document(offset: usize, reason: Reason) -> Refusal {
        Refusal { field: String::new(), offset, reason }
    }

    /// A refusal of a member of the outermost object.
    pub(crate) fn member(key: &str, offset: usize, reason: Reason) -> Refusal {
        let field = format!("/{}", clip(key).replace('~', "~0").replace('/', "~1"));
        Refusal { field, offset, reason }
    }
}

/// What is wrong with the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is nothing but white space.
    Empty,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// A byte order mark comes first.
    ByteOrderMark,
    /// The document ends too early.
    CutOff {
        /// What it ends in the middle of.
        inside: &'static str,
    },
    /// It is not JSON.
    Syntax {
        /// What could have followed.
        expected: &'static str,
        /// What did.
        found: char,
    },
    /// A string holds a control character that is not escaped.
    Control {
        /// The character.
        found: char,
    },
    /// A string holds an escape that JSON does not have.
    Escape {
        /// The character after the backslash.
        found: char,
    },
    /// A string that has a meaning here holds half of a surrogate pair.
    Surrogate,
    /// Arrays and objects are nested too deep.
    TooDeep {
        /// The most levels that are accepted.
        limit: u32,
    },
    /// Something follows the object.
    Trailing {
        /// Its first character.
        found: char,
    },
    /// A value is not of the type that its field has.
    WrongType {
        /// What it is.
        found: JsonType,
        /// What it should be.
        accepted: &'static str,
    },
    /// A required field is not there.
    Missing {
        /// What its value should be.
        accepted: &'static str,
    },
    /// The event type is neither built in nor declared.
    UnknownEventType(UnknownType),
    /// The project is no name.
    Project(InvalidProject),
    /// The key is none that an event has.
    UnknownKey {
        /// The key that was probably meant.
        nearest: Option<&'static str>,
    },
    /// The key is there twice.
    DuplicateKey {
        /// Where it is for the first time, in bytes from 0.
        first: usize,
    },
    /// The event has no entity of this kind.
    EntityNotForEvent {
        /// The event.
        event: Type,
    },
    /// There is another entity already.
    SecondEntity {
        /// The key of the other one.
        first: EntityKey,
    },
}

impl Reason {
    /// A name for the reason that programs can rely on: it stays as it is when the message gets better.
    ///
    /// ```
    /// use aquarium_event::Reason;
    ///
    /// assert_eq!(Reason::ByteOrderMark.code(), "byte-order-mark");
    /// ```
    pub fn code(&self) -> &'static str {
        match self {
            Reason::Empty => "empty-body",
            Reason::NotUtf8 => "invalid-utf8",
            Reason::ByteOrderMark => "byte-order-mark",
            Reason::CutOff { .. } => "cut-off",
            Reason::Syntax { .. } => "invalid-json",
            Reason::Control { .. } => "control-character",
            Reason::Escape { .. } => "invalid-escape",
            Reason::Surrogate => "lone-surrogate",
            Reason::TooDeep { .. } => "too-deep",
            Reason::Trailing { .. } => "trailing-data",
            Reason::WrongType { .. } => "wrong-type",
            Reason::Missing { .. } => "missing-field",
            Reason::UnknownEventType(_) => "unknown-event-type",
            Reason::Project(_) => "invalid-project",
            Reason::UnknownKey { .. } => "unknown-key",
            Reason::DuplicateKey { .. } => "duplicate-key",
            Reason::EntityNotForEvent { .. } => "entity-not-for-event",
            Reason::SecondEntity { .. } => "second-entity",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Empty => f.write_str("the body is empty, an event is a JSON object"),
            Reason::NotUtf8 => f.write_str("not UTF-8, which JSON has to be"),
            Reason::ByteOrderMark => f.write_str("starts with a byte order mark, which JSON must not have"),
            Reason::CutOff { inside } => write!(f, "the JSON ends in the middle of {inside}"),
            Reason::Syntax { expected, found } => {
                write!(f, "invalid JSON: expected {expected}, found {found:?}")
            }
            Reason::Control { found } => {
                write!(
                    f,
                    "a string holds a control character as it is, write it as \\u{:04x}",
                    u32::from(*found)
                )
            }
            Reason::Escape { found } => {
                write!(f, "{found:?} cannot follow a backslash, only one of \" \\ / b f n r t u can")
            }
            Reason::Surrogate => f.write_str("holds half of a surrogate pair, which is no character"),
            Reason::TooDeep { limit } => write!(f, "arrays and objects are nested more than {limit} deep"),
            Reason::Trailing { found } => write!(f, "expected nothing after the object, found {found:?}"),
            Reason::WrongType { found, accepted } => write!(f, "expected {accepted}, found {found}"),
            Reason::Missing { accepted } => write!(f, "missing, {accepted} is required"),
            Reason::UnknownEventType(unknown) => {
                write!(f, "{unknown}; ")?;
                did_you_mean(f, unknown.nearest.as_deref())?;
                f.write_str("Known are: ")?;
                list(f, &unknown.known)
            }
            Reason::Project(invalid) => invalid.fmt(f),
            Reason::UnknownKey { nearest } => {
                f.write_str("unknown key; ")?;
                did_you_mean(f, *nearest)?;
                f.write_str("Accepted are: event, project, ")?;
                list(f, EntityKey::ALL)
            }
            Reason::DuplicateKey { first } => write!(f, "given twice, first at byte {first}"),
            Reason::EntityNotForEvent { event } => {
                write!(f, "not for the event {event}, which takes ")?;
                match EntityKey::of(event) {
                    [] => f.write_str("no entity"),
                    [only] => write!(f, "only {only}"),
                    keys => {
                        f.write_str("one of: ")?;
                        list(f, keys)
                    }
                }
            }
            Reason::SecondEntity { first } => {
                write!(f, "a second entity: an event has at most one, and this one has {first}")
            }
        }
    }
}

fn did_you_mean(f: &mut fmt::Formatter<'_>, nearest: Option<&str>) -> fmt::Result {
    nearest.map_or(Ok(()), |nearest| write!(f, "did you mean {nearest:?}? "))
}

/// Why a text cannot be the name of a project. The rule is that of every name that a webhook's identity is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProject {
    /// There is nothing in it.
    #[error("the name of the project is empty")]
    Empty,
    /// It is longer than [`MAX_PROJECT`].
    #[error("the name of a project has at most {MAX_PROJECT} bytes, this one has {length}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// It holds a slash or a control character.
    #[error("the name of a project cannot hold {found:?}")]
    Character {
        /// The first such character.
        found: char,
    },
    /// It starts or ends with white space.
    #[error("the name of a project cannot start or end with white space")]
    Space,
}

/// The types that JSON has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum JsonType {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

impl JsonType {
    /// The type of the value that starts with this byte, if one does.
    pub(crate) fn starting_with(byte: u8) -> Option<JsonType> {
        match byte {
            b'{' => Some(JsonType::Object),
            b'[' => Some(JsonType::Array),
            b'"' => Some(JsonType::String),
            b'-' | b'0'..=b'9' => Some(JsonType::Number),
            b't' | b'f' => Some(JsonType::Boolean),
            b'n' => Some(JsonType::Null),
            _ => None,
        }
    }
}

impl fmt::Display for JsonType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JsonType::Object => "an object",
            JsonType::Array => "an array",
            JsonType::String => "a string",
            JsonType::Number => "a number",
            JsonType::Boolean => "a boolean",
            JsonType::Null => "null",
        })
    }
}
