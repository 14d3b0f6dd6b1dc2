//! Writes the file of a secret or of a signing key, as a whole or not at all.
//!
//! It is written to a file of its own, which then takes the place of the previous one: whoever reads at that
//! moment gets the one or the other. Nobody but the owner can read it at any time. If anything fails before that,
//! the previous file is what it was, and nothing is left behind.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Write};
use std::iter;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tempfile::{Builder, NamedTempFile};

/// How many symbolic links are followed: as many as Linux does (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// What became of a file that was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// The permission bits of the file that was replaced, if there was one.
    pub(crate) replaced: Option<u32>,
    /// Whether the file will be there after a power cut.
    pub(crate) synced: anyhow::Result<()>,
}

/// Writes a secret text to a file that only its owner may read, and makes its directory if there is none.
///
/// A file that is there is replaced if `replace`, and the new one belongs to the same owner and group. A symbolic link
/// stays, and what it leads to is replaced or made.
///
/// # Errors
/// There is a file and `replace` is not set, or the new file cannot be written. The previous one is as it was then.
pub(crate) fn write(path: &Path, text: &str, replace: bool) -> anyhow::Result<Written> {
    let target = follow(path)?;
    let previous = previous(&target)?;
    if previous.is_some() && !replace {
        bail!(exists(&target));
    }
    let directory = directory_of(&target);
    let made: Vec<_> = directory.ancestors().take_while(|directory| !directory.is_dir()).collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot create the directory {}", directory.display()))?;
    let file = temporary(directory, text, previous.as_ref())
        .with_context(|| format!("cannot write a new file for {}", target.display()))?;
    put(file, &target, replace)?;
    // A directory that was made is a name in another one.
    let synced = iter::once(&*target)
        .chain(made)
        .try_for_each(|name| File::open(directory_of(name))?.sync_all())
        .with_context(|| format!("{} is written, but a power cut may undo it", target.display()));
    Ok(Written { replaced: previous.map(|previous| previous.mode() & 0o7777), synced })
}

/// A finished file that is not in its place yet. It is deleted when it is dropped.
fn temporary(directory: &Path, text: &str, previous: Option<&Metadata>) -> anyhow::Result<NamedTempFile> {
    let mut file = Builder::new().permissions(Permissions::from_mode(0o600)).tempfile_in(directory)?;
    if let Some(previous) = previous {
        keep_owner(file.as_file(), previous).with_context(|| {
            let (user, group) = (previous.uid(), previous.gid());
            format!("it cannot be given to user {user} and group {group}, whose file is there")
        })?;
    }
    writeln!(file, "{text}")?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Gives a file its name, at once with all that is in it.
fn put(file: NamedTempFile, target: &Path, replace: bool) -> anyhow::Result<()> {
    let put = if replace { file.persist(target) } else { file.persist_noclobber(target) };
    match put.map_err(|failed| failed.error) {
        Ok(_) => Ok(()),
        // It was made meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(exists(target)),
        Err(error) => Err(error).with_context(|| format!("cannot put a file at {}", target.display())),
    }
}

fn exists(path: &Path) -> String {
    format!(
        "{} exists already, and is left as it is; --replace puts a new one in its place, \
         and the one that is there stops being valid",
        path.display()
    )
}

/// The path behind the symbolic links that a path ends in, whether or not there is anything at it.
fn follow(path: &Path) -> anyhow::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&target) {
            Ok(link) => target = directory_of(&target).join(link),
            // It is no link. If it cannot be reached, whoever wants to use it will find out.
            Err(_) => return Ok(target),
        }
    }
    bail!("{} leads through more than {MAX_LINKS} symbolic links", path.display())
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// What is to be replaced, if there is anything.
fn previous(target: &Path) -> anyhow::Result<Option<Metadata>> {
    match fs::symlink_metadata(target) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
        Ok(_) => bail!("{} is not a regular file", target.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", target.display())),
    }
}

/// Gives a file the owner and the group of another one, where they differ.
fn keep_owner(file: &File, previous: &Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    let owner = (own.uid() != previous.uid()).then(|| previous.uid());
    let group = (own.gid() != previous.gid()).then(|| previous.gid());
    if owner.is_none() && group.is_none() { Ok(()) } else { fchown(file, owner, group) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_made_meanwhile_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("acme");
        let file = temporary(directory.path(), "a-secret-that-came-late", None).unwrap();
        fs::write(&target, "correct-horse-battery-staple\n").unwrap();

        let refused = put(file, &target, false).unwrap_err();
        assert!(refused.to_string().contains("--replace"), "{refused:#}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "correct-horse-battery-staple\n");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }
}
