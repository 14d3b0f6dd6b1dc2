//! Whole lanes in virtual time: hours pass in moments, and every attempt is counted.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aquarium_config::{Config, Memory as ConfigFiles, load};
use aquarium_delivery::{
    DeliveryId, EventId, Failure, FailureKind, Outcome, RetryAfter, Timestamp, WebhookName,
};
use aquarium_dispatch::{Chance, Clock, Dispatcher, Limits, Sender};
use aquarium_egress::{Endpoint, Message, Sent};
use aquarium_queue::memory::{self, Memory};
use aquarium_queue::{NewEvent, Queue, Report, Submission, Target, Watcher};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const EPOCH: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

type Script = Arc<dyn Fn(&str, Duration) -> (Duration, Outcome) + Send + Sync>;

/// Answers as a script says, given the secret and the time since the start; and keeps a record.
#[derive(Clone)]
struct Scripted {
    clock: Clock,
    script: Script,
    attempts: Arc<Mutex<Vec<(DeliveryId, Duration, String)>>>,
    in_flight: Arc<Mutex<(usize, usize)>>,
}

impl Sender for Scripted {
    async fn send(&self, _endpoint: &Endpoint, message: Message) -> Sent {
        let secret = message.secret.map(|secret| secret.to_str().unwrap().to_owned()).unwrap_or_default();
        let at = self.clock.now().since(EPOCH);
        self.attempts.lock().unwrap().push((message.delivery, at, secret.clone()));
        {
            let mut in_flight = self.in_flight.lock().unwrap();
            in_flight.0 += 1;
            in_flight.1 = in_flight.1.max(in_flight.0);
        }
        let (duration, outcome) = (self.script)(&secret, at);
        sleep(duration).await;
        self.in_flight.lock().unwrap().0 -= 1;
        Sent { outcome, duration, excerpt: Bytes::new() }
    }
}

fn ok() -> Outcome {
    Outcome::Answered { status: 204, retry_after: None }
}

fn refused() -> Outcome {
    Outcome::Failed(Failure { kind: FailureKind::Connect, detail: "connection refused".into() })
}

fn config(webhook: &str, secret: &str) -> Arc<Config> {
    let organization = format!(
        "version = 1\nsecret = {{ env = \"SECRET\" }}\n\
         [projects.urban.webhooks.ops]\nurl = \"https://ops.example/a\"\nevents = [\"*\"]\n{webhook}\n"
    );
    let files = ConfigFiles::new()
        .file("c/aquarium.toml", "version = 1\n")
        .file("c/organizations/acme.toml", organization)
        .variable("SECRET", secret);
    Arc::new(load("c".as_ref(), &files).unwrap().config)
}

struct World {
    queue: Memory,
    sender: Scripted,
    clock: Clock,
    config: watch::Sender<Arc<Config>>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    accepted: u64,
}

const SECRET: &str = "first-secret-0123456789";

impl World {
    fn start(
        webhook: &str,
        limits: Limits,
        script: impl Fn(&str, Duration) -> (Duration, Outcome) + Send + Sync + 'static,
    ) -> Self {
        let (queue, commits) = memory::open(usize::MAX);
        let clock = Clock::starting_at(EPOCH);
        let sender = Scripted {
            clock: clock.clone(),
            script: Arc::new(script),
            attempts: Arc::default(),
            in_flight: Arc::default(),
        };
        let (config, watched) = watch::channel(config(webhook, SECRET));
        let dispatcher = Dispatcher::new(
            queue.clone(),
            commits,
            sender.clone(),
            watched,
            clock.clone(),
            Chance::seeded(7),
            limits,
        );
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let running = tokio::spawn(async move { dispatcher.run(token).await.unwrap() });
        Self { queue, sender, clock, config, shutdown, running, accepted: 0 }
    }

    async fn accept(&mut self, number: u64, watcher: Option<Watcher>) {
        let webhook: WebhookName = "acme/urban/ops".parse().unwrap();
        let events = (0..number).map(|_| {
            self.accepted += 1;
            let mut random = [0; 10];
            random[2..].copy_from_slice(&self.accepted.to_be_bytes());
            NewEvent {
                id: EventId::new(EPOCH, random),
                project: "urban".into(),
                kind: "test".into(),
                accepted_at: self.clock.now(),
                body: Bytes::from_static(b"{}"),
                targets: vec![Target {
                    delivery: DeliveryId::new(EPOCH, random),
                    webhook: webhook.clone(),
                    skipped: false,
                }],
                watcher: watcher.clone(),
            }
        });
        let submission =
            Submission { organization: "acme".into(), events: events.collect(), idempotency: None };
        self.queue.accept(submission).await.unwrap();
    }

    async fn pending(&self) -> bool {
        !self.queue.backlog().await.unwrap().waiting.is_empty()
    }

    /// Lets virtual time pass until nothing is pending, and tells how much it was. At most a week.
    async fn settle(&self) -> Duration {
        let started = self.clock.now();
        while self.pending().await {
            assert!(self.clock.now().since(started) < 168 * HOUR, "something is still pending after a week");
            sleep(SECOND).await;
        }
        self.clock.now().since(started)
    }

    fn attempts(&self) -> Vec<(DeliveryId, Duration, String)> {
        self.sender.attempts.lock().unwrap().clone()
    }

    fn attempts_of_each(&self) -> HashMap<DeliveryId, usize> {
        let mut attempts = HashMap::new();
        for (delivery, ..) in self.attempts() {
            *attempts.entry(delivery).or_default() += 1;
        }
        attempts
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_six_hours_costs_few_attempts_and_everything_arrives_soon_after() {
    let outage = 6 * HOUR;
    let script = move |_: &str, at| {
        let outcome = if at < outage { refused() } else { ok() };
        (Duration::from_millis(20), outcome)
    };
    let mut world = World::start("", Limits::default(), script);
    for _ in 0..20 {
        world.accept(500, None).await;
        sleep(SECOND).await;
    }
    sleep(outage - world.clock.now().since(EPOCH)).await;
    let during = world.attempts().len();
    let took = world.settle().await;
    let after = world.attempts().len() - during;
    println!(
        "10,000 deliveries, 6 h of outage: {during} attempts during it, {after} after it, all delivered {took:?} later"
    );
    assert!(during < 150, "{during} attempts were spent on a dead endpoint");
    assert_eq!(after, 10_000);
    assert!(took < Duration::from_secs(420), "it took {took:?} after the recovery");
}

#[tokio::test(start_paused = true)]
async fn a_failing_delivery_is_tried_by_the_schedule_and_then_exhausted() {
    let mut world = World::start("jitter = 0.0\nbreaker_failures = 100", Limits::default(), |_, _| {
        (SECOND / 100, refused())
    });
    world.accept(1, None).await;
    world.settle().await;
    let attempts = world.attempts();
    let waits: Vec<_> = attempts.windows(2).map(|pair| (pair[1].1 - pair[0].1).as_secs()).collect();
    assert_eq!(waits, [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000]);
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_a_webhook_and_of_the_process_hold() {
    for (webhook, process, expected) in [(4, 512, 4), (64, 8, 8)] {
        let limits = Limits { in_flight: process, ..Limits::default() };
        let mut world = World::start(&format!("concurrency = {webhook}"), limits, |_, _| (SECOND, ok()));
        world.accept(100, None).await;
        world.settle().await;
        assert_eq!(world.sender.in_flight.lock().unwrap().1, expected);
        assert!(world.attempts_of_each().values().all(|attempts| *attempts == 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_without_room_in_memory_is_read_again_and_sent() {
    let limits = Limits { body_bytes: 1_024, lane_bytes: 0, ..Limits::default() };
    let mut world = World::start("", limits, |_, _| (SECOND, ok()));
    world.accept(1_000, None).await;
    world.settle().await;
    assert_eq!(world.attempts_of_each().len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_hears_of_the_first_attempt_also_when_it_waited_in_the_queue() {
    let mut world = World::start("concurrency = 1", Limits::default(), |_, _| (SECOND, refused()));
    let (watcher, mut reports) = mpsc::channel::<Report>(1);
    world.accept(400, None).await;
    world.accept(1, Some(watcher)).await;
    world.config.send(config("concurrency = 1\nbreaker_failures = 1000000", SECRET)).unwrap();
    let report = tokio::time::timeout(HOUR, reports.recv()).await.unwrap().unwrap();
    assert_eq!(report.outcome, refused());
    assert!(reports.recv().await.is_none(), "one report, then no more");
}

#[tokio::test(start_paused = true)]
async fn a_new_secret_is_used_by_the_very_next_attempt_of_what_was_queued_before() {
    let script = |secret: &str, _| (SECOND, if secret.starts_with("second") { ok() } else { refused() });
    let mut world = World::start("", Limits::default(), script);
    world.accept(3, None).await;
    sleep(2 * SECOND).await;
    world.config.send(config("", "second-secret-0123456789")).unwrap();
    world.settle().await;
    let secrets: Vec<_> = world.attempts().into_iter().map(|(.., secret)| secret).collect();
    let (before, after) = secrets.split_at(3);
    assert!(before.iter().all(|secret| secret == SECRET), "{secrets:?}");
    assert_eq!(after, ["second-secret-0123456789"; 3]);
}

#[tokio::test(start_paused = true)]
async fn what_is_inactive_is_held_and_goes_on_when_it_is_active_again() {
    let mut world = World::start("concurrency = 1", Limits::default(), |_, _| (SECOND, ok()));
    world.accept(10, None).await;
    sleep(SECOND * 5 / 2).await;
    world.config.send(config("concurrency = 1\nactive = false", SECRET)).unwrap();
    sleep(HOUR).await;
    assert_eq!(world.attempts().len(), 3, "the attempt under way ended, and no new one started");
    world.config.send(config("concurrency = 1", SECRET)).unwrap();
    world.settle().await;
    assert_eq!(world.attempts_of_each().len(), 10);
    assert_eq!(world.attempts().len(), 10, "none was sent twice");
}

#[tokio::test(start_paused = true)]
async fn a_gone_endpoint_is_left_alone_until_its_url_changes() {
    let gone = Outcome::Answered { status: 410, retry_after: None };
    let script = move |_: &str, at| (SECOND, if at < HOUR { gone.clone() } else { ok() });
    let mut world = World::start("concurrency = 1", Limits::default(), script);
    world.accept(5, None).await;
    sleep(2 * HOUR).await;
    assert_eq!(world.attempts().len(), 1);
    world.accept(1, None).await;
    world.config.send(config("concurrency = 2", SECRET)).unwrap();
    sleep(HOUR).await;
    assert_eq!(world.attempts().len(), 1, "another limit is not another URL");
    assert_eq!(world.queue.backlog().await.unwrap().suspended.len(), 1);

    let mut moved = Config::clone(&config("", SECRET));
    let organization = load_moved();
    moved.organizations.insert("acme".into(), organization);
    world.config.send(Arc::new(moved)).unwrap();
    world.settle().await;
    assert_eq!(world.attempts_of_each().len(), 6);
    assert!(world.queue.backlog().await.unwrap().suspended.is_empty());
}

/// The organization with its webhook at another URL.
fn load_moved() -> Arc<aquarium_config::Organization> {
    let organization = "version = 1\nsecret = { env = \"SECRET\" }\n\
         [projects.urban.webhooks.ops]\nurl = \"https://ops.example/b\"\nevents = [\"*\"]\n";
    let files = ConfigFiles::new()
        .file("c/aquarium.toml", "version = 1\n")
        .file("c/organizations/acme.toml", organization)
        .variable("SECRET", SECRET);
    load("c".as_ref(), &files).unwrap().config.organizations["acme"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_endpoint_asks_for_is_kept_by_the_whole_lane() {
    let busy = Outcome::Answered { status: 503, retry_after: Some(RetryAfter::Delay(HOUR)) };
    let script = move |_: &str, at| (SECOND, if at < HOUR { busy.clone() } else { ok() });
    let mut world = World::start("concurrency = 1", Limits::default(), script);
    world.accept(50, None).await;
    world.settle().await;
    let attempts = world.attempts();
    assert_eq!(attempts.len(), 51, "one attempt was refused");
    assert!(attempts[1].1 >= HOUR);
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_attempts_end_and_records_them_within_the_grace_period() {
    let mut world = World::start("concurrency = 2", Limits::default(), |_, _| (10 * SECOND, ok()));
    world.accept(5, None).await;
    sleep(SECOND).await;
    world.shutdown.cancel();
    (&mut world.running).await.unwrap();
    assert_eq!(world.clock.now().since(EPOCH).as_secs(), 10);
    assert_eq!(world.attempts().len(), 2);
    assert_eq!(delivered(&world).await, 2);

    let limits = Limits { grace: 5 * SECOND, ..Limits::default() };
    let mut world = World::start("concurrency = 2", limits, |_, _| (HOUR, ok()));
    world.accept(5, None).await;
    sleep(SECOND).await;
    let stopped_at = world.clock.now();
    world.shutdown.cancel();
    (&mut world.running).await.unwrap();
    assert_eq!(world.clock.now().since(stopped_at).as_secs(), 5, "what takes longer is cut off");
    assert_eq!(delivered(&world).await, 0);
}

async fn delivered(world: &World) -> usize {
    let claim = aquarium_queue::Claim {
        webhook: "acme/urban/ops".parse().unwrap(),
        now: Timestamp::MAX,
        limit: 1_000,
        bytes: 0,
        held: Default::default(),
    };
    world.accepted as usize - world.queue.claim(claim).await.unwrap().deliveries.len()
}
