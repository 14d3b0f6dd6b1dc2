//! Where the configuration is read from.
//!
//! Everything that loading learns of the world comes through [`Source`]: the files, their permission bits and the
//! environment. [`Fs`] is the real one; [`Memory`] holds all of it in maps, for tests.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};

/// Files and an environment to read a configuration from.
pub trait Source {
    /// The first `limit` bytes of a file, or all of it if it has fewer. Symbolic links are followed.
    ///
    /// # Errors
    /// The file cannot be read, or is not a regular file.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;

    /// The paths of everything in a directory that is not a directory itself, in any order.
    ///
    /// # Errors
    /// The directory cannot be listed.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// The value of an environment variable.
    fn env(&self, name: &str) -> Option<OsString>;

    /// The permission bits of what is at `path` (`0o640`); none if there is nothing, or no such bits here.
    fn mode(&self, path: &Path) -> Option<u32>;
}

/// The file system and the environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fs;

impl Source for Fs {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        // Asked before opening: to open a pipe that nobody writes to would wait forever.
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // Room for all of it at once: a buffer that grows leaves copies of a secret behind.
        let size = metadata.len().saturating_add(1).min(limit);
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            // A link that leads nowhere stays in the list: reading it will say so.
            if !fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                paths.push(path);
            }
        }
        Ok(paths)
    }

    fn env(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    #[cfg(unix)]
    fn mode(&self, path: &Path) -> Option<u32> {
        use std::os::unix::fs::PermissionsExt as _;
        Some(fs::metadata(path).ok()?.permissions().mode() & 0o7777)
    }

    #[cfg(not(unix))]
    fn mode(&self, _path: &Path) -> Option<u32> {
        None
    }
}

/// Files and an environment in memory. Directories exist where a file is in them.
#[derive(Clone, Default)]
pub struct Memory {
    files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
    env: BTreeMap<String, OsString>,
}

impl Memory {
    /// With nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a file; only its owner may read it.
    #[must_use]
    pub fn file(self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) -> Self {
        self.file_with_mode(path, content, 0o600)
    }

    /// Adds or replaces a file with these permission bits.
    #[must_use]
    pub fn file_with_mode(mut self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.files.insert(normal(path.as_ref()), (content.into(), mode));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Removes a file.
    #[must_use]
    pub fn without(mut self, path: impl AsRef<Path>) -> Self {
        self.files.remove(&normal(path.as_ref()));
        self
    }
}

impl Source for Memory {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let (content, _) = self.files.get(&normal(path)).ok_or(io::ErrorKind::NotFound)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(content[..content.len().min(limit)].to_vec())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let inside = normal(dir);
        if !self.files.keys().any(|path| path.starts_with(&inside)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let children = self.files.keys().filter(|path| path.parent() == Some(&inside));
        Ok(children.filter_map(|path| Some(dir.join(path.file_name()?))).collect())
    }

    fn env(&self, name: &str) -> Option<OsString> {
        self.env.get(name).cloned()
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        self.files.get(&normal(path)).map(|(_, mode)| *mode)
    }
}

/// The path without `.` and `..`; there are no links here that would make that wrong.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}
