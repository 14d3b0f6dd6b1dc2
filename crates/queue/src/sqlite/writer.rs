//! The writer thread: group commit, and reopening after a failure.

mod apply;
mod gather;

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aquarium_delivery::{Timestamp, WebhookName};
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{error, info};

use super::{Options, Reply, schema};
use crate::{Accepted, Delivery, Error, Purged, Settlement, Submission};
use apply::Tables;
use gather::{Decision, Waiting, decide, receive_within};

/// Requests that share one transaction at the most.
const BATCH: usize = 1_024;
/// The first wait before a failed file is opened anew; it doubles up to [`LONGEST_REOPEN_INTERVAL`].
const FIRST_REOPEN_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_REOPEN_INTERVAL: Duration = Duration::from_secs(10);

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Command {
    Accept(Job<Submission, Accepted>),
    Settle(Job<Vec<Settlement>, ()>),
    Resume(Job<WebhookName, ()>),
    Purge(Job<Purge, Purged>),
}

/// The arguments of [`crate::Queue::purge`].
#[derive(Debug)]
pub(super) struct Purge {
    before: Timestamp,
    configured: Arc<HashSet<WebhookName>>,
    limit: usize,
}

/// One request: its answer is known when it was applied, and given when it was committed.
#[derive(Debug)]
pub(super) struct Job<I, O> {
    input: I,
    reply: Reply<O>,
    answer: Option<Result<O, Error>>,
}

impl<I, O> Job<I, O> {
    fn new(input: I, reply: Reply<O>) -> Self {
        Self { input, reply, answer: None }
    }

    fn finish(self, failure: Option<&Error>) {
        let answer = match (failure, self.answer) {
            (Some(failure), _) => Err(failure.clone()),
            (None, Some(answer)) => answer,
            (None, None) => Err(Error::Closed),
        };
        // Whoever asked may have gone; what was committed stays.
        let _ = self.reply.send(answer);
    }
}

impl Command {
    pub(super) fn accept(submission: Submission, reply: Reply<Accepted>) -> Self {
        Command::Accept(Job::new(submission, reply))
    }

    pub(super) fn settle(settlements: Vec<Settlement>, reply: Reply<()>) -> Self {
        Command::Settle(Job::new(settlements, reply))
    }

    pub(super) fn resume(webhook: WebhookName, reply: Reply<()>) -> Self {
        Command::Resume(Job::new(webhook, reply))
    }

    pub(super) fn purge(
        before: Timestamp,
        configured: Arc<HashSet<WebhookName>>,
        limit: usize,
        reply: Reply<Purged>,
    ) -> Self {
        Command::Purge(Job::new(Purge { before, configured, limit }, reply))
    }

    /// Whether its caller waits for it.
    fn is_urgent(&self) -> bool {
        !matches!(self, Command::Settle(_))
    }

    fn finish(self, failure: Option<&Error>) {
        match self {
            Command::Accept(job) => job.finish(failure),
            Command::Settle(job) => job.finish(failure),
            Command::Resume(job) => job.finish(failure),
            Command::Purge(job) => job.finish(failure),
        }
    }
}

/// Owns the writing connection.
pub(super) struct Writer {
    options: Options,
    state: State,
    committed: mpsc::Sender<Vec<Delivery>>,
    /// Where answers are given: see [`Writer::answer`].
    runtime: Option<Handle>,
    /// How many urgent requests shared the last commit.
    previous: usize,
}

enum State {
    /// Becomes `Poisoned` by the first failure.
    Open { connection: Connection, tables: Tables },
    /// Becomes `Open` when the file could be opened again, which is tried when a request comes at `retry_at` or later.
    Poisoned { reason: Arc<str>, retry_at: Instant, interval: Duration },
}

impl Writer {
    pub(super) fn new(
        options: Options,
        connection: Connection,
        committed: mpsc::Sender<Vec<Delivery>>,
    ) -> rusqlite::Result<Self> {
        let tables = Tables::new(&connection, options.max_size)?;
        let state = State::Open { connection, tables };
        Ok(Self { options, state, committed, runtime: Handle::try_current().ok(), previous: 0 })
    }

    /// Works until every handle has been dropped, then writes the log back and closes the file.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut batch = Vec::new();
        while commands.blocking_recv_many(&mut batch, BATCH) > 0 {
            self.gather(&mut commands, &mut batch);
            self.commit(&mut batch);
        }
        if let State::Open { connection, .. } = self.state
            && let Err(error) = connection.pragma_update(None, "wal_checkpoint", "truncate")
        {
            error!(%error, "queue: the log could not be written back; it will be when the queue is opened again");
        }
    }

    /// Lets further requests join the first ones.
    fn gather(&mut self, commands: &mut mpsc::Receiver<Command>, batch: &mut Vec<Command>) {
        let start = Instant::now();
        let (mut urgent, mut counted) = (0, 0);
        loop {
            urgent += batch.iter().skip(counted).filter(|command| command.is_urgent()).count();
            counted = batch.len();
            let room = BATCH.saturating_sub(counted);
            let waiting = Waiting { urgent, unseen: commands.len(), since: start.elapsed() };
            match decide(waiting, self.previous) {
                _ if room == 0 || commands.is_closed() => break,
                Decision::Commit => break,
                Decision::Glance(time) => thread::sleep(time),
                Decision::Await(time) => {
                    receive_within(commands, batch, room, time);
                }
            }
        }
        let room = BATCH.saturating_sub(counted);
        while batch.len() < counted + room
            && let Ok(command) = commands.try_recv()
        {
            batch.push(command);
        }
        self.previous = batch.iter().filter(|command| command.is_urgent()).count();
    }

    fn commit(&mut self, batch: &mut Vec<Command>) {
        self.reopen_if_due();
        let (offers, failure) = match &mut self.state {
            State::Poisoned { reason, .. } => (Vec::new(), Some(Error::Unavailable(reason.clone()))),
            State::Open { connection, tables } => match transaction(connection, tables, batch) {
                Ok(offers) => (offers, None),
                Err(error) => {
                    let reason = self.poison(&error);
                    (Vec::new(), Some(Error::Unavailable(reason)))
                }
            },
        };
        self.answer(std::mem::take(batch), failure);
        if !offers.is_empty() {
            // Nobody may be sending (a tool that only accepts): the deliveries are on disk.
            let _ = self.committed.blocking_send(offers);
        }
    }

    /// Gives the answers on the runtime that the callers are on, all of them in one task. To wake each caller from this
    /// thread would go through the runtime's global queue and wake one of its threads, once for each.
    fn answer(&self, batch: Vec<Command>, failure: Option<Error>) {
        let answer = move || {
            for command in batch {
                command.finish(failure.as_ref());
            }
        };
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(async move { answer() })),
            None => answer(),
        }
    }

    fn poison(&mut self, error: &rusqlite::Error) -> Arc<str> {
        let reason: Arc<str> = error.to_string().into();
        error!(path = %self.options.path.display(), %error, "queue: writing failed, nothing is accepted until it works again");
        let interval = FIRST_REOPEN_INTERVAL;
        self.state =
            State::Poisoned { reason: reason.clone(), retry_at: Instant::now() + interval, interval };
        reason
    }

    fn reopen_if_due(&mut self) {
        let State::Poisoned { retry_at, interval, .. } = self.state else { return };
        if Instant::now() < retry_at {
            return;
        }
        let path = self.options.path.display();
        match schema::open(&self.options.path).and_then(|connection| {
            let tables = Tables::new(&connection, self.options.max_size)
                .map_err(|source| super::OpenError::Sqlite { path: self.options.path.clone(), source })?;
            Ok((connection, tables))
        }) {
            Ok((connection, tables)) => {
                info!(%path, "queue: writing works again");
                self.state = State::Open { connection, tables };
            }
            Err(error) => {
                let interval = (interval * 2).min(LONGEST_REOPEN_INTERVAL);
                error!(%error, ?interval, "queue: it could not be opened again");
                let reason = error.to_string().into();
                self.state = State::Poisoned { reason, retry_at: Instant::now() + interval, interval };
            }
        }
    }
}

/// Applies a batch, commits it, and returns the deliveries that are pending now and were not before.
fn transaction(
    connection: &Connection,
    tables: &mut Tables,
    batch: &mut [Command],
) -> rusqlite::Result<Vec<Delivery>> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut offers = Vec::new();
    for command in batch {
        match command {
            Command::Accept(job) => {
                job.answer = Some(tables.accept(connection, &mut job.input, &mut offers)?)
            }
            Command::Settle(job) => {
                for settlement in &job.input {
                    tables.settle(connection, settlement)?;
                }
                job.answer = Some(Ok(()));
            }
            Command::Resume(job) => job.answer = Some(tables.resume(connection, &job.input).map(Ok)?),
            Command::Purge(job) => job.answer = Some(tables.purge(connection, &job.input).map(Ok)?),
        }
    }
    tables.measure(connection)?;
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(offers)
}
