//! A 202 means that the event is on disk: it arrives, whatever happens to the process.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::{Behaviour, Receiver};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use support::{BATCH, EVENTS, JSON, NDJSON, SOON, accept, event, free_port, start, text};

/// A configuration with one webhook, which is tried every 200 ms for long enough.
fn config(url: &str) -> ConfigDirectory {
    let mut config = ConfigDirectory::new();
    let retry = r#""200ms", "#.repeat(60);
    config.section("delivery", &format!("jitter = 0.0\nbreaker_failures = 1000000\nretry = [{retry}]"));
    config.webhook("acme", "urban", "ops", url, &["*"], "");
    config
}

#[tokio::test]
async fn what_was_queued_goes_on_after_a_restart() {
    for killed in [false, true] {
        let port = free_port();
        let config = config(&format!("http://127.0.0.1:{port}/"));
        let (mut sidecar, client) = start(&config).await;

        let mut ids = Vec::new();
        let first = accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_0")).await;
        assert_eq!(first["deliveries"][0]["outcome"]["state"], "retrying", "{first}");
        ids.push(text(&first, "/id"));
        for number in 1..20 {
            ids.push(text(&accept(&client, EVENTS, event(&format!("ds_{number}"))).await, "/id"));
        }
        if killed {
            sidecar.kill().await;
        } else {
            assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());
        }
        sidecar.restart().await;
        let receiver = Receiver::builder().port(port).start().await;

        let received = receiver.wait_for(ids.len(), SOON).await;
        for (number, id) in ids.iter().enumerate() {
            let found = received.iter().find(|r| r.header("webhook-id") == Some(id));
            assert_eq!(found.unwrap().body, event(&format!("ds_{number}")).as_bytes());
        }
        let first = received.iter().find(|r| r.header("webhook-id") == Some(&ids[0])).unwrap();
        let attempt: u32 = first.header("aquarium-attempt").unwrap().parse().unwrap();
        assert!(attempt > 1, "attempts before the restart count");
    }
}

#[tokio::test]
async fn what_was_delivered_does_not_come_again_after_a_restart() {
    let receiver = Receiver::start().await;
    let config = config(&receiver.url("/"));
    let (mut sidecar, client) = start(&config).await;
    let first = accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_1")).await;
    assert_eq!(first["deliveries"][0]["outcome"]["state"], "delivered", "{first}");

    assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());
    sidecar.restart().await;
    // What is left of the first run is due before this.
    let client = Client::new(sidecar.ingest());
    accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_2")).await;
    assert_eq!(receiver.times(&text(&first, "/id")), 1);
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn an_idempotency_key_counts_once_also_across_a_restart() {
    let receiver = Receiver::start().await;
    let config = config(&receiver.url("/"));
    let (mut sidecar, client) = start(&config).await;
    let headers = [JSON[0], ("Idempotency-Key", "upload-17")];

    let first = client.post(EVENTS, &headers, event("ds_1")).await.unwrap();
    assert_eq!(first.status, 202, "{}", first.text());
    assert_eq!(first.header("idempotency-replayed"), None);
    let again = client.post(EVENTS, &headers, event("ds_1")).await.unwrap();
    assert_eq!(again.status, 202, "{}", again.text());
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json(), first.json());

    sidecar.kill().await;
    sidecar.restart().await;
    let client = Client::new(sidecar.ingest());
    let again = client.post(EVENTS, &headers, event("ds_1")).await.unwrap();
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.json(), first.json());

    let other = client.post(EVENTS, &headers, event("ds_2")).await.unwrap();
    assert_eq!(other.status, 422, "{}", other.text());
    assert_eq!(other.header("content-type"), Some("application/problem+json"));
    assert_eq!(other.json()["status"], 422);

    // The kill may have come between the delivery and its record, but nothing else can make it come twice.
    let last = accept(&client, &format!("{EVENTS}?wait=10s"), event("ds_3")).await;
    eventually(SOON, "the first and the last event arrive", async || {
        receiver.has(&text(&first.json(), "/id")) && receiver.has(&text(&last, "/id"))
    })
    .await;
    assert_eq!(receiver.tally().unique, 2);
    assert!(receiver.tally().requests <= 3, "{:?}", receiver.tally());
}

#[tokio::test]
async fn a_batch_is_accepted_all_or_none() {
    let receiver = Receiver::start().await;
    let config = config(&receiver.url("/"));
    let (_sidecar, client) = start(&config).await;

    let bad = format!("{}\n{}\n{{\"event\":\"nonsense\"}}\n", event("ds_1"), event("ds_2"));
    let refused = client.post(BATCH, NDJSON, bad).await.unwrap();
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert_eq!(refused.json()["line"], 3);

    let good = format!("{}\n\n{}\r\n", event("ds_3"), event("ds_4"));
    let accepted = client.post(&format!("{BATCH}?wait=10s"), NDJSON, good).await.unwrap();
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let events = accepted.json()["events"].as_array().unwrap().clone();
    assert_eq!(events.len(), 2);
    let received = receiver.wait_for(2, SOON).await;
    for (answer, id) in events.iter().zip(["ds_3", "ds_4"]) {
        let found = received.iter().find(|r| r.header("webhook-id") == answer["id"].as_str());
        assert_eq!(found.unwrap().body, event(id).as_bytes());
    }
    assert_eq!(receiver.count(), 2);
}

/// An answer that is given right before its commit, instead of after it, is lost in about one of 30 rounds.
const ROUNDS: u64 = 100;
const CONNECTIONS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_event_arrives_after_kills_at_random_moments() {
    timeout(Duration::from_secs(115), crashes())
        .await
        .expect("the rounds and what follows take less than 115 s");
}

async fn crashes() {
    let torn = Arc::new(AtomicUsize::new(0));
    let torn_seen = Arc::clone(&torn);
    let whole = move |body: &[u8]| body.starts_with(b"{\"event\"") && body.ends_with(b"\"}}");
    let receiver = Receiver::builder()
        .record_bodies(false)
        .script(move |request| {
            if !whole(&request.body) {
                torn_seen.fetch_add(1, Ordering::Relaxed);
            }
            Behaviour::status(204)
        })
        .start()
        .await;
    let config = config(&receiver.url("/"));
    let (mut sidecar, _) = start(&config).await;
    let random = RandomState::new();

    let mut acknowledged = HashSet::new();
    for round in 0..ROUNDS {
        if !sidecar.running() {
            sidecar.restart().await;
        }
        let mut posting = JoinSet::new();
        for connection in 0..CONNECTIONS {
            posting.spawn(post_until_it_dies(sidecar.ingest().to_owned(), format!("{round}-{connection}")));
        }
        sleep(Duration::from_millis(20 + random.hash_one(round) % 231)).await;
        sidecar.kill().await;
        for id in posting.join_all().await.into_iter().flatten() {
            assert!(acknowledged.insert(id), "two events with one id");
        }
    }
    sidecar.restart().await;

    let started = Instant::now();
    let mut missing: Vec<_> = acknowledged.iter().collect();
    while !missing.is_empty() && started.elapsed() < Duration::from_secs(60) {
        missing.retain(|id| !receiver.has(id));
        sleep(Duration::from_millis(50)).await;
    }
    let tally = receiver.tally();
    println!(
        "{ROUNDS} kills: {} acknowledged, {} received, {} duplicated, {} missing",
        acknowledged.len(),
        tally.unique,
        tally.duplicates,
        missing.len()
    );
    assert!(missing.is_empty(), "{} were acknowledged and lost, such as {}", missing.len(), missing[0]);
    assert!(acknowledged.len() > 1_000, "too few to mean anything: {}", acknowledged.len());
    assert_eq!(torn.load(Ordering::Relaxed), 0, "bodies arrived that nobody sent");
}

/// Posts at full speed until the sidecar does not answer, and returns the ids of the events that it acknowledged.
async fn post_until_it_dies(ingest: String, name: String) -> Vec<String> {
    let client = Client::new(&ingest);
    let mut acknowledged = Vec::new();
    while let Ok(response) = client.post(EVENTS, JSON, event(&format!("{name}-{}", acknowledged.len()))).await
    {
        assert_eq!(response.status, 202, "{}", response.text());
        acknowledged.push(text(&response.json(), "/id"));
    }
    acknowledged
}
