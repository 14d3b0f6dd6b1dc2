//! A stop in good order: nothing is lost, nothing is sent twice, and it takes no longer than it was given.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::{Behaviour, Receiver};
use aquarium_testkit::sidecar::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use support::{EVENTS, JSON, SOON, accept, event, start, text};

const CYCLES: u64 = 20;
const CONNECTIONS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stops_under_load_lose_nothing_and_repeat_nothing() {
    timeout(Duration::from_secs(115), stops())
        .await
        .expect("the cycles and what follows take less than 115 s");
}

async fn stops() {
    let receiver = Receiver::builder().record_bodies(false).script(|_| Behaviour::status(204)).start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let (mut sidecar, _) = start(&config).await;
    let random = RandomState::new();

    let (mut acknowledged, mut took) = (HashSet::new(), Vec::new());
    for cycle in 0..CYCLES {
        if !sidecar.running() {
            sidecar.restart().await;
        }
        let mut posting = JoinSet::new();
        for connection in 0..CONNECTIONS {
            posting.spawn(post_until_it_stops(sidecar.ingest().to_owned(), format!("{cycle}-{connection}")));
        }
        sleep(Duration::from_millis(50 + random.hash_one(cycle) % 351)).await;
        let asked = Instant::now();
        let status = sidecar.terminate(SOON).await;
        took.push(asked.elapsed());
        assert_eq!(status.code(), Some(0), "{:?}", sidecar.logs());
        for id in posting.join_all().await.into_iter().flatten() {
            assert!(acknowledged.insert(id), "two events with one id");
        }
    }
    sidecar.restart().await;
    let started = Instant::now();
    let mut missing: Vec<_> = acknowledged.iter().collect();
    while !missing.is_empty() && started.elapsed() < Duration::from_secs(30) {
        missing.retain(|id| !receiver.has(id));
        sleep(Duration::from_millis(50)).await;
    }
    took.sort();
    let tally = receiver.tally();
    println!(
        "{CYCLES} stops: {} acknowledged, {} received, {} duplicated, {} missing; time to exit {:.0?} median, {:.0?} worst",
        acknowledged.len(),
        tally.unique,
        tally.duplicates,
        missing.len(),
        took[took.len() / 2],
        took[took.len() - 1],
    );
    assert!(missing.is_empty(), "{} were acknowledged and lost, such as {}", missing.len(), missing[0]);
    assert_eq!(tally.duplicates, 0, "a stop in good order repeats nothing");
    assert_eq!(tally.unique, acknowledged.len(), "what was accepted was acknowledged");
    assert!(acknowledged.len() > 1_000, "too few to mean anything: {}", acknowledged.len());
}

/// Posts at full speed until the sidecar does not answer, and returns the ids of the events that it acknowledged.
async fn post_until_it_stops(ingest: String, name: String) -> Vec<String> {
    let client = Client::new(&ingest);
    let mut acknowledged = Vec::new();
    loop {
        let body = event(&format!("{name}-{}", acknowledged.len()));
        match client.post(EVENTS, JSON, body).await {
            Ok(response) if response.status == 202 => acknowledged.push(text(&response.json(), "/id")),
            Ok(response) => panic!("{} {}", response.status, response.text()),
            Err(_) => return acknowledged,
        }
    }
}

/// A sidecar with an attempt under way that takes longer than anything here.
async fn hanging(grace: &str) -> (Receiver, ConfigDirectory) {
    let receiver = Receiver::builder().script(|_| Behaviour::Hang).start().await;
    let mut config = ConfigDirectory::new();
    config.top(&format!("shutdown_grace = \"{grace}\""));
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "timeout = \"60s\"");
    (receiver, config)
}

#[tokio::test]
async fn an_attempt_that_hangs_is_cut_off_at_the_end_of_the_grace_period() {
    let (receiver, config) = hanging("500ms").await;
    let (mut sidecar, client) = start(&config).await;
    let id = text(&accept(&client, EVENTS, event("ds_1")).await, "/id");
    receiver.wait_for(1, SOON).await;
    assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());
    sidecar.wait_for_log("cut off", SOON).await;
    sidecar.restart().await;
    let received = receiver.wait_for(2, SOON).await;
    assert!(received.iter().all(|request| request.header("webhook-id") == Some(&id)));
    assert_eq!(received[1].header("aquarium-attempt"), Some("1"), "what was cut off was no attempt");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once_and_loses_nothing() {
    let (receiver, config) = hanging("30s").await;
    let (mut sidecar, client) = start(&config).await;
    accept(&client, EVENTS, event("ds_1")).await;
    receiver.wait_for(1, SOON).await;
    sidecar.signal(Signal::TERM);
    sidecar.wait_for_log("stopping", SOON).await;
    assert!(sidecar.running());
    eventually(SOON, "nothing is accepted any more", async || {
        client.post(EVENTS, JSON, event("ds_2")).await.is_err()
    })
    .await;
    assert_eq!(sidecar.terminate(SOON).await.code(), Some(1));
    sidecar.restart().await;
    receiver.wait_for(2, SOON).await;
}
