//! What the recorded process does, and what it says of it.
//!
//! It says what it is about to do before it does it, and what was acknowledged after that, one line each in the file of
//! marks. [`crate::expected`] reads them.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aquarium_delivery::{DeliveryId, EventId, Order, Outcome, Phases, Timestamp, WebhookName};
use aquarium_queue::sqlite::{self, Options, Sqlite};
use aquarium_queue::{
    Accepted, Attempt, Claim, Commits, Idempotency, Key, NewEvent, Queue, Settled, Settlement, Submission,
    Target,
};
use aquarium_testkit::random::Random;
use bytes::Bytes;
use tokio::task::JoinSet;

/// When everything is accepted.
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// When it is settled, and when it is old enough to be purged.
const SETTLED: Timestamp = Timestamp::from_millis(1_800_000_001_000);
const OLD: Timestamp = Timestamp::from_millis(1_800_000_002_000);

/// What a process is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// How it is known to the process, and in what is printed.
    pub(crate) name: &'static str,
    /// How many submit at once.
    pub(crate) submitters: u64,
    /// How often each does.
    pub(crate) submissions: u64,
    /// The events of a submission at the most.
    pub(crate) batch: usize,
    /// The bytes of a body at the most.
    pub(crate) body: usize,
    /// Whether order is kept.
    pub(crate) order: Order,
    /// Of a hundred deliveries, so many are settled.
    pub(crate) settled: u8,
    /// Of a hundred submissions, so many have an idempotency key, and come again.
    pub(crate) repeated: u8,
    /// Whether what was settled is purged meanwhile.
    pub(crate) purged: bool,
    /// How often the queue is closed and opened again.
    pub(crate) restarts: u64,
    /// Whether the queue has the first version of the format before.
    pub(crate) migrated: bool,
}

/// Nothing but events that are accepted and settled.
const PLAIN: Load = Load {
    name: "plain load",
    submitters: 4,
    submissions: 40,
    batch: 4,
    body: 6_000,
    order: Order::None,
    settled: 70,
    repeated: 0,
    purged: false,
    restarts: 0,
    migrated: false,
};

/// Every kind of process that is recorded.
pub(crate) const LOADS: [Load; 7] = [
    PLAIN,
    Load { name: "checkpoints", submissions: 24, batch: 8, body: 120_000, ..PLAIN },
    Load { name: "purge", purged: true, settled: 90, ..PLAIN },
    Load { name: "fifo", order: Order::Fifo, submissions: 20, settled: 85, ..PLAIN },
    Load { name: "idempotent repeats", repeated: 60, ..PLAIN },
    Load { name: "restarts", submissions: 8, restarts: 4, ..PLAIN },
    Load { name: "migration", submissions: 10, migrated: true, ..PLAIN },
];

/// Where its file is.
pub(crate) fn path(directory: &Path) -> PathBuf {
    directory.join("queue.db")
}

/// Does it, in the process that is recorded.
pub(crate) fn run(load: Load, directory: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let marks = Arc::new(Marks::in_directory(directory));
    for part in 0..=load.restarts {
        runtime.block_on(async {
            let (queue, commits, threads) = sqlite::open(&Options::new(path(directory), u64::MAX)).unwrap();
            work(load, part, &queue, commits, &marks).await;
            drop(queue);
            tokio::task::spawn_blocking(|| threads.join()).await.unwrap();
        });
    }
}

async fn work(load: Load, part: u64, queue: &Sqlite, commits: Commits, marks: &Arc<Marks>) {
    let mut submitters = JoinSet::new();
    for submitter in 0..load.submitters {
        let number = part * load.submitters + submitter;
        submitters.spawn(submit(load, number, queue.clone(), Arc::clone(marks)));
    }
    // Ends when nothing more comes: what it holds of the queue would keep that open.
    let settler = tokio::spawn(settle(load, queue.clone(), commits, Arc::clone(marks)));
    let purger = load.purged.then(|| tokio::spawn(purge(queue.clone(), Arc::clone(marks))));
    submitters.join_all().await;
    marks.done.store(part + 1, Ordering::SeqCst);
    settler.await.unwrap();
    if let Some(purger) = purger {
        purger.abort();
        let _ = purger.await;
    }
}

async fn submit(load: Load, submitter: u64, queue: Sqlite, marks: Arc<Marks>) {
    let mut random = Random::seeded(submitter);
    for _ in 0..load.submissions {
        let (first, count) = marks.numbers(1 + random.below(load.batch) as u64);
        let repeated = random.percent(load.repeated);
        let key = repeated.then(|| format!("key-{first}"));
        marks.say(&format!("submit {first} {count} {}", u8::from(repeated)));
        let accepted = queue.accept(submission(load, first, count, key.clone())).await.unwrap();
        assert_eq!(accepted, Accepted::Stored);
        marks.say(&format!("stored {first}"));
        if repeated {
            // The events of the second time have numbers of their own, which must not be stored.
            let other = first + REPEATED;
            let accepted = queue.accept(submission(load, other, count, key)).await.unwrap();
            let Accepted::Repeated(receipts) = accepted else { panic!("{accepted:?}") };
            let named = receipts.iter().map(|receipt| number(receipt.event));
            assert!(named.eq(first..first + count), "{receipts:?}");
            marks.say(&format!("stored {first}"));
        }
    }
}

/// What the numbers of repeated events are above.
pub(crate) const REPEATED: u64 = 1 << 32;

/// Settles most of what is to be sent, in the order in which it comes.
async fn settle(load: Load, queue: Sqlite, mut commits: Commits, marks: Arc<Marks>) {
    let mut random = Random::seeded(99);
    let part = marks.done.load(Ordering::SeqCst);
    let mut passed = HashSet::new();
    loop {
        let done = marks.done.load(Ordering::SeqCst) > part;
        // Offers are hints; here they only tell that there is something.
        let offered = tokio::time::timeout(Duration::from_millis(5), commits.recv()).await;
        let page = queue.claim(claim(&passed)).await.unwrap();
        if page.deliveries.is_empty() && done && !matches!(offered, Ok(Some(_))) {
            return;
        }
        let mut settlements = Vec::new();
        for delivery in page.deliveries {
            if load.order == Order::None && !random.percent(load.settled) {
                passed.insert(delivery.key);
                continue;
            }
            if load.order == Order::Fifo && done && !random.percent(load.settled) {
                // What waits behind it stays.
                return;
            }
            marks.say(&format!("settling {}", number(delivery.event)));
            settlements.push((number(delivery.event), settlement(delivery.key)));
        }
        let (numbers, settlements): (Vec<_>, Vec<_>) = settlements.into_iter().unzip();
        if !settlements.is_empty() {
            queue.settle(settlements).await.unwrap();
        }
        numbers.iter().for_each(|number| marks.say(&format!("settled {number}")));
    }
}

async fn purge(queue: Sqlite, marks: Arc<Marks>) {
    loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        marks.say("purging");
        while queue.purge(OLD, Arc::new([webhook()].into()), 50).await.unwrap().more {}
        marks.say("purged");
    }
}

/// The file of marks.
#[derive(Debug)]
pub(crate) struct Marks {
    file: File,
    next: AtomicU64,
    /// How many parts have ended.
    done: AtomicU64,
}

impl Marks {
    fn in_directory(directory: &Path) -> Marks {
        let file = OpenOptions::new().create(true).append(true).open(directory.join("marks")).unwrap();
        Marks { file, next: AtomicU64::new(FIRST), done: AtomicU64::new(0) }
    }

    /// In one write: one mark.
    fn say(&self, line: &str) {
        (&self.file).write_all(line.as_bytes()).unwrap();
    }

    fn numbers(&self, count: u64) -> (u64, u64) {
        (self.next.fetch_add(count, Ordering::SeqCst), count)
    }
}

/// The number of the first event; those that were there before have the numbers below.
pub(crate) const FIRST: u64 = 1_000;
/// How many events are there before a migration, from 1 on.
pub(crate) const OLD_EVENTS: u64 = 400;

pub(crate) fn webhook() -> WebhookName {
    WebhookName::new("acme", "urban", "ops").unwrap()
}

pub(crate) fn submission(load: Load, first: u64, count: u64, key: Option<String>) -> Submission {
    // What is digested of a submission is up to its sender.
    let idempotency = key.map(|key| Idempotency { key, fingerprint: [7; 32] });
    let events = (first..first + count).map(|number| event(load, number)).collect();
    Submission { organization: "acme".into(), events, idempotency }
}

fn event(load: Load, number: u64) -> NewEvent {
    let target = Target {
        delivery: DeliveryId::new(NOW, random_of(number)),
        webhook: webhook(),
        skipped: false,
        order: load.order,
        test: false,
    };
    NewEvent {
        id: EventId::new(NOW, random_of(number)),
        project: "urban".to_owned(),
        kind: "test".into(),
        accepted_at: NOW,
        body: body(number, load.body),
        trace: None,
        hops: aquarium_delivery::Hops::FIRST,
        subjects: Vec::new(),
        targets: vec![target],
        watcher: None,
    }
}

/// The body of an event, which its number decides.
pub(crate) fn body(number: u64, most: usize) -> Bytes {
    let mut random = Random::seeded(number);
    let size = random.below(most);
    let text = format!("{{\"number\":{number},\"pad\":\"");
    let pad = (0..size / 8).flat_map(|_| random.number().to_be_bytes()).map(|byte| b'a' + byte % 16);
    text.into_bytes().into_iter().chain(pad).chain(*b"\"}").collect()
}

fn random_of(number: u64) -> [u8; 10] {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    random
}

/// The number that an identifier was made from.
pub(crate) fn number(id: EventId) -> u64 {
    let mut bytes = [0; 8];
    // The first of these has the variant of the UUID.
    bytes[1..].copy_from_slice(&id.as_bytes()[9..]);
    u64::from_be_bytes(bytes)
}

pub(crate) fn claim(held: &HashSet<Key>) -> Claim {
    Claim { webhook: webhook(), now: OLD, limit: 16, bytes: 0, held: held.clone(), parked: false }
}

pub(crate) fn settlement(delivery: Key) -> Settlement {
    let attempt = Attempt {
        number: 1,
        started_at: SETTLED,
        duration: Duration::from_millis(12),
        phases: Phases::default(),
        breaker_open: false,
        outcome: Outcome::Answered { status: 204, retry_after: None },
        excerpt: Bytes::new(),
    };
    let state = Settled::Delivered;
    Settlement { delivery, at: SETTLED, attempt: Some(attempt), state, ordered: true, pause: None }
}

/// Puts a queue of the first version there, as a killed process leaves it: the log not written back.
pub(crate) fn old_queue(load: Load, directory: &Path) {
    let making = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(path(making.path())).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.execute_batch(include_str!("v1.sql")).unwrap();
    let now = NOW.as_millis().cast_signed();
    for number in 1..=OLD_EVENTS {
        let key = number.cast_signed();
        let (id, delivery) = (EventId::new(NOW, random_of(number)), DeliveryId::new(NOW, random_of(number)));
        let (state, attempts) = (u8::from(is_old_and_settled(number)), u8::from(number % 4 < 2));
        let values = (key, id.as_bytes(), now, &body(number, load.body)[..]);
        connection.execute("INSERT INTO events VALUES (?, ?, 1, 'test', ?, ?)", values).unwrap();
        let values = (key, delivery.as_bytes(), key, state, attempts, now);
        connection.execute("INSERT INTO deliveries VALUES (?, ?, ?, 1, ?, ?, ?6, ?6)", values).unwrap();
        if attempts > 0 {
            let values = (key, now, if state == 1 { 204 } else { 500 });
            let sql = "INSERT INTO attempts VALUES (?, 1, ?, 3, ?, NULL, NULL, x'6f6b')";
            connection.execute(sql, values).unwrap();
        }
    }
    for name in ["queue.db", "queue.db-wal"] {
        std::fs::copy(making.path().join(name), directory.join(name)).unwrap();
    }
}

/// Whether an event of the old queue was delivered.
pub(crate) fn is_old_and_settled(number: u64) -> bool {
    number.is_multiple_of(4)
}
