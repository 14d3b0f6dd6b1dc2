//! One bad endpoint does not slow another: a thousand webhooks, of which one hangs until the deadline, one drips its body,
//! and one resets its connections.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::receiver::{Behaviour, Received, Receiver};
use aquarium_testkit::sidecar::Sidecar;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use support::{BATCH, EVENTS, JSON, NDJSON, SOON, start};

const WEBHOOKS: usize = 1_000;
/// The last three webhooks.
const BAD: [usize; 3] = [WEBHOOKS - 3, WEBHOOKS - 2, WEBHOOKS - 1];
const HEALTHY: usize = WEBHOOKS - BAD.len();
/// How often each webhook gets an event in each run.
const ROUNDS: usize = 3;
/// Events each second. What a slow machine cannot keep up with is measured as latency.
const RATE: u64 = 500;
const CONNECTIONS: usize = 4;
/// The deadline of an attempt: so the one that hangs holds what it holds for most of a run.
const TIMEOUT: &str =
    "timeout = \"5s\"\nretry = [\"100ms\", \"100ms\", \"100ms\"]\nbreaker_failures = 1000000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_bad_webhooks_of_a_thousand_harm_only_themselves() {
    timeout(Duration::from_secs(120), isolation()).await.expect("it takes less than 120 s");
}

async fn isolation() {
    let receiver = Receiver::builder().script(behave).start().await;
    let mut toml = String::new();
    for number in 0..WEBHOOKS {
        let url = receiver.url(&format!("/{number}"));
        toml += &format!("[projects.p{number}.webhooks.ops]\nurl = \"{url}\"\nevents = [\"*\"]\n");
    }
    let mut config = ConfigDirectory::new();
    config.section("delivery", TIMEOUT);
    config.organization("acme", &toml);
    let (sidecar, client) = start(&config).await;
    // Connections are made, and files are warm.
    post(&client, (0..HEALTHY).map(|number| event(number, "warm", 0))).await;
    receiver.wait_for(HEALTHY, SOON).await;

    // In turn, so that what else the machine does meets both; the better of two.
    let mut runs = Vec::new();
    for (name, bad) in [("a", false), ("b", true), ("c", false), ("d", true)] {
        runs.push(run(&sidecar, &receiver, name, bad).await);
    }
    let better =
        |one: usize, other: usize| if runs[one].p99 < runs[other].p99 { &runs[one] } else { &runs[other] };
    let (without, with) = (better(0, 2), better(1, 3));
    println!("{HEALTHY} healthy webhooks    without the bad three    with them");
    println!("deliveries/s          {:>20.0}    {:>9.0}", without.rate, with.rate);
    println!("p50                   {:>20.1?}    {:>9.1?}", without.p50, with.p50);
    println!("p99                   {:>20.1?}    {:>9.1?}", without.p99, with.p99);
    println!("p99 with / without: {:.2}", with.p99.as_secs_f64() / without.p99.as_secs_f64());
    println!("attempts at the bad three meanwhile: {}", with.bad);
    assert!(with.bad >= BAD.len() * 4, "the bad ones were not sent to: {}", with.bad);
    let bound = without.p99 * 5 + Duration::from_secs(1);
    assert!(
        with.p99 < bound,
        "p99 of the healthy ones is {:?}, {:?} without the others",
        with.p99,
        without.p99
    );
    assert!(with.rate > without.rate / 3.0, "{:.0}/s, {:.0}/s without the others", with.rate, without.rate);
}

fn behave(request: &Received) -> Behaviour {
    match request.path[1..].parse::<usize>() {
        Ok(number) if number == BAD[0] => Behaviour::Hang,
        Ok(number) if number == BAD[1] => Behaviour::DripBody { interval: Duration::from_millis(200) },
        Ok(number) if number == BAD[2] => Behaviour::Reset,
        _ => Behaviour::status(204),
    }
}

/// The event of this number for a webhook of this number.
fn event(webhook: usize, run: &str, number: usize) -> String {
    let id = format!("{run}-{number}");
    format!(r#"{{"event":"dataset-complete","project":"p{webhook}","dataset":{{"id":"{id}"}}}}"#)
}

/// Posts all of them at once.
async fn post(client: &Client, events: impl Iterator<Item = String>) {
    let batch = events.map(|event| event + "\n").collect::<String>();
    let response = client.post(BATCH, NDJSON, batch).await.unwrap();
    assert_eq!(response.status, 202, "{}", response.text());
}

struct Run {
    /// Of the healthy webhooks: deliveries each second, and the time from posting an event to its arrival.
    rate: f64,
    p50: Duration,
    p99: Duration,
    /// Requests that the bad ones got.
    bad: usize,
}

async fn run(sidecar: &Sidecar, receiver: &Receiver, name: &'static str, bad: bool) -> Run {
    let before = receiver.count();
    if bad {
        // A backlog for each of them, more than it may have under way.
        let backlog = (0..40).flat_map(|number| BAD.map(|webhook| event(webhook, "bad", number)));
        post(&Client::new(sidecar.ingest()), backlog).await;
    }
    let started = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut posting = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (client, next) = (Client::new(sidecar.ingest()), Arc::clone(&next));
        posting.spawn(async move {
            let mut posted = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= HEALTHY * ROUNDS {
                    return posted;
                }
                let at = started + Duration::from_millis(number as u64 * 1_000 / RATE);
                sleep_until(at).await;
                let body = event(number % HEALTHY, name, number);
                let response = client.post(EVENTS, JSON, body).await.unwrap();
                assert_eq!(response.status, 202, "{}", response.text());
                posted.push((format!("{name}-{number}"), at));
            }
        });
    }
    let posted: HashMap<String, Instant> = posting.join_all().await.into_iter().flatten().collect();
    let arrived = arrivals(receiver, before, &posted).await;
    let mut latencies: Vec<_> = arrived.values().map(|(at, posted)| at.duration_since(*posted)).collect();
    latencies.sort();
    let last = arrived.values().map(|(at, _)| *at).max().unwrap();
    let bad = receiver.received()[before..].iter().filter(|request| is_bad(request)).count();
    Run {
        rate: arrived.len() as f64 / (last - started).as_secs_f64(),
        p50: latencies[latencies.len() / 2],
        p99: latencies[latencies.len() * 99 / 100],
        bad,
    }
}

fn is_bad(request: &Received) -> bool {
    BAD.iter().any(|bad| request.path == format!("/{bad}"))
}

/// When each event arrived and was posted, once all of them have arrived.
async fn arrivals(
    receiver: &Receiver,
    before: usize,
    posted: &HashMap<String, Instant>,
) -> HashMap<String, (Instant, Instant)> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut arrived = HashMap::new();
        for request in &receiver.received()[before..] {
            let id = support::text(&request.json(), "/dataset/id");
            if let Some(at) = posted.get(&id) {
                arrived.entry(id).or_insert((request.at, *at));
            }
        }
        if arrived.len() == posted.len() {
            return arrived;
        }
        assert!(Instant::now() < deadline, "{} of {} arrived", arrived.len(), posted.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
