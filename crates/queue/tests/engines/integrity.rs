//! What is damaged in the file is found, ends visibly, and is never given out as if it were right.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aquarium_delivery::{Exhaustion, Order, ReplayId, TraceContext};
use aquarium_queue::history::{Filter, History, Select, StateKind};
use aquarium_queue::sqlite::maintenance::{Closed, Error as MaintenanceError, export};
use aquarium_queue::sqlite::{OpenError, Options, Sqlite, open, recover};
use aquarium_queue::{Claim, Delivery, Error, Observe, OutageReason, Queue, Settled, Settlement, State};
use bytes::Bytes;
use rusqlite::Connection;

use crate::fixture::{
    accept, claim, claim_of, event, keyed, open_sqlite, ordered, settlement, submission, webhook,
};

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
    ("UPDATE events SET hops = 2 WHERE key = 1", 2),
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

/// Records outages.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<Option<OutageReason>>>);

impl Observe for Told {
    fn opened(&self, _: u64) {}

    fn committed(&self, _: usize, _: Duration, _: u64) {}

    fn outage(&self, reason: Option<OutageReason>) {
        self.0.lock().unwrap().push(reason);
    }
}

/// Zeroes the root page of a table or an index, as a disk might.
fn zero_root(path: &Path, name: &str) {
    let connection = Connection::open(path).unwrap();
    let root: u32 = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?", [name], |row| row.get(0))
        .unwrap();
    drop(connection);
    zero_page(path, root.into());
}

fn zero_page(path: &Path, number: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; 4_096], (number - 1) * 4_096).unwrap();
}

/// What a queue is asked for until something meets with the damage.
async fn use_it(queue: &Sqlite, settled: &Delivery, turn: usize) -> Option<Error> {
    let key = format!("key-{turn}");
    let attempt =
        Settlement { at: crate::fixture::after(9), ..settlement(settled.key, 5, Settled::Delivered) };
    let everything = Select { limit: 9, ..Select::default() };
    let (from, id) = (everything.clone(), ReplayId::new(crate::fixture::NOW, [9; 10]));
    match turn % 11 {
        0 => queue.claim(Claim { bytes: 0, ..claim_of("ops", 9) }).await.err(),
        1 => queue.payload(settled.event_key).await.err(),
        2 => queue.record(settled.key).await.err(),
        3 => queue.backlog().await.err(),
        4 => queue.deliveries(from).await.err(),
        5 => queue.job(id).await.err(),
        6 => queue.accept(keyed("acme", &key, 1, vec![event(99, 0, &["ops"])])).await.err(),
        7 => queue.settle(vec![attempt]).await.err(),
        8 => {
            let one = ordered(event(98, 0, &["new"]), Order::Fifo, &[]);
            queue.accept(submission(vec![one])).await.err()
        }
        9 => queue
            .events(Select {
                filter: Filter { project: Some("urban".into()), ..Filter::default() },
                ..everything
            })
            .await
            .err(),
        _ => queue.purge(crate::fixture::after(99), Default::default(), 100).await.err(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_any_thread_meets_is_an_outage_that_lasts() {
    const TABLES: &[&str] = &[
        "events",
        "deliveries",
        "deliveries_due",
        "attempts",
        "projects",
        "webhooks",
        "idempotency",
        "lines",
        "blocks",
        "jobs",
        "sqlite_autoindex_webhooks_1",
        "sqlite_autoindex_projects_1",
        "deliveries_rare",
        "idempotency_of_event",
        "next_key",
    ];
    for table in TABLES {
        for first in 0..11 {
            let directory = tempfile::tempdir().unwrap();
            let offered = stored(directory.path(), &["{\"number\":1}", "{\"number\":2}"]).await;
            let path = path(directory.path());
            zero_root(&path, table);
            let told = Arc::new(Told::default());
            let options = Options { observer: told.clone(), ..Options::new(&path, u64::MAX) };
            let (queue, commits, threads) = match open(&options) {
                Ok(opened) => opened,
                Err(OpenError::Damaged { .. }) => continue,
                Err(other) => panic!("{table}: {other}"),
            };
            let mut met = None;
            for turn in first..first + 11 {
                met = use_it(&queue, &offered[0], turn).await;
                if met.is_some() {
                    break;
                }
            }
            // An empty table that nothing asks for does no harm.
            let Some(met) = met else {
                assert!(["blocks", "next_key", "deliveries_rare"].contains(table), "{table}");
                continue;
            };
            assert!(matches!(met, Error::Damaged(_)), "{table}: {met}");
            for turn in 0..11 {
                let refused = use_it(&queue, &offered[0], turn).await;
                assert!(matches!(refused, Some(Error::Damaged(_))), "{table}, {turn}: {refused:?}");
            }
            assert_eq!(*told.0.lock().unwrap(), [Some(OutageReason::Damaged)], "{table}");
            drop((queue, commits));
            tokio::task::spawn_blocking(|| threads.join()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_damaged_file_is_not_opened_and_the_error_names_the_way_back() {
    let directory = tempfile::tempdir().unwrap();
    stored(directory.path(), &["{\"number\":1}"]).await;
    let path = path(directory.path());
    for damaged in [1, 2] {
        zero_page(&path, damaged);
    }
    let before = std::fs::read(&path).unwrap();
    let refused = open(&Options::new(&path, u64::MAX)).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains("queue recover"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// A queue with many events of all sizes, some of which are delivered; and what a claim gives of it.
async fn large(directory: &Path) -> Vec<Delivery> {
    let bodies: Vec<String> = (0..300)
        .map(|number| format!("{{\"number\":{number},\"pad\":\"{}\"}}", "x".repeat(number * number % 9_000)))
        .collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let offered = stored(directory, &bodies).await;
    let (queue, commits, threads) = open_sqlite(directory);
    let settlements = offered
        .iter()
        .step_by(3)
        .map(|delivery| settlement(delivery.key, 5, Settled::Delivered))
        .collect::<Vec<_>>();
    queue.settle(settlements).await.unwrap();
    let page = queue.accept(keyed("acme", "kept", 7, vec![event(9_999, 0, &[])])).await;
    page.unwrap();
    drop((queue, commits));
    threads.join();
    offered
        .into_iter()
        .enumerate()
        .filter(|(index, _)| index % 3 != 0)
        .map(|(_, delivery)| delivery)
        .collect()
}

fn recovered(directory: &Path) -> (recover::Recovered, Vec<recover::Lost>) {
    let (mut lost, mut random) = (Vec::new(), 0_u8);
    let before = std::fs::read(path(directory)).unwrap();
    let recovered = recover::recover(recover::Recovery {
        from: &path(directory),
        to: &directory.join("new.db"),
        random: &mut || {
            random = random.wrapping_add(1);
            [random; 10]
        },
        lost: &mut |delivery| {
            lost.push(delivery);
            Ok(())
        },
    });
    assert!(std::fs::read(path(directory)).unwrap() == before, "the damaged file is left as it was");
    if recovered.is_ok() {
        let mode = std::fs::metadata(directory.join("new.db")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds payloads");
    }
    (recovered.unwrap(), lost)
}

async fn pending_in(new: &Path) -> Vec<Delivery> {
    let (queue, commits, threads) = open(&Options::new(new, u64::MAX)).unwrap();
    let mut pending = Vec::new();
    for name in ["ops", "audit"] {
        let claim = Claim { limit: 10_000, bytes: usize::MAX, ..claim_of(name, 9) };
        pending.extend(queue.claim(claim).await.unwrap().deliveries);
    }
    drop((queue, commits));
    threads.join();
    pending.sort_by_key(|delivery| delivery.key);
    pending
}

/// What is lost: a root, and what is left then.
#[tokio::test]
async fn a_queue_of_which_a_root_is_lost_is_recovered_with_all_that_is_pending() {
    for lost in [
        "",
        "events",
        "deliveries",
        "deliveries_due",
        "webhooks",
        "sqlite_autoindex_webhooks_1",
        "projects",
        "attempts",
        "idempotency",
        "lines",
        "blocks",
        "jobs",
        "next_key",
        "first page",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let expected = large(directory.path()).await;
        match lost {
            "" => {}
            "first page" => zero_page(&path(directory.path()), 1),
            root => zero_root(&path(directory.path()), root),
        }
        let (recovered, gone) = recovered(directory.path());
        assert_eq!((&recovered.wrong, &gone), (&vec![], &vec![]), "{lost}");
        assert_eq!(
            (recovered.events, recovered.pending),
            (301, expected.len() as u64),
            "{lost}: {recovered:?}"
        );
        assert_eq!(recovered.deliveries, 600, "{lost}");
        assert_eq!(
            recovered.unreadable.is_empty(),
            ["", "deliveries_due", "sqlite_autoindex_webhooks_1", "lines", "blocks"].contains(&lost),
            "{lost}: {recovered:?}"
        );
        let pending = pending_in(&directory.path().join("new.db")).await;
        assert_eq!(pending.len(), expected.len(), "{lost}");
        for (found, expected) in pending.iter().zip(&expected) {
            assert!(!found.damaged, "{lost}");
            assert_eq!(
                (found.key, found.id, found.event),
                (expected.key, expected.id, expected.event),
                "{lost}"
            );
            assert!(found.body == expected.body && found.webhook == expected.webhook, "{lost}");
        }
        // What comes then gets keys of its own, and a repetition is known.
        let (queue, mut commits, threads) =
            open(&Options::new(directory.path().join("new.db"), u64::MAX)).unwrap();
        let known = queue.accept(keyed("acme", "kept", 7, vec![event(9_999, 0, &[])])).await.unwrap();
        assert_eq!(
            matches!(known, aquarium_queue::Accepted::Repeated(_)),
            !["idempotency", "first page"].contains(&lost)
        );
        let fresh = accept(&queue, &mut commits, vec![event(5_000, 0, &["ops"])]).await;
        assert!(fresh[0].key > expected.last().unwrap().key, "{lost}");
        drop((queue, commits));
        threads.join();
    }
}

#[tokio::test]
async fn whatever_page_is_lost_the_others_are_recovered() {
    let directory = tempfile::tempdir().unwrap();
    let expected = large(directory.path()).await;
    let image = std::fs::read(path(directory.path())).unwrap();
    let pages = image.len() as u64 / 4_096;
    let (mut worst, mut tried) = (expected.len(), 0);
    for page in (1..=pages).step_by(7) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(path(directory.path()), &image).unwrap();
        zero_page(&path(directory.path()), page);
        let (recovered, gone) = recovered(directory.path());
        let pending = pending_in(&directory.path().join("new.db")).await;
        let intact = pending.iter().filter(|delivery| !delivery.damaged).count();
        // A leaf has up to some 60 deliveries; those of a lost one are made anew from the index.
        assert!(intact + 60 > expected.len(), "page {page}: {intact} of {}: {recovered:?}", expected.len());
        assert!(intact + gone.len() + 60 >= expected.len(), "page {page}");
        for found in pending.iter().filter(|delivery| !delivery.damaged) {
            let right = expected.iter().find(|expected| expected.key == found.key).unwrap();
            assert!(found.body == right.body && found.webhook == right.webhook && found.event == right.event);
        }
        (worst, tried) = (worst.min(intact), tried + 1);
    }
    println!(
        "{tried} of {pages} pages lost, one at a time: at least {worst} of {} pending deliveries were saved",
        expected.len()
    );
}

#[tokio::test]
async fn what_was_committed_to_the_log_is_recovered_and_the_log_is_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, mut commits, _threads) = open_sqlite(directory.path());
    let events = (1..=50).map(|number| event(number, 0, &["ops"])).collect();
    let offered = accept(&queue, &mut commits, events).await;
    let killed = tempfile::tempdir().unwrap();
    for suffix in ["", "-wal"] {
        let name = format!("queue.db{suffix}");
        std::fs::copy(directory.path().join(&name), killed.path().join(&name)).unwrap();
    }
    // Nothing was written back: the file has no tables yet, but for what its log says.
    let log = std::fs::read(killed.path().join("queue.db-wal")).unwrap();
    let (recovered, _) = recovered(killed.path());
    assert_eq!((recovered.events, recovered.pending), (50, 50), "{recovered:?}");
    assert_eq!(std::fs::read(killed.path().join("queue.db-wal")).unwrap(), log);
    assert_eq!(pending_in(&killed.path().join("new.db")).await.len(), offered.len());
}

#[tokio::test]
async fn lines_are_made_anew_and_a_repetition_of_what_is_lost_is_accepted_again() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, mut commits, threads) = open_sqlite(directory.path());
    let events = (1..=3).map(|number| ordered(event(number, 0, &["ops"]), Order::Fifo, &[])).collect();
    queue.accept(submission(events)).await.unwrap();
    let first = commits.recv().await.unwrap().remove(0);
    queue.accept(keyed("acme", "k", 1, vec![event(7, 0, &["audit"])])).await.unwrap();
    drop((queue, commits));
    threads.join();
    damage(directory.path(), "DELETE FROM lines");
    damage(directory.path(), "DELETE FROM events WHERE key = 4");
    let (recovered, gone) = recovered(directory.path());
    assert_eq!((recovered.pending, recovered.lost, gone.len()), (3, 1, 1), "{recovered:?}");
    assert!(
        gone[0].pending && gone[0].id.is_some() && gone[0].webhook.as_deref() == Some("acme/urban/audit")
    );
    let new = directory.path().join("new.db");
    assert_eq!(pending_in(&new).await.iter().map(|delivery| delivery.key).collect::<Vec<_>>(), [first.key]);
    let (queue, _commits, _threads) = open(&Options::new(new, u64::MAX)).unwrap();
    let again = queue.accept(keyed("acme", "k", 1, vec![event(7, 0, &["audit"])])).await.unwrap();
    assert_eq!(again, aquarium_queue::Accepted::Stored);
    let done = settlement(first.key, 5, Settled::Delivered);
    assert_eq!(queue.settle(vec![done]).await.unwrap(), 1, "the next one is free");
}

#[tokio::test]
async fn recovering_makes_no_file_where_there_is_one_and_none_of_what_is_no_queue() {
    let directory = tempfile::tempdir().unwrap();
    stored(directory.path(), &["{}"]).await;
    let (from, to) = (path(directory.path()), directory.path().join("new.db"));
    let attempt = |from: &Path, to: &Path| {
        recover::recover(recover::Recovery { from, to, random: &mut || [0; 10], lost: &mut |_| Ok(()) })
    };
    std::fs::write(directory.path().join("new.db-wal"), "").unwrap();
    assert!(matches!(attempt(&from, &to), Err(MaintenanceError::Exists(_))));
    std::fs::remove_file(directory.path().join("new.db-wal")).unwrap();
    assert!(matches!(attempt(&from, &from), Err(MaintenanceError::Exists(_))));
    assert!(matches!(attempt(&to, &from.with_extension("x")), Err(MaintenanceError::Missing(_))));
    let theirs = directory.path().join("theirs.db");
    Connection::open(&theirs).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(attempt(&theirs, &to), Err(MaintenanceError::Open(OpenError::Foreign { .. }))));
    assert!(!to.exists());
    let (_queue, _commits, _threads) = open_sqlite(directory.path());
    assert!(matches!(attempt(&from, &to), Err(MaintenanceError::Open(OpenError::InUse { .. }))));
    assert!(!to.exists());
}

#[tokio::test]
async fn an_export_goes_on_behind_what_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    large(directory.path()).await;
    let exported = |path: &Path| {
        let mut ids = Vec::new();
        let exports = export(path, false, |event| {
            ids.push(event.id);
            Ok(())
        });
        (exports.unwrap(), ids)
    };
    let path = path(directory.path());
    let (whole, all) = exported(&path);
    assert_eq!((whole.events, whole.unreadable, all.len()), (301, 0, 301));
    // A leaf of the table in the middle.
    let connection = Connection::open(&path).unwrap();
    let pages: u64 =
        connection.query_row("PRAGMA page_count", [], |row| row.get::<_, u32>(0)).unwrap().into();
    drop(connection);
    let image = std::fs::read(&path).unwrap();
    let is_leaf = |number: &u64| image[(*number as usize - 1) * 4_096] == 0x0d;
    let leaf = (pages / 2..pages).find(is_leaf).unwrap();
    zero_page(&path, leaf);
    let (part, some) = exported(&path);
    assert!(part.unreadable > 0 && part.events < 301 && part.events > 200, "{part:?}");
    assert!(some.iter().all(|id| all.contains(id)));
    assert!(some.contains(&all[0]) && some.contains(all.last().unwrap()), "both ends are there");
}
