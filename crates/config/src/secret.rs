//! Secrets: where they are read from, and a type that does not tell them by accident.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use aquarium_verify::Mistake;
use toml::de::DeValue;
use zeroize::Zeroizing;

use crate::diagnostic::quote;
use crate::document::Value;
use crate::findings::Problem;
use crate::reader::{MAX_SECRET_FILE, Scope};

/// A secret: an organization's, or the token of a listener.
///
/// It can be compared, to find out whether it was replaced, and read with [`Secret::expose`]. It has no text form,
/// its [`Debug`](fmt::Debug) form tells nothing, and its memory is wiped when it is dropped.
///
/// ```
/// use aquarium_config::Secret;
///
/// let secret = Secret::new("correct-horse-battery-staple").unwrap();
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// assert!(Secret::new("too short").is_err());
/// ```
// Equality stops at the first difference. It is asked about two configurations that the operator wrote; what somebody
// presents must be compared in constant time, and by something else.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The fewest characters of a secret: less can be guessed.
    pub const MIN: usize = 16;
    /// The most characters of a secret: it travels in a header.
    pub const MAX: usize = 1024;

    /// The secret made of `text`.
    ///
    /// # Errors
    /// It must be [`Secret::MIN`] to [`Secret::MAX`] visible ASCII characters (0x21 to 0x7e), so that it fits into a
    /// header as it is, and not begin with `sha256:`, by which receivers know the hash of a secret. What receivers refuse as
    /// [no secret at all](Mistake) is refused here too.
    pub fn new(text: impl Into<String>) -> Result<Secret, InvalidSecret> {
        let text = Zeroizing::new(text.into());
        if text.is_empty() {
            Err(InvalidSecret::Empty)
        } else if let Some(mistake) = Mistake::of(&text) {
            Err(if mistake == Mistake::Hash {
                InvalidSecret::Hashed
            } else {
                InvalidSecret::Mistake(mistake)
            })
        } else if let Some(at) = text.chars().position(|c| !c.is_ascii_graphic()) {
            Err(InvalidSecret::Character { position: at + 1 })
        } else if text.len() < Self::MIN {
            Err(InvalidSecret::TooShort { length: text.len() })
        } else if text.len() > Self::MAX {
            Err(InvalidSecret::TooLong { length: text.len() })
        } else {
            Ok(Secret(text))
        }
    }

    /// The secret in clear text. Keep it out of logs, errors and answers.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a text cannot be a secret. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It is shorter than [`Secret::MIN`].
    #[error("it has {length} characters, which is too few; accepted: {} or more", Secret::MIN)]
    TooShort {
        /// How many characters it has.
        length: usize,
    },
    /// It is longer than [`Secret::MAX`].
    #[error("it has {length} characters, which is too many; accepted: up to {}", Secret::MAX)]
    TooLong {
        /// How many characters it has.
        length: usize,
    },
    /// It is the hash of a secret, or looks like one to a receiver.
    #[error("it looks like the SHA-256 of a secret, by which receivers know one; write the secret itself")]
    Hashed,
    /// It is something that is easily put in the place of a secret. No receiver would accept it.
    #[error("it is {0}")]
    Mistake(Mistake),
    /// It holds a character that does not fit into a header.
    #[error("its character {position} is not visible ASCII (0x21 to 0x7e)")]
    Character {
        /// Which character, from 1.
        position: usize,
    },
}

/// What an organization keeps secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretKind {
    /// What its requests carry, a [`Secret`].
    Secret,
    /// What its requests are signed with, a [`SigningKey`](crate::SigningKey).
    SigningKey,
}

impl SecretKind {
    /// The key of the organization's file that says where it is kept.
    pub const fn key(self) -> &'static str {
        match self {
            SecretKind::Secret => "secret",
            SecretKind::SigningKey => "signing_key",
        }
    }
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SecretKind::Secret => "secret",
            SecretKind::SigningKey => "signing key",
        })
    }
}

/// What was read from where a `{ file = … }` or `{ env = … }` points, and how to call it in a message.
pub(crate) struct Referred {
    pub(crate) text: Zeroizing<String>,
    pub(crate) origin: String,
    pub(crate) span: Range<usize>,
}

/// The secret that a value refers to.
pub(crate) fn secret(value: Value<'_, '_>, scope: Scope<'_>) -> Option<Secret> {
    let findings = value.findings;
    let referred = referred(value, scope)?;
    match Secret::new(referred.text.as_str()) {
        Ok(secret) => Some(secret),
        Err(error) => {
            let message = format!("{} holds no usable secret: {error}", referred.origin);
            findings.add(Problem::error(referred.span, message));
            None
        }
    }
}

/// The text that a `{ file = … }` or `{ env = … }` refers to, without the line break at its end.
pub(crate) fn referred(value: Value<'_, '_>, scope: Scope<'_>) -> Option<Referred> {
    match reference(value)? {
        Reference::File(value) => from_file(&value, scope),
        Reference::Env(value) => from_env(&value, scope),
    }
}

/// Where a secret is kept.
pub(crate) enum Place {
    File(PathBuf),
    Variable(String),
}

/// Where a `{ file = … }` or `{ env = … }` points, whether or not there is anything.
pub(crate) fn place(value: Value<'_, '_>, scope: Scope<'_>) -> Option<Place> {
    match reference(value)? {
        Reference::File(value) => path(&value, scope).map(Place::File),
        Reference::Env(value) => variable(&value).map(|name| Place::Variable(name.to_owned())),
    }
}

/// The value of the one key of a `{ file = … }` or `{ env = … }`.
enum Reference<'d, 'i> {
    File(Value<'d, 'i>),
    Env(Value<'d, 'i>),
}

fn reference<'d, 'i>(value: Value<'d, 'i>) -> Option<Reference<'d, 'i>> {
    const ACCEPTED: &str = "{ file = \"…\" }, { env = \"…\" }";
    let DeValue::Table(_) = value.inner else {
        value.mask();
        let message = format!("{} must not stand in the configuration itself", quote(&value.key.0));
        value.report(value.problem(message).accepted(ACCEPTED));
        return None;
    };
    let key = value.key.0.clone();
    let mut table = value.into_table()?;
    let (file, env) = (table.take("file"), table.take("env"));
    let (findings, span, only) = (table.findings, table.span.clone(), table.len() == 0);
    table.mask();
    table.finish();
    match (file, env) {
        (Some(file), None) => Some(Reference::File(file)),
        (None, Some(env)) => Some(Reference::Env(env)),
        // A key that is unknown says so itself.
        (None, None) if !only => None,
        (None, None) => {
            let message = format!("{} does not say where it is read from", quote(&key));
            findings.add(Problem::error(span, message).accepted(ACCEPTED));
            None
        }
        (Some(_), Some(_)) => {
            let message = format!("{} has two sources", quote(&key));
            findings.add(Problem::error(span, message).accepted(ACCEPTED));
            None
        }
    }
}

fn from_file(value: &Value<'_, '_>, scope: Scope<'_>) -> Option<Referred> {
    let path = path(value, scope)?;
    let origin = format!("file {}", quote(&path.to_string_lossy()));
    let bytes = match scope.reader.read(&path, MAX_SECRET_FILE) {
        Ok(bytes) => bytes,
        Err(error) => {
            value.report(value.problem(format!("cannot read {origin}: {error}")));
            return None;
        }
    };
    if let Some(mode) = scope.reader.exposed(&path) {
        let message = format!("{origin} is open to every user of this machine (mode {mode:04o})");
        value.report(value.warning(message).help("chmod o= on it"));
    }
    let Ok(text) = std::str::from_utf8(&bytes) else {
        value.report(value.problem(format!("{origin} is not text")));
        return None;
    };
    Some(Referred { text: without_line_break(text), origin, span: value.span.clone() })
}

/// The name of an environment variable.
fn variable<'v>(value: &'v Value<'_, '_>) -> Option<&'v str> {
    let name = value.text("the name of an environment variable")?;
    let mut bytes = name.bytes();
    let named = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !named {
        // Not repeated: it may be the secret itself.
        value.mask();
        let problem = value.problem("this is not the name of an environment variable");
        value.report(problem.accepted("letters, digits and \"_\", not starting with a digit"));
        return None;
    }
    Some(name)
}

fn from_env(value: &Value<'_, '_>, scope: Scope<'_>) -> Option<Referred> {
    let name = variable(value)?;
    let origin = format!("environment variable {}", quote(name));
    match scope.reader.env(name).map(std::ffi::OsString::into_string) {
        None => value.report(value.problem(format!("{origin} is not set"))),
        Some(Err(_)) => value.report(value.problem(format!("{origin} is not text"))),
        Some(Ok(text)) => {
            let text = without_line_break(&Zeroizing::new(text));
            return Some(Referred { text, origin, span: value.span.clone() });
        }
    }
    None
}

/// The path that a value names, as it is meant in this file.
pub(crate) fn path(value: &Value<'_, '_>, scope: Scope<'_>) -> Option<PathBuf> {
    let text = value.text("a path")?;
    if text.is_empty() || text.contains('\0') {
        value.report(value.problem(format!("{} is not a path", quote(text))));
        return None;
    }
    Some(scope.resolve(text))
}

fn without_line_break(text: &str) -> Zeroizing<String> {
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    Zeroizing::new(line.to_owned())
}
