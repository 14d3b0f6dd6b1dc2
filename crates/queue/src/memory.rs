//! An engine that keeps nothing: a plain map behind a lock.
//!
//! It answers at once, so that whole lanes run in virtual time, and it is the model that the durable engines are
//! compared with. Nothing in production uses it.

mod history;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aquarium_delivery::{DeliveryId, EventId, Hops, Outcome, Subject, Timestamp, TraceContext, WebhookName};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::history::{Job, JobState};
use crate::model::first_due_at;
use crate::{
    Accepted, Attempt, Backlog, Claim, Commits, Delivery, Error, Idempotency, Key, PARKED, Page, Pause,
    Payload, Purged, Queue, Receipt, ReceiptEntry, Record, Settled, Settlement, State, Submission,
    Suspension,
};

/// A queue in memory.
#[derive(Debug, Clone)]
pub struct Memory {
    stored: Arc<Mutex<Stored>>,
    committed: mpsc::Sender<Vec<Delivery>>,
}

/// Opens an empty queue that is full when it holds `capacity` events.
pub fn open(capacity: usize) -> (Memory, Commits) {
    let (committed, commits) = mpsc::channel(1_024);
    let stored = Arc::new(Mutex::new(Stored { capacity, ..Stored::default() }));
    (Memory { stored, committed }, commits)
}

#[derive(Debug, Default)]
struct Stored {
    capacity: usize,
    last_event: u64,
    events: BTreeMap<Key, StoredEvent>,
    deliveries: BTreeMap<Key, StoredDelivery>,
    submissions: HashMap<(Arc<str>, String), (Idempotency, Vec<Key>)>,
    suspended: BTreeMap<WebhookName, Suspension>,
    paused: BTreeMap<WebhookName, Pause>,
    /// The latest last.
    jobs: Vec<Job>,
}

#[derive(Debug)]
struct StoredEvent {
    id: EventId,
    organization: Arc<str>,
    project: Arc<str>,
    kind: Arc<str>,
    accepted_at: Timestamp,
    body: Bytes,
    trace: Option<TraceContext>,
    hops: Hops,
}

#[derive(Debug)]
struct StoredDelivery {
    id: DeliveryId,
    event: Key,
    webhook: WebhookName,
    /// What it stays in order about.
    subjects: Vec<Subject>,
    state: State,
    settled_at: Timestamp,
    made: u32,
    attempts: Vec<Attempt>,
    earlier_attempts: u32,
    replayed_at: Option<Timestamp>,
    test: bool,
}

/// The key of the first delivery that an event may have. Deliveries are in the order of their events, as in the durable
/// engine: one that is added later too.
fn first_delivery_of(event: Key) -> Key {
    Key(event.0 << 20)
}

/// The event that a delivery is of.
fn event_of(delivery: Key) -> Key {
    Key(delivery.0 >> 20)
}

impl Stored {
    fn next_event(&mut self) -> Key {
        self.last_event += 1;
        Key(self.last_event)
    }

    fn of_event(&self, event: Key) -> impl Iterator<Item = (&Key, &StoredDelivery)> {
        self.deliveries.range(first_delivery_of(event)..first_delivery_of(Key(event.0 + 1)))
    }

    /// Pending deliveries of a webhook, the first due first.
    fn pending(&self, webhook: &WebhookName) -> BTreeMap<(Timestamp, Key), &StoredDelivery> {
        let of_webhook = self.deliveries.iter().filter(|(_, delivery)| delivery.webhook == *webhook);
        of_webhook
            .filter_map(|(key, delivery)| match delivery.state {
                State::Pending { due_at } => Some(((due_at, *key), delivery)),
                _ => None,
            })
            .collect()
    }

    fn receipt(&self, key: Key) -> Option<Receipt> {
        let entry = |delivery: &StoredDelivery| ReceiptEntry {
            id: delivery.id,
            webhook: delivery.webhook.clone(),
            skipped: delivery.state == State::Skipped,
        };
        let deliveries = self.of_event(key).map(|(_, delivery)| entry(delivery)).collect();
        Some(Receipt { event: self.events.get(&key)?.id, deliveries })
    }

    fn accept(&mut self, submission: Submission) -> Result<(Accepted, Vec<Delivery>), Error> {
        let name = submission.idempotency.as_ref().map(|i| (submission.organization.clone(), i.key.clone()));
        if let Some((known, events)) = name.as_ref().and_then(|name| self.submissions.get(name)) {
            if Some(known) != submission.idempotency.as_ref() {
                return Err(Error::Conflict);
            }
            let receipts = events.iter().filter_map(|event| self.receipt(*event)).collect();
            return Ok((Accepted::Repeated(receipts), Vec::new()));
        }
        if self.events.len() >= self.capacity {
            return Err(Error::Full { size: self.events.len() as u64, max_size: self.capacity as u64 });
        }
        let (mut keys, mut offers) = (Vec::new(), Vec::new());
        for event in submission.events {
            let event_key = self.next_event();
            keys.push(event_key);
            for (target, key) in event.targets.iter().zip(first_delivery_of(event_key).0..) {
                let key = Key(key);
                let subjects = event.subjects_of(target);
                let parked = !self.is_free(key, &target.webhook, subjects);
                let state = match target.skipped {
                    true => State::Skipped,
                    false => State::Pending { due_at: first_due_at(&event, target, parked) },
                };
                let stored = StoredDelivery {
                    id: target.delivery,
                    event: event_key,
                    webhook: target.webhook.clone(),
                    subjects: subjects.to_vec(),
                    state,
                    settled_at: event.accepted_at,
                    made: 0,
                    attempts: Vec::new(),
                    earlier_attempts: 0,
                    replayed_at: None,
                    test: target.test,
                };
                self.deliveries.insert(key, stored);
                if !target.skipped && (!parked || event.watcher.is_some()) {
                    offers.push(Delivery::fresh(&event, event_key, target, key, parked));
                }
            }
            let stored = StoredEvent {
                id: event.id,
                organization: submission.organization.clone(),
                project: event.project.into(),
                kind: event.kind.into(),
                accepted_at: event.accepted_at,
                body: event.body,
                trace: event.trace,
                hops: event.hops,
            };
            self.events.insert(event_key, stored);
        }
        if let (Some(name), Some(idempotency)) = (name, submission.idempotency) {
            self.submissions.insert(name, (idempotency, keys));
        }
        Ok((Accepted::Stored, offers))
    }

    /// Whether no earlier pending delivery of the webhook has a subject in common with these.
    fn is_free(&self, key: Key, webhook: &WebhookName, subjects: &[Subject]) -> bool {
        let in_common = |other: &StoredDelivery| {
            matches!(other.state, State::Pending { .. })
                && other.webhook == *webhook
                && other.subjects.iter().any(|subject| subjects.contains(subject))
        };
        subjects.is_empty() || !self.deliveries.range(..key).any(|(_, other)| in_common(other))
    }

    /// Lets those of a webhook go on that are parked and need not be any more. Returns how many there are.
    fn release(&mut self, webhook: &WebhookName) -> usize {
        let parked = self.deliveries.iter().filter(|(_, delivery)| {
            delivery.webhook == *webhook && delivery.state == State::Pending { due_at: PARKED }
        });
        let is_free =
            |(key, delivery): &(&Key, &StoredDelivery)| self.is_free(**key, webhook, &delivery.subjects);
        let free: Vec<Key> = parked.filter(is_free).map(|(key, _)| *key).collect();
        for key in &free {
            if let Some(delivery) = self.deliveries.get_mut(key) {
                delivery.state = State::Pending { due_at: delivery.settled_at };
            }
        }
        free.len()
    }

    fn settle(&mut self, settlement: Settlement) -> usize {
        let releases = settlement.releases();
        let Some(delivery) = self.deliveries.get_mut(&settlement.delivery) else { return 0 };
        delivery.settled_at = settlement.at;
        delivery.state = match settlement.state {
            Settled::Delivered => State::Delivered,
            Settled::Exhausted(why) => State::Exhausted(why),
            Settled::Retry(due_at) => State::Pending { due_at },
            Settled::Suspended { url } => {
                let webhook = delivery.webhook.clone();
                let suspension = Suspension { webhook: webhook.clone(), since: settlement.at, url };
                self.suspended.insert(webhook, suspension);
                State::Pending { due_at: settlement.at }
            }
        };
        if let Some(pause) = settlement.pause {
            self.paused.insert(delivery.webhook.clone(), pause);
        }
        if let Some(mut attempt) = settlement.attempt {
            if let Outcome::Answered { retry_after, .. } = &mut attempt.outcome {
                *retry_after = None;
            }
            delivery.made = attempt.number;
            delivery.attempts.retain(|known| known.number != attempt.number);
            delivery.attempts.push(attempt);
        }
        let webhook = delivery.webhook.clone();
        if releases { self.release(&webhook) } else { 0 }
    }

    fn claim(&self, claim: &Claim) -> Page {
        let mut page = Page::default();
        let mut bytes = claim.bytes;
        let (due, parked): (Vec<_>, Vec<_>) =
            self.pending(&claim.webhook).into_iter().partition(|((due_at, _), _)| *due_at != PARKED);
        let wanted = due.into_iter().chain(parked.into_iter().filter(|_| claim.parked));
        for ((due_at, key), delivery) in wanted {
            if claim.held.contains(&key) {
                continue;
            }
            let Some(event) = self.events.get(&delivery.event) else { continue };
            let due_at = if due_at == PARKED { event.accepted_at } else { due_at };
            if due_at > claim.now || page.deliveries.len() == claim.limit {
                page.next_due = Some(page.next_due.map_or(due_at, |next| next.min(due_at)));
                if claim.parked && due_at > claim.now {
                    continue;
                }
                break;
            }
            let fits = event.body.len() <= bytes;
            bytes -= if fits { event.body.len() } else { 0 };
            page.deliveries.push(Delivery {
                key,
                id: delivery.id,
                webhook: delivery.webhook.clone(),
                event: event.id,
                event_key: delivery.event,
                accepted_at: event.accepted_at,
                due_at,
                attempts: delivery.made,
                earlier_attempts: delivery.earlier_attempts,
                replayed_at: delivery.replayed_at,
                test: delivery.test,
                ordered: !delivery.subjects.is_empty(),
                size: event.body.len(),
                body: fits.then(|| event.body.clone()),
                trace: event.trace.filter(|_| fits),
                hops: event.hops,
                damaged: false,
                watcher: None,
            });
        }
        page
    }

    fn backlog(&self) -> Backlog {
        let webhooks: HashSet<_> = self.deliveries.values().map(|delivery| &delivery.webhook).collect();
        let first_due = |webhook: &WebhookName| Some(self.pending(webhook).first_key_value()?.0.0);
        let mut waiting: Vec<_> =
            webhooks.into_iter().filter_map(|webhook| Some((webhook.clone(), first_due(webhook)?))).collect();
        waiting.sort();
        let parked =
            |webhook: &WebhookName| self.pending(webhook).into_keys().any(|(due_at, _)| due_at == PARKED);
        let parked = waiting.iter().map(|(webhook, _)| webhook).filter(|webhook| parked(webhook)).cloned();
        let parked = parked.collect();
        Backlog {
            waiting,
            parked,
            suspended: self.suspended.values().cloned().collect(),
            paused: self.paused.clone().into_iter().collect(),
        }
    }

    /// Removes in one step what an engine may remove in several.
    fn purge(&mut self, before: Timestamp, configured: &HashSet<WebhookName>) -> Purged {
        let wanted = |delivery: &StoredDelivery| match delivery.state {
            State::Pending { .. } => configured.contains(&delivery.webhook),
            _ => delivery.settled_at >= before,
        };
        let old = self.events.iter().filter(|(_, event)| event.accepted_at < before);
        let gone: HashSet<Key> = old
            .map(|(key, _)| *key)
            .filter(|key| !self.of_event(*key).any(|(_, delivery)| wanted(delivery)))
            .collect();
        let pending = |delivery: &&StoredDelivery| matches!(delivery.state, State::Pending { .. });
        let removed = self.deliveries.values().filter(|delivery| gone.contains(&delivery.event));
        let abandoned: Vec<_> = removed.filter(pending).map(|delivery| delivery.webhook.clone()).collect();
        self.events.retain(|key, _| !gone.contains(key));
        self.deliveries.retain(|_, delivery| !gone.contains(&delivery.event));
        self.submissions.retain(|_, (_, events)| events.first().is_none_or(|first| !gone.contains(first)));
        for webhook in &abandoned {
            self.release(webhook);
        }
        self.jobs.retain(|job| job.state == JobState::Running || job.state_since >= before);
        Purged { events: gone.len(), abandoned: abandoned.len(), more: false }
    }
}

impl Memory {
    /// The same queue for another process, as it were: whatever is committed by this handle is offered to nobody else.
    pub fn reopen(&self) -> (Memory, Commits) {
        let (committed, commits) = mpsc::channel(1_024);
        (Memory { stored: self.stored.clone(), committed }, commits)
    }

    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue for Memory {
    async fn accept(&self, submission: Submission) -> Result<Accepted, Error> {
        let (accepted, offers) = self.stored().accept(submission)?;
        if !offers.is_empty() {
            // Nobody may be sending.
            let _ = self.committed.send(offers).await;
        }
        Ok(accepted)
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, Error> {
        let mut stored = self.stored();
        Ok(settlements.into_iter().map(|settlement| stored.settle(settlement)).sum())
    }

    async fn claim(&self, claim: Claim) -> Result<Page, Error> {
        Ok(self.stored().claim(&claim))
    }

    async fn payload(&self, event: Key) -> Result<Option<Payload>, Error> {
        let payload =
            |event: &StoredEvent| Payload { body: event.body.clone(), trace: event.trace, hops: event.hops };
        Ok(self.stored().events.get(&event).map(payload))
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        Ok(self.stored().backlog())
    }

    async fn record(&self, delivery: Key) -> Result<Option<Record>, Error> {
        let stored = self.stored();
        let found = stored.deliveries.get(&delivery);
        Ok(found.map(|found| Record { state: found.state, attempts: found.attempts.clone() }))
    }

    async fn resume(&self, webhook: WebhookName) -> Result<(), Error> {
        self.stored().suspended.remove(&webhook);
        Ok(())
    }

    async fn purge(
        &self,
        before: Timestamp,
        configured: Arc<HashSet<WebhookName>>,
        _limit: usize,
    ) -> Result<Purged, Error> {
        Ok(self.stored().purge(before, &configured))
    }
}
