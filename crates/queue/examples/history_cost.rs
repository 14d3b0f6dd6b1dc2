//! What it costs to look through five million deliveries, and to forget a million of them while others come in.
//!
//! `cargo run --release -p aquarium-queue --example history_cost [deliveries]`
//!
//! It takes some minutes, and about two gigabytes of disk in the directory for temporary files.
#![allow(clippy::unwrap_used, reason = "there is nothing to measure without")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aquarium_delivery::{DeliveryId, EventId, Exhaustion, Order, Outcome, Phases, Timestamp, WebhookName};
use aquarium_queue::history::{Direction, Filter, History, Missed, Select, StateKind};
use aquarium_queue::sqlite::{Options, Sqlite, open};
use aquarium_queue::{Attempt, Commits, Delivery, NewEvent, Queue, Settled, Settlement, Submission, Target};
use bytes::Bytes;
use tokio::time::Instant;

const DELIVERIES: u64 = 5_000_000;
const WEBHOOKS: u64 = 1_000;
/// Of them, those with [`FEW`] deliveries each.
const QUIET: u64 = 10;
const FEW: u64 = 10;
/// The last ones stay pending, and one in a thousand of those to webhook 2.
const PENDING: u64 = 5_000;
const KINDS: [&str; 5] =
    ["dataset-complete", "dataset-failed", "issues-created", "issue-updated", "issue-exported"];
const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// From one event to the next: five million in a week.
const EVERY: Duration = Duration::from_millis(120);
const SUBMISSION: u64 = 1_000;
/// Pages that are read of one list at the most.
const PAGES: usize = 2_000;
const LIMIT: usize = 50;
/// How many accept at the same time, and for how long without retention.
const CLIENTS: u64 = 64;
const ACCEPTING: Duration = Duration::from_secs(15);
const FORGOTTEN: u64 = 1_000_000;
/// So many events are removed at a time, with a rest in between: faster than housekeeping does.
const STEP: usize = 512;
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    let deliveries = std::env::args().nth(1).map_or(DELIVERIES, |number| number.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(deliveries));
}

async fn measure(deliveries: u64) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let (queue, commits, threads) = open(&Options::new(path.clone(), u64::MAX)).unwrap();
    let started = Instant::now();
    fill(&queue, commits, deliveries).await;
    let size = std::fs::metadata(&path).unwrap().len() >> 20;
    println!("{deliveries} deliveries stored and settled in {:.0?}, {size} MiB", started.elapsed());
    let started = Instant::now();
    pages(&queue, "newest first, no block known", Filter::default()).await;
    let mut steps = Vec::new();
    loop {
        let step = Instant::now();
        let more = queue.index().await.unwrap();
        steps.push(step.elapsed());
        if !more {
            break;
        }
    }
    let (p50, max) = spread(&mut steps);
    println!(
        "blocks made in {:.1?}: {} steps, p50 {p50:.1?}, max {max:.1?}\n",
        started.elapsed(),
        steps.len()
    );
    lists(&queue, deliveries).await;
    look_ups(&queue, deliveries).await;
    drop(queue);
    threads.join();

    let (queue, mut commits, threads) = open(&Options::new(path, u64::MAX)).unwrap();
    let drain = tokio::spawn(async move { while commits.recv().await.is_some() {} });
    let stop = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(deliveries));
    let timer = {
        let stop = stop.clone();
        async move {
            tokio::time::sleep(ACCEPTING).await;
            stop.store(true, Ordering::Relaxed);
        }
    };
    accepting(&queue, &next, &stop, "accepting alone", timer).await;
    stop.store(false, Ordering::Relaxed);
    let forget = forget(queue.clone(), deliveries, stop.clone());
    accepting(&queue, &next, &stop, "accepting while a million is forgotten", forget).await;
    drop(queue);
    threads.join();
    drain.await.unwrap();
}

/// The webhook of an event.
fn webhook_of(number: u64, deliveries: u64) -> u64 {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let every = (deliveries / (QUIET * FEW)).max(1);
    if number % every == every / 2 {
        return WEBHOOKS - 1 - number / every % QUIET;
    }
    if spread.is_multiple_of(2) { 0 } else { 1 + (spread / 2) % (WEBHOOKS - 1 - QUIET) }
}

fn name(webhook: u64) -> WebhookName {
    WebhookName::new(&format!("organization-{}", webhook / 10), "project", &format!("webhook-{webhook}"))
        .unwrap()
}

fn random(number: u64) -> [u8; 10] {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    random
}

fn accepted_at(number: u64) -> Timestamp {
    START + EVERY * u32::try_from(number).unwrap()
}

fn event(number: u64, webhook: u64) -> NewEvent {
    let at = accepted_at(number);
    let target = Target {
        delivery: DeliveryId::new(at, random(number)),
        webhook: name(webhook),
        skipped: false,
        order: Order::None,
        test: false,
    };
    NewEvent {
        id: EventId::new(at, random(number)),
        project: "project".to_owned(),
        kind: KINDS[(number % 5) as usize].into(),
        accepted_at: at,
        body: Bytes::from(vec![b'x'; 100]),
        trace: None,
        hops: aquarium_delivery::Hops::FIRST,
        subjects: Vec::new(),
        targets: vec![target],
        watcher: None,
    }
}

async fn fill(queue: &Sqlite, commits: Commits, deliveries: u64) {
    let settling = tokio::spawn(settle(queue.clone(), commits, deliveries));
    let mut number = 0;
    while number < deliveries {
        // What a submission holds belongs to one organization; which one is of no matter here.
        let last = (number + SUBMISSION).min(deliveries);
        let mut organizations = std::collections::BTreeMap::<u64, Vec<NewEvent>>::new();
        for number in number..last {
            let webhook = webhook_of(number, deliveries);
            organizations.entry(webhook / 10).or_default().push(event(number, webhook));
        }
        let accepts = organizations.into_iter().map(|(organization, events)| {
            let queue = queue.clone();
            let organization = format!("organization-{organization}").into();
            tokio::spawn(async move {
                queue.accept(Submission { organization, events, idempotency: None }).await.unwrap();
            })
        });
        for accept in accepts.collect::<Vec<_>>() {
            accept.await.unwrap();
        }
        number = last;
    }
    settling.await.unwrap();
}

/// Takes what is offered at once, for the writer waits for that, and settles it elsewhere.
async fn settle(queue: Sqlite, mut commits: Commits, deliveries: u64) {
    let (settle, mut settling) = tokio::sync::mpsc::channel::<Vec<Settlement>>(1 << 20);
    let settled = tokio::spawn(async move {
        let mut batches = Vec::new();
        while settling.recv_many(&mut batches, 64).await > 0 {
            queue.settle(batches.drain(..).flatten().collect()).await.unwrap();
        }
    });
    let mut seen = 0;
    while seen < deliveries {
        let offered = commits.recv().await.unwrap();
        seen += offered.len() as u64;
        settle
            .send(offered.iter().filter_map(|delivery| settlement(delivery, deliveries)).collect())
            .await
            .unwrap();
    }
    drop(settle);
    settled.await.unwrap();
}

fn settlement(delivery: &Delivery, deliveries: u64) -> Option<Settlement> {
    let number = delivery.accepted_at.since(START).as_millis() as u64 / EVERY.as_millis() as u64;
    if number >= deliveries - PENDING || delivery.webhook == name(2) && number.is_multiple_of(1_000) {
        return None;
    }
    let exhausted = number % 100 == 42;
    let attempt = Attempt {
        number: 1,
        started_at: delivery.accepted_at,
        duration: Duration::from_millis(80),
        phases: Phases { first_byte: Some(Duration::from_millis(70)), ..Phases::default() },
        breaker_open: false,
        outcome: Outcome::Answered { status: if exhausted { 500 } else { 204 }, retry_after: None },
        excerpt: Bytes::new(),
    };
    let state = if exhausted { Settled::Exhausted(Exhaustion::Attempts) } else { Settled::Delivered };
    Some(Settlement {
        delivery: delivery.key,
        at: delivery.accepted_at,
        attempt: Some(attempt),
        state,
        ordered: false,
        pause: None,
    })
}

async fn lists(queue: &Sqlite, deliveries: u64) {
    let (busy, one, quiet) = (name(0), name(1), name(WEBHOOKS - 1));
    let organization = Some("organization-50".into());
    let states = |state| [state].into();
    let middle = accepted_at(deliveries / 2);
    let middle_event = EventId::new(middle, random(deliveries / 2));
    let none = Filter::default;
    let table: Vec<(&str, Filter)> = vec![
        ("all", none()),
        ("an organization", Filter { organization: organization.clone(), ..none() }),
        ("a webhook with 10", Filter { webhook: Some(quiet.clone()), ..none() }),
        ("a webhook with 1 in 2,000", Filter { webhook: Some(one.clone()), ..none() }),
        ("a webhook with half of all", Filter { webhook: Some(busy.clone()), ..none() }),
        ("pending", Filter { states: states(StateKind::Pending), ..none() }),
        ("pending of one", Filter { webhook: Some(name(2)), states: states(StateKind::Pending), ..none() }),
        ("exhausted", Filter { states: states(StateKind::Exhausted), ..none() }),
        ("exhausted of one", Filter { webhook: Some(one), states: states(StateKind::Exhausted), ..none() }),
        ("a type", Filter { kind: Some(KINDS[3].into()), ..none() }),
        (
            "an hour",
            Filter { since: Some(middle), until: Some(middle + Duration::from_secs(3_600)), ..none() },
        ),
        (
            "an hour of an organization",
            Filter {
                organization,
                since: Some(middle),
                until: Some(middle + Duration::from_secs(3_600)),
                ..none()
            },
        ),
        ("an event", Filter { event: Some(middle_event), ..none() }),
        (
            "delivered, of a webhook with 10",
            Filter { webhook: Some(quiet), states: states(StateKind::Delivered), ..none() },
        ),
        ("skipped: there are none", Filter { states: states(StateKind::Skipped), ..none() }),
        ("an unknown type: there are none", Filter { kind: Some("model-trained".into()), ..none() }),
        (
            "in no block, but in the states of half: there are none",
            Filter {
                webhook: Some(busy),
                kind: Some("model-trained".into()),
                states: states(StateKind::Delivered),
                ..none()
            },
        ),
    ];
    println!("{:<56}{:>9}{:>9}{:>8}{:>9}  count", "page", "p50", "max", "pages", "found");
    for (what, filter) in table {
        pages(queue, what, filter).await;
    }
}

/// What is not a list of deliveries.
async fn look_ups(queue: &Sqlite, deliveries: u64) {
    let middle = accepted_at(deliveries / 2);
    println!();
    for number in [0, deliveries / 3, deliveries - 1] {
        let at = accepted_at(number);
        let started = Instant::now();
        let found = queue.event(EventId::new(at, random(number))).await.unwrap().is_some();
        let event = started.elapsed();
        let started = Instant::now();
        let found = found && queue.delivery(DeliveryId::new(at, random(number))).await.unwrap().is_some();
        println!(
            "event {number} by its identifier {event:.1?}, its delivery {:.1?}, found: {found}",
            started.elapsed()
        );
    }
    let started = Instant::now();
    let unknown = queue.event(EventId::new(middle, [9; 10])).await.unwrap();
    println!("an identifier that is not stored {:.1?}, found: {}", started.elapsed(), unknown.is_some());
    let names = (0..50).map(name).collect();
    let started = Instant::now();
    queue.webhooks(names, 1_000).await.unwrap();
    println!("what is stored for 50 webhooks {:.1?}", started.elapsed());
    let webhook = WebhookName::new("organization-50", "project", "new").unwrap();
    let (mut from, mut times, mut found) = (None, Vec::new(), 0);
    while times.len() < PAGES {
        let missed = Missed { webhook: webhook.clone(), kinds: None, since: None, until: None };
        let started = Instant::now();
        let page = queue.missed(missed, from, LIMIT).await.unwrap();
        times.push(started.elapsed());
        found += page.items.len();
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    let (p50, max) = spread(&mut times);
    println!(
        "events that a new webhook missed: p50 {p50:.1?}, max {max:.1?}, {} pages, {found} found\n",
        times.len()
    );
}

async fn pages(queue: &Sqlite, what: &str, filter: Filter) {
    let (mut from, mut times, mut found) = (None, Vec::new(), 0);
    let mut ended = false;
    while times.len() < PAGES && !ended {
        let select = Select { filter: filter.clone(), direction: Direction::NewestFirst, from, limit: LIMIT };
        let started = Instant::now();
        let page = queue.deliveries(select).await.unwrap();
        times.push(started.elapsed());
        found += page.items.len();
        from = page.next;
        ended = from.is_none();
    }
    let more = if ended { "" } else { "+" };
    let started = Instant::now();
    let count = queue.count(filter).await.unwrap();
    let counting = started.elapsed();
    let (p50, max) = spread(&mut times);
    println!(
        "{what:<56}{:>9}{:>9}{:>8}{:>9}  {counting:.1?}: {}{}",
        format!("{p50:.1?}"),
        format!("{max:.1?}"),
        format!("{}{more}", times.len()),
        format!("{found}{more}"),
        count.at_least,
        if count.exact { "" } else { "+" },
    );
}

fn spread(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], *times.last().unwrap())
}

/// Accepts events until somebody says stop, beside some other work.
async fn accepting(
    queue: &Sqlite,
    next: &Arc<AtomicU64>,
    stop: &Arc<AtomicBool>,
    what: &str,
    beside: impl Future<Output = ()>,
) {
    let started = Instant::now();
    let clients = (0..CLIENTS).map(|_| {
        let (queue, next, stop) = (queue.clone(), next.clone(), stop.clone());
        tokio::spawn(async move {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let new = event(next.fetch_add(1, Ordering::Relaxed), 3);
                let submission = Submission {
                    organization: "organization-0".into(),
                    events: vec![new],
                    idempotency: None,
                };
                let started = Instant::now();
                queue.accept(submission).await.unwrap();
                times.push(started.elapsed());
            }
            times
        })
    });
    let clients: Vec<_> = clients.collect();
    beside.await;
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await.unwrap());
    }
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    println!(
        "{what}: {rate:.0}/s for {:.0?}, p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}, max {:.1?}",
        started.elapsed(),
        at(0.5),
        at(0.99),
        at(0.999),
        times.last().unwrap()
    );
}

/// Has old events removed in steps, as housekeeping does, until a million are gone.
async fn forget(queue: Sqlite, deliveries: u64, stop: Arc<AtomicBool>) {
    let configured: Arc<HashSet<WebhookName>> = Arc::new((0..WEBHOOKS).map(name).collect());
    let before = accepted_at(FORGOTTEN.min(deliveries));
    let (started, mut gone) = (Instant::now(), 0);
    loop {
        let purged = queue.purge(before, configured.clone(), STEP).await.unwrap();
        gone += purged.events;
        if !purged.more {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    println!("{gone} events forgotten in {:.0?}", started.elapsed());
    stop.store(true, Ordering::Relaxed);
}
