//! What is damaged in the file is found, ends visibly, and is never given out as if it were right.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use aquarium_delivery::{Exhaustion, Order, TraceContext};
use aquarium_queue::history::{Filter, History, Select, StateKind};
use aquarium_queue::sqlite::maintenance::Closed;
use aquarium_queue::sqlite::{Options, Sqlite, open};
use aquarium_queue::{Delivery, Error, Queue, Settled, State};
use bytes::Bytes;
use rusqlite::Connection;

use crate::fixture::{accept, claim, claim_of, event, open_sqlite, ordered, settlement, submission, webhook};

fn path(directory: &Path) -> PathBuf {
    directory.join("queue.db")
}

/// A queue with these bodies, closed, all in the file.
async fn stored(directory: &Path, bodies: &[&str]) -> Vec<Delivery> {
    let (queue, mut commits, threads) = open_sqlite(directory);
    let mut events = Vec::new();
    for (number, body) in (1..).zip(bodies) {
        let mut new = event(number, 0, &["ops", "audit"]);
        new.body = Bytes::copy_from_slice(body.as_bytes());
        new.trace = Some(TraceContext::start([7; 16], [9; 8]));
        events.push(new);
    }
    let offered = accept(&queue, &mut commits, events).await;
    drop((queue, commits));
    threads.join();
    offered
}

/// Changes a value in the file, as a disk might, past everything that would keep it consistent.
fn damage(directory: &Path, sql: &str) {
    let connection = Connection::open(path(directory)).unwrap();
    assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
}

async fn all_claimed(queue: &Sqlite) -> Vec<Delivery> {
    let mut claimed = claim(queue, "ops", 9).await.deliveries;
    claimed.extend(claim(queue, "audit", 9).await.deliveries);
    claimed
}

/// What leads to another request than was accepted, in one column of one row each. The first event, or its first delivery,
/// is what is concerned, unless it is said otherwise.
const DAMAGE: &[(&str, usize)] = &[
    // The event: both of its deliveries.
    ("UPDATE events SET body = CAST('{\"number\":9}' AS BLOB) WHERE key = 1", 2),
    ("UPDATE events SET body = CAST(body || ' ' AS BLOB) WHERE key = 1", 2),
    ("UPDATE events SET body = x'' WHERE key = 1", 2),
    ("UPDATE events SET id = zeroblob(16) WHERE key = 1", 2),
    ("UPDATE events SET id = (SELECT id FROM events WHERE key = 2) WHERE key = 1", 2),
    ("UPDATE events SET kind = 'issue-updated' WHERE key = 1", 2),
    ("UPDATE events SET accepted_at = accepted_at + 1 WHERE key = 1", 2),
    ("UPDATE events SET trace = NULL WHERE key = 1", 2),
    ("UPDATE events SET project = 77 WHERE key = 1", 2),
    ("UPDATE events SET checksum = checksum + 1 WHERE key = 1", 2),
    ("DELETE FROM events WHERE key = 1", 2),
    ("UPDATE events SET id = zeroblob(15) WHERE key = 1", 2),
    // All events of the project.
    ("UPDATE projects SET name = 'rural'", 4),
    ("UPDATE projects SET organization = 'globex'", 4),
    ("DELETE FROM projects", 4),
    // One delivery.
    ("UPDATE deliveries SET id = zeroblob(16) WHERE key = 1 << 20", 1),
    ("UPDATE deliveries SET id = zeroblob(17) WHERE key = 1 << 20", 1),
    ("UPDATE deliveries SET webhook = 3 - webhook WHERE key = 1 << 20", 1),
    ("UPDATE deliveries SET checksum = 0 WHERE key = 1 << 20", 1),
    ("UPDATE deliveries SET due_at = -5 WHERE key = 1 << 20", 0),
    ("UPDATE deliveries SET attempts = -5 WHERE key = 1 << 20", 1),
    // All deliveries of the webhooks, which have changed their names.
    ("UPDATE webhooks SET name = CASE id WHEN 1 THEN 'acme/urban/x' WHEN 2 THEN 'acme/urban/ops' END", 2),
];

#[tokio::test]
async fn a_damaged_event_or_delivery_is_known_as_one_and_ends_as_exhausted() {
    for (sql, concerned) in DAMAGE {
        let directory = tempfile::tempdir().unwrap();
        stored(directory.path(), &["{\"number\":1}", "{\"number\":2}"]).await;
        damage(directory.path(), sql);
        let (queue, _commits, threads) = open_sqlite(directory.path());
        let claimed = all_claimed(&queue).await;
        let damaged: Vec<_> = claimed.iter().filter(|delivery| delivery.damaged).collect();
        assert_eq!(damaged.len(), *concerned, "{sql}");
        assert!(damaged.iter().all(|delivery| delivery.body.is_none()), "{sql}");
        for delivery in &damaged {
            // Also without a page, which had room for the body.
            let payload = queue.payload(delivery.event_key).await;
            let of_event = sql.contains("events") || sql.contains("projects");
            match payload {
                Err(Error::DamagedEvent) | Ok(None) => assert!(of_event, "{sql}"),
                Ok(Some(_)) => assert!(!of_event, "{sql}"),
                Err(other) => panic!("{sql}: {other}"),
            }
            let settlement = aquarium_queue::Settlement {
                attempt: None,
                ..settlement(delivery.key, 5, Settled::Exhausted(Exhaustion::Damaged))
            };
            queue.settle(vec![settlement]).await.unwrap();
            let record = queue.record(delivery.key).await.unwrap().unwrap();
            assert_eq!(record.state, State::Exhausted(Exhaustion::Damaged), "{sql}");
        }
        assert!(all_claimed(&queue).await.iter().all(|delivery| !delivery.damaged), "{sql}: it ends");
        drop((queue, _commits));
        threads.join();
    }
}

#[tokio::test]
async fn verify_finds_every_damage_that_a_claim_would() {
    for (sql, _) in DAMAGE {
        let directory = tempfile::tempdir().unwrap();
        stored(directory.path(), &["{\"number\":1}", "{\"number\":2}"]).await;
        assert_eq!(Closed::open(&path(directory.path())).unwrap().verify(), Vec::<String>::new());
        damage(directory.path(), sql);
        let wrong = Closed::open(&path(directory.path())).unwrap().verify();
        assert!(!wrong.is_empty(), "{sql}");
        if sql.starts_with("UPDATE events SET body") {
            assert!(
                wrong[0].starts_with("1 events that do not match their checksum, such as evt_"),
                "{wrong:?}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_exhausted_since_it_is_damaged_is_listed_with_what_is_exhausted_and_lets_others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, mut commits, threads) = open_sqlite(directory.path());
    let events = [1, 2].map(|number| ordered(event(number, 0, &["ops"]), Order::Fifo, &[]));
    queue.accept(submission(events.into())).await.unwrap();
    let first = commits.recv().await.unwrap().remove(0);
    drop((queue, commits));
    threads.join();
    damage(directory.path(), "UPDATE events SET body = x'7b7d' WHERE key = 1");

    let (queue, _commits, _threads) = open_sqlite(directory.path());
    let page = claim(&queue, "ops", 9).await.deliveries;
    assert_eq!((page.len(), page[0].key, page[0].damaged), (1, first.key, true));
    let settlement = settlement(first.key, 5, Settled::Exhausted(Exhaustion::Damaged));
    assert_eq!(queue.settle(vec![settlement]).await.unwrap(), 1, "the next one is free");
    let filter = Filter { states: [StateKind::Exhausted].into(), ..Filter::default() };
    let listed =
        queue.deliveries(Select { filter: filter.clone(), limit: 9, ..Select::default() }).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    assert_eq!(listed.items[0].state, State::Exhausted(Exhaustion::Damaged));
    assert_eq!(queue.count(filter).await.unwrap().at_least, 1);
    let page = claim(&queue, "ops", 9).await.deliveries;
    assert!(!page[0].damaged && page[0].body.is_some());
}

#[tokio::test]
async fn rows_from_before_there_were_checksums_are_sent_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    stored(directory.path(), &["{\"number\":1}"]).await;
    damage(directory.path(), "UPDATE events SET checksum = NULL, body = x'7b7d'");
    damage(directory.path(), "UPDATE deliveries SET checksum = NULL");
    assert_eq!(Closed::open(&path(directory.path())).unwrap().verify(), Vec::<String>::new());
    let (queue, _commits, _threads) = open_sqlite(directory.path());
    let claimed = claim(&queue, "ops", 9).await.deliveries;
    assert_eq!(claimed[0].body.as_deref(), Some(&b"{}"[..]));
}

/// Flips of single bits, all over the file. What is claimed is what was accepted, or it is known to be damaged, or nothing can
/// be read at all.
#[tokio::test]
async fn no_flipped_bit_of_the_file_makes_a_delivery_something_else() {
    const FLIPS: usize = 600;
    let directory = tempfile::tempdir().unwrap();
    let bodies: Vec<String> = (0..40)
        .map(|number| format!("{{\"number\":{number},\"pad\":\"{}\"}}", "x".repeat(number * 40)))
        .collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let offered = stored(directory.path(), &bodies).await;
    let right: HashMap<_, _> = offered.iter().map(|delivery| (delivery.key, delivery)).collect();
    let image = std::fs::read(path(directory.path())).unwrap();
    // The pages of the schema decide what columns there are: not what is flipped, but all else is.
    let (mut seed, mut damaged, mut unreadable, mut unharmed) = (0x9e37_79b9_7f4a_7c15_u64, 0, 0, 0);
    for _ in 0..FLIPS {
        let directory = tempfile::tempdir().unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bit = (seed >> 16) as usize % (image.len() * 8);
        let mut flipped = image.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(path(directory.path()), flipped).unwrap();
        let Ok((queue, commits, threads)) = open(&Options::new(path(directory.path()), u64::MAX)) else {
            unreadable += 1;
            continue;
        };
        let before = (damaged, unreadable);
        for name in ["ops", "audit"] {
            let Ok(page) = queue.claim(claim_of(name, 9)).await else {
                unreadable += 1;
                continue;
            };
            for delivery in page.deliveries {
                if delivery.damaged {
                    damaged += 1;
                    continue;
                }
                let right = right.get(&delivery.key).unwrap_or_else(|| panic!("bit {bit}: {delivery:?}"));
                assert_eq!(delivery.id, right.id, "bit {bit}");
                assert_eq!(delivery.webhook, webhook(name), "bit {bit}");
                assert_eq!(right.webhook, webhook(name), "bit {bit}");
                assert_eq!(delivery.event, right.event, "bit {bit}");
                assert_eq!(delivery.body, right.body, "bit {bit}");
                assert_eq!(delivery.trace, right.trace, "bit {bit}");
            }
        }
        if before == (damaged, unreadable) {
            unharmed += 1;
        }
        drop((queue, commits));
        threads.join();
    }
    println!(
        "{FLIPS} flips: {damaged} deliveries damaged, {unreadable} pages unreadable, {unharmed} without effect"
    );
    assert!(damaged > FLIPS / 10, "too few to mean anything: {damaged}");
}
