//! Reloads under load: what was changed counts at once, what was not does not notice, and nothing is lost.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::{Behaviour, Received, Receiver};
use aquarium_testkit::sidecar::Sidecar;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use support::{JSON, SOON, start, text};

const RELOADS: usize = 200;
/// One of so many is invalid.
const INVALID: usize = 10;
const RATE: u32 = 2_000;
const POSTERS: u32 = 20;
/// Of the webhooks, which are numbered, the first are changed and the others are not.
const CHANGING: usize = 25;
const WEBHOOKS: usize = 50;
const WEBHOOKS_PER_ORGANIZATION: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load() {
    timeout(Duration::from_secs(300), reloads()).await.expect("it takes less than 300 s");
}

/// What is known for certain of a webhook at this moment. While a change is under way, nothing is.
#[derive(Default)]
struct Known {
    active: AtomicBool,
    inactive: AtomicBool,
    /// How many changes have begun.
    changes: AtomicUsize,
    /// The path that its requests went to before, and do not go to any more.
    left: Mutex<Option<String>>,
    /// The secret that they had before, and do not have any more.
    replaced: Mutex<Option<String>>,
}

/// What must not happen, and how often it did.
#[derive(Default)]
struct Wrongs {
    sent_while_inactive: AtomicUsize,
    sent_to_old_url: AtomicUsize,
    sent_with_old_secret: AtomicUsize,
    matched_while_inactive: AtomicUsize,
    skipped_while_active: AtomicUsize,
}

struct World {
    known: [Known; WEBHOOKS],
    wrongs: Wrongs,
    /// The events that were accepted for a webhook, and those that were skipped.
    queued: Mutex<HashSet<String>>,
    skipped: Mutex<HashSet<String>>,
}

fn count(wrong: &AtomicUsize) {
    wrong.fetch_add(1, Ordering::Relaxed);
}

impl World {
    fn new() -> Self {
        Self {
            known: std::array::from_fn(|_| Known::default()),
            wrongs: Wrongs::default(),
            queued: Mutex::default(),
            skipped: Mutex::default(),
        }
    }

    /// Looks at a request that arrived.
    fn inspect(&self, request: &Received) -> Behaviour {
        let number: usize = request.path.split('/').nth(1).unwrap().parse().unwrap();
        let known = &self.known[number];
        if known.inactive.load(Ordering::SeqCst) {
            count(&self.wrongs.sent_while_inactive);
        }
        if known.left.lock().unwrap().as_deref() == Some(&*request.path) {
            count(&self.wrongs.sent_to_old_url);
        }
        let secret = request.header("x-aquarium-secret").unwrap();
        if known.replaced.lock().unwrap().as_deref() == Some(secret) {
            count(&self.wrongs.sent_with_old_secret);
        }
        Behaviour::status(204)
    }

    /// Posts an event for a webhook, and compares the answer with what is known.
    async fn post(&self, client: &Client, number: usize) {
        let known = &self.known[number];
        let certain = || {
            let (active, inactive) =
                (known.active.load(Ordering::SeqCst), known.inactive.load(Ordering::SeqCst));
            (active, inactive, known.changes.load(Ordering::SeqCst))
        };
        let before = certain();
        let path = format!("/v1/organizations/{}/events", organization(number));
        let body = format!(r#"{{"event":"dataset-complete","project":"p{number}","dataset":{{}}}}"#);
        let response = client.post(&path, JSON, body).await.unwrap();
        assert_eq!(response.status, 202, "{}", response.text());
        let answer = response.json();
        let was_queued = answer.pointer("/deliveries/0").is_some();
        let (active, inactive, _) = if before == certain() { before } else { Default::default() };
        match was_queued {
            true if inactive => count(&self.wrongs.matched_while_inactive),
            false if active => count(&self.wrongs.skipped_while_active),
            _ => {}
        }
        let events = if was_queued { &self.queued } else { &self.skipped };
        assert!(events.lock().unwrap().insert(text(&answer, "/id")), "two events with one id: {answer}");
    }
}

fn organization(number: usize) -> String {
    format!("o{}", number / WEBHOOKS_PER_ORGANIZATION)
}

fn name(number: usize) -> String {
    format!("{}/p{number}/hook", organization(number))
}

/// The configuration, and what of it changes from one reload to the next.
struct Editor {
    config: ConfigDirectory,
    base: String,
    versions: [usize; WEBHOOKS],
    generation: usize,
    times: Vec<Duration>,
}

impl Editor {
    fn path(&self, number: usize) -> String {
        format!("/{number}/{}", self.versions[number])
    }

    fn write(&mut self, number: usize, extra: &str) {
        let url = format!("{}{}", self.base, self.path(number));
        // A key that vanishes would have to settle first.
        let active = if extra.contains("active") { "" } else { "active = true\n" };
        let extra = format!("concurrency = 2\n{active}{extra}");
        self.config.webhook(&organization(number), &format!("p{number}"), "hook", &url, &["*"], &extra);
    }

    /// Waits for the line that tells of the change.
    async fn in_force(&mut self, sidecar: &Sidecar, change: &str) {
        let written = Instant::now();
        self.generation += 1;
        let line = format!("configuration {} is in force: {change}", self.generation);
        sidecar.wait_for_log(&line, SOON).await;
        self.times.push(written.elapsed());
    }
}

async fn reloads() {
    let world = Arc::new(World::new());
    let receiver = || async {
        let world = Arc::clone(&world);
        Receiver::builder().record_bodies(false).script(move |request| world.inspect(request)).start().await
    };
    let (changing, steady) = (receiver().await, receiver().await);
    let mut editor = Editor {
        config: ConfigDirectory::new(),
        base: steady.url(""),
        versions: [0; WEBHOOKS],
        generation: 1,
        times: Vec::new(),
    };
    for number in (0..WEBHOOKS).rev() {
        if number == CHANGING - 1 {
            editor.base = changing.url("");
        }
        editor.write(number, "");
        world.known[number].active.store(true, Ordering::SeqCst);
    }
    let (sidecar, _) = start(&editor.config).await;

    let stop = Arc::new(AtomicBool::new(false));
    let posting = post(sidecar.ingest(), &world, &stop);
    sleep(Duration::from_secs(2)).await;
    let connections = steady.connections();
    let started = Instant::now();
    let before = steady.count() + changing.count();
    for reload in 0..RELOADS {
        change(reload, &mut editor, &world, &sidecar).await;
    }
    let took = started.elapsed();
    let rate = (steady.count() + changing.count() - before) as f64 / took.as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    posting.join_all().await;
    let opened = steady.connections() - connections;
    report(&mut editor.times, rate, took, connections, opened);
    assert!(took > Duration::from_secs(20), "{took:?} of load is too little");
    // What the machine gives is printed; that much it has to be to mean anything.
    assert!(rate > 0.5 * f64::from(RATE), "{rate:.0} events/s is too little");
    // Each webhook may have two. If reloads closed them, there would be far more.
    assert!(opened < 2 * WEBHOOKS, "{opened} connections were opened to endpoints that were not touched");
    check(&world, [&changing, &steady]).await;
}

/// Posts events for every webhook in turn until it is told to stop.
fn post(ingest: &str, world: &Arc<World>, stop: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut posting = JoinSet::new();
    for poster in 0..POSTERS {
        let (client, world, stop) = (Client::new(ingest), Arc::clone(world), Arc::clone(stop));
        posting.spawn(async move {
            let mut tick = interval(Duration::from_secs(1) * POSTERS / RATE);
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut number = poster as usize * WEBHOOKS / POSTERS as usize;
            while !stop.load(Ordering::Relaxed) {
                tick.tick().await;
                world.post(&client, number % WEBHOOKS).await;
                number += 1;
            }
        });
    }
    posting
}

/// Makes one change to one webhook, or to one organization's secret, or a mistake; and waits until it counts.
async fn change(reload: usize, editor: &mut Editor, world: &World, sidecar: &Sidecar) {
    let number = reload / 4 % CHANGING;
    let known = &world.known[number];
    if reload % INVALID == INVALID - 1 {
        let active = if known.inactive.load(Ordering::SeqCst) { "active = false\n" } else { "" };
        editor.write(number, &format!("{active}mistake-{reload} = 1"));
        let line = sidecar.wait_for_log(&format!("unknown key \"mistake-{reload}\""), SOON).await;
        assert!(line.contains("ERROR") && line.contains(":1: unknown key"), "{line}");
        // It is repaired together with the next change.
    }
    known.changes.fetch_add(1, Ordering::SeqCst);
    match reload % 4 {
        0 => {
            known.active.store(false, Ordering::SeqCst);
            editor.write(number, "active = false");
            editor.in_force(sidecar, &format!("{}: deactivated", name(number))).await;
            known.inactive.store(true, Ordering::SeqCst);
        }
        1 => {
            known.inactive.store(false, Ordering::SeqCst);
            editor.write(number, "");
            editor.in_force(sidecar, &format!("{}: activated", name(number))).await;
            known.active.store(true, Ordering::SeqCst);
        }
        2 => {
            let left = editor.path(number);
            editor.versions[number] += 1;
            editor.write(number, "");
            editor.in_force(sidecar, &format!("{}: new url", name(number))).await;
            *known.left.lock().unwrap() = Some(left);
        }
        _ => {
            let organization = organization(number);
            let replaced = editor.config.secret(&organization).to_owned();
            editor.write(number, "");
            editor.config.new_secret(&organization);
            editor.in_force(sidecar, &format!("{organization}: secret replaced")).await;
            let first = number - number % WEBHOOKS_PER_ORGANIZATION;
            for known in &world.known[first..first + WEBHOOKS_PER_ORGANIZATION] {
                *known.replaced.lock().unwrap() = Some(replaced.clone());
            }
        }
    }
}

fn report(times: &mut [Duration], rate: f64, took: Duration, connections: usize, opened: usize) {
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{RELOADS} reloads in {took:.0?} at {rate:.0} events/s: in force, and told, after {median:.0?}, {worst:.0?} at worst; \
         {connections} connections to untouched endpoints, {opened} more were opened"
    );
}

/// Nothing is lost, nothing came that must not come.
async fn check(world: &World, receivers: [&Receiver; 2]) {
    let queued = world.queued.lock().unwrap().clone();
    let arrived = |id: &str| receivers.iter().any(|receiver| receiver.has(id));
    eventually(Duration::from_secs(30), "every event arrives", async || queued.iter().all(|id| arrived(id)))
        .await;
    let skipped = world.skipped.lock().unwrap().clone();
    println!("{} events accepted, {} of them skipped", queued.len() + skipped.len(), skipped.len());
    assert!(!skipped.is_empty() && queued.len() > 10 * skipped.len());
    assert_eq!(skipped.iter().filter(|id| arrived(id)).count(), 0, "skipped events arrived");
    assert_eq!(receivers.map(|receiver| receiver.tally().duplicates), [0, 0], "events arrived twice");
    let Wrongs {
        sent_while_inactive,
        sent_to_old_url,
        sent_with_old_secret,
        matched_while_inactive,
        skipped_while_active,
    } = &world.wrongs;
    assert_eq!(sent_while_inactive.load(Ordering::SeqCst), 0, "requests to an inactive webhook");
    assert_eq!(sent_to_old_url.load(Ordering::SeqCst), 0, "requests to a URL that was replaced");
    assert_eq!(sent_with_old_secret.load(Ordering::SeqCst), 0, "requests with a secret that was replaced");
    assert_eq!(matched_while_inactive.load(Ordering::SeqCst), 0, "events queued for an inactive webhook");
    assert_eq!(skipped_while_active.load(Ordering::SeqCst), 0, "events not queued for an active webhook");
}
