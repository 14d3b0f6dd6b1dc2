//! A dispatcher with a queue in memory, and an endpoint that does what a script says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aquarium_config::{Config, Memory as ConfigFiles, load};
use aquarium_delivery::{
    DeliveryId, EventId, Failure, FailureKind, Order, Outcome, Phases, Subject, Timestamp, WebhookName,
};
use aquarium_dispatch::{Chance, Clock, Control, Dispatcher, Limits, Sender};
use aquarium_egress::{Endpoint, Message, Sent};
use aquarium_queue::memory::{self, Memory};
use aquarium_queue::{Claim, Commits, NewEvent, Queue, Submission, Target, Watcher};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub(crate) const EPOCH: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const SECRET: &str = "first-secret-0123456789";

/// A request that was handed over.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attempt {
    pub(crate) delivery: DeliveryId,
    /// When it was handed over, since the start.
    pub(crate) at: Duration,
    /// What it says when it was made, since the start.
    pub(crate) stamp: Duration,
    pub(crate) number: u32,
    pub(crate) url: String,
    pub(crate) secret: String,
    pub(crate) timeout: Duration,
}

/// How long the endpoint takes for an attempt, and what that comes to.
type Script = Arc<dyn Fn(&Attempt) -> (Duration, Outcome) + Send + Sync>;

/// Answers as a script says, and keeps a record.
#[derive(Clone)]
pub(crate) struct Scripted {
    clock: Clock,
    script: Script,
    record: Arc<Mutex<Record>>,
}

#[derive(Default)]
struct Record {
    /// How long it takes from now on to get a connection.
    connect: Duration,
    calls: usize,
    attempts: Vec<Attempt>,
    /// What came of them, in the order in which they ended.
    answered: Vec<(DeliveryId, Outcome)>,
    in_flight: usize,
    most_in_flight: usize,
}

impl Sender for Scripted {
    async fn send(
        &self,
        endpoint: &Endpoint,
        message: Message,
        revoked: impl Future<Output = ()> + Send,
    ) -> Option<Sent> {
        let connect = {
            let mut record = self.record.lock().unwrap();
            record.calls += 1;
            record.connect
        };
        let connected = async {
            if !connect.is_zero() {
                sleep(connect).await;
            }
        };
        tokio::select! {
            biased;
            () = revoked => return None,
            () = connected => {}
        }
        let attempt = Attempt {
            delivery: message.delivery,
            at: self.clock.now().since(EPOCH),
            stamp: message.at.since(EPOCH),
            number: message.attempt,
            url: endpoint.uri().to_string(),
            secret: message.secret.map(|secret| secret.to_str().unwrap().to_owned()).unwrap_or_default(),
            timeout: endpoint.timeout(),
        };
        let (duration, outcome) = (self.script)(&attempt);
        self.handed_over(attempt);
        sleep(duration).await;
        let mut record = self.record.lock().unwrap();
        record.in_flight -= 1;
        record.answered.push((message.delivery, outcome.clone()));
        drop(record);
        Some(Sent { outcome, duration, phases: Phases::default(), excerpt: Bytes::new() })
    }
}

impl Scripted {
    pub(crate) fn new(
        clock: &Clock,
        script: impl Fn(&Attempt) -> (Duration, Outcome) + Send + Sync + 'static,
    ) -> Self {
        Self { clock: clock.clone(), script: Arc::new(script), record: Arc::default() }
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.record.lock().unwrap().attempts.clone()
    }

    fn handed_over(&self, attempt: Attempt) {
        let mut record = self.record.lock().unwrap();
        record.attempts.push(attempt);
        record.in_flight += 1;
        record.most_in_flight = record.most_in_flight.max(record.in_flight);
    }
}

pub(crate) fn ok() -> Outcome {
    answered(204)
}

pub(crate) fn answered(status: u16) -> Outcome {
    Outcome::Answered { status, retry_after: None }
}

pub(crate) fn refused() -> Outcome {
    Outcome::Failed(Failure::new(FailureKind::Connect, "connection refused"))
}

/// A configuration in which `acme/urban/ops` gets everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) secret: &'a str,
    pub(crate) url: &'a str,
    /// More lines about the webhook. None if there is no such webhook.
    pub(crate) ops: Option<&'a str>,
    /// More lines about its organization.
    pub(crate) acme: &'a str,
    /// Another organization, if there is anything about it.
    pub(crate) globex: &'a str,
    /// More lines of `aquarium.toml`.
    pub(crate) aquarium: &'a str,
}

pub(crate) const SETUP: Setup<'static> =
    Setup { secret: SECRET, url: "https://ops.example/a", ops: Some(""), acme: "", globex: "", aquarium: "" };

impl Setup<'_> {
    /// Loads it. Nothing in it is shared with what was loaded before.
    pub(crate) fn load(self) -> Arc<Config> {
        let webhook = |lines: &str| {
            format!("[projects.urban.webhooks.ops]\nurl = \"{}\"\nevents = [\"*\"]\n{lines}\n", self.url)
        };
        let ops = self.ops.map(webhook).unwrap_or_default();
        let acme = format!("version = 1\nsecret = {{ env = \"SECRET\" }}\n{ops}{}\n", self.acme);
        let mut files = ConfigFiles::new()
            .file("c/aquarium.toml", format!("version = 1\n{}", self.aquarium))
            .file("c/organizations/acme.toml", acme)
            .variable("SECRET", self.secret);
        if !self.globex.is_empty() {
            files = files.file("c/organizations/globex.toml", format!("version = 1\n{}", self.globex));
        }
        Arc::new(load("c".as_ref(), &files).unwrap().config)
    }
}

pub(crate) struct World {
    pub(crate) queue: Memory,
    pub(crate) sender: Scripted,
    pub(crate) clock: Clock,
    pub(crate) config: watch::Sender<Arc<Config>>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<()>,
    pub(crate) control: Option<Control>,
    limits: Limits,
    accepted: u64,
}

impl World {
    /// A world with these lines about its one webhook.
    pub(crate) fn start(
        webhook: &str,
        limits: Limits,
        script: impl Fn(&Attempt) -> (Duration, Outcome) + Send + Sync + 'static,
    ) -> Self {
        let (queue, commits) = memory::open(usize::MAX);
        let clock = Clock::starting_at(EPOCH);
        let sender = Scripted::new(&clock, script);
        let (config, _) = watch::channel(Setup { ops: Some(webhook), ..SETUP }.load());
        let (shutdown, running) = (CancellationToken::new(), tokio::spawn(async {}));
        let mut world =
            Self { queue, sender, clock, config, shutdown, running, control: None, limits, accepted: 0 };
        world.run(commits);
        world
    }

    fn run(&mut self, commits: Commits) {
        let dispatcher = Dispatcher::new(
            self.queue.clone(),
            commits,
            self.sender.clone(),
            self.config.subscribe(),
            self.clock.clone(),
            Chance::seeded(7),
            self.limits.clone(),
        );
        self.control = Some(dispatcher.control());
        self.shutdown = CancellationToken::new();
        let token = self.shutdown.clone();
        self.running = tokio::spawn(async move { dispatcher.run(token).await.unwrap() });
    }

    /// Kills the dispatcher, with whatever is under way, and starts another one on the same queue.
    pub(crate) async fn restart(&mut self) {
        self.running.abort();
        let _ = (&mut self.running).await;
        self.sender.record.lock().unwrap().in_flight = 0;
        let (queue, commits) = self.queue.reopen();
        self.queue = queue;
        self.run(commits);
    }

    /// Publishes another configuration.
    pub(crate) fn publish(&self, setup: Setup<'_>) {
        self.config.send(setup.load()).unwrap();
    }

    /// Publishes other lines about the webhook, or removes it.
    pub(crate) fn publish_ops(&self, ops: Option<&str>) {
        self.publish(Setup { ops, ..SETUP });
    }

    /// From now on it takes so long to get a connection.
    pub(crate) fn connect_within(&self, connect: Duration) {
        self.sender.record.lock().unwrap().connect = connect;
    }

    pub(crate) async fn accept(&mut self, number: u64, watcher: Option<Watcher>) {
        self.accept_about(number, watcher, Order::None, |_| Vec::new()).await;
    }

    /// Accepts deliveries that keep this order, each about what the function says for its number.
    pub(crate) async fn accept_about(
        &mut self,
        number: u64,
        watcher: Option<Watcher>,
        order: Order,
        subjects: impl Fn(u64) -> Vec<u64>,
    ) {
        self.accept_for("ops", number, watcher, order, subjects).await;
    }

    /// The same for another webhook.
    pub(crate) async fn accept_for(
        &mut self,
        name: &str,
        number: u64,
        watcher: Option<Watcher>,
        order: Order,
        subjects: impl Fn(u64) -> Vec<u64>,
    ) {
        self.accept_targets(name, number, watcher, (order, false), subjects).await;
    }

    /// Accepts a test delivery.
    pub(crate) async fn accept_test(&mut self, watcher: Option<Watcher>) {
        self.accept_targets("ops", 1, watcher, (Order::None, true), |_| Vec::new()).await;
    }

    async fn accept_targets(
        &mut self,
        name: &str,
        number: u64,
        watcher: Option<Watcher>,
        (order, test): (Order, bool),
        subjects: impl Fn(u64) -> Vec<u64>,
    ) {
        let webhook: WebhookName = format!("acme/urban/{name}").parse().unwrap();
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
                trace: None,
                hops: aquarium_delivery::Hops::FIRST,
                subjects: subjects(self.accepted).into_iter().map(Subject::from_bits).collect(),
                targets: vec![Target {
                    delivery: DeliveryId::new(EPOCH, random),
                    webhook: webhook.clone(),
                    skipped: false,
                    order,
                    test,
                }],
                watcher: watcher.clone(),
            }
        });
        let submission =
            Submission { organization: "acme".into(), events: events.collect(), idempotency: None };
        self.queue.accept(submission).await.unwrap();
    }

    pub(crate) async fn pending(&self) -> bool {
        !self.queue.backlog().await.unwrap().waiting.is_empty()
    }

    /// Lets virtual time pass until nothing is pending, and tells how much it was. At most a week.
    pub(crate) async fn settle(&self) -> Duration {
        let started = self.clock.now();
        while self.pending().await {
            assert!(self.clock.now().since(started) < 168 * HOUR, "something is still pending after a week");
            sleep(SECOND).await;
        }
        self.clock.now().since(started)
    }

    /// How many deliveries are recorded as delivered or given up.
    pub(crate) async fn settled(&self) -> usize {
        let claim = Claim {
            webhook: "acme/urban/ops".parse().unwrap(),
            now: Timestamp::MAX,
            limit: usize::MAX,
            bytes: 0,
            held: Default::default(),
            parked: true,
        };
        self.accepted as usize - self.queue.claim(claim).await.unwrap().deliveries.len()
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.sender.attempts()
    }

    pub(crate) fn control(&self) -> &Control {
        self.control.as_ref().unwrap()
    }

    /// The deliveries in the order in which they were delivered first, by their numbers.
    pub(crate) fn delivered(&self) -> Vec<u64> {
        let mut delivered = Vec::new();
        for (id, outcome) in &self.sender.record.lock().unwrap().answered {
            let number = u64::from_be_bytes(*id.as_bytes().last_chunk().unwrap()) & 0xffff_ffff;
            if outcome.is_delivered() && !delivered.contains(&number) {
                delivered.push(number);
            }
        }
        delivered
    }

    pub(crate) fn attempts_of_each(&self) -> HashMap<DeliveryId, usize> {
        let mut attempts = HashMap::new();
        for attempt in self.attempts() {
            *attempts.entry(attempt.delivery).or_default() += 1;
        }
        attempts
    }

    /// True if every delivery was sent, and none twice.
    pub(crate) fn each_was_sent_once(&self) -> bool {
        let of_each = self.attempts_of_each();
        of_each.len() == self.accepted as usize && of_each.values().all(|attempts| *attempts == 1)
    }

    /// How often the sender was asked to send.
    pub(crate) fn calls(&self) -> usize {
        self.sender.record.lock().unwrap().calls
    }

    /// The most attempts under way at once since this was last asked.
    pub(crate) fn most_in_flight(&self) -> usize {
        let mut record = self.sender.record.lock().unwrap();
        let now = record.in_flight;
        std::mem::replace(&mut record.most_in_flight, now)
    }
}
