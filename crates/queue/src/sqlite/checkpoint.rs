//! Writing the log back to the file, beside the writer.
//!
//! SQLite by itself does it within a commit whenever the log has a thousand pages: whoever waits for that commit waits
//! for thousands of pages and a further `fsync`. Here a thread with a connection of its own writes back what is there,
//! while the writer goes on. The log starts over only when nothing is left to write back, which such a pass never sees
//! under load; so the writer does the little rest itself, between two commits.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use tracing::warn;

use super::damage::Damage;
use super::{OpenError, schema, spawn};

/// Pages of a log that is left alone.
const PAGES: u32 = 2_000;
/// Pages that the writer writes back by itself. It takes about a millisecond.
const FEW: u32 = 256;
/// Pages of the largest log; then the writer waits.
const MOST: u32 = 16_384;
/// How often it is looked whether a pass has ended, if it must be waited for.
const GLANCE: Duration = Duration::from_millis(1);

/// What to do about a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Leave,
    /// Have the thread write back what is there.
    Pass,
    /// Write back the rest, so that the log starts over.
    Finish,
}

/// Decides what to do about a log of so many `pages`, of which the last pass has `written` back so many. `passing` tells
/// whether one is under way.
fn decide(pages: u32, written: u32, passing: bool) -> Step {
    match pages {
        ..PAGES => Step::Leave,
        MOST.. => Step::Finish,
        _ if passing => Step::Leave,
        _ if pages.saturating_sub(written) <= FEW => Step::Finish,
        _ => Step::Pass,
    }
}

/// The thread that writes back, as the writer sees it.
#[derive(Debug)]
pub(super) struct Checkpoints {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
    progress: Arc<Progress>,
    /// The pages of the log after the last commit.
    pages: Arc<AtomicU32>,
}

#[derive(Debug, Default)]
struct Progress {
    passing: AtomicBool,
    written: AtomicU32,
}

impl Checkpoints {
    /// Starts the thread.
    pub(super) fn start(path: &Path, damage: Damage) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let (progress, path) = (Arc::new(Progress::default()), path.to_owned());
        let thread = spawn("queue-log", {
            let progress = progress.clone();
            move || write_back(&path, &woken, &progress, &damage)
        })?;
        Ok(Self { wake, thread, progress, pages: Arc::default() })
    }

    /// Has the connection tell how large the log is, and not write it back by itself.
    pub(super) fn watch(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let pages = self.pages.clone();
        self.progress.written.store(0, Ordering::Relaxed);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: i32| {
            pages.store(count.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        }))
    }

    /// Does what is to be done after a commit.
    pub(super) fn after_commit(&self, connection: &Connection) -> rusqlite::Result<()> {
        let Progress { passing, written } = &*self.progress;
        let is_passing = || passing.load(Ordering::Acquire);
        let pages = self.pages.load(Ordering::Relaxed);
        match decide(pages, written.load(Ordering::Relaxed), is_passing()) {
            Step::Leave => {}
            Step::Pass => {
                passing.store(true, Ordering::Release);
                if self.wake.try_send(()).is_err() {
                    // The thread is gone; the writer does it all, when the log is at its largest.
                    passing.store(false, Ordering::Release);
                }
            }
            Step::Finish => {
                while is_passing() && !self.thread.is_finished() {
                    thread::sleep(GLANCE);
                }
                checkpoint(connection)?;
                // From the next commit on it is another log.
                written.store(0, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Ends the thread, and waits for it.
    pub(super) fn stop(self) {
        drop(self.wake);
        // A panic has been printed by the thread itself.
        let _ = self.thread.join();
    }
}

/// Writes back what is there whenever it is woken. A connection that failed is replaced at the next time.
fn write_back(path: &Path, woken: &Receiver<()>, progress: &Progress, damage: &Damage) {
    let mut connection = None;
    while woken.recv().is_ok() {
        let usable = connection.take().map_or_else(|| schema::open_beside(path), Ok);
        let passed = usable.and_then(|usable| {
            let written = checkpoint(&usable).map_err(|source| OpenError::of(path, source))?;
            connection = Some(usable);
            Ok(written)
        });
        match passed {
            Ok(written) => progress.written.store(written, Ordering::Relaxed),
            Err(error) if damage.judge_opening(&error).is_some() => {}
            Err(error) => warn!(%error, "queue: the log could not be written back, it is tried again"),
        }
        progress.passing.store(false, Ordering::Release);
    }
}

/// Writes back as much as is possible without waiting for anybody, and tells how many pages of the log are written back.
fn checkpoint(connection: &Connection) -> rusqlite::Result<u32> {
    connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |row| {
        // -1 if somebody else is doing it.
        Ok(u32::try_from(row.get::<_, i64>(2)?).unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_is_written_back_beside_the_writer_and_the_rest_by_it() {
        assert_eq!(decide(PAGES - 1, 0, false), Step::Leave, "too small to bother");
        assert_eq!(decide(PAGES, 0, false), Step::Pass);
        assert_eq!(decide(PAGES + 500, 0, true), Step::Leave, "it is being done");
        assert_eq!(decide(PAGES + 500, PAGES, false), Step::Pass, "too much was added meanwhile");
        assert_eq!(decide(PAGES + 500, PAGES + 300, false), Step::Finish);
        assert_eq!(decide(MOST, 0, true), Step::Finish, "it must not grow for ever");
    }
}
