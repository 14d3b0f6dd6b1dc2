//! Hints that a file may have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{self, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::Inputs;

/// The most directories that are watched; changes in further ones are noticed by the poll.
const MAX_DIRECTORIES: usize = 1_024;

/// The most links that a path is followed through, as on Linux.
const MAX_LINKS: usize = 40;

/// Where a watcher tells that something may have changed. Hints that nobody has looked at yet are one hint.
#[derive(Debug, Clone, Default)]
pub struct Hints(Arc<Notify>);

impl Hints {
    /// Without one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells that something may have changed.
    pub fn give(&self) {
        self.0.notify_one();
    }

    pub(super) async fn noticed(&self) {
        self.0.notified().await;
    }
}

/// Why changes are not noticed at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration's files cannot be watched: {0}")]
pub struct WatchError(pub String);

/// Gives hints when files change. What it misses is found by the poll.
pub trait Watch: Send {
    /// Watches where these were found, and nothing else. When something is watched that was not before, it gives a hint:
    /// it may have changed since it was read.
    ///
    /// # Errors
    /// Not everything could be watched; what could be is.
    fn watch(&mut self, inputs: &Inputs) -> Result<(), WatchError>;

    /// The same again, for what could not be watched or has made room for something else since.
    ///
    /// # Errors
    /// Not everything could be watched; what could be is.
    fn renew(&mut self) -> Result<(), WatchError>;
}

/// Has the operating system tell what changes in the directories of the files. Files themselves are not watched: most
/// programs that change one put another in its place.
pub struct FileWatch {
    hints: Hints,
    watcher: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
    /// Where it is decided what is found at these paths.
    wanted: BTreeSet<PathBuf>,
    watched: BTreeMap<Identity, PathBuf>,
    /// Something changed: any directory may have been replaced by another, even with the same identity.
    stirred: Arc<AtomicBool>,
}

impl fmt::Debug for FileWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileWatch").field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl FileWatch {
    /// Watches nothing yet.
    pub fn new(hints: Hints) -> Self {
        Self {
            hints,
            watcher: None,
            directories: BTreeSet::new(),
            files: BTreeSet::new(),
            wanted: BTreeSet::new(),
            watched: BTreeMap::new(),
            stirred: Arc::default(),
        }
    }

    fn start(&self) -> notify::Result<RecommendedWatcher> {
        let (hints, stirred) = (self.hints.clone(), self.stirred.clone());
        notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading a file is an event too, and the reader must not wake itself.
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            stirred.store(true, Ordering::Release);
            hints.give();
        })
    }
}

impl Watch for FileWatch {
    fn watch(&mut self, inputs: &Inputs) -> Result<(), WatchError> {
        self.directories = inputs.directories();
        self.files = inputs.files().into_iter().map(Path::to_owned).collect();
        self.update(true)
    }

    fn renew(&mut self) -> Result<(), WatchError> {
        self.update(false)
    }
}

impl FileWatch {
    /// Watches what is to be watched now; which that is, is found out `anew`, and whenever something has changed.
    fn update(&mut self, anew: bool) -> Result<(), WatchError> {
        let all = self.stirred.swap(false, Ordering::AcqRel);
        if anew || all {
            self.wanted = decisive(&self.directories, &self.files);
        }
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            None => {
                let started = self.start().map_err(|error| WatchError(reason(&error)))?;
                self.watcher.insert(started)
            }
        };
        // What has several paths is watched by one.
        let mut present = BTreeMap::new();
        for path in &self.wanted {
            if let Some(identity) = identity(path) {
                present.entry(identity).or_insert(path);
            }
        }
        self.watched.retain(|identity, path| {
            let stays = present.get(identity).is_some_and(|present| *present == path);
            if !stays {
                // It may have ended by itself, with what was watched.
                let _ = watcher.unwatch(path);
            }
            stays
        });
        let too_many = present.len() > MAX_DIRECTORIES;
        let mut failed = too_many.then(|| format!("they are in more than {MAX_DIRECTORIES} directories"));
        let mut added = false;
        for (identity, path) in present.into_iter().take(MAX_DIRECTORIES) {
            if !all && self.watched.contains_key(&identity) {
                continue;
            }
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => added |= self.watched.insert(identity, path.clone()).is_none(),
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                Err(error) => drop(failed.get_or_insert(reason(&error))),
            }
        }
        if added {
            self.hints.give();
        }
        failed.map_or(Ok(()), |error| Err(WatchError(error)))
    }
}

/// The directories in which it is decided what is found under these paths: their own, those of the links that lead to
/// them, and those in which something is missing.
fn decisive(directories: &BTreeSet<PathBuf>, files: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let mut all = directories.clone();
    for path in directories.iter().chain(files.iter().filter(|file| file.is_symlink())) {
        follow(path, &mut all);
    }
    all
}

/// Adds the directories of the links on the way of a path, and the one in which it ends or breaks off.
fn follow(path: &Path, directories: &mut BTreeSet<PathBuf>) {
    let reversed = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
    };
    let Ok(path) = path::absolute(path) else { return };
    let (mut at, mut ahead, mut links) = (PathBuf::new(), reversed(&path), 0);
    while let Some(part) = ahead.pop() {
        if part == ".." {
            // There is no link in what is behind.
            at.pop();
            continue;
        }
        let next = at.join(part);
        match next.read_link() {
            Ok(_) if links == MAX_LINKS => return,
            Ok(target) => {
                links += 1;
                ahead.extend(reversed(&target));
                directories.insert(at.clone());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                directories.insert(at);
                return;
            }
            // It is there, and no link.
            Err(_) => at = next,
        }
    }
    if !at.is_dir() {
        directories.extend(at.parent().map(Path::to_owned));
    }
}

/// Why watching failed, and what can be done about it where the system's own words do not say.
fn reason(error: &notify::Error) -> String {
    const TOO_MANY_OPEN_FILES: i32 = 24;
    match &error.kind {
        ErrorKind::MaxFilesWatch => {
            "too many watches are in use (sysctl fs.inotify.max_user_watches)".to_owned()
        }
        ErrorKind::Io(error) if error.raw_os_error() == Some(TOO_MANY_OPEN_FILES) => {
            format!("{error}; see sysctl fs.inotify.max_user_instances, and ulimit -n")
        }
        _ => error.to_string(),
    }
}

/// Tells one directory from another that has the same path: device and inode.
#[cfg(unix)]
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = path.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Tells one directory from another, as far as its path does.
#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<Identity> {
    path.canonicalize().ok()
}
