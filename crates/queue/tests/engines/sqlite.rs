//! What only a durable engine can promise.

use std::sync::Arc;
use std::time::Duration;

use aquarium_queue::sqlite::{OpenError, Options, open};
use aquarium_queue::{Error, Observe, OutageReason, Queue, Settled};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::fixture::{accept, claim, event, ids, open_sqlite, open_sqlite_with, settlement, submission};

#[tokio::test]
async fn what_was_accepted_is_there_after_the_process_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, mut commits, threads) = open_sqlite(directory.path());
    let events = (0..100).map(|number| event(number, 0, &["ops"])).collect();
    let offered = accept(&queue, &mut commits, events).await;
    queue.settle(vec![settlement(offered[0].key, 1, Settled::Delivered)]).await.unwrap();

    // The files as a killed process leaves them: the log not written back, nothing closed.
    let left = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
        }
    }
    let (reopened, ..) = open_sqlite(left.path());
    assert_eq!(ids(&claim(&reopened, "ops", 0).await.deliveries), ids(&offered[1..]));
    drop((queue, commits));
    threads.join();
}

#[tokio::test]
async fn a_torn_end_of_the_log_costs_at_most_what_was_not_yet_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, mut commits, _threads) = open_sqlite(directory.path());
    let first = accept(&queue, &mut commits, vec![event(1, 0, &["ops"])]).await;
    let log = std::fs::read(directory.path().join("queue.db-wal")).unwrap();
    accept(&queue, &mut commits, vec![event(2, 0, &["ops"])]).await;

    let left = tempfile::tempdir().unwrap();
    std::fs::copy(directory.path().join("queue.db"), left.path().join("queue.db")).unwrap();
    let mut torn = std::fs::read(directory.path().join("queue.db-wal")).unwrap();
    torn.truncate(log.len() + 100);
    torn.extend([0xa5; 3_000]);
    std::fs::write(left.path().join("queue.db-wal"), torn).unwrap();
    let (reopened, ..) = open_sqlite(left.path());
    assert_eq!(ids(&claim(&reopened, "ops", 0).await.deliveries), ids(&first));
}

/// Tells why nothing is accepted, when that changes.
#[derive(Debug)]
struct Told(mpsc::UnboundedSender<Option<OutageReason>>);

impl Observe for Told {
    fn opened(&self, _: u64) {}

    fn committed(&self, _: usize, _: Duration, _: u64) {}

    fn outage(&self, reason: Option<OutageReason>) {
        self.0.send(reason).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_cannot_be_written_to_says_so_at_once_and_recovers_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let (tell, mut told) = mpsc::unbounded_channel();
    let options = Options { observer: Arc::new(Told(tell)), ..Options::new(&path, u64::MAX) };
    let (queue, mut commits, _threads) = open(&options).unwrap();
    let first = accept(&queue, &mut commits, vec![event(1, 0, &["ops"])]).await;

    // Somebody else keeps it from being written to.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let other_event = |number| queue.accept(submission(vec![event(number, 0, &["ops"])]));
    let (one, two) = tokio::join!(other_event(2), other_event(3));
    for refused in [one, two] {
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    }
    assert_eq!(told.recv().await, Some(Some(OutageReason::Failing)));
    other.execute_batch("ROLLBACK").unwrap();
    // Nobody asks for anything meanwhile.
    let again = tokio::time::timeout(Duration::from_secs(30), told.recv()).await.unwrap();
    assert_eq!(again, Some(None));
    let second = accept(&queue, &mut commits, vec![event(4, 0, &["ops"])]).await;
    let stored = claim(&queue, "ops", 0).await.deliveries;
    assert_eq!(ids(&stored), ids(&[first, second].concat()), "what was refused is not there");
}

#[tokio::test]
async fn a_second_process_is_told_who_has_the_queue() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, commits, threads) = open_sqlite(directory.path());
    let options = Options::new(directory.path().join("queue.db"), u64::MAX);
    let refused = open(&options).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    drop((queue, commits));
    threads.join();
    let (_queue, _commits, _threads) = open(&options).unwrap();
}

/// Each of these let a second process in: 20 pending deliveries made 40 requests.
#[tokio::test]
async fn a_second_process_is_refused_by_whatever_path_it_comes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let (queue, commits, threads) = open_sqlite(directory.path());
    let open = |path: &std::path::Path| open(&Options::new(path, u64::MAX)).map(drop).unwrap_err();

    let elsewhere = tempfile::tempdir().unwrap();
    let symlink = elsewhere.path().join("linked.db");
    std::os::unix::fs::symlink(&path, &symlink).unwrap();
    let through_directory = elsewhere.path().join("data");
    std::os::unix::fs::symlink(directory.path(), &through_directory).unwrap();
    for other in [
        &symlink,
        &through_directory.join("queue.db"),
        &directory.path().join("../").join(directory.path()).join("queue.db"),
    ] {
        let refused = open(other);
        assert!(matches!(refused, OpenError::InUse { .. }), "{}: {refused}", other.display());
    }
    std::fs::remove_file(directory.path().join("queue.db.lock")).unwrap();
    let refused = open(&path);
    assert!(matches!(refused, OpenError::InUse { .. }), "the file beside it was deleted: {refused}");

    drop((queue, commits));
    threads.join();
    let hard_link = directory.path().join("other.db");
    std::fs::hard_link(&path, &hard_link).unwrap();
    for name in [&path, &hard_link] {
        let refused = open(name);
        assert!(matches!(refused, OpenError::HardLinked { links: 2, .. }), "{refused}");
    }
    std::fs::remove_file(hard_link).unwrap();

    let precious = elsewhere.path().join("precious");
    std::fs::write(&precious, "not a lock").unwrap();
    std::fs::remove_file(directory.path().join("queue.db.lock")).unwrap();
    std::os::unix::fs::symlink(&precious, directory.path().join("queue.db.lock")).unwrap();
    let refused = open(&path);
    assert!(refused.to_string().contains("queue.db.lock: this is no regular file"), "{refused}");
    assert_eq!(std::fs::read_to_string(precious).unwrap(), "not a lock", "it is not written to");
    std::fs::remove_file(directory.path().join("queue.db.lock")).unwrap();
    let (_queue, _commits, _threads) = open_sqlite(directory.path());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    std::fs::write(&path, "this is not a database, but somebody's notes".repeat(50)).unwrap();
    let refused = open(&Options::new(path.clone(), u64::MAX)).unwrap_err();
    assert!(refused.to_string().contains("not a database"), "{refused}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("this is not"));
}

#[tokio::test]
async fn a_full_queue_refuses_events_settles_on_and_takes_events_again_after_a_purge() {
    let directory = tempfile::tempdir().unwrap();
    let (queue, mut commits, _threads) = open_sqlite_with(directory.path(), 1_000_000);
    let mut offered = Vec::new();
    let refusal = loop {
        let mut new = event(offered.len() as u64, 0, &["ops"]);
        new.body = Bytes::from(vec![b'x'; 50_000]);
        match queue.accept(submission(vec![new])).await {
            Ok(_) => offered.extend(commits.recv().await.unwrap()),
            Err(refusal) => break refusal,
        }
        assert!(offered.len() < 100, "it is never full");
    };
    assert!(matches!(refusal, Error::Full { max_size: 1_000_000, .. }), "{refusal}");
    for delivery in &offered {
        queue.settle(vec![settlement(delivery.key, 1, Settled::Delivered)]).await.unwrap();
    }
    let purged = queue.purge(crate::fixture::after(2), Default::default(), 1_000).await.unwrap();
    assert_eq!(purged.events, offered.len());
    accept(&queue, &mut commits, vec![event(999, 2, &["ops"])]).await;
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_accepted_until_the_file_works_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue.db");
    let (queue, mut commits, _threads) = open_sqlite(directory.path());
    let first = accept(&queue, &mut commits, vec![event(1, 0, &["ops"])]).await;

    // A second writer is what makes a write fail without a special file system.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = queue.accept(submission(vec![event(2, 0, &["ops"])])).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    let refused = queue.settle(vec![settlement(first[0].key, 1, Settled::Delivered)]).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    other.execute_batch("ROLLBACK").unwrap();

    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while queue.settle(vec![settlement(first[0].key, 1, Settled::Delivered)]).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "it does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let second = accept(&queue, &mut commits, vec![event(3, 0, &["ops"])]).await;
    assert_eq!(
        ids(&claim(&queue, "ops", 9).await.deliveries),
        ids(&second),
        "what was refused was not stored"
    );
}
