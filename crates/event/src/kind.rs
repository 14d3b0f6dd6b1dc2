//! Event types: the product's own, and those an operator declares.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::word::{clip, nearest};

/// What happened. Compared and printed by its canonical name.
///
/// ```
/// use aquarium_event::{Type, Types};
///
/// let types = Types::default();
/// assert_eq!(types.parse("issue-update").unwrap(), Type::IssueUpdated); // the product's docs write both
/// assert_eq!(Type::IssueUpdated.to_string(), "issue-updated");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Type {
    /// A labeled dataset, or an inference set for one, was processed.
    DatasetComplete,
    /// A labeled dataset, or an inference set for one, could not be processed.
    DatasetFailed,
    /// One or several issues were created.
    IssuesCreated,
    /// An issue changed. Also accepted as `issue-update`.
    IssueUpdated,
    /// An issue was exported, with its elements.
    IssueExported,
    /// The minimal payload of a test delivery.
    Test,
    /// A type that the operator declared in `[events] custom`.
    Custom(Arc<str>),
}

impl Type {
    /// The product's own types, in the order of its documentation.
    pub const BUILT_IN: [Type; 6] = [
        Type::DatasetComplete,
        Type::DatasetFailed,
        Type::IssuesCreated,
        Type::IssueUpdated,
        Type::IssueExported,
        Type::Test,
    ];

    /// The canonical name, as it stands in a payload.
    pub fn as_str(&self) -> &str {
        match self.name() {
            Name::BuiltIn(name) => name,
            Name::Custom(name) => name,
        }
    }

    /// The canonical name by itself. That of a built-in type costs nothing.
    pub fn to_name(&self) -> Cow<'static, str> {
        match self.name() {
            Name::BuiltIn(name) => Cow::Borrowed(name),
            Name::Custom(name) => Cow::Owned(name.to_owned()),
        }
    }

    fn name(&self) -> Name<'_> {
        Name::BuiltIn(match self {
            Type::DatasetComplete => "dataset-complete",
            Type::DatasetFailed => "dataset-failed",
            Type::IssuesCreated => "issues-created",
            Type::IssueUpdated => "issue-updated",
            Type::IssueExported => "issue-exported",
            Type::Test => "test",
            Type::Custom(name) => return Name::Custom(name),
        })
    }

    /// The type that the product documents under this name, if there is one.
    pub fn built_in(name: &str) -> Option<Type> {
        match name {
            "dataset-complete" => Some(Type::DatasetComplete),
            "dataset-failed" => Some(Type::DatasetFailed),
            "issues-created" => Some(Type::IssuesCreated),
            "issue-updated" | "issue-update" => Some(Type::IssueUpdated),
            "issue-exported" => Some(Type::IssueExported),
            "test" => Some(Type::Test),
            _ => None,
        }
    }
}

/// A canonical name, which lives as long as the program or as its type.
enum Name<'a> {
    BuiltIn(&'static str),
    Custom(&'a str),
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The event types that are known here: the built-in ones and the operator's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Types {
    custom: BTreeSet<Arc<str>>,
}

impl Types {
    /// The built-in types and `custom` ones.
    ///
    /// # Errors
    /// A custom name is refused when it is a built-in one, or is not 1 to 64 characters of `a-z`, `0-9`, `-`, `_`
    /// and `.` that start with a letter.
    pub fn with_custom<'a>(custom: impl IntoIterator<Item = &'a str>) -> Result<Types, InvalidType> {
        let mut types = Types::default();
        for name in custom {
            types.declare(name)?;
        }
        Ok(types)
    }

    /// Adds one custom type.
    ///
    /// # Errors
    /// As [`Types::with_custom`].
    pub fn declare(&mut self, name: &str) -> Result<(), InvalidType> {
        if Type::built_in(name).is_some() {
            return Err(InvalidType::BuiltIn(name.to_owned()));
        }
        let shaped = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.len() <= 64
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
        if !shaped {
            return Err(InvalidType::Shape(name.to_owned()));
        }
        self.custom.insert(name.into());
        Ok(())
    }

    /// The type of this name.
    ///
    /// # Errors
    /// An unknown name is refused with the list of the known ones, and the nearest of them.
    pub fn parse(&self, name: &str) -> Result<Type, UnknownType> {
        if let Some(built_in) = Type::built_in(name) {
            return Ok(built_in);
        }
        match self.custom.get(name) {
            Some(custom) => Ok(Type::Custom(custom.clone())),
            None => Err(UnknownType {
                found: clip(name),
                known: self.names().map(str::to_owned).collect(),
                nearest: nearest(name, self.names()).map(str::to_owned),
            }),
        }
    }

    /// Every known name, the built-in ones first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        const NAMES: [&str; 6] = [
            "dataset-complete",
            "dataset-failed",
            "issues-created",
            "issue-updated",
            "issue-exported",
            "test",
        ];
        NAMES.into_iter().chain(self.custom.iter().map(|name| &**name))
    }
}

/// A name that is no known event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown event type {found:?}")]
pub struct UnknownType {
    /// The name as it was given, cut after 60 characters.
    pub found: String,
    /// Every name that would have been accepted.
    pub known: Vec<String>,
    /// The known name that is most like it.
    pub nearest: Option<String>,
}

/// A name that cannot be declared as a custom event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidType {
    /// It exists already.
    #[error("{0:?} is a built-in event type")]
    BuiltIn(String),
    /// It is not shaped like an event type.
    #[error("{0:?} is not 1 to 64 characters of a-z, 0-9, '-', '_', '.', starting with a letter")]
    Shape(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_parsed_to_the_type_that_prints_it() {
        let types = Types::with_custom(["model-trained"]).unwrap();
        let names: Vec<_> = types.names().collect();
        assert_eq!(names[..6], Type::BUILT_IN.each_ref().map(Type::as_str));
        for name in names {
            assert_eq!(types.parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn an_unknown_name_comes_with_the_known_ones_and_the_nearest() {
        let unknown = Types::default().parse("dataset-completed").unwrap_err();
        assert_eq!(unknown.nearest.as_deref(), Some("dataset-complete"));
        assert_eq!(unknown.known.len(), 6);
        assert_eq!(Types::default().parse(&"x".repeat(1 << 20)).unwrap_err().found.chars().count(), 61);
    }

    #[test]
    fn a_custom_name_is_new_and_shaped_like_an_event_type() {
        for name in ["test", "issue-update", "issue-updated"] {
            assert_eq!(Types::with_custom([name]), Err(InvalidType::BuiltIn(name.to_owned())));
        }
        for name in ["", "Model", "-x", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(Types::with_custom([name]), Err(InvalidType::Shape(name.to_owned())));
        }
    }
}
