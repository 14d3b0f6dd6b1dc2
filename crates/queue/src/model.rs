//! What goes into a queue and comes out of it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aquarium_delivery::{
    DeliveryId, EventId, Exhaustion, Hops, Order, Outcome, Phases, Subject, Timestamp, TraceContext,
    WebhookName,
};
use bytes::Bytes;
use tokio::sync::mpsc;

/// An engine's own handle of a stored event or delivery. Only the engine that gave it out can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u64);

/// When a delivery is due that waits behind another: never, as long as it does.
pub const PARKED: Timestamp = Timestamp::MAX;

/// Events of one organization that are to be accepted all or none.
#[derive(Debug)]
pub struct Submission {
    /// The organization that owns them.
    pub organization: Arc<str>,
    /// In the order in which they are to be delivered.
    pub events: Vec<NewEvent>,
    /// Set if the submission may come a second time.
    pub idempotency: Option<Idempotency>,
}

/// What makes a submission known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The sender's key, unique per organization.
    pub key: String,
    /// A digest of the submission's bytes: another one under the same key is a conflict.
    pub fingerprint: [u8; 32],
}

/// An event that has passed the door.
#[derive(Debug)]
pub struct NewEvent {
    /// Its identifier.
    pub id: EventId,
    /// The project in which it happened.
    pub project: String,
    /// The canonical name of its type.
    pub kind: Cow<'static, str>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The payload, byte for byte.
    pub body: Bytes,
    /// The trace that it belongs to, at the span that everything that becomes of it follows from.
    pub trace: Option<TraceContext>,
    /// How many sidecars it has come through.
    pub hops: Hops,
    /// What it is about, for targets that keep deliveries about the same in order; none of it twice.
    pub subjects: Vec<Subject>,
    /// The webhooks that want it.
    pub targets: Vec<Target>,
    /// Who wants to know what the first attempts came to.
    pub watcher: Option<Watcher>,
}

/// One webhook that wants an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The identifier of the delivery.
    pub delivery: DeliveryId,
    /// The webhook.
    pub webhook: WebhookName,
    /// True if the webhook is not active: the delivery is recorded as skipped, and not sent.
    pub skipped: bool,
    /// What the delivery has to wait for: earlier ones of the same webhook, all of them or those about the same.
    pub order: Order,
    /// True if it is a test: it is tried once, and before others.
    pub test: bool,
}

impl NewEvent {
    /// What a delivery to this target stays in order about.
    pub(crate) fn subjects_of(&self, target: &Target) -> &[Subject] {
        match target.order {
            _ if target.skipped => &[],
            Order::None => &[],
            Order::Fifo => &[Subject::WEBHOOK],
            Order::Entity => &self.subjects,
        }
    }
}

/// Where the first attempt of each of an event's deliveries is reported. A report that finds no room is dropped.
pub type Watcher = mpsc::Sender<Report>;

/// What the first attempt of a delivery came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The delivery.
    pub delivery: DeliveryId,
    /// What came of the attempt.
    pub outcome: Outcome,
    /// How long it took.
    pub duration: Duration,
    /// What it was spent on.
    pub phases: Phases,
    /// The start of the answer's body.
    pub excerpt: Bytes,
    /// What happens next.
    pub next: Settled,
}

/// What [`accept`](crate::Queue::accept) came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// The submission was stored.
    Stored,
    /// The same submission had been stored before; this is what it led to, in the order of its events.
    Repeated(Vec<Receipt>),
}

/// What a stored event led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The event.
    pub event: EventId,
    /// Its deliveries, in the order in which they were accepted.
    pub deliveries: Vec<ReceiptEntry>,
}

/// One delivery of a [`Receipt`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptEntry {
    /// The delivery.
    pub id: DeliveryId,
    /// The webhook.
    pub webhook: WebhookName,
    /// True if it was recorded as skipped.
    pub skipped: bool,
}

/// A pending delivery.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The engine's handle of it.
    pub key: Key,
    /// Its identifier.
    pub id: DeliveryId,
    /// The webhook it goes to.
    pub webhook: WebhookName,
    /// The event's identifier.
    pub event: EventId,
    /// The engine's handle of the event, to read the body by.
    pub event_key: Key,
    /// When the event was accepted.
    pub accepted_at: Timestamp,
    /// When the next attempt is due. [`PARKED`] if it waits behind another delivery.
    pub due_at: Timestamp,
    /// The attempts made so far.
    pub attempts: u32,
    /// Of these, those that were made before it was replayed last: they do not count for the schedule.
    pub earlier_attempts: u32,
    /// When it was replayed last.
    pub replayed_at: Option<Timestamp>,
    /// True if it is a test, which is not tried again.
    pub test: bool,
    /// True if others may have to wait for it.
    pub ordered: bool,
    /// The size of the body in bytes.
    pub size: usize,
    /// The body, if it was at hand.
    pub body: Option<Bytes>,
    /// The trace that the event belongs to. Known whenever the body was at hand.
    pub trace: Option<TraceContext>,
    /// How many sidecars the event has come through. Known whenever the body was at hand.
    pub hops: Hops,
    /// True if what is stored of it does not match its checksum: it must not be sent.
    pub damaged: bool,
    /// Who wants to know what the first attempt comes to.
    pub watcher: Option<Watcher>,
}

/// What is sent of an event, and in which trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The body, byte for byte.
    pub body: Bytes,
    /// The trace that the event belongs to.
    pub trace: Option<TraceContext>,
    /// How many sidecars it has come through.
    pub hops: Hops,
}

impl Delivery {
    /// Since when it waits to be delivered: since it was accepted, or replayed.
    pub fn since(&self) -> Timestamp {
        self.replayed_at.map_or(self.accepted_at, |replayed_at| replayed_at.max(self.accepted_at))
    }

    /// The attempts that count for the schedule.
    pub fn attempts_of_schedule(&self) -> u32 {
        self.attempts.saturating_sub(self.earlier_attempts)
    }

    /// The delivery of a new event to one of its targets, due at once unless it waits behind another.
    pub(crate) fn fresh(event: &NewEvent, event_key: Key, target: &Target, key: Key, parked: bool) -> Self {
        Self {
            key,
            id: target.delivery,
            webhook: target.webhook.clone(),
            event: event.id,
            event_key,
            accepted_at: event.accepted_at,
            due_at: first_due_at(event, target, parked),
            attempts: 0,
            earlier_attempts: 0,
            replayed_at: None,
            test: target.test,
            ordered: !event.subjects_of(target).is_empty(),
            size: event.body.len(),
            body: Some(event.body.clone()),
            trace: event.trace,
            hops: event.hops,
            damaged: false,
            watcher: event.watcher.clone(),
        }
    }
}

/// When the delivery of a new event to one of its targets is due. A test is due before everything else.
pub(crate) fn first_due_at(event: &NewEvent, target: &Target, parked: bool) -> Timestamp {
    match (parked, target.test) {
        (true, _) => PARKED,
        (false, true) => Timestamp::default(),
        (false, false) => event.accepted_at,
    }
}

/// A question for due deliveries.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The webhook.
    pub webhook: WebhookName,
    /// Deliveries due by then are due.
    pub now: Timestamp,
    /// How many at the most.
    pub limit: usize,
    /// How many bytes of bodies at the most; deliveries beyond come without their bodies.
    pub bytes: usize,
    /// The deliveries that the reader holds already: they are passed over, for what is due next too.
    pub held: HashSet<Key>,
    /// True if those that wait behind others are wanted as well, as if they were due since they were accepted.
    pub parked: bool,
}

/// The answer to a [`Claim`].
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Due deliveries, oldest due first.
    pub deliveries: Vec<Delivery>,
    /// When the first pending delivery is due that is neither on this page nor held. It may be due already.
    pub next_due: Option<Timestamp>,
}

/// What came of a delivery.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The delivery.
    pub delivery: Key,
    /// When this was decided.
    pub at: Timestamp,
    /// The attempt that led to it, if there was one.
    pub attempt: Option<Attempt>,
    /// The delivery's new state.
    pub state: Settled,
    /// Whether others may have to wait for it, as [`Delivery::ordered`] said.
    pub ordered: bool,
    /// Set if the endpoint asked for a pause, of the whole webhook.
    pub pause: Option<Pause>,
}

/// What an endpoint asked for with `Retry-After`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Nothing is sent before.
    pub until: Timestamp,
    /// The URL that asked; it says nothing of another one.
    pub url: String,
}

/// One HTTP request made for a delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// How long it took, whole.
    pub duration: Duration,
    /// What it was spent on.
    pub phases: Phases,
    /// True if the webhook's breaker was open when it started: it was a probe, or a test.
    pub breaker_open: bool,
    /// What it came to.
    pub outcome: Outcome,
    /// The start of the answer's body.
    pub excerpt: Bytes,
}

impl Settlement {
    /// True if deliveries that waited behind this one may go on.
    pub(crate) fn releases(&self) -> bool {
        self.ordered && matches!(self.state, Settled::Delivered | Settled::Exhausted(_))
    }
}

/// The state that a settlement leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The endpoint has it.
    Delivered,
    /// It is not tried again.
    Exhausted(Exhaustion),
    /// It stays pending, and is due then.
    Retry(Timestamp),
    /// It stays pending and due, and its webhook is suspended.
    Suspended {
        /// The URL that said so; another URL is another chance.
        url: String,
    },
}

/// A webhook to which nothing is sent until it is resumed or its URL changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    /// The webhook.
    pub webhook: WebhookName,
    /// Since when.
    pub since: Timestamp,
    /// The URL that answered 410.
    pub url: String,
}

/// What waits in a queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Each webhook with pending deliveries, and when the first is due.
    pub waiting: Vec<(WebhookName, Timestamp)>,
    /// Of these, the webhooks of which some wait behind others.
    pub parked: Vec<WebhookName>,
    /// The suspended webhooks.
    pub suspended: Vec<Suspension>,
    /// The pauses that endpoints asked for last, also those that are over.
    pub paused: Vec<(WebhookName, Pause)>,
}

/// What is stored of a delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its state.
    pub state: State,
    /// Its attempts, oldest first.
    pub attempts: Vec<Attempt>,
}

/// The state in which a delivery is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// To be sent.
    Pending {
        /// When the next attempt is due. [`PARKED`] if it waits behind another delivery.
        due_at: Timestamp,
    },
    /// The endpoint has it.
    Delivered,
    /// Given up.
    Exhausted(Exhaustion),
    /// Not sent, because the webhook was not active when the event was accepted.
    Skipped,
}

/// What one step of [`purge`](crate::Queue::purge) did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Events removed, with their deliveries and attempts.
    pub events: usize,
    /// Of those, pending deliveries whose webhook is not configured any more.
    pub abandoned: usize,
    /// True if there may be more to remove at once.
    pub more: bool,
}
