//! One process per queue.
//!
//! The lock is on the database itself (`flock(2)`, which does not meet the locks that SQLite takes by `fcntl(2)`): so it holds by
//! whatever path another process comes, through a symlink, or after somebody deleted the file beside it. That file,
//! `<path>.lock`, is locked as well, and tells which process has the queue.
//!
//! A process that closes the database loses all of SQLite's locks on it (`fcntl(2)`): the lock has to live longer than
//! every connection.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{OpenError, private};

/// Holds the queue as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    _database: File,
    _file: File,
}

/// Takes the lock of the database at `path`, which is made if it is missing.
pub(super) fn acquire(path: &Path) -> Result<Lock, OpenError> {
    let in_use = |file: &mut File| OpenError::InUse { path: path.to_owned(), holder: holder(file) };
    let lock_path = lock_path(path);
    let unusable = |source| OpenError::Directory { path: lock_path.clone(), source };
    refuse_link(&lock_path).map_err(unusable)?;
    let mut file = private::options().open(&lock_path).map_err(unusable)?;
    if !lock(&file).map_err(unusable)? {
        return Err(in_use(&mut file));
    }
    let failed = |source| OpenError::Directory { path: path.to_owned(), source };
    private::make_file(path).map_err(failed)?;
    let database = File::open(path).map_err(failed)?;
    let links = database.metadata().map_err(failed)?.nlink();
    if links > 1 {
        return Err(OpenError::HardLinked { path: path.to_owned(), links });
    }
    if !lock(&database).map_err(failed)? {
        return Err(in_use(&mut file));
    }
    file.set_len(0).map_err(unusable)?;
    writeln!(file, "{}", std::process::id()).map_err(unusable)?;
    Ok(Lock { _database: database, _file: file })
}

/// Whether the file is locked now. Otherwise another process has it.
fn lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A lock file is written to: that must not go to a file that a link leads to.
fn refuse_link(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => {
            Err(io::Error::other("this is no regular file, and will not be written to; remove it"))
        }
        _ => Ok(()),
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(32).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!(" (process {})", text.trim()),
        _ => String::new(),
    }
}
