//! Reads through a [`Source`], each thing once, and keeps a record of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use zeroize::Zeroizing;

use crate::inputs::{Input, Inputs, Seen, Shape};
use crate::organization::name;
use crate::source::normal;
use crate::strays::{is_not_meant, stray};
use crate::{Entry, Source};

/// The largest `aquarium.toml`, organization file or certificate file, in bytes.
pub(crate) const MAX_FILE: u64 = 4 << 20;
/// The largest file that holds a secret or a header's value, in bytes.
pub(crate) const MAX_SECRET_FILE: u64 = 64 << 10;

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
    exposed: BTreeSet<PathBuf>,
    inputs: Vec<Input>,
}

impl<'s> Reader<'s> {
    pub(crate) fn new(source: &'s dyn Source) -> Self {
        Self { source, state: RefCell::default() }
    }

    /// The content of a file of the configuration itself.
    pub(crate) fn document(&self, path: &Path) -> Result<Content, ReadError> {
        self.file(path, MAX_FILE, true)
    }

    /// The content of a file of at most `limit` bytes that the configuration names.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> Result<Content, ReadError> {
        self.file(path, limit, false)
    }

    fn file(&self, path: &Path, limit: u64, document: bool) -> Result<Content, ReadError> {
        let mut state = self.state.borrow_mut();
        let key = (path.to_owned(), limit);
        if let Some(known) = state.contents.get(&key) {
            return known.clone();
        }
        let result = fetch(self.source, path, limit).map(Rc::new);
        let seen = Seen::file(result.as_ref().map(|content| content.as_slice()));
        let shape = result.as_ref().ok().map(|content| Shape::new(content));
        state.inputs.push(Input::File { path: path.to_owned(), limit, document, seen, shape });
        state.contents.insert(key, result.clone());
        result
    }

    /// Notes which keys a document has, by the hashes of their paths.
    pub(crate) fn note_keys(&self, document: &Path, mut keys: Vec<u64>) {
        keys.sort_unstable();
        keys.dedup();
        for input in self.state.borrow_mut().inputs.iter_mut().rev() {
            if let Input::File { path, document: true, shape: Some(shape), .. } = input
                && path == document
            {
                shape.keys = keys;
                return;
            }
        }
    }

    /// What is in the directory of the organizations, or below it.
    pub(crate) fn list(&self, dir: &Path) -> Result<Listing, ReadError> {
        // Asked before listing: what is mounted in between is noticed as another device, at the next look.
        let device = self.source.device(dir);
        let result = list(self.source, dir);
        let (seen, listed) = (Seen::directory(result.as_ref()), result.is_ok());
        self.state.borrow_mut().inputs.push(Input::Directory { path: dir.to_owned(), seen, device, listed });
        result
    }

    /// Whether the configuration names this file.
    pub(crate) fn has_read(&self, file: &Path) -> bool {
        let file = normal(file);
        let state = self.state.borrow();
        state.contents.keys().any(|(path, _)| normal(path) == file)
    }

    /// The value of an environment variable.
    pub(crate) fn env(&self, name: &str) -> Option<OsString> {
        let value = self.source.env(name);
        let seen = Seen::variable(value.as_deref());
        self.state.borrow_mut().inputs.push(Input::Variable { name: name.to_owned(), seen });
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

    /// The record of all that was read or should have been, for the configuration in `dir`.
    pub(crate) fn finish(self, dir: &Path) -> Inputs {
        Inputs::new(dir.to_owned(), self.state.into_inner().inputs)
    }
}

/// The content of a file of at most `limit` bytes.
pub(crate) fn fetch(source: &dyn Source, path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let content = Zeroizing::new(source.read(path, limit + 1)?);
    if content.len() as u64 > limit { Err(ReadError::TooLarge { limit }) } else { Ok(content) }
}

/// What is in a directory, as far as it concerns organizations; each in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    /// The files of organizations.
    pub(crate) files: Vec<PathBuf>,
    /// Directories with the name of an organization's file.
    pub(crate) misplaced: Vec<PathBuf>,
    /// Files that look as if they were an organization's.
    pub(crate) strays: Vec<PathBuf>,
    /// Other directories that are not hidden.
    pub(crate) directories: Vec<PathBuf>,
}

/// What is in a directory, as far as it concerns organizations.
pub(crate) fn list(source: &dyn Source, dir: &Path) -> Result<Listing, ReadError> {
    let mut listing = Listing::default();
    let mut entries = source.list(dir)?;
    entries.sort();
    for Entry { path, is_directory } in entries {
        let hidden = || path.file_name().is_none_or(|name| is_not_meant(&name.to_string_lossy()));
        match (name(&path).is_some(), is_directory) {
            (true, false) => listing.files.push(path),
            (true, true) => listing.misplaced.push(path),
            (false, true) if !hidden() => listing.directories.push(path),
            (false, false) if stray(&path).is_some() => listing.strays.push(path),
            (false, _) => {}
        }
    }
    Ok(listing)
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
