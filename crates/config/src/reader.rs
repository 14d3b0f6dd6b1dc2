//! Reads through a [`Source`] and remembers what it read: the paths, to watch them, and a hash over all of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::Source;

/// The largest `aquarium.toml`, organization file or certificate file, in bytes.
pub(crate) const MAX_FILE: u64 = 4 << 20;
/// The largest file that holds a secret or a header's value, in bytes.
pub(crate) const MAX_SECRET_FILE: u64 = 64 << 10;

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

/// Why a file gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("there is no such file")]
    Missing,
    #[error("permission denied")]
    Denied,
    #[error("it is larger than {}", bytesize::ByteSize(*.limit))]
    TooLarge { limit: u64 },
    #[error("{0}")]
    Other(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => ReadError::Missing,
            io::ErrorKind::PermissionDenied => ReadError::Denied,
            _ => ReadError::Other(error.to_string()),
        }
    }
}

/// The bytes of a file; wiped when the last holder lets go.
pub(crate) type Content = Rc<Zeroizing<Vec<u8>>>;

/// What was read so far. Every path is read at most once, so that all who name it see the same bytes.
pub(crate) struct Reader<'s> {
    source: &'s dyn Source,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    contents: BTreeMap<(PathBuf, u64), Result<Content, ReadError>>,
    files: BTreeSet<PathBuf>,
    exposed: BTreeSet<PathBuf>,
    hash: Sha256,
}

impl State {
    /// Every part with its length in front: no two sequences of parts are the same bytes.
    fn note(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.hash.update((part.len() as u64).to_le_bytes());
            self.hash.update(part);
        }
    }
}

impl<'s> Reader<'s> {
    pub(crate) fn new(source: &'s dyn Source) -> Self {
        Self { source, state: RefCell::default() }
    }

    /// The content of a file of at most `limit` bytes.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> Result<Content, ReadError> {
        let mut state = self.state.borrow_mut();
        let key = (path.to_owned(), limit);
        if let Some(known) = state.contents.get(&key) {
            return known.clone();
        }
        let result = match self.source.read(path, limit + 1) {
            Ok(bytes) if bytes.len() as u64 > limit => Err(ReadError::TooLarge { limit }),
            Ok(bytes) => Ok(Rc::new(Zeroizing::new(bytes))),
            Err(error) => Err(error.into()),
        };
        let name = path.as_os_str().as_encoded_bytes();
        match &result {
            Ok(bytes) => state.note(&[b"file", name, bytes]),
            Err(error) => state.note(&[b"unreadable", name, error.to_string().as_bytes()]),
        }
        state.files.insert(path.to_owned());
        state.contents.insert(key, result.clone());
        result
    }

    /// What is in a directory and is no directory itself, in order.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<PathBuf>, ReadError> {
        match self.source.list(dir) {
            Ok(mut paths) => {
                paths.sort();
                Ok(paths)
            }
            Err(error) => {
                let error = ReadError::from(error);
                let name = dir.as_os_str().as_encoded_bytes();
                self.state.borrow_mut().note(&[b"unlisted", name, error.to_string().as_bytes()]);
                Err(error)
            }
        }
    }

    /// The value of an environment variable.
    pub(crate) fn env(&self, name: &str) -> Option<OsString> {
        let value = self.source.env(name);
        match &value {
            Some(value) => {
                self.state.borrow_mut().note(&[b"env", name.as_bytes(), value.as_encoded_bytes()]);
            }
            None => self.state.borrow_mut().note(&[b"no env", name.as_bytes()]),
        }
        value
    }

    /// The permission bits of a file that every user of the machine may read or write; only the first time that it
    /// is asked about the file.
    ///
    /// A Kubernetes mount is left alone: it is 0644 unless told otherwise, and nobody else is in that container. Its
    /// sign is the link `..data` beside the file. That a group may read the file is how a service gets its secrets,
    /// and is fine.
    pub(crate) fn exposed(&self, path: &Path) -> Option<u32> {
        let mode = self.source.mode(path).filter(|mode| mode & 0o007 != 0)?;
        let mounted = self.source.mode(&path.with_file_name("..data")).is_some();
        (!mounted && self.state.borrow_mut().exposed.insert(path.to_owned())).then_some(mode)
    }

    /// The paths that were read or should have been, and the hash over what was in them.
    pub(crate) fn finish(self) -> (Vec<PathBuf>, Fingerprint) {
        let state = self.state.into_inner();
        (state.files.into_iter().collect(), Fingerprint(state.hash.finalize().into()))
    }
}

/// Where a configuration file's relative paths start, and what reads them.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// The directory of the file that names the paths.
    pub(crate) base: &'a Path,
    pub(crate) reader: &'a Reader<'a>,
}

impl<'a> Scope<'a> {
    /// The scope of a configuration file.
    pub(crate) fn of(file: &'a Path, reader: &'a Reader<'a>) -> Self {
        Self { base: file.parent().unwrap_or(Path::new("")), reader }
    }

    /// A path as it is meant in this file.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }
}
