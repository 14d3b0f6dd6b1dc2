//! Who may read the queue's files: they hold the payloads, so nobody but the process's own user.
//!
//! What is made here is made so, whatever the umask is. SQLite gives its log and its index of the log the mode of the database. What was
//! there before stays as it is, and is warned of: somebody may have meant it.

use std::fs::{DirBuilder, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use tracing::warn;

const DIRECTORY: u32 = 0o700;
const FILE: u32 = 0o600;
/// What others than the owner and the group may do.
const OTHERS: u32 = 0o007;
/// What others than the owner may do.
const NOT_THE_OWNER: u32 = 0o077;

/// Makes the directory of the database, and those above it, if they are missing.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    match std::fs::metadata(directory) {
        Ok(found) if found.is_dir() => {
            // A volume that is mounted for a group is common, and what is in it is private all the same.
            warn_of("directory", directory, &found, OTHERS, DIRECTORY);
            Ok(())
        }
        _ => DirBuilder::new().recursive(true).mode(DIRECTORY).create(directory),
    }
}

/// Makes the file of the database if it is missing. SQLite takes an empty file for a new database.
pub(super) fn make_file(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(FILE).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            warn_of("file", path, &std::fs::metadata(path)?, NOT_THE_OWNER, FILE);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// How a file beside the database is opened, or made.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE);
    options
}

fn warn_of(what: &str, path: &Path, found: &Metadata, wider: u32, mode: u32) {
    let found = found.permissions().mode() & 0o7777;
    if found & wider != 0 {
        let path = path.display();
        warn!(
            "queue: others can read the {what} {path}, which holds payloads (mode {found:04o}): chmod {mode:04o} {path}"
        );
    }
}
