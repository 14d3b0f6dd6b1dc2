//! What an operator asks: answered by a thread and a connection of its own, so that no claim waits for it, nor it for claims.
//!
//! Each question is one short transaction: as long as one lasts, the log cannot start over. What changes the tables goes to
//! the writer.

pub(super) mod blocks;
mod find;
pub(super) mod jobs;
mod list;
mod plan;
mod walk;
mod wanted;
mod webhooks;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aquarium_delivery::{DeliveryId, EventId, ReplayId, Timestamp, WebhookName};
use rusqlite::{Connection, Row};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::damage::Damage;
use super::schema::unsigned;
use super::writer::{Command, NewJob};
use super::{OpenError, Sqlite, schema};
use crate::history::{
    Count, DeliverySummary, EventSummary, Filter, History, Job, JobFilter, Listed, Missed, Replay, Replayed,
    Select, WebhookStats,
};
use crate::{Error, Key};

/// What its connection may keep of the file in memory, in KiB. It reads in the order of the keys: what it has read is seldom
/// wanted again.
const CACHE: i64 = 256;

/// Something to be looked up. It is given a connection, or the reason why there is none, and tells whether the connection
/// may be used again.
pub(super) struct Question(Box<Look>);

type Look = dyn FnOnce(Result<&Connection, Error>) -> bool + Send;

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}

/// Answers until every handle has been dropped. The connection is made when the first question comes, and anew after one
/// that failed.
pub(super) fn run(path: &Path, mut questions: mpsc::Receiver<Question>, damage: &Damage) {
    let mut connection = None;
    while let Some(Question(question)) = questions.blocking_recv() {
        let usable = match (damage.found(), connection.take()) {
            (Some(damaged), _) => Err(damaged),
            (None, Some(usable)) => Ok(usable),
            (None, None) => open(path, damage),
        };
        connection = match usable {
            Ok(usable) => question(Ok(&usable)).then_some(usable),
            Err(error) => {
                question(Err(error));
                None
            }
        };
    }
}

fn open(path: &Path, damage: &Damage) -> Result<Connection, Error> {
    let unavailable = |error: OpenError| {
        let damaged = damage.judge_opening(&error);
        damaged.unwrap_or_else(|| Error::Unavailable(error.to_string().into()))
    };
    let connection = schema::open_for_reading(path).map_err(unavailable)?;
    let small = connection.pragma_update(None, "cache_size", -CACHE);
    small.map_err(|source| unavailable(OpenError::of(path, source)))?;
    Ok(connection)
}

impl Sqlite {
    /// Has something looked up, all of it at the same state of the file.
    async fn look_up<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.is_intact()?;
        let damage = self.damage.clone();
        let (reply, answer) = oneshot::channel();
        let question = move |connection: Result<&Connection, Error>| {
            let looked = connection.map(|connection| {
                let transaction = connection.unchecked_transaction()?;
                let found = look(&transaction)?;
                transaction.commit()?;
                Ok(found)
            });
            let result = looked.and_then(|found: rusqlite::Result<T>| {
                found.map_err(|error| {
                    damage.judge(&error).unwrap_or_else(|| {
                        error!(%error, "queue: reading history failed");
                        Error::Unavailable(error.to_string().into())
                    })
                })
            });
            let fine = result.is_ok();
            // Whoever asked may have gone.
            let _ = reply.send(result);
            fine
        };
        self.history.questions.send(Question(Box::new(question))).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

/// The way to the thread, and what is known about blocks.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) questions: mpsc::Sender<Question>,
    /// All complete blocks before this one have rows.
    pub(super) summarized: AtomicU64,
    /// How often deliveries were added to events that were stored before, in commits that are done.
    pub(super) additions: std::sync::Arc<AtomicU64>,
}

impl History for Sqlite {
    async fn events(&self, select: Select) -> Result<Listed<EventSummary>, Error> {
        self.look_up(move |connection| list::events(connection, &select)).await
    }

    async fn deliveries(&self, select: Select) -> Result<Listed<DeliverySummary>, Error> {
        self.look_up(move |connection| list::deliveries(connection, &select)).await
    }

    async fn count(&self, filter: Filter) -> Result<Count, Error> {
        self.look_up(move |connection| list::count(connection, &filter)).await
    }

    async fn event(&self, id: EventId) -> Result<Option<EventSummary>, Error> {
        self.look_up(move |connection| match find::event(connection, &id)? {
            Some(key) => list::event(connection, key),
            None => Ok(None),
        })
        .await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<DeliverySummary>, Error> {
        self.look_up(move |connection| match find::delivery(connection, &id)? {
            Some(key) => list::delivery(connection, key),
            None => Ok(None),
        })
        .await
    }

    async fn missed(
        &self,
        missed: Missed,
        from: Option<Key>,
        limit: usize,
    ) -> Result<Listed<EventSummary>, Error> {
        self.look_up(move |connection| list::missed(connection, &missed, from, limit)).await
    }

    async fn webhooks(&self, names: Vec<WebhookName>, bound: usize) -> Result<Vec<WebhookStats>, Error> {
        self.look_up(move |connection| webhooks::stats(connection, names, bound)).await
    }

    async fn waiting(&self) -> Result<Vec<WebhookName>, Error> {
        self.look_up(webhooks::waiting).await
    }

    async fn replay(&self, replay: Replay) -> Result<Replayed, Error> {
        self.command(|reply| Command::replay(replay, reply)).await
    }

    async fn create_job(&self, id: ReplayId, what: JobFilter, at: Timestamp) -> Result<Job, Error> {
        let filter = what.clone();
        // The writer should not have to look for it.
        let start = self.look_up(move |connection| jobs::start(connection, &filter)).await?;
        self.command(|reply| Command::create_job(NewJob { id, what, at, start }, reply)).await
    }

    async fn jobs(&self, limit: usize) -> Result<Vec<Job>, Error> {
        self.look_up(move |connection| jobs::all(connection, limit)).await
    }

    async fn job(&self, id: ReplayId) -> Result<Option<Job>, Error> {
        self.look_up(move |connection| jobs::one(connection, &id)).await
    }

    async fn cancel_job(&self, id: ReplayId, at: Timestamp) -> Result<Option<Job>, Error> {
        self.command(|reply| Command::cancel_job((id, at), reply)).await
    }

    async fn index(&self) -> Result<bool, Error> {
        // To be read before the block is: what is added after that is not in it.
        let additions = self.history.additions.load(Ordering::Acquire);
        let from = self.history.summarized.load(Ordering::Relaxed);
        match self.look_up(move |connection| blocks::next(connection, from)).await? {
            blocks::Next::Looked(block, more) => {
                self.history.summarized.store(block, Ordering::Relaxed);
                Ok(more)
            }
            blocks::Next::Block(block) => {
                self.command(|reply| Command::store_block((block, additions), reply)).await?;
                Ok(true)
            }
        }
    }
}

/// Reads a number that may be missing.
fn optional<T: TryFrom<i64>>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    row.get_ref(column)?.as_i64_or_null()?.map(|_| unsigned(row, column)).transpose()
}
