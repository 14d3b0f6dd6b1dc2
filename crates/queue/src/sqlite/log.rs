//! Whether the log beside the file still has what was committed to it.
//!
//! SQLite reads a log up to the first frame that is not valid, and silently takes what follows for a write that was never
//! committed: a log that was truncated, deleted or damaged costs what was accepted, without a word. But a process that was
//! killed leaves the index of its log behind (`-shm`), which says how many frames were committed, and how many of them had been
//! written back to the file. What SQLite recovers is compared with that.
//!
//! After a power cut the index may be older than the log, or its header invalid: then less is known, and there is no false alarm,
//! for the index is only ever written after the frames were synced. After a graceful shutdown there is neither log nor index.
//!
//! The layout is SQLite's (<https://www.sqlite.org/walformat.html>, section 2.1), in the byte order of the machine.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::{OpenError, schema};

/// Two copies of the header, and how much was written back.
const INDEX: usize = 2 * HEADER + 4;
const HEADER: usize = 48;
/// The version of the layout.
const VERSION: u32 = 3_007_000;

/// What the index says of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Index {
    /// Frames that were committed.
    frames: u32,
    /// Of these, the ones that were written back to the file.
    written: u32,
}

/// What a log has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lost {
    /// Frames that were committed, and are not in the file either.
    frames: u32,
    /// Frames that were committed, in all.
    of: u32,
}

/// Compares the log of a queue that is about to be opened, and that is locked, with what was committed to it, and tells what it
/// has lost. Nothing can be done about that: the queue is opened with what there is.
pub(super) fn check(path: &Path) -> Result<(), OpenError> {
    if !path.exists() {
        return Ok(());
    }
    let log = beside(path, "-wal");
    match read(&beside(path, "-shm")) {
        Some(index) => {
            if let Some(Lost { frames, of }) = missing(path, index)? {
                error!(log = %log.display(), "queue: the log was truncated or damaged: {frames} of {of} pages that were committed to it are lost, and with them the events and results that were recorded last; the app can post again what it still knows of");
            }
        }
        None if std::fs::metadata(&log).is_ok_and(|log| log.len() == 0) => {
            warn!(log = %log.display(), "queue: the log is empty, and there is no index that would tell whether it should be; if the sidecar was not stopped gracefully, what was recorded last may be lost");
        }
        None => {}
    }
    Ok(())
}

/// Has SQLite recover the log, and compares what it found with the index that was there before.
fn missing(path: &Path, index: Index) -> Result<Option<Lost>, OpenError> {
    if index.frames <= index.written {
        return Ok(None);
    }
    let recovered = schema::open_beside(path)?
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(1))
        .map_err(|source| OpenError::of(path, source))?;
    Ok(lost(index, u32::try_from(recovered).unwrap_or(0)))
}

/// What is missing if so many frames were recovered.
fn lost(index: Index, recovered: u32) -> Option<Lost> {
    let frames = index.frames.saturating_sub(recovered.max(index.written));
    (frames > 0).then_some(Lost { frames, of: index.frames })
}

/// Reads an index. `None` if there is none, or none that is valid.
fn read(path: &Path) -> Option<Index> {
    let mut bytes = [0; INDEX];
    File::open(path).ok()?.read_exact(&mut bytes).ok()?;
    parse(&bytes)
}

fn parse(bytes: &[u8; INDEX]) -> Option<Index> {
    let (first, rest) = bytes.split_first_chunk::<HEADER>()?;
    let (second, rest) = rest.split_first_chunk::<HEADER>()?;
    let words: Vec<u32> = first.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
    let initialized = first[12] == 1;
    let (version, frames, sums) = (*words.first()?, *words.get(4)?, words.get(10..12)?);
    let valid = first == second && initialized && version == VERSION && sums == checksum(words.get(..10)?);
    let written = u32::from_ne_bytes(*rest.first_chunk()?);
    valid.then_some(Index { frames, written })
}

/// Of an even number of words (section 4.2 of the format of the file).
fn checksum(words: &[u32]) -> [u32; 2] {
    words.as_chunks::<2>().0.iter().fold([0_u32; 2], |[first, second], pair| {
        let first = first.wrapping_add(pair[0]).wrapping_add(second);
        [first, second.wrapping_add(pair[1]).wrapping_add(first)]
    })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The files of a process that was killed: 40 rows were committed, one by one.
    fn killed(directory: &Path, written_back: bool) -> PathBuf {
        let (running, path) = (directory.join("running.db"), directory.join("queue.db"));
        let connection = schema::open(&running).unwrap();
        for number in 0..40 {
            if number == 20 && written_back {
                connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
            }
            let sql = "INSERT INTO projects (organization, name) VALUES ('acme', ?)";
            connection.execute(sql, [number]).unwrap();
        }
        for suffix in ["", "-wal", "-shm"] {
            fs::copy(beside(&running, suffix), beside(&path, suffix)).unwrap();
        }
        path
    }

    /// What is missing, and how many rows are there, when this was done to the log.
    fn after(written_back: bool, harm: impl FnOnce(&Path)) -> (Option<u32>, u32) {
        let directory = tempfile::tempdir().unwrap();
        let path = killed(directory.path(), written_back);
        harm(&beside(&path, "-wal"));
        let index = read(&beside(&path, "-shm")).unwrap();
        let missing = missing(&path, index).unwrap();
        let connection = schema::open(&path).unwrap();
        let rows = connection.query_row("SELECT count(*) FROM projects", [], |row| row.get(0)).unwrap();
        (missing.map(|lost| lost.frames), rows)
    }

    fn cut(log: &Path, part: u64) {
        let file = fs::OpenOptions::new().write(true).open(log).unwrap();
        file.set_len(file.metadata().unwrap().len() * part / 100).unwrap();
    }

    #[test]
    fn a_log_that_lost_what_was_committed_is_told_from_one_that_did_not() {
        assert_eq!(after(false, |_| {}), (None, 40));
        assert_eq!(after(true, |_| {}), (None, 40));
        // What is behind the last commit was never promised.
        let torn =
            |log: &Path| fs::write(log, [&fs::read(log).unwrap()[..], &[0xa5; 9_000]].concat()).unwrap();
        assert_eq!(after(false, torn), (None, 40));

        let (emptied, none) = after(true, |log| cut(log, 0));
        assert!(emptied.is_some_and(|frames| frames >= 20) && none == 20, "{emptied:?} {none}");
        assert_eq!(after(true, |log| fs::remove_file(log).unwrap()), (emptied, 20), "deleted");
        let (halved, some) = after(false, |log| cut(log, 50));
        assert!(halved.is_some_and(|frames| frames >= 20) && (10..30).contains(&some), "{halved:?} {some}");
        let flipped = |log: &Path| {
            let mut bytes = fs::read(log).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            fs::write(log, bytes).unwrap();
        };
        let (flipped, some) = after(false, flipped);
        assert!(flipped.is_some_and(|frames| frames >= 20) && (10..30).contains(&some), "{flipped:?} {some}");
    }

    #[test]
    fn an_index_that_is_not_valid_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = killed(directory.path(), false);
        let bytes: [u8; INDEX] = *fs::read(beside(&path, "-shm")).unwrap().first_chunk().unwrap();
        assert!(parse(&bytes).is_some());
        for at in 0..2 * HEADER {
            let mut other = bytes;
            other[at] ^= 1;
            assert_eq!(parse(&other), None, "byte {at}");
        }
        assert_eq!(parse(&[0; INDEX]), None);
    }

    #[test]
    fn what_a_log_has_lost_is_counted() {
        let index = Index { frames: 100, written: 40 };
        for (recovered, expected) in
            [(100, None), (120, None), (99, Some(1)), (40, Some(60)), (10, Some(60)), (0, Some(60))]
        {
            assert_eq!(lost(index, recovered).map(|lost| lost.frames), expected, "{recovered}");
        }
        assert_eq!(lost(Index { frames: 40, written: 40 }, 0), None, "all of it is in the file");
    }
}
