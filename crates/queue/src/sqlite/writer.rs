//! The writer thread: group commit, and reopening after a failure.

mod apply;
mod gather;
pub(super) mod order;
mod outage;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use aquarium_delivery::{ReplayId, Timestamp, WebhookName};
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{error, info};

use super::checkpoint::Checkpoints;
use super::damage::Damage;
use super::history::blocks::Block;
use super::{OpenError, Options, Reply, schema};
use crate::history::{self, JobFilter, Replay, Replayed};
use crate::{Accepted, Delivery, Error, OutageReason, Purged, Settlement, Submission};
use apply::Tables;
use gather::{Decision, Waiting, decide, expect, receive};
use outage::Outage;

/// Requests that share one transaction at the most.
const BATCH: usize = 1_024;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Command {
    Accept(Job<Submission, Accepted>),
    Settle(Job<Vec<Settlement>, usize>),
    Resume(Job<WebhookName, ()>),
    Purge(Job<Purge, Purged>),
    Replay(Job<Replay, Replayed>),
    CreateJob(Job<NewJob, history::Job>),
    CancelJob(Job<(ReplayId, Timestamp), Option<history::Job>>),
    StoreBlock(Job<(Block, u64), ()>),
}

/// The arguments of [`crate::Queue::purge`].
#[derive(Debug)]
pub(super) struct Purge {
    before: Timestamp,
    configured: Arc<HashSet<WebhookName>>,
    limit: usize,
}

/// The arguments of [`crate::history::History::create_job`], and the first key that there is to look at, if there is one.
#[derive(Debug)]
pub(super) struct NewJob {
    pub(super) id: ReplayId,
    pub(super) what: JobFilter,
    pub(super) at: Timestamp,
    pub(super) start: Option<u64>,
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

    pub(super) fn settle(settlements: Vec<Settlement>, reply: Reply<usize>) -> Self {
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

    pub(super) fn replay(replay: Replay, reply: Reply<Replayed>) -> Self {
        Command::Replay(Job::new(replay, reply))
    }

    pub(super) fn create_job(new: NewJob, reply: Reply<history::Job>) -> Self {
        Command::CreateJob(Job::new(new, reply))
    }

    pub(super) fn cancel_job(job: (ReplayId, Timestamp), reply: Reply<Option<history::Job>>) -> Self {
        Command::CancelJob(Job::new(job, reply))
    }

    /// A block, and how often deliveries had been added to old events when it was read.
    pub(super) fn store_block(block: (Block, u64), reply: Reply<()>) -> Self {
        Command::StoreBlock(Job::new(block, reply))
    }

    fn finish(self, failure: Option<&Error>) {
        match self {
            Command::Accept(job) => job.finish(failure),
            Command::Settle(job) => job.finish(failure),
            Command::Resume(job) => job.finish(failure),
            Command::Purge(job) => job.finish(failure),
            Command::Replay(job) => job.finish(failure),
            Command::CreateJob(job) => job.finish(failure),
            Command::CancelJob(job) => job.finish(failure),
            Command::StoreBlock(job) => job.finish(failure),
        }
    }
}

/// Serves requests, on one connection after another.
pub(super) struct Writer {
    options: Options,
    commands: mpsc::Receiver<Command>,
    committed: mpsc::Sender<Vec<Delivery>>,
    /// Where answers are given: see [`Writer::answer`].
    runtime: Option<Handle>,
    checkpoints: Checkpoints,
    /// How often deliveries were added to old events, in commits that are done.
    additions: Arc<AtomicU64>,
    waiting: Received,
    /// How many urgent requests to expect: see [`expect`].
    expected: usize,
    outage: Outage,
    damage: Damage,
}

/// Requests that were received and not served yet.
#[derive(Default)]
struct Received {
    /// Just received.
    unsorted: Vec<Command>,
    urgent: Vec<Command>,
    urgent_since: Option<Instant>,
    /// All of them [`Command::Settle`].
    unhurried: Vec<Command>,
    unhurried_since: Option<Instant>,
    settlements: usize,
}

impl Received {
    /// Tells what is urgent from what is not. A settlement is if others may have waited for it; so is one of
    /// nothing, for what is not urgent waits until there is something of it.
    fn sort(&mut self, now: Instant) {
        for command in self.unsorted.drain(..) {
            if let Command::Settle(job) = &command
                && !job.input.is_empty()
                && !job.input.iter().any(Settlement::releases)
            {
                self.settlements += job.input.len();
                self.unhurried_since.get_or_insert(now);
                self.unhurried.push(command);
            } else {
                self.urgent_since.get_or_insert(now);
                self.urgent.push(command);
            }
        }
    }

    fn as_waiting(&self, unseen: usize, now: Instant) -> Waiting {
        let elapsed = |since: Option<Instant>| since.map(|since| now - since).unwrap_or_default();
        Waiting {
            urgent: self.urgent.len(),
            urgent_for: elapsed(self.urgent_since),
            settlements: self.settlements,
            settlements_for: elapsed(self.unhurried_since),
            unseen,
        }
    }

    fn len(&self) -> usize {
        self.unsorted.len() + self.urgent.len() + self.unhurried.len()
    }

    fn take(&mut self, settlements: bool) -> Vec<Command> {
        let mut taken = std::mem::take(&mut self.urgent);
        self.urgent_since = None;
        if settlements {
            taken.append(&mut self.unhurried);
            (self.unhurried_since, self.settlements) = (None, 0);
        }
        taken
    }
}

impl Writer {
    pub(super) fn new(
        options: Options,
        commands: mpsc::Receiver<Command>,
        committed: mpsc::Sender<Vec<Delivery>>,
        checkpoints: Checkpoints,
        additions: Arc<AtomicU64>,
        damage: Damage,
    ) -> Self {
        let runtime = Handle::try_current().ok();
        let waiting = Received::default();
        let (expected, outage) = (0, Outage::none());
        Self {
            options,
            commands,
            committed,
            runtime,
            checkpoints,
            additions,
            waiting,
            expected,
            outage,
            damage,
        }
    }

    /// Works until every handle has been dropped, then writes the log back and closes the file.
    pub(super) fn run(mut self, connection: Connection) {
        let mut current = Some(connection);
        while let Some(mut connection) = current {
            let served = self.checkpoints.watch(&mut connection).and_then(|()| self.serve(&connection));
            current = match served {
                Err(failure) => {
                    // Nothing that it believes can be trusted any more.
                    drop(connection);
                    if self.damage.judge(&failure).is_some() { None } else { self.reopen(&failure) }
                }
                Ok(()) if self.damage.found().is_some() => None,
                Ok(()) => {
                    self.checkpoints.stop();
                    if let Err(error) = connection.pragma_update(None, "wal_checkpoint", "truncate") {
                        error!(%error, "queue: the log could not be written back; it will be when the queue is opened again");
                    }
                    return;
                }
            };
        }
        self.refuse();
        self.checkpoints.stop();
    }

    /// Serves until every handle has been dropped, until the storage fails, or until another thread finds it damaged.
    fn serve(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        // What a commit that failed had added may be there all the same.
        let additions = self.additions.fetch_add(1, Ordering::AcqRel) + 1;
        let mut tables = Tables::new(connection, self.options.max_size, additions)?;
        self.options.observer.opened(tables.size());
        while let Some(mut batch) = self.gather() {
            if let Some(damaged) = self.damage.found() {
                self.answer(batch, Some(damaged));
                return Ok(());
            }
            let (started, requests) = (Instant::now(), batch.len());
            match tables.commit(&mut batch) {
                Ok(offers) => {
                    self.recovered();
                    self.options.observer.committed(requests, started.elapsed(), tables.size());
                    self.additions.store(tables.additions(), Ordering::Release);
                    self.answer(batch, None);
                    if !offers.is_empty() {
                        // Nobody may be sending (a tool that only accepts): the deliveries are on disk.
                        let _ = self.committed.blocking_send(offers);
                    }
                    self.checkpoints.after_commit(connection)?;
                }
                Err(error) => {
                    let damaged = self.damage.judge(&error);
                    let refusal = damaged.unwrap_or_else(|| Error::Unavailable(error.to_string().into()));
                    self.answer(batch, Some(refusal));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Receives requests until it is time to commit some, and returns those. `None` if there are none and none can come
    /// any more.
    fn gather(&mut self) -> Option<Vec<Command>> {
        let waiting = &mut self.waiting;
        loop {
            let now = Instant::now();
            waiting.sort(now);
            let room = BATCH.saturating_sub(waiting.len());
            if room == 0 || self.commands.is_closed() && self.commands.is_empty() {
                let all = waiting.take(true);
                return (!all.is_empty()).then_some(all);
            }
            match decide(waiting.as_waiting(self.commands.len(), now), self.expected) {
                Decision::Glance(time) => thread::sleep(time),
                Decision::Await(limit) => {
                    receive(&mut self.commands, &mut waiting.unsorted, room, limit);
                }
                Decision::Commit { settlements } => {
                    while waiting.len() < BATCH
                        && let Ok(command) = self.commands.try_recv()
                    {
                        waiting.unsorted.push(command);
                    }
                    waiting.sort(now);
                    if !waiting.urgent.is_empty() {
                        self.expected = expect(self.expected, waiting.urgent.len());
                    }
                    return Some(waiting.take(settlements));
                }
            }
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

    /// Refuses requests until the file could be opened anew, which is tried at growing intervals, whether or not any come.
    /// `None` if no request can come any more.
    fn reopen(&mut self, failure: &rusqlite::Error) -> Option<Connection> {
        let path = self.options.path.display().to_string();
        self.damage.tell(Some(OutageReason::Failing));
        if self.outage.failed() {
            error!(%path, error = %failure, "queue: writing failed, nothing is accepted until it works again");
        }
        let mut reason: Arc<str> = failure.to_string().into();
        let mut retry_at = Instant::now() + self.outage.interval();
        while self.damage.found().is_none() {
            let now = Instant::now();
            if now >= retry_at {
                self.outage.retried();
                match self.open() {
                    Ok(connection) => {
                        self.damage.tell(None);
                        return Some(connection);
                    }
                    Err(error) if self.damage.judge_opening(&error).is_some() => return None,
                    Err(error) => {
                        let interval = self.outage.interval();
                        error!(%error, retry_after = ?interval, "queue: it could not be opened again");
                        reason = error.to_string().into();
                        // To find that out may have taken long itself.
                        retry_at = Instant::now() + interval;
                    }
                }
            }
            let mut refused = self.waiting.take(true);
            refused.append(&mut self.waiting.unsorted);
            if refused.is_empty() {
                let limit = retry_at.saturating_duration_since(Instant::now());
                receive(&mut self.commands, &mut refused, BATCH, Some(limit));
            }
            if !refused.is_empty() {
                self.answer(refused, Some(Error::Unavailable(reason.clone())));
            } else if self.commands.is_closed() && self.commands.is_empty() {
                return None;
            }
        }
        None
    }

    /// Refuses requests until no more can come, if the file is damaged.
    fn refuse(&mut self) {
        while let Some(damaged) = self.damage.found() {
            let mut refused = self.waiting.take(true);
            refused.append(&mut self.waiting.unsorted);
            if refused.is_empty() && !receive(&mut self.commands, &mut refused, BATCH, None) {
                return;
            }
            self.answer(refused, Some(damaged));
        }
    }

    /// A commit succeeded.
    fn recovered(&mut self) {
        if self.outage.committed(Instant::now()) {
            info!(path = %self.options.path.display(), "queue: writing works again");
        }
    }

    fn open(&self) -> Result<Connection, OpenError> {
        let connection = schema::open_again(&self.options.path)?;
        check(&connection, &self.options)?;
        Ok(connection)
    }
}

/// Makes sure that the connection can be served.
pub(super) fn check(connection: &Connection, options: &Options) -> Result<(), OpenError> {
    let checked = Tables::new(connection, options.max_size, 0).map(drop);
    checked.map_err(|source| OpenError::of(&options.path, source))
}
