//! What an operator asks of a queue: what was accepted, where it went, what came of it, and send it again.
//!
//! Lists are read newest or oldest first, page by page. A page is a bounded amount of work, however few of the stored rows
//! are wanted: so it may be short, or empty, and still say where the next one starts. A list has ended when [`Listed::next`]
//! is `None`. The place of a row never changes, so pages stay right while rows arrive: a row that was there at the first
//! page is shown once, unless it was purged meanwhile, or came to be in another [`StateKind`] than was asked for.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use aquarium_delivery::{DeliveryId, EventId, ReplayId, Timestamp, WebhookName};

use crate::{Attempt, Error, Key, Queue, State, Suspension, Watcher};

/// The most that a page holds, whatever was asked for.
pub const LONGEST_PAGE: usize = 1_000;

/// The most jobs that are stored. Of those that have ended, the oldest are forgotten.
pub const MOST_JOBS: usize = 1_000;

/// Which events or deliveries are meant. What is absent admits all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this organization.
    pub organization: Option<Arc<str>>,
    /// Of this project; of every organization's project of that name, if there is no organization.
    pub project: Option<Arc<str>>,
    /// To this webhook. Events: those with a delivery to it.
    pub webhook: Option<WebhookName>,
    /// Of this type, by its canonical name.
    pub kind: Option<Arc<str>>,
    /// In one of these states; in any, if it is empty. Events: those with a delivery in one of these states.
    pub states: BTreeSet<StateKind>,
    /// Accepted then or later.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
    /// Of this event.
    pub event: Option<EventId>,
}

/// A delivery's state, without what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKind {
    /// [`State::Pending`]
    Pending,
    /// [`State::Delivered`]
    Delivered,
    /// [`State::Exhausted`]
    Exhausted,
    /// [`State::Skipped`]
    Skipped,
}

impl StateKind {
    /// Every state.
    pub const ALL: &[Self] = &[Self::Pending, Self::Delivered, Self::Exhausted, Self::Skipped];

    /// Its stable name, as it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Exhausted => "exhausted",
            Self::Skipped => "skipped",
        }
    }
}

impl State {
    /// The state, without what belongs to it.
    pub fn kind(self) -> StateKind {
        match self {
            Self::Pending { .. } => StateKind::Pending,
            Self::Delivered => StateKind::Delivered,
            Self::Exhausted(_) => StateKind::Exhausted,
            Self::Skipped => StateKind::Skipped,
        }
    }
}

/// Which end of the list comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Direction {
    /// What was accepted last.
    #[default]
    NewestFirst,
    /// What was accepted first.
    OldestFirst,
}

/// A question for one page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Select {
    /// What is wanted.
    pub filter: Filter,
    /// Which end comes first.
    pub direction: Direction,
    /// Where the page starts: [`Listed::next`] of the one before. At the end that comes first, if absent.
    pub from: Option<Key>,
    /// How many at the most.
    pub limit: usize,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// What was found.
    pub items: Vec<T>,
    /// Where the next page starts. `None` if there is none.
    pub next: Option<Key>,
}

/// What is stored of an event, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSummary {
    /// The engine's handle of it. Its payload: [`Queue::payload`].
    pub key: Key,
    /// Its identifier.
    pub id: EventId,
    /// The organization that owns it.
    pub organization: Arc<str>,
    /// The project in which it happened.
    pub project: Arc<str>,
    /// The canonical name of its type.
    pub kind: Arc<str>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The size of its body in bytes.
    pub size: usize,
}

/// What is stored of a delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliverySummary {
    /// The engine's handle of it. All its attempts: [`Queue::record`].
    pub key: Key,
    /// Its identifier.
    pub id: DeliveryId,
    /// The event that it delivers.
    pub event: EventSummary,
    /// The webhook that it goes to.
    pub webhook: WebhookName,
    /// Its state. Pending, and due at [`PARKED`](crate::PARKED), if it waits behind another.
    pub state: State,
    /// How many attempts were made, those before a replay included.
    pub attempts: u32,
    /// The last of them; its excerpt and the detail of its failure may be missing here.
    pub last_attempt: Option<Attempt>,
    /// When its state was decided: when it was accepted, if nothing was since.
    pub settled_at: Timestamp,
    /// When it was replayed last.
    pub replayed_at: Option<Timestamp>,
    /// True if it is a test, which is not tried again.
    pub test: bool,
}

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// At least so many.
    pub at_least: u64,
    /// True if there are no more: the count did not end at its bound.
    pub exact: bool,
}

/// What is stored for one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookStats {
    /// The webhook.
    pub webhook: WebhookName,
    /// Deliveries that are to be sent, or held.
    pub pending: Count,
    /// When the first of them is due, unless all of them wait behind others.
    pub next_due: Option<Timestamp>,
    /// When the event of the oldest of them was accepted; of those that were counted, if there are more.
    pub oldest_pending: Option<Timestamp>,
    /// Deliveries that were given up.
    pub exhausted: Count,
    /// Deliveries that were not sent, because the webhook was not active.
    pub skipped: Count,
    /// Set if it is suspended.
    pub suspension: Option<Suspension>,
}

/// A question for events that a webhook would have got, had it been there: events of its project for which it has no delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// The webhook.
    pub webhook: WebhookName,
    /// Of these types; of all, if absent.
    pub kinds: Option<Arc<BTreeSet<String>>>,
    /// Accepted then or later.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
}

/// What one call of [`History::replay`] is to do, all or none of it.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// When it was asked for.
    pub at: Timestamp,
    /// Deliveries to send again. Those that are pending already are due at once, unless they wait behind others. All are
    /// offered as replayed at [`Replay::at`], so that their lanes look at them.
    pub deliveries: Vec<Key>,
    /// Events to deliver to a webhook that has no delivery of them. Passed over if it has one meanwhile.
    pub added: Vec<Added>,
    /// The job that this is a step of: how far it has come is stored together with what it did. Nothing is done if the job
    /// is not running any more.
    pub step: Option<JobStep>,
    /// Who wants to know what the first attempts come to, of those that had ended and of those that are added.
    pub watcher: Option<Watcher>,
}

/// A delivery that is added to an event that is stored already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The event.
    pub event: Key,
    /// The identifier of the new delivery. It has to bear the time at which the event was accepted, else
    /// [`History::delivery`] may not find it.
    pub delivery: DeliveryId,
    /// The webhook.
    pub webhook: WebhookName,
}

/// What a call of [`History::replay`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Deliveries that had ended, and are to be sent again.
    pub revived: usize,
    /// Deliveries that were pending, and are due at once now.
    pub hastened: usize,
    /// Deliveries that were added.
    pub added: usize,
}

/// How far a job has come by a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobStep {
    /// The job.
    pub id: ReplayId,
    /// Where it goes on. `None` if it has come to its end, and is [`JobState::Done`].
    pub next: Option<Key>,
    /// Rows that were found and passed over, since nothing could be sent for them.
    pub passed_over: u64,
}

/// A replay in bulk, which runs in the background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its identifier.
    pub id: ReplayId,
    /// What it sends again.
    pub what: JobFilter,
    /// When it was asked for. Only events accepted by then are looked at.
    pub created_at: Timestamp,
    /// Its state.
    pub state: JobState,
    /// When that came about.
    pub state_since: Timestamp,
    /// Where it goes on: at [`Job::start`], if absent. At [`Job::end`], if it is done.
    pub next: Option<Key>,
    /// The first row that is beyond it.
    pub end: Key,
    /// Where its first row is, to tell how far it has come.
    pub start: Key,
    /// Deliveries that it sent again: those that had ended, and those that were added.
    pub replayed: u64,
    /// Rows that were found and passed over.
    pub passed_over: u64,
}

/// What a job sends again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobFilter {
    /// Deliveries that there are. Those that are pending when their turn comes are passed over.
    Deliveries(Filter),
    /// Events that a webhook has no delivery of.
    Missed(Missed),
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It goes on.
    Running,
    /// It has come to its end.
    Done,
    /// It was cancelled: what it had sent again by then stays so.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: &[Self] = &[Self::Running, Self::Done, Self::Cancelled];

    /// Its stable name, as it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What an operator asks of a queue. Errors are [`Error::Unavailable`], and pass with time, or [`Error::Closed`], unless
/// something else is said.
pub trait History: Queue {
    /// A page of events.
    fn events(&self, select: Select) -> impl Future<Output = Result<Listed<EventSummary>, Error>> + Send;

    /// A page of deliveries.
    fn deliveries(
        &self,
        select: Select,
    ) -> impl Future<Output = Result<Listed<DeliverySummary>, Error>> + Send;

    /// How many deliveries there are, counted up to a bound.
    fn count(&self, filter: Filter) -> impl Future<Output = Result<Count, Error>> + Send;

    /// The event of this identifier.
    fn event(&self, id: EventId) -> impl Future<Output = Result<Option<EventSummary>, Error>> + Send;

    /// The delivery of this identifier.
    fn delivery(&self, id: DeliveryId)
    -> impl Future<Output = Result<Option<DeliverySummary>, Error>> + Send;

    /// A page of the events that a webhook would have got, oldest first.
    fn missed(
        &self,
        missed: Missed,
        from: Option<Key>,
        limit: usize,
    ) -> impl Future<Output = Result<Listed<EventSummary>, Error>> + Send;

    /// What is stored for each of these webhooks, counted up to `bound`. Those that the queue never heard of have nothing.
    fn webhooks(
        &self,
        names: Vec<WebhookName>,
        bound: usize,
    ) -> impl Future<Output = Result<Vec<WebhookStats>, Error>> + Send;

    /// Every webhook that has deliveries to be sent, or held, in name order: also those that are not configured any more.
    fn waiting(&self) -> impl Future<Output = Result<Vec<WebhookName>, Error>> + Send;

    /// Sends again.
    ///
    /// A replayed delivery is sent beside the order that its webhook may want: it waits for none, and none waits for it. What
    /// had ended and what was added is offered on [`Commits`](crate::Commits), without a body; what was pending is not.
    ///
    /// # Errors
    /// [`Error::Full`] as well, and nothing is done, if something is to be added to a queue that is full.
    fn replay(&self, replay: Replay) -> impl Future<Output = Result<Replayed, Error>> + Send;

    /// Stores a job, and returns it as it was stored: [`Job::start`] and [`Job::end`] are found by the engine. If there is one
    /// of this identifier, then that is returned, and nothing is stored.
    ///
    /// # Errors
    /// [`Error::Unavailable`] also if [`MOST_JOBS`] are running.
    fn create_job(
        &self,
        id: ReplayId,
        what: JobFilter,
        at: Timestamp,
    ) -> impl Future<Output = Result<Job, Error>> + Send;

    /// The stored jobs, the latest first, at most `limit`.
    fn jobs(&self, limit: usize) -> impl Future<Output = Result<Vec<Job>, Error>> + Send;

    /// The job of this identifier.
    fn job(&self, id: ReplayId) -> impl Future<Output = Result<Option<Job>, Error>> + Send;

    /// Cancels a job if it is running, and returns it. `None` if it is not stored.
    fn cancel_job(
        &self,
        id: ReplayId,
        at: Timestamp,
    ) -> impl Future<Output = Result<Option<Job>, Error>> + Send;

    /// One bounded step of preparing what makes lists fast. True if there is more to do at once.
    fn index(&self) -> impl Future<Output = Result<bool, Error>> + Send;
}
