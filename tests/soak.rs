//! At full speed for a while, with an endpoint that fails and a configuration that changes: memory, open files and disk
//! stay what they were.
//!
//! `AQUARIUM_SOAK_SECONDS=600` makes it longer.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::{Behaviour, Receiver};
use aquarium_testkit::sidecar::Sidecar;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use support::{EVENTS, JSON, SOON, event, start};

const SECONDS: &str = "AQUARIUM_SOAK_SECONDS";
const CONNECTIONS: usize = 4;
/// One event of so many goes to the endpoint that fails, too.
const FAILING: usize = 200;
/// How often it is measured.
const SAMPLE: Duration = Duration::from_millis(100);
/// A reading is the most of what was measured for so long: the log is written back, and connections come and go.
const READING: Duration = Duration::from_secs(5);
const MEBIBYTE: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_files_and_disk_stay_what_they_were_at_full_speed() {
    let seconds = std::env::var(SECONDS).map_or(25, |seconds| seconds.parse().unwrap());
    let length = Duration::from_secs(seconds);
    assert!(length >= READING * 4, "{SECONDS}: two readings take {READING:?} each");
    timeout(length + Duration::from_secs(60), soak(length)).await.expect("it ends in time");
}

async fn soak(length: Duration) {
    let receiver = Receiver::builder().record_bodies(false).script(|_| Behaviour::status(204)).start().await;
    let failing = Receiver::builder().record_bodies(false).script(|_| Behaviour::status(500)).start().await;
    let mut config = ConfigDirectory::new();
    let queue = config.queue().display().to_string();
    config.section("queue", &format!("path = \"{queue}\"\nretention = \"2s\""));
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let gives_up = "retry = [\"100ms\", \"1s\"]\nbreaker_failures = 1000000";
    config.webhook("acme", "urban", "bad", &failing.url("/"), &["dataset-failed"], gives_up);
    let (mut sidecar, _) = start(&config).await;

    let posts = Arc::new(Posts::default());
    let mut posting = JoinSet::new();
    for _ in 0..CONNECTIONS {
        posting.spawn(post(sidecar.ingest().to_owned(), Arc::clone(&posts)));
    }
    let started = Instant::now();
    let (mut first, mut last, mut reloads) = (Reading::default(), Reading::default(), 0_u64);
    let mut samples = interval(SAMPLE);
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while started.elapsed() < length {
        samples.tick().await;
        let elapsed = started.elapsed();
        let now = Reading::of(&sidecar, &config);
        if (length / 3 - READING / 2..length / 3 + READING / 2).contains(&elapsed) {
            first = first.most(now);
        } else if elapsed > length - READING {
            last = last.most(now);
        }
        if elapsed.as_secs() > reloads {
            reloads += 1;
            let header = format!("headers = {{ X-Edition = \"{reloads}\" }}\n{gives_up}");
            config.webhook("acme", "urban", "bad", &failing.url("/"), &["dataset-failed"], &header);
            config.new_secret("acme");
        }
    }
    posts.stop.store(true, Ordering::SeqCst);
    posting.join_all().await;
    let accepted = posts.accepted.load(Ordering::SeqCst);
    eventually(SOON, "every event arrives", async || receiver.tally().unique >= accepted).await;
    println!(
        "{length:?} at full speed: {accepted} events delivered ({:.0}/s), {} attempts failed, {} changes; \
         first {first}, last {last}",
        accepted as f64 / length.as_secs_f64(),
        failing.count(),
        generation(&sidecar).await,
    );
    assert_eq!(receiver.tally().unique, accepted);
    assert!(accepted > 1_000 && failing.count() > 10, "too few to mean anything");
    assert!(generation(&sidecar).await > reloads / 2, "the configuration was not followed");
    assert!(last.memory <= first.memory * 5 / 4 + 8 * MEBIBYTE, "memory grows: {first}, then {last}");
    assert!(last.files <= first.files + 8, "open files grow: {first}, then {last}");
    assert!(last.disk <= first.disk * 3 / 2 + 16 * MEBIBYTE, "the queue's file grows: {first}, then {last}");
    assert_eq!(sidecar.terminate(SOON).await.code(), Some(0), "{:?}", sidecar.logs());
}

/// What those who post have in common.
#[derive(Debug, Default)]
struct Posts {
    stop: AtomicBool,
    accepted: AtomicUsize,
}

/// Posts at full speed until told to stop.
async fn post(ingest: String, posts: Arc<Posts>) {
    let client = Client::new(&ingest);
    let complete = event(&"x".repeat(1024 - event("").len()));
    let failed = complete.replace("dataset-complete", "dataset-failed");
    let mut number = 0;
    while !posts.stop.load(Ordering::SeqCst) {
        number += 1;
        let body = if number % FAILING == 0 { &failed } else { &complete };
        let response = client.post(EVENTS, JSON, body.clone()).await.unwrap();
        assert_eq!(response.status, 202, "{}", response.text());
        posts.accepted.fetch_add(1, Ordering::SeqCst);
    }
}

/// How many configurations there were.
async fn generation(sidecar: &Sidecar) -> u64 {
    let answer = Client::new(sidecar.admin()).get("/v1/config").await.unwrap().json();
    answer["generation"].as_u64().unwrap()
}

/// What a sidecar takes.
#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    memory: u64,
    files: usize,
    disk: u64,
}

impl Reading {
    fn of(sidecar: &Sidecar, config: &ConfigDirectory) -> Reading {
        let size = |suffix| {
            let path = format!("{}{suffix}", config.queue().display());
            fs::metadata(path).map_or(0, |metadata| metadata.len())
        };
        let disk = size("") + size("-wal");
        Reading { memory: sidecar.resident_bytes(), files: sidecar.open_files(), disk }
    }

    fn most(self, other: Reading) -> Reading {
        Reading {
            memory: self.memory.max(other.memory),
            files: self.files.max(other.files),
            disk: self.disk.max(other.disk),
        }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / MEBIBYTE as f64;
        let (memory, disk) = (mebibytes(self.memory), mebibytes(self.disk));
        write!(f, "{memory:.1} MiB of memory, {} open files, {disk:.1} MiB on disk", self.files)
    }
}
