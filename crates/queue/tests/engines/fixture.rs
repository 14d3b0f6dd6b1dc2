//! Names, times and events for the tests.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use aquarium_delivery::{DeliveryId, EventId, Order, Outcome, Phases, Subject, Timestamp, WebhookName};
use aquarium_queue::sqlite::{self, Options, Sqlite, Threads};
use aquarium_queue::{
    Accepted, Attempt, Claim, Commits, Delivery, Idempotency, Key, NewEvent, Page, Queue, Settled,
    Settlement, Submission, Target,
};
use bytes::Bytes;

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub(crate) fn open_sqlite(directory: &Path) -> (Sqlite, Commits, Threads) {
    open_sqlite_with(directory, u64::MAX)
}

pub(crate) fn open_sqlite_with(directory: &Path, max_size: u64) -> (Sqlite, Commits, Threads) {
    sqlite::open(&Options::new(directory.join("queue.db"), max_size)).unwrap()
}

pub(crate) fn webhook(name: &str) -> WebhookName {
    WebhookName::new("acme", "urban", name).unwrap()
}

pub(crate) fn after(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

pub(crate) fn random(number: u64) -> [u8; 10] {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    random
}

/// The event of this number, for these webhooks, accepted so many seconds after [`NOW`].
pub(crate) fn event(number: u64, at: u64, webhooks: &[&str]) -> NewEvent {
    let target = |(index, name): (usize, &&str)| Target {
        delivery: DeliveryId::new(after(at), random(number * 1_000 + index as u64)),
        webhook: webhook(name),
        skipped: false,
        order: Order::None,
        test: false,
    };
    NewEvent {
        id: EventId::new(after(at), random(number)),
        project: "urban".to_owned(),
        kind: "test".into(),
        accepted_at: after(at),
        body: Bytes::from(format!("{{\"number\":{number}}}")),
        trace: None,
        hops: aquarium_delivery::Hops::FIRST,
        subjects: Vec::new(),
        targets: webhooks.iter().enumerate().map(target).collect(),
        watcher: None,
    }
}

/// The same about these subjects, for webhooks with this order.
pub(crate) fn ordered(mut event: NewEvent, order: Order, subjects: &[u64]) -> NewEvent {
    event.subjects = subjects.iter().map(|subject| Subject::from_bits(*subject)).collect();
    event.targets.iter_mut().for_each(|target| target.order = order);
    event
}

pub(crate) fn submission(events: Vec<NewEvent>) -> Submission {
    Submission { organization: "acme".into(), events, idempotency: None }
}

pub(crate) fn keyed(organization: &str, key: &str, fingerprint: u8, events: Vec<NewEvent>) -> Submission {
    let idempotency = Idempotency { key: key.to_owned(), fingerprint: [fingerprint; 32] };
    Submission { organization: organization.into(), events, idempotency: Some(idempotency) }
}

/// Accepts events that must be stored anew, and returns what was offered for them.
pub(crate) async fn accept(
    queue: &impl Queue,
    commits: &mut Commits,
    events: Vec<NewEvent>,
) -> Vec<Delivery> {
    let expected = events.iter().flat_map(|event| &event.targets).filter(|target| !target.skipped).count();
    assert_eq!(queue.accept(submission(events)).await.unwrap(), Accepted::Stored);
    let mut offered = Vec::new();
    while offered.len() < expected {
        offered.extend(commits.recv().await.unwrap());
    }
    offered
}

pub(crate) fn claim_of(name: &str, at: u64) -> Claim {
    Claim {
        webhook: webhook(name),
        now: after(at),
        limit: 100,
        bytes: 1_000_000,
        held: HashSet::new(),
        parked: false,
    }
}

pub(crate) async fn claim(queue: &impl Queue, name: &str, at: u64) -> Page {
    queue.claim(claim_of(name, at)).await.unwrap()
}

pub(crate) fn attempt(number: u32, outcome: Outcome) -> Attempt {
    Attempt {
        number,
        started_at: after(number.into()),
        duration: Duration::from_millis(12),
        phases: Phases::default(),
        breaker_open: false,
        outcome,
        excerpt: Bytes::from_static(b"thanks"),
    }
}

pub(crate) fn answered(status: u16) -> Outcome {
    Outcome::Answered { status, retry_after: None }
}

pub(crate) fn settlement(delivery: Key, at: u64, state: Settled) -> Settlement {
    let attempt = Some(attempt(1, answered(500)));
    Settlement { delivery, at: after(at), attempt, state, ordered: true, pause: None }
}

pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<DeliveryId> {
    deliveries.iter().map(|delivery| delivery.id).collect()
}
