//! Replays in bulk: what they send again, and that nobody else notices.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aquarium_delivery::{ReplayId, WebhookName};
use aquarium_dispatch::{Chance, Limits, Replays, Waker};
use aquarium_queue::history::{Filter, History, Job, JobFilter, JobState, Missed, StateKind};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::world::{Attempt, HOUR, SECOND, SETUP, Setup, World, ok, refused};

fn ops() -> WebhookName {
    "acme/urban/ops".parse().unwrap()
}

/// Runs the jobs of a world.
struct Running {
    waker: Waker,
    task: JoinHandle<()>,
}

impl Running {
    fn start(world: &World) -> Self {
        let (config, clock) = (world.config.subscribe(), world.clock.clone());
        let (replays, waker) = Replays::new(world.queue.clone(), config, clock, Chance::seeded(3));
        Self { waker, task: tokio::spawn(replays.run(CancellationToken::new())) }
    }

    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn create(world: &World, number: u8, what: JobFilter) -> ReplayId {
    let id = ReplayId::new(world.clock.now(), [number; 10]);
    world.queue.create_job(id, what, world.clock.now()).await.unwrap();
    id
}

fn in_state(state: StateKind) -> JobFilter {
    JobFilter::Deliveries(Filter { states: BTreeSet::from([state]), ..Filter::default() })
}

async fn job(world: &World, id: ReplayId) -> Job {
    world.queue.job(id).await.unwrap().unwrap()
}

/// Lets time pass until a job has ended and nothing is pending. At most an hour.
async fn ended(world: &World, id: ReplayId) -> Job {
    let started = world.clock.now();
    loop {
        let job = job(world, id).await;
        if job.state != JobState::Running && !world.pending().await {
            return job;
        }
        assert!(world.clock.now().since(started) < HOUR, "{job:?}");
        sleep(SECOND / 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_sent_again_once_and_with_the_whole_schedule() {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = up.clone();
    let script = move |attempt: &Attempt| {
        let fine = is_up.load(Ordering::Relaxed) && attempt.number != 3;
        (SECOND / 100, if fine { ok() } else { refused() })
    };
    let lines = "retry = [\"1s\"]\njitter = 0.0\nbreaker_failures = 1000000";
    let mut world = World::start(lines, Limits::default(), script);
    world.accept(1_000, None).await;
    world.settle().await;
    up.store(true, Ordering::Relaxed);
    world.accept(500, None).await;
    world.settle().await;
    let before = world.attempts().len();

    let running = Running::start(&world);
    let id = create(&world, 1, in_state(StateKind::Exhausted)).await;
    running.waker.wake();
    let job = ended(&world, id).await;
    assert_eq!((job.state, job.replayed, job.passed_over), (JobState::Done, 1_000, 0));
    let numbers: Vec<_> = world.attempts()[before..].iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers.len(), 2_000, "the first attempt fails, and there is another one");
    assert_eq!(numbers.iter().filter(|number| **number == 3).count(), 1_000, "attempts are counted on");
    assert_eq!(numbers.iter().filter(|number| **number == 4).count(), 1_000);
    let left = Filter { states: BTreeSet::from([StateKind::Exhausted]), ..Filter::default() };
    assert_eq!(world.queue.count(left).await.unwrap().at_least, 0);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_is_added_later_can_have_what_it_missed() {
    let mut world = World::start("", Limits::default(), |_| (SECOND / 100, ok()));
    world.accept(700, None).await;
    world.settle().await;
    let late = "[projects.urban.webhooks.late]\nurl = \"https://late.example\"\nevents = [\"test\"]\n\
                [projects.urban.webhooks.other]\nurl = \"https://other.example\"\nevents = [\"dataset-failed\"]\n";
    world.publish(Setup { acme: late, ..SETUP });
    world.accept(10, None).await;

    let running = Running::start(&world);
    for (number, name, sent) in [(1, "late", 710), (2, "other", 0), (3, "late", 0)] {
        let webhook: WebhookName = format!("acme/urban/{name}").parse().unwrap();
        let missed = Missed { webhook, kinds: None, since: None, until: None };
        let before = world.attempts().len();
        let id = create(&world, number, JobFilter::Missed(missed)).await;
        running.waker.wake();
        let job = ended(&world, id).await;
        assert_eq!((job.state, job.replayed), (JobState::Done, sent), "{name}");
        let attempts = world.attempts().split_off(before);
        let to_it = attempts.iter().filter(|attempt| attempt.url.contains(name)).count();
        assert_eq!(to_it as u64, sent, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_on_after_a_kill_and_repeats_nothing() {
    let mut world = World::start("", Limits::default(), |_| (SECOND / 20, ok()));
    world.accept(3_000, None).await;
    world.settle().await;
    let id = create(&world, 1, in_state(StateKind::Delivered)).await;
    let mut running = Running::start(&world);
    for _ in 0..20 {
        sleep(SECOND / 3).await;
        running.kill().await;
        running = Running::start(&world);
    }
    let job = ended(&world, id).await;
    assert_eq!((job.state, job.replayed), (JobState::Done, 3_000));
    assert!(world.attempts_of_each().values().all(|attempts| *attempts == 2));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_sends_nothing_more() {
    let mut world = World::start("", Limits::default(), |_| (SECOND / 20, ok()));
    world.accept(3_000, None).await;
    world.settle().await;
    let running = Running::start(&world);
    let id = create(&world, 1, in_state(StateKind::Delivered)).await;
    running.waker.wake();
    sleep(SECOND).await;
    world.queue.cancel_job(id, world.clock.now()).await.unwrap();
    running.waker.wake();
    let job = ended(&world, id).await;
    assert_eq!(job.state, JobState::Cancelled);
    assert!((1..2_900).contains(&job.replayed), "{job:?}");
    assert_eq!(world.attempts().len() as u64, 3_000 + job.replayed);
    sleep(HOUR).await;
    assert_eq!(world.attempts().len() as u64, 3_000 + job.replayed);
}

#[tokio::test(start_paused = true)]
async fn a_job_does_not_wait_for_an_endpoint_that_is_down_and_its_deliveries_arrive_later() {
    let up = Arc::new(AtomicBool::new(true));
    let is_up = up.clone();
    let script =
        move |_: &Attempt| (SECOND / 100, if is_up.load(Ordering::Relaxed) { ok() } else { refused() });
    let mut world = World::start("", Limits::default(), script);
    world.accept(5_000, None).await;
    world.settle().await;
    up.store(false, Ordering::Relaxed);
    let running = Running::start(&world);
    let id = create(&world, 1, in_state(StateKind::Delivered)).await;
    running.waker.wake();
    let started = world.clock.now();
    while job(&world, id).await.state == JobState::Running {
        sleep(SECOND).await;
    }
    let took = world.clock.now().since(started);
    assert!(took < Duration::from_secs(60), "{took:?}");
    up.store(true, Ordering::Relaxed);
    world.settle().await;
    let again =
        Filter { webhook: Some(ops()), states: BTreeSet::from([StateKind::Delivered]), ..Filter::default() };
    assert_eq!(world.queue.count(again).await.unwrap().at_least, 5_000);
}

#[tokio::test(start_paused = true)]
async fn fresh_events_do_not_wait_for_a_replay() {
    let mut world = World::start("concurrency = 16", Limits::default(), |_| (SECOND / 50, ok()));
    world.accept(20_000, None).await;
    world.settle().await;
    let running = Running::start(&world);
    let id = create(&world, 1, in_state(StateKind::Delivered)).await;
    running.waker.wake();
    sleep(SECOND).await;
    let mut worst = Duration::ZERO;
    for _ in 0..200 {
        let (before, accepted) = (world.attempts().len(), world.clock.now());
        let known = world.attempts_of_each().len();
        world.accept(1, None).await;
        while world.attempts_of_each().len() == known {
            sleep(Duration::from_millis(1)).await;
        }
        worst = worst.max(world.clock.now().since(accepted));
        assert!(world.attempts().len() > before);
        sleep(Duration::from_millis(13)).await;
    }
    let sent_again = job(&world, id).await.replayed;
    println!("the worst of 200 fresh events waited {worst:?}, while {sent_again} deliveries were sent again");
    // One place of sixteen becomes free every 1.25 ms on average, all of them at once at the worst.
    assert!(worst <= Duration::from_millis(45), "{worst:?}");
    assert!(sent_again > 2_000, "{sent_again}");
}
