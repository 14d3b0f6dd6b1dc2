//! What one lane does next: a plain value that is told what happened and asked for the next step.
//!
//! A lane knows three places where its deliveries can be: **ready** (in memory, due), **under way** (being sent, or
//! sent and being recorded), and **stored** (in the queue only). Of the stored ones it knows when the first is due.
//!
//! Reading and recording overlap, which would let a delivery appear twice. Two rules prevent it. A page that was asked
//! for before a delivery was recorded may still show it: what was recorded since is passed over. And an offer may
//! arrive after a page that already showed its delivery: keys grow with the commits, so an offer whose key is not above
//! every key seen on a page was visible to that page, and is dropped.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use aquarium_config::Webhook;
use aquarium_delivery::{
    Breaker, Decision, DeliveryId, Exhaustion, Next, Outcome, Permit, State, Timestamp, WebhookName,
    is_too_old, next,
};
use aquarium_egress::Sent;
use aquarium_queue::{Attempt, Claim, Delivery, Key, Page, Report, Settled, Settlement, Watcher};

use crate::Reserved;

/// Deliveries that a lane keeps ready at the most, unless it may send more than half as many at once.
pub const READY: usize = 256;
/// Deliveries whose outcome is being recorded at the most; beyond that a lane sends nothing new.
pub const UNRECORDED: usize = 1_024;
/// Watchers of stored deliveries that a lane remembers at the most.
const WATCHERS: usize = 1_024;

/// A delivery that is to be sent, and the part of the byte budget that its body takes.
#[derive(Debug)]
pub struct Item {
    /// The delivery.
    pub delivery: Delivery,
    /// Held as long as the body is in memory.
    pub reserved: Option<Reserved>,
}

/// An attempt that was made.
#[derive(Debug)]
pub struct Made {
    /// When it started.
    pub at: Timestamp,
    /// The webhook as it was configured when the request was handed over.
    pub webhook: Arc<Webhook>,
    /// What it came to.
    pub sent: Sent,
}

/// What a lane wants done.
#[derive(Debug)]
pub enum Step {
    /// Make an attempt for this, and tell [`Lane::attempted`].
    Send(Box<Item>),
    /// Ask the queue, and tell [`Lane::claimed`] or [`Lane::claim_failed`].
    Claim(Claim),
    /// Carry this out: a delivery was given up without an attempt.
    Conclude(Concluded),
    /// Ask again at this time, or when something happened.
    Wait(Option<Timestamp>),
    /// There is nothing to send, and nothing will be, or not while it is held.
    End,
}

/// What became of a delivery.
#[derive(Debug)]
pub struct Concluded {
    /// To be recorded; tell [`Lane::recorded`].
    pub settlement: Settlement,
    /// Who waits for the first attempt, and what to say.
    pub report: Option<(Watcher, Report)>,
    /// What an operator should know.
    pub notices: Vec<Notice>,
}

/// Something that an operator acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The breaker opened: only probes are sent.
    BreakerOpened(Outcome),
    /// The breaker closed: deliveries flow again.
    BreakerClosed,
    /// The endpoint asked for a pause.
    Paused(Timestamp),
    /// The endpoint is gone: nothing is sent until it is resumed.
    Suspended,
    /// A delivery was given up.
    Exhausted(DeliveryId, Exhaustion, Option<Outcome>),
}

/// The running queue of one webhook.
#[derive(Debug)]
pub struct Lane {
    webhook: Arc<Webhook>,
    ready: BTreeMap<(Timestamp, Key), Item>,
    sending: HashMap<Key, Sending>,
    /// Decided, and not yet recorded; with the time at which it is due again, if it is.
    recording: HashMap<Key, Option<Timestamp>>,
    stored: Stored,
    watchers: HashMap<DeliveryId, Watcher>,
    breaker: Breaker,
    paused_until: Option<Timestamp>,
    /// The URL that answered 410 Gone.
    suspended: Option<String>,
}

#[derive(Debug)]
struct Sending {
    delivery: Delivery,
    probe: bool,
}

/// What is known of the deliveries that are in the queue only.
#[derive(Debug, Default)]
struct Stored {
    /// When the first of them is due. It may be sooner than it really is, never later.
    next_due: Option<Timestamp>,
    /// Set while a page is awaited.
    claim: Option<Claiming>,
    /// The highest key that any page showed.
    seen: Option<Key>,
}

#[derive(Debug, Default)]
struct Claiming {
    /// What was recorded since the page was asked for.
    recorded: HashSet<Key>,
    /// The first due time of what came to be stored since.
    next_due: Option<Timestamp>,
    /// What was offered since. It has its place behind what the page brings.
    offered: Vec<Item>,
}

impl Stored {
    fn add(&mut self, due: Timestamp) {
        self.next_due = earlier(self.next_due, Some(due));
        if let Some(claim) = &mut self.claim {
            claim.next_due = earlier(claim.next_due, Some(due));
        }
    }
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Lane {
    /// A lane that has nothing in memory, and whose first stored delivery is due at `next_due`.
    pub fn new(webhook: Arc<Webhook>, next_due: Option<Timestamp>) -> Self {
        let breaker = Breaker::new(webhook.breaker_failures);
        Self {
            webhook,
            ready: BTreeMap::new(),
            sending: HashMap::new(),
            recording: HashMap::new(),
            stored: Stored { next_due, ..Stored::default() },
            watchers: HashMap::new(),
            breaker,
            paused_until: None,
            suspended: None,
        }
    }

    /// Applies another configuration of the same webhook from the next step on. While it is not active nothing is sent;
    /// if it becomes active again before the lane has ended, then the lane goes on where it was.
    pub fn configure(&mut self, webhook: Arc<Webhook>) {
        self.breaker.set_limit(webhook.breaker_failures);
        self.webhook = webhook;
    }

    /// The URL that answered 410 Gone.
    pub fn suspended(&self) -> Option<&str> {
        self.suspended.as_deref()
    }

    /// True if nothing may be sent, whatever waits: the endpoint is gone, or the webhook is not active.
    pub fn is_held(&self) -> bool {
        self.suspended.is_some() || !self.webhook.active
    }

    /// Takes a delivery that was just committed. Without room it stays in the queue.
    pub fn offer(&mut self, item: Item) {
        let (key, due) = (item.delivery.key, item.delivery.due_at);
        if self.stored.seen.is_some_and(|seen| key <= seen) || self.has(due, key) {
            return self.watch(item.delivery);
        }
        let capacity = self.capacity();
        let older_stored = self.stored.next_due.is_some_and(|stored| stored <= due);
        match &mut self.stored.claim {
            Some(claim) if older_stored && claim.offered.len() < capacity => claim.offered.push(item),
            _ if self.suspended.is_some() || older_stored || self.ready.len() >= capacity => {
                self.stored.add(due);
                self.watch(item.delivery);
            }
            _ => drop(self.ready.insert((due, key), item)),
        }
    }

    /// Deliveries were committed that this lane was not told of.
    pub fn missed_offers(&mut self, now: Timestamp) {
        self.stored.add(now);
    }

    /// Remembers who watches a delivery that is not kept here.
    fn watch(&mut self, delivery: Delivery) {
        let Some(watcher) = delivery.watcher else { return };
        if let Some(ready) = self.ready.get_mut(&(delivery.due_at, delivery.key)) {
            ready.delivery.watcher = Some(watcher);
        } else if let Some(sending) = self.sending.get_mut(&delivery.key) {
            sending.delivery.watcher = Some(watcher);
        } else if self.watchers.len() < WATCHERS {
            self.watchers.insert(delivery.id, watcher);
        }
    }

    fn has(&self, due: Timestamp, key: Key) -> bool {
        self.sending.contains_key(&key)
            || self.recording.contains_key(&key)
            || self.ready.contains_key(&(due, key))
    }

    fn capacity(&self) -> usize {
        READY.max(self.webhook.concurrency * 2)
    }

    /// Whether [`Lane::next`] would send something: the moment to get a slot for it.
    pub fn wants_to_send(&self, now: Timestamp) -> bool {
        !self.ready.is_empty() && self.may_send(now).is_ok()
    }

    /// `Err` tells when it may, if that is known.
    fn may_send(&self, now: Timestamp) -> Result<(), Option<Timestamp>> {
        if self.is_held()
            || self.sending.len() >= self.webhook.concurrency
            || self.recording.len() >= UNRECORDED
        {
            return Err(None);
        }
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(Some(until));
        }
        match self.breaker.permit(now) {
            Permit::Go | Permit::Probe => Ok(()),
            Permit::NotBefore(at) => Err(Some(at)),
            Permit::AfterProbe => Err(None),
        }
    }

    /// What to do next. `may_send` tells whether there is a slot for an attempt.
    pub fn next(&mut self, now: Timestamp, may_send: bool) -> Step {
        if self.is_held() {
            return if self.is_quiet() { Step::End } else { Step::Wait(None) };
        }
        if let Some(concluded) = self.expire(now) {
            return Step::Conclude(concluded);
        }
        if may_send
            && self.wants_to_send(now)
            && let Some((_, item)) = self.ready.pop_first()
        {
            return Step::Send(Box::new(self.start(item, now)));
        }
        if self.wants_page(now) {
            return Step::Claim(self.claim(now));
        }
        let sendable_at = match (self.ready.is_empty(), self.may_send(now)) {
            (false, Err(at)) => at,
            _ => None,
        };
        let claimable_at = self.stored.next_due.filter(|due| *due > now);
        let wake_at = earlier(sendable_at, claimable_at);
        let empty = self.ready.is_empty() && self.stored.next_due.is_none();
        if wake_at.is_none() && empty && self.is_quiet() { Step::End } else { Step::Wait(wake_at) }
    }

    fn is_quiet(&self) -> bool {
        self.is_idle() && self.stored.claim.is_none()
    }

    /// True if nothing is being sent or recorded.
    pub fn is_idle(&self) -> bool {
        self.sending.is_empty() && self.recording.is_empty()
    }

    fn start(&mut self, item: Item, now: Timestamp) -> Item {
        let probe = self.breaker.permit(now) == Permit::Probe;
        self.breaker.start();
        let mut delivery = item.delivery.clone();
        delivery.body = None;
        self.sending.insert(delivery.key, Sending { delivery, probe });
        item
    }

    /// While the breaker is open, what is too old is given up without an attempt: its turn may not come for long, and
    /// the queue must not fill up with it. Whatever else is too old still gets its attempt.
    fn expire(&mut self, now: Timestamp) -> Option<Concluded> {
        if !self.breaker.is_open() || self.recording.len() >= UNRECORDED {
            return None;
        }
        let first = self.ready.first_entry()?;
        if !is_too_old(first.get().delivery.accepted_at, &self.webhook.schedule, now) {
            return None;
        }
        let delivery = first.remove().delivery;
        self.recording.insert(delivery.key, None);
        let state = Settled::Exhausted(Exhaustion::Age);
        Some(Concluded {
            settlement: Settlement { delivery: delivery.key, at: now, attempt: None, state },
            report: None,
            notices: vec![Notice::Exhausted(delivery.id, Exhaustion::Age, None)],
        })
    }

    fn wants_page(&self, now: Timestamp) -> bool {
        self.stored.claim.is_none()
            && self.ready.len() <= self.capacity() / 2
            && self.stored.next_due.is_some_and(|due| due <= now)
    }

    fn claim(&mut self, now: Timestamp) -> Claim {
        self.stored.claim = Some(Claiming::default());
        let ready = self.ready.keys().map(|(_, key)| *key);
        let held = ready.chain(self.sending.keys().copied()).chain(self.recording.keys().copied()).collect();
        Claim {
            webhook: self.webhook.name.clone(),
            now,
            limit: self.capacity() - self.ready.len(),
            bytes: 0,
            held,
        }
    }

    /// The page that was claimed has come. `reserve` finds room for each body.
    pub fn claimed(&mut self, page: Page, mut reserve: impl FnMut(&mut Delivery) -> Option<Reserved>) {
        let claiming = self.stored.claim.take().unwrap_or_default();
        let being_recorded = self.recording.values().copied().flatten().min();
        self.stored.next_due = earlier(page.next_due, earlier(claiming.next_due, being_recorded));
        for mut delivery in page.deliveries {
            self.stored.seen = self.stored.seen.max(Some(delivery.key));
            if claiming.recorded.contains(&delivery.key) || self.has(delivery.due_at, delivery.key) {
                continue;
            }
            delivery.watcher = self.watchers.remove(&delivery.id);
            let reserved = reserve(&mut delivery);
            self.ready.insert((delivery.due_at, delivery.key), Item { delivery, reserved });
        }
        for item in claiming.offered {
            self.offer(item);
        }
    }

    /// The queue could not answer; it is asked again at `retry_at`.
    pub fn claim_failed(&mut self, retry_at: Timestamp) {
        self.stored.claim = None;
        self.stored.next_due = Some(retry_at);
    }

    /// An attempt could not even be tried: it does not count, and the delivery stays in the queue until `retry_at`.
    pub fn untried(&mut self, key: Key, retry_at: Timestamp) {
        if let Some(Sending { probe, .. }) = self.sending.remove(&key) {
            self.stored.add(retry_at);
            if probe {
                self.breaker.cancel_probe(retry_at);
            }
        }
    }

    /// An attempt has ended. `jitter` and `probe_jitter` are from 0 up to 1. `None` if this lane did not start it.
    pub fn attempted(
        &mut self,
        key: Key,
        Made { at, webhook, sent }: Made,
        now: Timestamp,
        (jitter, probe_jitter): (f64, f64),
    ) -> Option<Concluded> {
        let Sending { delivery, probe } = self.sending.remove(&key)?;
        let number = delivery.attempts.saturating_add(1);
        let state = State { accepted_at: delivery.accepted_at, attempts: number };
        let mut decision = next(state, &self.webhook.schedule, &sent.outcome, now, jitter);
        if decision.next == Next::Suspend && webhook.url != self.webhook.url {
            // It is the previous URL that is gone, perhaps the reason for the new one.
            decision.next = Next::RetryAt(now);
        }
        let mut notices = self.note(&sent.outcome, &decision, probe, now, probe_jitter);
        let settled = match decision.next {
            Next::Delivered => Settled::Delivered,
            Next::RetryAt(at) => Settled::Retry(at),
            Next::Suspend => Settled::Suspended { url: self.webhook.url.to_string() },
            Next::Exhausted(why) => {
                notices.push(Notice::Exhausted(delivery.id, why, Some(sent.outcome.clone())));
                Settled::Exhausted(why)
            }
        };
        let due_again = match settled {
            Settled::Retry(at) => Some(at),
            Settled::Suspended { .. } => Some(now),
            Settled::Delivered | Settled::Exhausted(_) => None,
        };
        self.recording.insert(key, due_again);
        if let Some(at) = due_again {
            self.stored.add(at);
        }
        let report = delivery.watcher.map(|watcher| {
            let report = Report {
                delivery: delivery.id,
                outcome: sent.outcome.clone(),
                duration: sent.duration,
                next: settled.clone(),
            };
            (watcher, report)
        });
        let attempt = Attempt {
            number,
            started_at: at,
            duration: sent.duration,
            outcome: sent.outcome,
            excerpt: sent.excerpt,
        };
        let settlement = Settlement { delivery: key, at: now, attempt: Some(attempt), state: settled };
        Some(Concluded { settlement, report, notices })
    }

    /// Draws the lane's own conclusions from an outcome.
    fn note(
        &mut self,
        outcome: &Outcome,
        decision: &Decision,
        probe: bool,
        now: Timestamp,
        random: f64,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        if outcome.is_delivered() {
            if self.breaker.success() {
                notices.push(Notice::BreakerClosed);
            }
            return notices;
        }
        if self.breaker.failure(now, probe, random) {
            notices.push(Notice::BreakerOpened(outcome.clone()));
        }
        if let Some(until) =
            decision.pause_until.filter(|until| self.paused_until.is_none_or(|known| known < *until))
        {
            self.paused_until = Some(until);
            notices.push(Notice::Paused(until));
        }
        if decision.next == Next::Suspend && self.suspended.is_none() {
            self.suspended = Some(self.webhook.url.to_string());
            // What waits here goes back to the queue, where it is held.
            self.ready.clear();
            notices.push(Notice::Suspended);
        }
        notices
    }

    /// A settlement has been recorded.
    pub fn recorded(&mut self, key: Key) {
        let due_again = self.recording.remove(&key).flatten();
        if let Some(claim) = &mut self.stored.claim {
            claim.recorded.insert(key);
            claim.next_due = earlier(claim.next_due, due_again);
        }
    }

    /// The webhook's name.
    pub fn name(&self) -> &WebhookName {
        &self.webhook.name
    }
}
