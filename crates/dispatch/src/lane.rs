//! What one lane does next: a plain value that is told what happened and asked for the next step.
//!
//! A lane knows three places where its deliveries can be: **ready** (in memory, due), **under way** (being sent, or
//! sent and being recorded), and **stored** (in the queue only). Of the stored ones it knows when the first is due.
//!
//! Reading and recording overlap, which would let a delivery appear twice. Two rules prevent it. A page that was asked
//! for before a delivery was recorded may still show it: what was recorded since is passed over. And an offer may
//! arrive after a page that already showed its delivery: keys grow with the commits, so an offer whose key is not above
//! every key seen on a page was visible to that page, and is dropped.
//!
//! Where order counts, the queue keeps it: what waits behind another delivery is neither offered nor on a page. A lane
//! only has to ask again when it hears that something was released.

mod conclude;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use aquarium_config::Webhook;
use aquarium_delivery::{Breaker, DeliveryId, Limiter, Order, Permit, Timestamp, WebhookName, Window};
use aquarium_queue::{Claim, Delivery, Key, PARKED, Page, Pause, Watcher};

use crate::{LaneStatus, Reserved};
pub use step::{Concluded, Item, Made, Notice, Step};

/// Deliveries that a lane keeps ready at the most, unless it may send more than half as many at once.
pub const READY: usize = 256;
/// Deliveries whose outcome is being recorded at the most; beyond that a lane sends nothing new.
pub const UNRECORDED: usize = 1_024;
/// Tests that a lane has room for beside everything else: under way, and ready.
const TESTS: usize = 4;
/// Watchers of stored deliveries that a lane remembers at the most.
const WATCHERS: usize = 1_024;

/// The running queue of one webhook.
#[derive(Debug)]
pub struct Lane {
    webhook: Arc<Webhook>,
    ready: BTreeMap<Rank, Item>,
    sending: HashMap<Key, Sending>,
    /// Decided, and not yet recorded; with the time at which it is due again, if it is.
    recording: HashMap<Key, Option<Timestamp>>,
    stored: Stored,
    watchers: HashMap<DeliveryId, Watcher>,
    breaker: Breaker,
    window: Window,
    /// None if there is no rate limit.
    limiter: Option<Limiter>,
    paused_until: Option<Timestamp>,
    /// The URL that answered 410 Gone.
    suspended: Option<String>,
}

/// The order in which deliveries that are ready are sent: what an operator sends again comes behind what is fresh.
type Rank = (bool, Timestamp, Key);

fn rank(delivery: &Delivery) -> Rank {
    let again = delivery.replayed_at.is_some() && delivery.attempts_of_schedule() == 0;
    (again, delivery.due_at, delivery.key)
}

#[derive(Debug)]
struct Sending {
    delivery: Delivery,
    probe: bool,
    breaker_open: bool,
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
    /// Set if other deliveries are wanted now than the page was asked for.
    outdated: bool,
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
        let limiter = webhook.rate_limit.map(Limiter::new);
        let window = Window::new(webhook.concurrency);
        Self {
            webhook,
            ready: BTreeMap::new(),
            sending: HashMap::new(),
            recording: HashMap::new(),
            stored: Stored { next_due, ..Stored::default() },
            watchers: HashMap::new(),
            breaker,
            window,
            limiter,
            paused_until: None,
            suspended: None,
        }
    }

    /// Sends nothing before this time, which the endpoint asked for.
    pub fn pause(&mut self, until: Timestamp) {
        self.paused_until = Some(until);
    }

    /// The pause that its endpoint asked for, if it is not over.
    pub fn paused(&self, now: Timestamp) -> Option<Pause> {
        let until = self.paused_until.filter(|until| *until > now)?;
        Some(Pause { until, url: self.webhook.url.to_string() })
    }

    /// Applies another configuration of the same webhook from the next step on. While it is not active nothing is sent;
    /// if it becomes active again before the lane has ended, then the lane goes on where it was.
    pub fn configure(&mut self, webhook: Arc<Webhook>) {
        self.breaker.set_limit(webhook.breaker_failures);
        self.window.set_limit(webhook.concurrency);
        match (&mut self.limiter, webhook.rate_limit) {
            (Some(limiter), Some(rate)) => limiter.set_rate(rate),
            (limiter, rate) => *limiter = rate.map(Limiter::new),
        }
        let previous = std::mem::replace(&mut self.webhook, webhook);
        if previous.url != self.webhook.url {
            // It was the other endpoint that asked for it.
            self.paused_until = None;
        }
        if previous.order != self.webhook.order {
            self.reread();
        }
    }

    /// Leaves everything that is not under way to the queue, and asks it for what may be sent now.
    fn reread(&mut self) {
        for (_, item) in std::mem::take(&mut self.ready) {
            self.watch(item.delivery);
        }
        self.stored.add(Timestamp::default());
        if let Some(claim) = &mut self.stored.claim {
            claim.outdated = true;
        }
    }

    /// What is unusual about it, if anything is.
    pub fn status(&self, now: Timestamp) -> Option<LaneStatus> {
        let paused_until = self.paused_until.filter(|until| *until > now);
        let suspended = self.suspended.is_some();
        (self.breaker.is_open() || paused_until.is_some() || suspended).then(|| LaneStatus {
            breaker: self.breaker.status(),
            paused_until,
            suspended,
        })
    }

    /// The URL that answered 410 Gone.
    pub fn suspended(&self) -> Option<&str> {
        self.suspended.as_deref()
    }

    /// True if nothing may be sent, whatever waits: the endpoint is gone, or the webhook is not active.
    pub fn is_held(&self) -> bool {
        self.suspended.is_some() || !self.webhook.active
    }

    /// Takes a delivery that was just committed. Without room it stays in the queue, as it does while it waits behind
    /// another one.
    pub fn offer(&mut self, item: Item) {
        let (key, due) = (item.delivery.key, item.delivery.due_at);
        if item.delivery.replayed_at.is_some() {
            // Its key does not tell whether a page has shown it, and perhaps it was sent since: the next page tells.
            self.stored.add(due);
            return self.watch(item.delivery);
        }
        if due == PARKED || self.stored.seen.is_some_and(|seen| key <= seen) || self.has(&item.delivery) {
            return self.watch(item.delivery);
        }
        if item.delivery.test && self.suspended.is_none() && self.ready.len() < self.capacity() + TESTS {
            self.ready.insert(rank(&item.delivery), item);
            return;
        }
        let capacity = self.capacity();
        let older_stored = self.stored.next_due.is_some_and(|stored| stored <= due);
        match &mut self.stored.claim {
            Some(claim) if older_stored && claim.offered.len() < capacity => claim.offered.push(item),
            _ if self.suspended.is_some() || older_stored || self.ready.len() >= capacity => {
                self.stored.add(due);
                self.watch(item.delivery);
            }
            _ => drop(self.ready.insert(rank(&item.delivery), item)),
        }
    }

    /// Deliveries were committed that this lane was not told of.
    pub fn missed_offers(&mut self, now: Timestamp) {
        self.stored.add(now);
    }

    /// Deliveries that waited behind others need not any more.
    pub fn released(&mut self, now: Timestamp) {
        self.stored.add(now);
    }

    /// Remembers who watches a delivery that is not kept here.
    fn watch(&mut self, delivery: Delivery) {
        let rank = rank(&delivery);
        let Some(watcher) = delivery.watcher else { return };
        if let Some(ready) = self.ready.get_mut(&rank) {
            ready.delivery.watcher = Some(watcher);
        } else if let Some(sending) = self.sending.get_mut(&delivery.key) {
            sending.delivery.watcher = Some(watcher);
        } else if self.watchers.len() < WATCHERS {
            self.watchers.insert(delivery.id, watcher);
        }
    }

    fn has(&self, delivery: &Delivery) -> bool {
        self.sending.contains_key(&delivery.key)
            || self.recording.contains_key(&delivery.key)
            || self.ready.contains_key(&rank(delivery))
    }

    fn capacity(&self) -> usize {
        READY.max(self.webhook.concurrency * 2)
    }

    /// Whether [`Lane::next`] would send something: the moment to get a slot for it.
    pub fn wants_to_send(&self, now: Timestamp) -> bool {
        self.ready.values().next().is_some_and(|item| self.may_start(&item.delivery, now).is_ok())
    }

    /// Whether what is ready may be sent soon. If not, then its bodies are better read again when their turn comes: what
    /// stands still must not take the room of what moves.
    pub fn keeps_bodies(&self, now: Timestamp) -> bool {
        !self.is_held() && !self.breaker.is_open() && self.paused_until.is_none_or(|until| until <= now)
    }

    fn drop_bodies(&mut self) {
        for item in self.ready.values_mut() {
            item.delivery.body = None;
            item.reserved = None;
        }
    }

    /// Whether an attempt may start for what is first. `Err` tells when it may, if that is known.
    fn may_start(&self, delivery: &Delivery, now: Timestamp) -> Result<(), Option<Timestamp>> {
        if delivery.test {
            // Somebody wants to know how the endpoint is now, whatever has become of what was sent before.
            let tests = self.sending.values().filter(|sending| sending.delivery.test).count();
            let room = tests < TESTS && self.recording.len() < UNRECORDED;
            return if room && !self.is_held() { Ok(()) } else { Err(None) };
        }
        if self.is_held() || self.sending.len() >= self.places() || self.recording.len() >= UNRECORDED {
            return Err(None);
        }
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Err(Some(until));
        }
        if let Some(limiter) = &self.limiter {
            limiter.permit(now).map_err(Some)?;
        }
        match self.breaker.permit(now) {
            Permit::Go | Permit::Probe => Ok(()),
            Permit::NotBefore(at) => Err(Some(at)),
            Permit::AfterProbe => Err(None),
        }
    }

    /// How many attempts may be under way.
    fn places(&self) -> usize {
        if self.webhook.order == Order::Fifo { 1 } else { self.window.size() }
    }

    /// What to do next. `may_send` tells whether there is a slot for an attempt.
    pub fn next(&mut self, now: Timestamp, may_send: bool) -> Step {
        if self.is_held() {
            return if self.is_quiet() { Step::End } else { Step::Wait(None) };
        }
        if let Some(concluded) = self.expire(now) {
            return Step::Conclude(Box::new(concluded));
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
        let first = self.ready.values().next();
        let sendable_at = first.and_then(|item| self.may_start(&item.delivery, now).err().flatten());
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
        let breaker_open = self.breaker.is_open();
        // A test is no probe: it moves the next one neither nearer nor away.
        let probe = !item.delivery.test && self.breaker.permit(now) == Permit::Probe;
        if !item.delivery.test {
            self.breaker.start();
        }
        if let Some(limiter) = &mut self.limiter {
            limiter.start(now);
        }
        let mut delivery = item.delivery.clone();
        delivery.body = None;
        self.sending.insert(delivery.key, Sending { delivery, probe, breaker_open });
        item
    }

    fn wants_page(&self, now: Timestamp) -> bool {
        self.stored.claim.is_none()
            && self.ready.len() <= self.capacity() / 2
            && self.stored.next_due.is_some_and(|due| due <= now)
    }

    fn claim(&mut self, now: Timestamp) -> Claim {
        self.stored.claim = Some(Claiming::default());
        let ready = self.ready.keys().map(|(.., key)| *key);
        let held = ready.chain(self.sending.keys().copied()).chain(self.recording.keys().copied()).collect();
        Claim {
            webhook: self.webhook.name.clone(),
            now,
            limit: self.capacity().saturating_sub(self.ready.len()).max(1),
            bytes: 0,
            held,
            parked: self.webhook.order == Order::None,
        }
    }

    /// The page that was claimed has come. `reserve` finds room for each body.
    pub fn claimed(&mut self, mut page: Page, mut reserve: impl FnMut(&mut Delivery) -> Option<Reserved>) {
        let claiming = self.stored.claim.take().unwrap_or_default();
        if claiming.outdated {
            page = Page { deliveries: Vec::new(), next_due: Some(Timestamp::default()) };
        }
        let being_recorded = self.recording.values().copied().flatten().min();
        self.stored.next_due = earlier(page.next_due, earlier(claiming.next_due, being_recorded));
        for mut delivery in page.deliveries {
            self.stored.seen = self.stored.seen.max(Some(delivery.key));
            if claiming.recorded.contains(&delivery.key) || self.has(&delivery) {
                continue;
            }
            delivery.watcher = self.watchers.remove(&delivery.id);
            let reserved = reserve(&mut delivery);
            self.ready.insert(rank(&delivery), Item { delivery, reserved });
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
