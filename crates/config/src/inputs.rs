//! The record of what a configuration was made from.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::Source;
use crate::organization::name;
use crate::reader::{Listing, ReadError, fetch, list};

/// Everything that was read for a configuration, or should have been: files, the list of organizations, environment
/// variables. Hashes of what was in them are kept, not the contents.
#[derive(Debug, Clone)]
pub struct Inputs {
    dir: PathBuf,
    all: Vec<Input>,
    /// The files changed each time they were read: this is no state that they ever had.
    torn: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Input {
    File { path: PathBuf, limit: u64, document: bool, seen: Seen, shape: Option<Shape> },
    Directory { path: PathBuf, seen: Seen, device: Option<u64>, listed: bool },
    Variable { name: String, seen: Seen },
}

/// What is kept of a file, to tell later what another version of it lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    length: usize,
    /// Whether its last line is complete.
    ended: bool,
    /// Hashes of the paths of all keys, in order; of documents only.
    pub(crate) keys: Vec<u64>,
}

impl Shape {
    pub(crate) fn new(content: &[u8]) -> Self {
        Self { length: content.len(), ended: content.ends_with(b"\n"), keys: Vec::new() }
    }
}

/// What there is of the directory of the organizations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Presence {
    /// Whether it could be listed.
    pub(crate) listed: bool,
    /// How many organizations have a file in it.
    pub(crate) organizations: usize,
    /// The device that it is on.
    pub(crate) device: Option<u64>,
}

impl Inputs {
    pub(crate) fn new(dir: PathBuf, all: Vec<Input>) -> Self {
        Self { dir, all, torn: false }
    }

    /// The same, of a reading during which the files changed.
    pub(crate) fn torn(self) -> Self {
        Self { torn: true, ..self }
    }

    /// Whether the files changed while they were read.
    pub(crate) fn are_torn(&self) -> bool {
        self.torn
    }

    /// The organizations that have a file, whatever is in it.
    pub(crate) fn organizations(&self) -> impl Iterator<Item = Arc<str>> {
        let main = self.dir.clone();
        let documents = self.all.iter().filter_map(|input| match input {
            Input::File { path, document: true, .. } => Some(path),
            _ => None,
        });
        // What is in the directory itself is aquarium.toml.
        let files = documents.filter(move |path| path.parent() != Some(&main));
        files.filter_map(|path| name(path).map(Arc::from))
    }

    pub(crate) fn presence(&self) -> Presence {
        let directory = self.all.iter().find_map(|input| match input {
            Input::Directory { device, listed, .. } => Some((*listed, *device)),
            _ => None,
        });
        let (listed, device) = directory.unwrap_or_default();
        Presence { listed, organizations: self.organizations().count(), device }
    }

    /// Whether these lack something that `earlier` ones have, as files do that are being saved: a file of the configuration, a table
    /// or key in one, or the end of a file. Where nothing is lacking, nothing that was configured is lost.
    pub(crate) fn lack_something_of(&self, earlier: &Inputs) -> bool {
        let shapes = |inputs: &Inputs| -> BTreeMap<PathBuf, (Seen, bool, Shape)> {
            let files = inputs.all.iter().filter_map(|input| match input {
                Input::File { path, document, seen, shape: Some(shape), .. } => {
                    Some((path.clone(), (*seen, *document, shape.clone())))
                }
                _ => None,
            });
            files.collect()
        };
        let (before, now) = (shapes(earlier), shapes(self));
        let vanished = before.iter().any(|(path, (_, document, _))| *document && !now.contains_key(path));
        vanished
            || now.iter().any(|(path, (seen, document, shape))| match before.get(path) {
                Some((same, ..)) if same == seen => false,
                Some((.., old)) if *document => !shape.ended || !is_subset(&old.keys, &shape.keys),
                Some((.., old)) => shape.length < old.length,
                None => *document && !shape.ended,
            })
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
                Input::Directory { path, seen, .. } => {
                    (b"directory", path.as_os_str().as_encoded_bytes(), seen)
                }
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
        !self.torn && self.are_read_again(source)
    }

    /// Whether another reading gives the same: then there was a moment between the two at which all of the files were so.
    pub(crate) fn are_read_again(&self, source: &dyn Source) -> bool {
        self.all.iter().all(|input| match input {
            Input::File { path, limit, seen, .. } => {
                let content = fetch(source, path, *limit);
                *seen == Seen::file(content.as_ref().map(|content| content.as_slice()))
            }
            Input::Directory { path, seen, device, .. } => {
                *device == source.device(path) && *seen == Seen::directory(list(source, path).as_ref())
            }
            Input::Variable { name, seen } => *seen == Seen::variable(source.env(name).as_deref()),
        })
    }
}

/// Whether all of the first are among the second. Both are in order.
fn is_subset(some: &[u64], all: &[u64]) -> bool {
    let mut all = all.iter();
    some.iter().all(|one| all.any(|other| other == one))
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

    /// Only what is read or warned about counts: editors may leave in a directory what they like.
    pub(crate) fn directory(listing: Result<&Listing, &ReadError>) -> Self {
        match listing {
            Ok(listing) => {
                let of =
                    |paths: &[PathBuf]| hash(paths.iter().map(|path| path.as_os_str().as_encoded_bytes()));
                let Listing { files, misplaced, strays, directories } = listing;
                Self::parts([&of(files)[..], &of(misplaced), &of(strays), &of(directories)])
            }
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
