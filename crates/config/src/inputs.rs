//! The record of what a configuration was made from.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::Source;
use crate::reader::{ReadError, fetch, list};

/// Everything that was read for a configuration, or should have been: files, the list of organizations, environment
/// variables. Hashes of what was in them are kept, not the contents.
#[derive(Debug, Clone)]
pub struct Inputs {
    dir: PathBuf,
    all: Vec<Input>,
}

#[derive(Debug, Clone)]
pub(crate) enum Input {
    File { path: PathBuf, limit: u64, document: bool, seen: Seen },
    Directory { path: PathBuf, seen: Seen },
    Variable { name: String, seen: Seen },
}

impl Inputs {
    pub(crate) fn new(dir: PathBuf, all: Vec<Input>) -> Self {
        Self { dir, all }
    }

    /// Every file, in the order of their paths: the configuration's own, secrets and certificates.
    pub fn files(&self) -> BTreeSet<&Path> {
        let files = self.all.iter().filter_map(|input| match input {
            Input::File { path, .. } => Some(path.as_path()),
            _ => None,
        });
        files.collect()
    }

    /// The directories in which something that counts may change or appear.
    pub fn directories(&self) -> BTreeSet<PathBuf> {
        let inputs = self.all.iter().filter_map(|input| match input {
            Input::Directory { path, .. } => Some(path.as_path()),
            Input::File { path, .. } => path.parent(),
            Input::Variable { .. } => None,
        });
        // The parent of a bare name is empty, and means here.
        let here = |path: &Path| if path.as_os_str().is_empty() { ".".into() } else { path.to_owned() };
        inputs.chain([self.dir.as_path()]).map(here).collect()
    }

    /// Equal to that of another record if loading would come to the same.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(hash(self.all.iter().flat_map(|input| {
            let (kind, name, seen): (&[u8], _, _) = match input {
                Input::File { path, seen, .. } => (b"file", path.as_os_str().as_encoded_bytes(), seen),
                Input::Directory { path, seen } => (b"directory", path.as_os_str().as_encoded_bytes(), seen),
                Input::Variable { name, seen } => (b"variable", name.as_bytes(), seen),
            };
            [kind, name, &seen.0]
        })))
    }

    /// What the configuration's own files hold, to compare it with that of another sidecar.
    pub fn digest(&self) -> Digest {
        let documents = self.all.iter().filter_map(|input| match input {
            Input::File { path, document: true, seen, .. } => {
                Some([path.strip_prefix(&self.dir).unwrap_or(path).as_os_str().as_encoded_bytes(), &seen.0])
            }
            _ => None,
        });
        Digest(hash(documents.flatten()))
    }

    /// Whether reading all of it again gives the same. It is cheaper than loading: nothing is parsed, and the first
    /// difference ends it.
    pub fn are_unchanged(&self, source: &dyn Source) -> bool {
        self.all.iter().all(|input| match input {
            Input::File { path, limit, seen, .. } => {
                let content = fetch(source, path, *limit);
                *seen == Seen::file(content.as_ref().map(|content| content.as_slice()))
            }
            Input::Directory { path, seen } => *seen == Seen::directory(list(source, path).as_deref()),
            Input::Variable { name, seen } => *seen == Seen::variable(source.env(name).as_deref()),
        })
    }
}

/// A hash of what was found in one place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen([u8; 32]);

impl Seen {
    pub(crate) fn file(content: Result<&[u8], &ReadError>) -> Self {
        match content {
            Ok(content) => Self::parts([b"content", content]),
            Err(error) => Self::error(error),
        }
    }

    pub(crate) fn directory(files: Result<&[PathBuf], &ReadError>) -> Self {
        match files {
            Ok(files) => Self(hash(files.iter().map(|file| file.as_os_str().as_encoded_bytes()))),
            Err(error) => Self::error(error),
        }
    }

    pub(crate) fn variable(value: Option<&OsStr>) -> Self {
        match value {
            Some(value) => Self::parts([b"value", value.as_encoded_bytes()]),
            None => Self::parts([b"unset"]),
        }
    }

    fn error(error: &ReadError) -> Self {
        Self::parts([b"error", error.to_string().as_bytes()])
    }

    fn parts<const N: usize>(parts: [&[u8]; N]) -> Self {
        Self(hash(parts))
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seen(..)")
    }
}

/// Every part goes in with its length in front: no two sequences of parts are the same bytes.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// A hash over everything that was read: equal ones mean that nothing that matters has changed.
///
/// Secrets are part of it, so it is for comparing only: it has no text form, lest somebody publish what could be used
/// to check guesses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(..)")
    }
}

/// A hash over `aquarium.toml` and the organizations' files, with their names. It does not depend on where the
/// directory is, nor on secrets, certificates and the environment.
///
/// Printed as 16 hexadecimal digits, the start of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
