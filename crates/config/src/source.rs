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

    /// Everything in a directory, in any order. Symbolic links are followed.
    ///
    /// # Errors
    /// The directory cannot be listed.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// The device that a directory is on; none if there is no directory, or no such number here. It changes when a volume
    /// is mounted over the directory, or unmounted from it.
    fn device(&self, dir: &Path) -> Option<u64>;

    /// The value of an environment variable.
    fn env(&self, name: &str) -> Option<OsString>;

    /// The permission bits of what is at `path` (`0o640`); none if there is nothing, or no such bits here.
    fn mode(&self, path: &Path) -> Option<u32>;
}

/// Something in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The path of the directory, and the name.
    pub path: PathBuf,
    /// Whether it is a directory itself.
    pub is_directory: bool,
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

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            // A link that leads nowhere counts as a file: reading it will say so.
            let is_directory = fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir());
            entries.push(Entry { path, is_directory });
        }
        Ok(entries)
    }

    #[cfg(unix)]
    fn device(&self, dir: &Path) -> Option<u64> {
        use std::os::unix::fs::MetadataExt as _;
        Some(fs::metadata(dir).ok()?.dev())
    }

    #[cfg(not(unix))]
    fn device(&self, _dir: &Path) -> Option<u64> {
        None
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

/// Files and an environment in memory. Directories exist where a file is in them, or where they were made.
#[derive(Clone, Default)]
pub struct Memory {
    files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
    devices: BTreeMap<PathBuf, u64>,
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

    /// Makes a directory, which may stay empty, on this device. Others are on device 0.
    #[must_use]
    pub fn directory(mut self, path: impl AsRef<Path>, device: u64) -> Self {
        self.devices.insert(normal(path.as_ref()), device);
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

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let inside = normal(dir);
        if self.device(dir).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut entries = BTreeMap::new();
        for path in self.files.keys() {
            let mut below = path.strip_prefix(&inside).into_iter().flat_map(Path::components);
            if let Some(name) = below.next() {
                entries.insert(dir.join(name), below.next().is_some());
            }
        }
        Ok(entries.into_iter().map(|(path, is_directory)| Entry { path, is_directory }).collect())
    }

    fn device(&self, dir: &Path) -> Option<u64> {
        let inside = normal(dir);
        let made = self.devices.get(&inside).copied();
        made.or_else(|| self.files.keys().any(|path| path.starts_with(&inside)).then_some(0))
    }

    fn env(&self, name: &str) -> Option<OsString> {
        self.env.get(name).cloned()
    }

    fn mode(&self, path: &Path) -> Option<u32> {
        self.files.get(&normal(path)).map(|(_, mode)| *mode)
    }
}

/// The path without `.` and `..`, as if there were no links.
pub(crate) fn normal(path: &Path) -> PathBuf {
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
