//! What is known of blocks of events saves work, and changes no answer: compared with the engine in memory.

use std::collections::HashSet;
use std::sync::Arc;

use aquarium_delivery::{DeliveryId, EventId, Exhaustion, Order};
use aquarium_queue::history::{Added, Direction, Filter, History, Missed, Replay, StateKind};
use aquarium_queue::{Commits, Key, NewEvent, Queue, Settled, Settlement, Target, memory};
use proptest::prelude::*;

use crate::fixture::{after, event, open_sqlite, random, settlement, submission, webhook};
use crate::history::{deliveries, events, missed};

/// Two complete blocks, and the start of a third.
const EVENTS: u64 = 9_000;
const KINDS: [&str; 3] = ["test", "rare", "unheard-of"];
const WEBHOOKS: [&str; 5] = ["busy", "early", "middle", "late", "unheard-of"];

/// The event of this number, at a time by a clock that steps back now and then.
fn new(number: u64) -> NewEvent {
    let at = number % 3_000 * 10 + number / 3_000;
    let mut names = vec!["busy"];
    match number {
        0..50 => names.push("early"),
        4_090..4_100 | 8_500 => names.push("middle"),
        _ => {}
    }
    NewEvent {
        kind: if number == 5_000 { "rare".into() } else { "test".into() },
        ..event(number, at, &names)
    }
}

async fn fill<Q: Queue>((queue, mut commits): (Q, Commits)) -> Q {
    let drain = tokio::spawn(async move { while commits.recv().await.is_some() {} });
    for first in (0..EVENTS).step_by(1_000) {
        queue.accept(submission((first..first + 1_000).map(new).collect())).await.unwrap();
    }
    drop(drain);
    settle(&queue, |number| match number % 1_000 {
        7 => None,
        13 => Some(Settled::Exhausted(Exhaustion::Age)),
        _ => Some(Settled::Delivered),
    })
    .await;
    queue
}

/// Settles the first delivery of each event. Both engines number events from one, and deliveries by them.
async fn settle(queue: &impl Queue, state: impl Fn(u64) -> Option<Settled>) {
    let settled = |number| {
        let key = Key((number + 1) << 20);
        Some(Settlement { ordered: false, ..settlement(key, 40_000, state(number)?) })
    };
    queue.settle((0..EVENTS).filter_map(settled).collect()).await.unwrap();
}

/// What of lists and look-ups does not depend on the engine.
type Answers = (Vec<Vec<DeliveryId>>, Vec<Vec<EventId>>, Vec<bool>);

async fn answers(queue: &impl History) -> Answers {
    let mut filters = vec![Filter::default()];
    let times = [(0, 40), (29_900, 29_990), (12_340, 12_350), (50_000, 60_000)];
    for (since, until) in times {
        filters.push(Filter { since: Some(after(since)), until: Some(after(until)), ..Filter::default() });
    }
    filters.extend(KINDS.map(|kind| Filter { kind: Some(kind.into()), ..Filter::default() }));
    filters.extend(WEBHOOKS.map(|name| Filter { webhook: Some(webhook(name)), ..Filter::default() }));
    filters
        .extend(StateKind::ALL.iter().map(|state| Filter { states: [*state].into(), ..Filter::default() }));
    let mut both = filters.clone();
    both.iter_mut().for_each(|filter| filter.since = Some(after(20_000)));
    filters.extend(both);
    let (mut of_deliveries, mut of_events, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for filter in filters {
        for direction in [Direction::OldestFirst, Direction::NewestFirst] {
            of_deliveries.push(deliveries(queue, filter.clone(), direction, 1_000).await);
            of_events.push(events(queue, filter.clone(), direction, 1_000).await);
        }
    }
    for name in WEBHOOKS {
        let asked = Missed { webhook: webhook(name), kinds: None, since: None, until: Some(after(5_000)) };
        of_events.push(missed(queue, asked, 1_000).await);
    }
    for number in [0, 4_000, 4_095, 4_096, 8_191, 8_999, EVENTS] {
        let new = new(number);
        found.push(queue.event(new.id).await.unwrap().is_some());
        found.push(queue.delivery(new.targets[0].delivery).await.unwrap().is_some());
    }
    (of_deliveries, of_events, found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_the_same_whatever_is_known_of_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, commits, threads) = open_sqlite(directory.path());
    let durable = fill((queue, commits)).await;
    let model = fill(memory::open(usize::MAX)).await;
    let expected = answers(&model).await;
    assert_eq!(answers(&durable).await, expected, "nothing is known");
    assert!(durable.index().await.unwrap());
    assert_eq!(answers(&durable).await, expected, "one block is known");
    while durable.index().await.unwrap() {}
    assert_eq!(blocks(directory.path()), [0, 1]);
    assert_eq!(answers(&durable).await, expected, "all complete blocks are known");

    let added = |event: u64| Added {
        event: Key(event),
        delivery: DeliveryId::new(new(event - 1).accepted_at, random(1 << 40 | event)),
        webhook: webhook("late"),
    };
    let added: Vec<_> = [3, 4_095, 4_096, 8_999].into_iter().map(added).collect();
    let revived = vec![Key(14 << 20), Key(5_000 << 20)];
    let replay = Replay { at: after(50_000), deliveries: revived, added, step: None, watcher: None };
    assert_eq!(durable.replay(replay.clone()).await.unwrap(), model.replay(replay).await.unwrap());
    assert_eq!(answers(&durable).await, answers(&model).await, "deliveries were added");

    // The first block is not needed any more, but for what is pending in it.
    settle(&durable, |number| (number < 4_095).then_some(Settled::Delivered)).await;
    settle(&model, |number| (number < 4_095).then_some(Settled::Delivered)).await;
    for webhooks in [vec!["busy", "late"], vec![]] {
        let configured: Arc<HashSet<_>> = Arc::new(webhooks.into_iter().map(webhook).collect());
        let before = after(45_000);
        while durable.purge(before, configured.clone(), 500).await.unwrap().more {}
        model.purge(before, configured, 500).await.unwrap();
        assert_eq!(answers(&durable).await, answers(&model).await, "old events are gone");
    }
    drop(durable);
    threads.join();
    assert_eq!(blocks(directory.path()), Vec::<i64>::new(), "what is known of blocks without events is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_on_where_it_was_when_the_queue_is_opened_again() {
    use aquarium_delivery::ReplayId;
    use aquarium_queue::history::{JobFilter, JobStep};

    let directory = tempfile::tempdir().unwrap();
    let (queue, commits, threads) = open_sqlite(directory.path());
    let queue = fill((queue, commits)).await;
    while queue.index().await.unwrap() {}
    let what = JobFilter::Deliveries(Filter { webhook: Some(webhook("middle")), ..Filter::default() });
    let id = ReplayId::new(after(0), random(1));
    let job = queue.create_job(id, what, after(50_000)).await.unwrap();
    assert_eq!(job.start, Key(1 << 20), "the first block has some");
    assert_eq!(job.end, Key((EVENTS + 1) << 20));
    let late = JobFilter::Deliveries(Filter { kind: Some("rare".into()), ..Filter::default() });
    let late = queue.create_job(ReplayId::new(after(0), random(2)), late, after(50_000)).await.unwrap();
    assert_eq!(late.start, Key(4_096 << 20), "the first block has none");
    let step = Some(JobStep { id, next: Some(Key(77 << 20)), passed_over: 5 });
    let replay = Replay { at: after(50_001), step, ..Replay::default() };
    queue.replay(replay).await.unwrap();
    let before = queue.job(id).await.unwrap().unwrap();
    assert_eq!((before.next, before.passed_over), (Some(Key(77 << 20)), 5));
    drop(queue);
    threads.join();
    let (queue, _commits, _threads) = open_sqlite(directory.path());
    assert_eq!(queue.jobs(9).await.unwrap(), [late, before]);
}

/// The blocks that have rows.
fn blocks(directory: &std::path::Path) -> Vec<i64> {
    let connection = rusqlite::Connection::open(directory.join("queue.db")).unwrap();
    let mut statement = connection.prepare("SELECT block FROM blocks ORDER BY block").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[derive(Debug, Clone)]
enum Operation {
    Accept {
        webhooks: Vec<usize>,
        kind: usize,
        at: u64,
        skip: bool,
        fifo: bool,
    },
    Settle {
        which: u64,
        how: u8,
    },
    Replay {
        which: Vec<u64>,
        add: Option<(u64, usize)>,
    },
    /// Of everything: which of them goes first, if the clock has stepped back, is the engine's affair.
    Purge {
        configured: usize,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    let webhooks = prop::sample::subsequence(vec![0_usize, 1, 2], 0..=3);
    prop_oneof![
        4 => (webhooks, 0_usize..2, 0_u64..100, any::<bool>(), any::<bool>()).prop_map(
            |(webhooks, kind, at, skip, fifo)| Operation::Accept { webhooks, kind, at, skip, fifo }
        ),
        4 => (any::<u64>(), 0_u8..4).prop_map(|(which, how)| Operation::Settle { which, how }),
        2 => (prop::collection::vec(any::<u64>(), 0..4), prop::option::of((any::<u64>(), 0_usize..4)))
            .prop_map(|(which, add)| Operation::Replay { which, add }),
        1 => (0_usize..4).prop_map(|configured| Operation::Purge { configured }),
    ]
}

/// Does the same to an engine as to every other. Keys are made of the number of the event.
async fn operate(queue: &impl History, number: u64, last: u64, operation: Operation) {
    // A delivery that may be there.
    let key = |which: u64| Key((which % last.max(1) + 1) << 20 | which >> 32 & 3);
    match operation {
        Operation::Accept { webhooks, kind, at, skip, fifo } => {
            let names: Vec<_> = webhooks.iter().map(|index| WEBHOOKS[*index]).collect();
            let mut new = NewEvent { kind: KINDS[kind].into(), ..event(number, at, &names) };
            for target in &mut new.targets {
                let order = if fifo { Order::Fifo } else { Order::None };
                *target = Target { skipped: skip, order, ..target.clone() };
            }
            queue.accept(submission(vec![new])).await.unwrap();
        }
        Operation::Settle { which, how } => {
            let Some(record) = queue.record(key(which)).await.unwrap() else { return };
            if record.state.kind() != StateKind::Pending {
                return;
            }
            let state = match how {
                0 => Settled::Retry(after(number + 100)),
                1 => Settled::Exhausted(Exhaustion::Attempts),
                _ => Settled::Delivered,
            };
            queue.settle(vec![settlement(key(which), number, state)]).await.unwrap();
        }
        Operation::Replay { which, add } => {
            let added = add.map(|(event, name)| Added {
                event: Key(event % last.max(1) + 1),
                delivery: DeliveryId::new(after(0), random(1 << 40 | number)),
                webhook: webhook(WEBHOOKS[name]),
            });
            let (deliveries, added) = (which.into_iter().map(key).collect(), added.into_iter().collect());
            queue
                .replay(Replay { at: after(number + 200), deliveries, added, step: None, watcher: None })
                .await
                .unwrap();
        }
        Operation::Purge { configured } => {
            let configured: Arc<HashSet<_>> =
                Arc::new(WEBHOOKS[..configured].iter().map(|name| webhook(name)).collect());
            while queue.purge(after(300), configured.clone(), 7).await.unwrap().more {}
        }
    }
}

/// All that a queue tells, in a form that can be compared.
async fn told(queue: &impl History) -> String {
    let mut told = format!("{:?}", queue.waiting().await.unwrap());
    let names = WEBHOOKS.map(webhook).to_vec();
    told += &format!("{:#?}", queue.webhooks(names, 3).await.unwrap());
    for filter in [
        Filter::default(),
        Filter { states: [StateKind::Exhausted, StateKind::Pending].into(), ..Filter::default() },
        Filter { states: [StateKind::Skipped].into(), webhook: Some(webhook("busy")), ..Filter::default() },
        Filter { kind: Some("rare".into()), until: Some(after(50)), ..Filter::default() },
    ] {
        for direction in [Direction::OldestFirst, Direction::NewestFirst] {
            told += &format!("{:?}", deliveries(queue, filter.clone(), direction, 3).await);
            told += &format!("{:?}", events(queue, filter.clone(), direction, 3).await);
        }
        let select = crate::history::select(filter.clone(), Direction::NewestFirst, 1_000);
        for mut delivery in queue.deliveries(select).await.unwrap().items {
            if let Some(attempt) = &mut delivery.last_attempt {
                attempt.excerpt.clear();
            }
            assert_eq!(queue.delivery(delivery.id).await.unwrap().map(|found| found.key), Some(delivery.key));
            told += &format!("{delivery:#?}");
        }
        told += &format!("{:?}", queue.count(filter).await.unwrap());
    }
    let asked = Missed { webhook: webhook("middle"), kinds: None, since: None, until: None };
    told + &format!("{:?}", missed(queue, asked, 2).await)
}

async fn compare(operations: Vec<Operation>) {
    let directory = tempfile::tempdir().unwrap();
    let (durable, commits, _threads) = open_sqlite(directory.path());
    let (model, model_commits) = memory::open(usize::MAX);
    drop((commits, model_commits));
    let mut last = 0;
    for (number, operation) in (1..).zip(operations) {
        operate(&durable, number, last, operation.clone()).await;
        if matches!(operation, Operation::Accept { .. }) {
            last += 1;
        }
        operate(&model, number, last, operation).await;
    }
    assert_eq!(told(&durable).await, told(&model).await);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_durable_engine_tells_what_the_map_tells(operations in prop::collection::vec(operation(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(compare(operations));
    }
}
