//! The default engine: one SQLite file.
//!
//! One writer thread owns the writing connection. It takes whatever requests are waiting, applies them in one
//! transaction, and answers all of them after one `fsync` (WAL, `synchronous=FULL`): that is the group commit. It waits
//! for company for a moment when company is likely, and settlements wait for an accept to join (`writer/gather.rs`). A
//! reader thread with a connection of its own serves claims, so that reading never waits for a commit. Another one answers
//! what an operator asks (`history.rs`), so that claims do not wait for that either.
//!
//! After a failed write or `fsync` nothing that the connection believes can be trusted. The writer drops it, answers
//! [`Error::Unavailable`], and opens the file anew, at growing intervals, until that works.
//!
//! A further thread writes the log back to the file (`checkpoint.rs`), so that no commit has to wait for it.
//!
//! One process at a time: the database, and `<path>.lock` beside it, are locked as long as the queue is open (`lock.rs`). The
//! kernel lets the lock go when the process ends, however it ends.

mod checkpoint;
mod checksum;
mod damage;
mod history;
mod lock;
mod log;
pub mod maintenance;
mod phases;
mod private;
mod reader;
pub mod recover;
mod schema;
mod writer;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

use aquarium_delivery::{Timestamp, WebhookName};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Accepted, Backlog, Claim, Commits, Error, Key, Observe, Page, Payload, Purged, Queue, Record, Settlement,
    Submission, Unobserved,
};
use damage::{Damage, is_damage};
use reader::Question;
use writer::Command;

/// Requests that may wait for the writer; a further one waits to be let in.
const COMMANDS: usize = 1_024;
/// Questions that may wait for the reader.
const QUESTIONS: usize = 256;
/// Commits whose deliveries may wait to be taken from [`Commits`].
const COMMITS: usize = 16;

/// How to open a queue.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database file. Its directory is made if it is missing.
    pub path: PathBuf,
    /// The largest size in bytes; beyond it nothing is accepted. Settling goes on, so the file may grow a little
    /// further.
    pub max_size: u64,
    /// Who hears of what the queue does.
    pub observer: Arc<dyn Observe>,
}

impl Options {
    /// A queue at this path of this largest size in bytes, of which nobody hears.
    pub fn new(path: impl Into<PathBuf>, max_size: u64) -> Self {
        Self { path: path.into(), max_size, observer: Arc::new(Unobserved) }
    }
}

/// Why a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directory could not be made or written to.
    #[error("cannot use {path}: {source}", path = .path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{path} is in use by another aquarium-sidecar{holder}: one process per queue", path = .path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
        /// The process that holds it, ` (process 123)`, if that is known.
        holder: String,
    },
    /// It has another name: opened by that, it would have another log.
    #[error("{path} has {links} names (hard links), and would have a log by each of them: keep one of them", path = .path.display())]
    HardLinked {
        /// The database file.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// It is an SQLite database, but not a queue.
    #[error("{path} is a database, but not a queue of aquarium-sidecar", path = .path.display())]
    Foreign {
        /// The database file.
        path: PathBuf,
    },
    /// A later version of the program wrote it.
    #[error("{path} has schema version {found}, this program knows versions up to {known}: use a newer program", path = .path.display())]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest known version.
        known: u32,
    },
    /// It is damaged, or no database at all.
    #[error("{path} is damaged, or was never a queue: {source}; keep a copy of it and its log, and save what can be read with `aquarium-sidecar queue recover --file {path} NEW`", path = .path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// Why it cannot be read.
        source: rusqlite::Error,
    },
    /// SQLite could not open, read or migrate it.
    #[error("cannot open {path}: {source}", path = .path.display())]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
}

impl OpenError {
    fn of(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        if is_damage(&source) { Self::Damaged { path, source } } else { Self::Sqlite { path, source } }
    }
}

/// The handle of an open queue.
#[derive(Debug, Clone)]
pub struct Sqlite {
    commands: mpsc::Sender<Command>,
    questions: mpsc::Sender<Question>,
    history: Arc<history::Handle>,
    damage: Damage,
}

/// The threads behind a queue. They end when the last handle is dropped.
#[derive(Debug)]
#[must_use = "join the threads, so that the queue is closed before the process ends"]
pub struct Threads {
    writer: thread::JoinHandle<()>,
    reader: thread::JoinHandle<()>,
    history: thread::JoinHandle<()>,
}

impl Threads {
    /// Waits until the threads have ended, and with them everything that was accepted has been written.
    pub fn join(self) {
        // A panic has been printed by the thread itself; there is nothing to add to it.
        let _ = self.reader.join();
        let _ = self.history.join();
        let _ = self.writer.join();
    }
}

/// Opens the queue, makes it if it does not exist, and migrates it if it is old.
///
/// # Errors
/// [`OpenError`].
pub fn open(options: &Options) -> Result<(Sqlite, Commits, Threads), OpenError> {
    let path = &options.path;
    let directory = directory_of(path);
    private::make_directory(directory)
        .map_err(|source| OpenError::Directory { path: directory.to_owned(), source })?;
    // Each thread holds it: it must not go before the last connection does.
    let lock = Arc::new(lock::acquire(path)?);
    log::check(path)?;
    let writing = schema::open(path)?;
    let reading = schema::open_for_reading(path)?;

    let (commands, command_receiver) = mpsc::channel(COMMANDS);
    let (questions, question_receiver) = mpsc::channel(QUESTIONS);
    let (history_questions, history_receiver) = mpsc::channel(QUESTIONS);
    let (committed, commits) = mpsc::channel(COMMITS);
    let additions = Arc::new(AtomicU64::new(0));
    writer::check(&writing, options)?;
    let damage = Damage::none(path.clone(), options.observer.clone());
    let checkpoints = checkpoint::Checkpoints::start(path, damage.clone())
        .map_err(|source| OpenError::Directory { path: path.clone(), source })?;
    let writer = writer::Writer::new(
        options.clone(),
        command_receiver,
        committed,
        checkpoints,
        additions.clone(),
        damage.clone(),
    );
    let locked = lock.clone();
    let writer = spawn("queue-writer", move || {
        writer.run(writing);
        drop(locked);
    })
    .map_err(|source| OpenError::Directory { path: path.clone(), source })?;
    let started = |source| OpenError::Directory { path: path.clone(), source };
    let reader_path = path.clone();
    let (locked, reader_damage) = (lock.clone(), damage.clone());
    let reader = spawn("queue-reader", move || {
        reader::run(&reader_path, reading, question_receiver, &reader_damage);
        drop(locked);
    });
    let reader = reader.map_err(started)?;
    let (history_path, history_damage) = (path.clone(), damage.clone());
    let history = spawn("queue-history", move || {
        history::run(&history_path, history_receiver, &history_damage);
        drop(lock);
    });
    let threads = Threads { writer, reader, history: history.map_err(started)? };
    let history = history::Handle { questions: history_questions, summarized: AtomicU64::new(0), additions };
    Ok((Sqlite { commands, questions, history: Arc::new(history), damage }, commits, threads))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

type Reply<T> = oneshot::Sender<Result<T, Error>>;

impl Sqlite {
    fn is_intact(&self) -> Result<(), Error> {
        self.damage.found().map_or(Ok(()), Err)
    }

    async fn command<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        self.is_intact()?;
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn question<T>(&self, question: impl FnOnce(Reply<T>) -> Question) -> Result<T, Error> {
        self.is_intact()?;
        let (reply, answer) = oneshot::channel();
        self.questions.send(question(reply)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

impl Queue for Sqlite {
    async fn accept(&self, submission: Submission) -> Result<Accepted, Error> {
        self.command(|reply| Command::accept(submission, reply)).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, Error> {
        self.command(|reply| Command::settle(settlements, reply)).await
    }

    async fn claim(&self, claim: Claim) -> Result<Page, Error> {
        self.question(|reply| Question::Claim(claim, reply)).await
    }

    async fn payload(&self, event: Key) -> Result<Option<Payload>, Error> {
        self.question(|reply| Question::Payload(event, reply)).await
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        self.question(Question::Backlog).await
    }

    async fn record(&self, delivery: Key) -> Result<Option<Record>, Error> {
        self.question(|reply| Question::Record(delivery, reply)).await
    }

    async fn resume(&self, webhook: WebhookName) -> Result<(), Error> {
        self.command(|reply| Command::resume(webhook, reply)).await
    }

    async fn purge(
        &self,
        before: Timestamp,
        configured: Arc<HashSet<WebhookName>>,
        limit: usize,
    ) -> Result<Purged, Error> {
        self.command(|reply| Command::purge(before, configured, limit, reply)).await
    }
}
