//! Memory does not depend on the backlog, and neither does the speed at which events are accepted.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::Receiver;
use aquarium_testkit::sidecar::Sidecar;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use support::{BATCH, EVENTS, NDJSON, accept, event, free_port, start};

const EVENTS_QUEUED: usize = 200_000;
const EVENTS_PER_BATCH: usize = 500;
const CONNECTIONS: usize = 4;
const MEBIBYTE: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_200_000_events_takes_no_memory_and_arrives() {
    timeout(Duration::from_secs(240), backlog()).await.expect("it takes less than 240 s");
}

async fn backlog() {
    let port = free_port();
    let mut config = ConfigDirectory::new();
    let retry = r#""1s", "#.repeat(20);
    config.section("delivery", &format!("jitter = 0.0\nretry = [{retry}]"));
    config.webhook("acme", "urban", "ops", &format!("http://127.0.0.1:{port}/"), &["*"], "");
    let (sidecar, _) = start(&config).await;
    let idle = sidecar.resident_bytes();

    let (halves, peak) = watched(&sidecar, async {
        [fill(sidecar.ingest(), EVENTS_QUEUED / 2).await, fill(sidecar.ingest(), EVENTS_QUEUED / 2).await]
    })
    .await;
    let rates = halves.map(|time| EVENTS_QUEUED as f64 / 2.0 / time.as_secs_f64());
    println!("accepted {EVENTS_QUEUED} events of 1 KB: {:.0}/s, then {:.0}/s", rates[0], rates[1]);
    report(idle, peak, "while they were queued");
    assert!(rates[1] * 3.0 > rates[0], "accepting has become slower: {rates:?}");

    let up = Instant::now();
    let receiver = Receiver::builder().port(port).record_bodies(false).start().await;
    let first = async { receiver.wait_for_count(1, Duration::from_secs(120)).await };
    let arriving = async {
        first.await;
        let waited = up.elapsed();
        eventually(Duration::from_secs(200), "every event arrives", async || {
            receiver.tally().unique >= EVENTS_QUEUED
        })
        .await;
        (waited, up.elapsed() - waited)
    };
    let ((waited, took), peak) = watched(&sidecar, arriving).await;
    let tally = receiver.tally();
    println!(
        "delivered {} events: the first after {waited:.1?}, all {took:.1?} later ({:.0}/s), {} duplicates",
        tally.unique,
        tally.unique as f64 / took.as_secs_f64(),
        tally.duplicates
    );
    report(idle, peak, "while they were delivered");
    assert_eq!(tally.unique, EVENTS_QUEUED);
}

/// Queues this many events over several connections, and returns the time that it took.
async fn fill(ingest: &str, count: usize) -> Duration {
    let line = event(&"x".repeat(1024 - event("").len()));
    let batch = Bytes::from(format!("{line}\n").repeat(EVENTS_PER_BATCH));
    let left = Arc::new(AtomicUsize::new(count / EVENTS_PER_BATCH));
    let started = Instant::now();
    let mut posting = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (client, batch, left) = (Client::new(ingest), batch.clone(), Arc::clone(&left));
        posting.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                let response = client.post(BATCH, NDJSON, batch.clone()).await.unwrap();
                assert_eq!(response.status, 202, "{}", response.text());
            }
        });
    }
    posting.join_all().await;
    started.elapsed()
}

/// Does something, and returns the most memory that the sidecar had in use meanwhile.
async fn watched<T>(sidecar: &Sidecar, work: impl Future<Output = T>) -> (T, u64) {
    let mut work = std::pin::pin!(work);
    let mut peak = 0;
    loop {
        peak = peak.max(sidecar.resident_bytes());
        if let Ok(done) = timeout(Duration::from_millis(20), work.as_mut()).await {
            return (done, peak.max(sidecar.resident_bytes()));
        }
    }
}

fn report(idle: u64, peak: u64, when: &str) {
    let above = peak.saturating_sub(idle);
    println!("memory {when}: {:.1} MiB, {:.1} MiB above idle", mebibytes(peak), mebibytes(above));
    assert!(above < 64 * MEBIBYTE, "{:.1} MiB above idle {when}", mebibytes(above));
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / MEBIBYTE as f64
}

#[tokio::test]
async fn an_idle_sidecar_does_nothing() {
    const SECONDS: u64 = 2;
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let (sidecar, client) = start(&config).await;
    let after_start = sidecar.resident_bytes();
    accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;

    let before = sidecar.cpu_time();
    sleep(Duration::from_secs(SECONDS)).await;
    let used = sidecar.cpu_time() - before;
    println!(
        "idle: {used:?} of CPU in {SECONDS} s; {:.1} MiB resident after the start, {:.1} MiB after one event",
        mebibytes(after_start),
        mebibytes(sidecar.resident_bytes())
    );
    assert!(used < Duration::from_millis(50), "{used:?} of CPU in {SECONDS} s");
}
