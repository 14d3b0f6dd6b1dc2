//! The disk fails at random moments under load: what was acknowledged arrives all the same, and it goes on by itself.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aquarium_testkit::client::{Client, Response};
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::faults::{Call, Errno, Fault, Faults};
use aquarium_testkit::random::Random;
use aquarium_testkit::receiver::{Behaviour, Receiver};
use aquarium_testkit::sidecar::{Launch, Sidecar, run};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use support::{EVENTS, JSON, SOON, binary, event, text};

const ROUNDS: usize = 18;
const CONNECTIONS: usize = 8;
/// The longest that it may take until events are accepted again after the disk has. The file is opened anew at growing
/// intervals, of 10 s at the most.
const RECOVERY: Duration = Duration::from_secs(15);
/// Repeats what a run did, as far as it is up to the test: the number that it printed.
const SEED: &str = "AQUARIUM_FAULTS_SEED";

/// How the disk fails: one way each round, in turn from a random one on.
fn kinds() -> [(&'static str, Fault); 9] {
    use Call::{Sync, Truncate, Write};
    [
        ("write: no space", Fault::of([Write], Errno::NOSPC)),
        ("write: I/O error", Fault::of([Write], Errno::IO)),
        ("half a write: no space", Fault::of([Write], Errno::NOSPC).partial()),
        ("fsync: I/O error", Fault::of([Sync], Errno::IO)),
        ("fsync: no space", Fault::of([Sync], Errno::NOSPC)),
        ("everything: I/O error", Fault::of([Write, Sync, Truncate], Errno::IO)),
        ("every 7th write: no space", Fault::of([Write], Errno::NOSPC).every(7)),
        ("half of every 5th write: I/O error", Fault::of([Write], Errno::IO).every(5).partial()),
        ("every 2nd fsync: I/O error", Fault::of([Sync], Errno::IO).every(2)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_arrives_though_the_disk_fails_at_random_moments() {
    timeout(Duration::from_secs(85), disk_errors())
        .await
        .expect("the rounds and what follows take less than 85 s");
}

async fn disk_errors() {
    let mut random = Random::from_environment(SEED);
    let receiver = Receiver::builder().record_bodies(false).script(|_| Behaviour::status(204)).start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let faults = Faults::below(config.queue().parent().unwrap());
    let mut sidecar = Sidecar::start(faults.preloaded(Launch::new(binary())), &config).await;
    faults.check();

    let (kinds, first) = (kinds(), random.below(9));
    let (mut acknowledged, mut slowest, mut kills) = (HashSet::new(), Duration::ZERO, 0);
    let posts = Arc::new(Posts::default());
    for round in 0..ROUNDS {
        let (name, fault) = &kinds[(first + round) % kinds.len()];
        let (before, lasting) = (random.between(50, 250), random.between(50, 400));
        let kill = (first + round) % 3 == 0;
        let hits = faults.hits();
        posts.stop.store(false, Ordering::SeqCst);
        let mut posting = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let (posts, name) = (Arc::clone(&posts), format!("{round}-{connection}"));
            posting.spawn(post_until_it_stops(sidecar.ingest().to_owned(), posts, name));
        }
        sleep(before).await;
        faults.start(fault);
        sleep(lasting).await;
        // A slow disk may not have been asked for anything yet.
        eventually(SOON, &format!("it meets with {name}"), async || faults.hits() != hits).await;
        if kill {
            sidecar.kill().await;
            faults.stop();
            sidecar.restart().await;
            kills += 1;
        } else {
            if fault.is_lasting() {
                not_ready(&sidecar).await;
            }
            faults.stop();
            slowest = slowest.max(accepts_again(&sidecar, &posts, name).await);
        }
        ready(&sidecar).await;
        posts.stop.store(true, Ordering::SeqCst);
        for id in posting.join_all().await.into_iter().flatten() {
            assert!(acknowledged.insert(id), "two events with one id");
        }
    }
    let missing = missing(&receiver, &acknowledged).await;
    let (tally, hits) = (receiver.tally(), faults.hits());
    println!(
        "{ROUNDS} rounds, {kills} kills: {} acknowledged, {} received, {} duplicated, {} refused, {} missing; \
         {} writes, {} fsyncs, {} truncations failed; accepting again after {slowest:.1?} at the latest",
        acknowledged.len(),
        tally.unique,
        tally.duplicates,
        posts.refused.load(Ordering::Relaxed),
        missing.len(),
        hits.writes,
        hits.syncs,
        hits.truncations,
    );
    assert!(missing.is_empty(), "{} were acknowledged and lost, such as {}", missing.len(), missing[0]);
    assert!(acknowledged.len() > 1_000, "too few to mean anything: {}", acknowledged.len());
    assert!(hits.writes >= 12 && hits.syncs >= 6, "too few to mean anything: {hits:?}");
    assert!(posts.refused.load(Ordering::Relaxed) > 0, "nobody noticed");

    assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());
    let directory = config.path().display().to_string();
    let output = run(binary(), &["queue", "verify", "--config", &directory], "").await;
    assert_eq!(output.status.code(), Some(0), "{}{}", output.stdout, output.stderr);
}

#[tokio::test]
async fn it_stops_in_time_while_the_disk_fails_and_goes_on_after_that() {
    let receiver = Receiver::builder().record_bodies(false).script(|_| Behaviour::status(204)).start().await;
    let mut config = ConfigDirectory::new();
    config.top("shutdown_grace = \"1s\"");
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let faults = Faults::below(config.queue().parent().unwrap());
    let mut sidecar = Sidecar::start(faults.preloaded(Launch::new(binary())), &config).await;
    faults.check();
    let posts = Arc::new(Posts::default());
    let posting =
        tokio::spawn(post_until_it_stops(sidecar.ingest().to_owned(), Arc::clone(&posts), "a".to_owned()));
    eventually(SOON, "some are accepted", async || posts.accepted.load(Ordering::Relaxed) >= 20).await;
    faults.start(&Fault::of([Call::Write, Call::Sync, Call::Truncate], Errno::IO));
    not_ready(&sidecar).await;

    let asked = Instant::now();
    let status = sidecar.terminate(SOON).await;
    println!("stopped with {status} after {:.1?}", asked.elapsed());
    assert_eq!(status.code(), Some(0), "{:?}", sidecar.logs());
    let acknowledged = posting.await.unwrap().into_iter().collect();
    faults.stop();
    sidecar.restart().await;
    let missing = missing(&receiver, &acknowledged).await;
    assert!(missing.is_empty(), "{} were acknowledged and lost", missing.len());
}

/// What those who post have in common.
#[derive(Debug, Default)]
struct Posts {
    stop: AtomicBool,
    accepted: AtomicUsize,
    refused: AtomicUsize,
}

/// Posts at full speed until told to stop, or until the sidecar does not answer, and returns the ids of the events that
/// it acknowledged.
async fn post_until_it_stops(ingest: String, posts: Arc<Posts>, name: String) -> Vec<String> {
    let client = Client::new(&ingest);
    let mut acknowledged = Vec::new();
    while !posts.stop.load(Ordering::SeqCst) {
        let body = event(&format!("{name}-{}", acknowledged.len()));
        let Ok(response) = client.post(EVENTS, JSON, body).await else { break };
        if response.status == 202 {
            acknowledged.push(text(&response.json(), "/id"));
            posts.accepted.fetch_add(1, Ordering::Relaxed);
        } else {
            check_refusal(&response);
            posts.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
    acknowledged
}

fn check_refusal(response: &Response) {
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let code = text(&response.json(), "/code");
    assert!(["queue-unavailable", "queue-full"].contains(&&*code), "{}", response.text());
    let seconds = response.header("retry-after").and_then(|value| value.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0), "{:?}", response.headers);
}

/// `/readyz` says that the queue is what is wrong, and nothing else.
async fn not_ready(sidecar: &Sidecar) {
    let admin = Client::new(sidecar.admin());
    eventually(SOON, "it is told that the queue cannot be written to", async || {
        let response = admin.get("/readyz").await.unwrap();
        let answer = response.json();
        let failed = answer["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false);
        let failed: Vec<_> = failed.map(|check| check["name"].as_str().unwrap()).collect();
        assert_eq!(failed.is_empty(), response.status == 200, "{answer}");
        response.status == 503 && failed == ["queue"]
    })
    .await;
}

async fn ready(sidecar: &Sidecar) {
    let admin = Client::new(sidecar.admin());
    eventually(RECOVERY, "it is ready", async || admin.get("/readyz").await.unwrap().status == 200).await;
}

/// Waits until somebody's event is accepted, and returns how long that took.
async fn accepts_again(sidecar: &Sidecar, posts: &Posts, fault: &str) -> Duration {
    let (since, accepted) = (Instant::now(), posts.accepted.load(Ordering::Relaxed));
    // As many as were on their way when the disk had recovered.
    while posts.accepted.load(Ordering::Relaxed) <= accepted + CONNECTIONS {
        assert!(
            since.elapsed() < RECOVERY,
            "nothing is accepted {RECOVERY:?} after {fault}: {:#?}",
            sidecar.logs()
        );
        sleep(Duration::from_millis(5)).await;
    }
    since.elapsed()
}

async fn missing<'a>(receiver: &Receiver, acknowledged: &'a HashSet<String>) -> Vec<&'a String> {
    let started = Instant::now();
    let mut missing: Vec<_> = acknowledged.iter().collect();
    while !missing.is_empty() && started.elapsed() < Duration::from_secs(30) {
        missing.retain(|id| !receiver.has(id));
        sleep(Duration::from_millis(50)).await;
    }
    missing
}
