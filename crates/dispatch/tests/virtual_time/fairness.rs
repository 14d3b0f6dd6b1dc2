//! A webhook with a single delivery is sent to, whatever the others have waiting, and however slow they are.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use aquarium_delivery::{DeliveryId, EventId, Failure, FailureKind, Order, Timestamp, WebhookName};
use aquarium_dispatch::{Chance, Clock, Dispatcher};
use aquarium_queue::memory::{self, Memory};
use aquarium_queue::{
    Accepted, Backlog, Claim, Delivery, Error, Key, NewEvent, Page, Payload, Purged, Record, Settlement,
    Submission, Target,
};
use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::world::Scripted;

const BACKLOG: u64 = 1_000_000;
const FRESH: usize = 1_000;
const SLOW: usize = 100;
/// The keys of the backlog start here.
const FIRST: u64 = 1 << 40;
const TIMEOUT: Duration = Duration::from_secs(15);
const TOOK: Duration = Duration::from_millis(50);

/// A queue in which `acme/urban/big` has a million deliveries that are made up as they are claimed.
#[derive(Debug, Clone)]
struct Paging {
    memory: Memory,
    big: Arc<Mutex<Big>>,
}

#[derive(Debug, Default)]
struct Big {
    /// So many were claimed.
    claimed: u64,
    /// Of those, the ones that are not settled.
    open: BTreeSet<u64>,
    most_held: usize,
}

impl Paging {
    fn page(&self, claim: &Claim) -> Page {
        let mut big = self.big.lock().unwrap();
        big.most_held = big.most_held.max(claim.held.len() + claim.limit);
        let again: Vec<_> =
            big.open.iter().copied().filter(|key| !claim.held.contains(&Key(FIRST + key))).collect();
        let last = (big.claimed + claim.limit as u64 - again.len() as u64).min(BACKLOG);
        let keys: Vec<_> = again.into_iter().chain(big.claimed..last).collect();
        big.claimed = last;
        big.open.extend(&keys);
        let delivery = |key: u64| Delivery {
            key: Key(FIRST + key),
            id: id(FIRST + key),
            webhook: claim.webhook.clone(),
            event: EventId::new(EPOCH, random(key)),
            event_key: Key(key),
            accepted_at: EPOCH,
            due_at: EPOCH,
            attempts: 0,
            earlier_attempts: 0,
            replayed_at: None,
            test: false,
            ordered: false,
            size: 2,
            body: Some(Bytes::from_static(b"{}")),
            trace: None,
            hops: aquarium_delivery::Hops::FIRST,
            damaged: false,
            watcher: None,
        };
        let next_due = (last < BACKLOG).then_some(EPOCH);
        Page { deliveries: keys.into_iter().map(delivery).collect(), next_due }
    }
}

impl Queue for Paging {
    async fn accept(&self, submission: Submission) -> Result<Accepted, Error> {
        self.memory.accept(submission).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<usize, Error> {
        let (big, others): (Vec<_>, Vec<_>) = settlements.into_iter().partition(|s| s.delivery.0 >= FIRST);
        for settlement in big {
            assert!(self.big.lock().unwrap().open.remove(&(settlement.delivery.0 - FIRST)));
        }
        self.memory.settle(others).await
    }

    async fn claim(&self, claim: Claim) -> Result<Page, Error> {
        if claim.webhook.webhook() == "big" { Ok(self.page(&claim)) } else { self.memory.claim(claim).await }
    }

    async fn payload(&self, event: Key) -> Result<Option<Payload>, Error> {
        self.memory.payload(event).await
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        let mut backlog = self.memory.backlog().await?;
        backlog.waiting.push((name("big"), EPOCH));
        Ok(backlog)
    }

    async fn record(&self, delivery: Key) -> Result<Option<Record>, Error> {
        self.memory.record(delivery).await
    }

    async fn resume(&self, webhook: WebhookName) -> Result<(), Error> {
        self.memory.resume(webhook).await
    }

    async fn purge(
        &self,
        before: Timestamp,
        configured: Arc<HashSet<WebhookName>>,
        limit: usize,
    ) -> Result<Purged, Error> {
        self.memory.purge(before, configured, limit).await
    }
}

fn random(number: u64) -> [u8; 10] {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    random
}

fn id(number: u64) -> DeliveryId {
    DeliveryId::new(EPOCH, random(number))
}

fn name(webhook: &str) -> WebhookName {
    format!("acme/urban/{webhook}").parse().unwrap()
}

/// One event for each of these webhooks, so many times.
fn events(webhooks: impl Iterator<Item = String>, times: u64, first: u64, now: Timestamp) -> Submission {
    let event = |(number, webhook): (u64, String)| {
        let target = |number| Target {
            delivery: id(number),
            webhook: name(&webhook),
            skipped: false,
            order: Order::None,
            test: false,
        };
        NewEvent {
            id: EventId::new(EPOCH, random(number)),
            project: "urban".into(),
            kind: "test".into(),
            accepted_at: now,
            body: Bytes::from_static(b"{}"),
            trace: None,
            hops: aquarium_delivery::Hops::FIRST,
            subjects: Vec::new(),
            targets: (0..times).map(|index| target(number * 1_000 + index)).collect(),
            watcher: None,
        }
    };
    let events = (first..).zip(webhooks).map(event).collect();
    Submission { organization: "acme".into(), events, idempotency: None }
}

#[tokio::test(start_paused = true)]
async fn a_million_deliveries_and_a_hundred_hanging_endpoints_keep_nobody_waiting() {
    let webhook = |name: String| {
        format!(
            "[projects.urban.webhooks.{name}]\nurl = \"https://{name}.example\"\nevents = [\"*\"]\n\
             breaker_failures = 1000000\n"
        )
    };
    let (slow, fresh) =
        (|| (0..SLOW).map(|n| format!("slow-{n}")), || (0..FRESH).map(|n| format!("fresh-{n}")));
    let webhooks: String = slow().chain(fresh()).chain(["big".to_owned()]).map(webhook).collect();
    let (_publish, config) = watch::channel(Setup { acme: &webhooks, ..SETUP }.load());

    let (memory, commits) = memory::open(usize::MAX);
    let queue = Paging { memory, big: Arc::default() };
    let clock = Clock::starting_at(EPOCH);
    let sender = Scripted::new(&clock, |attempt| {
        let hung = Failure::new(FailureKind::ResponseTimeout, "no answer");
        match attempt.url.contains("slow") {
            true => (TIMEOUT, Outcome::Failed(hung)),
            false => (TOOK, ok()),
        }
    });
    let limits = Limits::default();
    // The bound of `slots.rs`; the backlog's lane is one more that may hold none.
    let shared = limits.in_flight / 4 - SLOW;
    let bound = TOOK * u32::try_from((FRESH + 1).div_ceil(shared)).unwrap();
    queue.accept(events(slow(), 100, 1, EPOCH)).await.unwrap();
    let dispatcher = Dispatcher::new(
        queue.clone(),
        commits,
        sender.clone(),
        config,
        clock.clone(),
        Chance::seeded(7),
        limits,
    );
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(dispatcher.run(shutdown.clone()));

    // As soon as the slow ones hold what they can get; in the middle of their attempts; when they have shrunk.
    for (round, wait) in [(1, SECOND), (2, 6 * SECOND), (3, 60 * SECOND)] {
        sleep(wait).await;
        let (started, before) = (clock.now().since(EPOCH), sender.attempts());
        queue.accept(events(fresh(), 1, round * 10_000, clock.now())).await.unwrap();
        sleep(10 * SECOND).await;
        let after = &sender.attempts()[before.len()..];
        let waits: Vec<_> =
            after.iter().filter(|a| a.url.contains("fresh")).map(|a| a.at - started).collect();
        let big: Vec<_> = after.iter().filter(|a| a.url.contains("big")).map(|a| a.at - started).collect();
        let longest = waits.iter().max().unwrap();
        println!(
            "{FRESH} fresh deliveries beside {SLOW} hanging webhooks and a backlog of {BACKLOG}, after {started:?}: \
             the last was sent after {longest:?} (bound {bound:?}), of the backlog {} in 10 s",
            big.len()
        );
        assert_eq!(waits.len(), FRESH);
        assert!(*longest <= bound, "{longest:?}");
        assert!(big[0] < 2 * SECOND && big.len() >= 150, "the backlog does not move: {}", big.len());
    }
    let most_held = queue.big.lock().unwrap().most_held;
    assert!(most_held <= 256 + 1_024 + 16, "a lane holds {most_held} deliveries");
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
