//! The power goes while the binary takes events: each that it answered with a 202 is in the queue, and arrives.
//!
//! The files are recorded, and so are the answers; a disk as it could have been at a moment is rebuilt from that. How the
//! queue fares by itself, with purges, order and migrations, is tested in `crates/queue/tests/power/`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aquarium_queue::sqlite::maintenance::{Closed, export};
use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::power::{Disk, Syncs, moments, restore};
use aquarium_testkit::random::Random;
use aquarium_testkit::receiver::{Behaviour, Receiver};
use aquarium_testkit::recorder::{Recorder, Recording};
use aquarium_testkit::sidecar::{Launch, Sidecar};
use tokio::task::JoinSet;
use tokio::time::timeout;

use support::{EVENTS, JSON, SOON, binary, event, text};

const CONNECTIONS: usize = 6;
/// Posts of each connection.
const POSTS: usize = 60;
/// How many cuts are tried, without that.
const CUTS: &str = "AQUARIUM_POWER_CUTS";
const DEFAULT_CUTS: usize = 50;
/// Of these, how many are followed by a start of the binary.
const STARTS: usize = 3;
/// Repeats a run, as far as it is up to the test: the number that it printed.
const SEED: &str = "AQUARIUM_POWER_SEED";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_with_a_202_survives_a_power_cut_and_arrives() {
    let recording = recorded().await;
    let cuts = std::env::var(CUTS).map_or(DEFAULT_CUTS, |cuts| cuts.parse().unwrap());
    let mut random = Random::from_environment(SEED);
    let (lost, acknowledged) = lost(&recording, Syncs::Honest, cuts, &mut random);
    let records = recording.records().len();
    println!(
        "whole binary: {cuts} power cuts among {records} records and {acknowledged} acknowledged events, {} with losses",
        lost.len()
    );
    assert!(lost.is_empty(), "{}", lost.join("\n"));
    assert!(acknowledged > 200, "too few to mean anything: {acknowledged}");

    let tried = cuts.div_ceil(5);
    let (lied, _) = self::lost(&recording, Syncs::Ignored, tried, &mut random);
    println!("whole binary on a disk that lies: {tried} power cuts, {} with losses", lied.len());
    assert!(!lied.is_empty(), "losses are not seen");

    let mut disk = Disk::new(&recording, Syncs::Honest);
    for moment in moments(&recording, STARTS, &mut random) {
        disk.advance(moment);
        arrives(&disk.cut(&mut random), &acknowledged_by(&recording, moment)).await;
    }
}

/// Has the binary take events from several connections, some of them twice, and kills it.
async fn recorded() -> Recording {
    let receiver = Receiver::builder().record_bodies(false).script(|_| Behaviour::status(204)).start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let recorder = Recorder::of(config.queue().parent().unwrap());
    let mut sidecar = Sidecar::start(recorder.preloaded(Launch::new(binary())), &config).await;
    let mut posting = JoinSet::new();
    let failed = Arc::new(AtomicBool::new(false));
    for connection in 0..CONNECTIONS {
        posting.spawn(post(sidecar.ingest().to_owned(), connection, Arc::clone(&failed)));
    }
    timeout(Duration::from_secs(60), posting.join_all()).await.expect("it takes events");
    assert!(!failed.load(Ordering::SeqCst), "a repeated post led to another event");
    sidecar.kill().await;
    recorder.finish()
}

async fn post(ingest: String, connection: usize, failed: Arc<AtomicBool>) {
    let client = Client::new(&ingest);
    for number in 0..POSTS {
        let name = format!("{connection}-{number}");
        let headers = [JSON[0], ("Idempotency-Key", &*name)];
        let headers = if number % 3 == 0 { &headers[..] } else { JSON };
        let first = client.post(EVENTS, headers, event(&name)).await.unwrap();
        assert_eq!(first.status, 202, "{}", first.text());
        if number % 3 == 0 {
            let again = client.post(EVENTS, headers, event(&name)).await.unwrap();
            assert_eq!(again.status, 202, "{}", again.text());
            failed.fetch_or(again.json() != first.json(), Ordering::SeqCst);
        }
    }
}

/// The events that had been answered with a 202 after so many records.
fn acknowledged_by(recording: &Recording, moment: usize) -> HashSet<String> {
    let answers = recording.marks().take_while(|(at, _)| *at <= moment);
    answers.map(|(_, answer)| event_of(answer)).collect()
}

/// The event that an answer names.
fn event_of(answer: &[u8]) -> String {
    let answer = std::str::from_utf8(answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    text(&serde_json::from_str(body).unwrap(), "/id")
}

/// Which cuts lost something, and how many events were acknowledged before the last.
fn lost(recording: &Recording, syncs: Syncs, cuts: usize, random: &mut Random) -> (Vec<String>, usize) {
    let (mut lost, mut acknowledged) = (Vec::new(), 0);
    let mut disk = Disk::new(recording, syncs);
    for moment in moments(recording, cuts, random) {
        disk.advance(moment);
        let left = tempfile::tempdir().unwrap();
        restore(&disk.cut(random), left.path());
        let expected = acknowledged_by(recording, moment);
        acknowledged = expected.len();
        lost.extend(
            missing(&left.path().join("queue.db"), &expected)
                .err()
                .map(|error| format!("after record {moment}: {error}")),
        );
    }
    (lost, acknowledged)
}

fn missing(path: &Path, expected: &HashSet<String>) -> Result<(), String> {
    if expected.is_empty() {
        return Ok(());
    }
    let closed = Closed::open(path).map_err(|error| error.to_string())?;
    let wrong = closed.verify();
    drop(closed);
    let mut found = HashSet::new();
    let exported = export(path, false, |event| {
        found.insert(event.id.to_string());
        Ok(())
    });
    exported.map_err(|error| error.to_string())?;
    let missing = expected.difference(&found).count();
    if missing > 0 || !wrong.is_empty() {
        return Err(format!("{missing} of {} are lost, {wrong:?}", expected.len()));
    }
    Ok(())
}

/// Starts the binary on this disk: what waits is delivered.
async fn arrives(files: &BTreeMap<String, Vec<u8>>, acknowledged: &HashSet<String>) {
    let receiver = Receiver::builder().record_bodies(false).script(|_| Behaviour::status(204)).start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let directory = config.queue().parent().unwrap().to_owned();
    restore(files, &directory);
    let mut waiting = HashSet::new();
    let queue = directory.join("queue.db");
    if queue.exists() {
        let pending = export(&queue, true, |event| {
            waiting.insert(event.id.to_string());
            Ok(())
        });
        pending.unwrap();
    }
    let mut sidecar = Sidecar::start(binary(), &config).await;
    eventually(SOON, "what waits arrives", async || waiting.iter().all(|id| receiver.has(id))).await;
    println!("{} events were acknowledged, {} waited, and arrived", acknowledged.len(), waiting.len());
    let client = Client::new(sidecar.ingest());
    let answer = support::accept(&client, &format!("{EVENTS}?wait=10s"), event("afterwards")).await;
    assert_eq!(answer["deliveries"][0]["outcome"]["state"], "delivered", "{answer}");
    assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());
}
