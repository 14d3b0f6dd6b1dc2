//! Whole lanes in virtual time: hours pass in moments, and every attempt is counted.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod control;
mod fairness;
mod order;
mod reload;
mod replays;
mod switching;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aquarium_delivery::{Outcome, RetryAfter};
use aquarium_dispatch::Limits;
use aquarium_queue::{Queue, Report};
use tokio::sync::mpsc;
use tokio::time::sleep;

use world::{Attempt, EPOCH, HOUR, SECOND, SECRET, SETUP, Setup, World, answered, ok, refused};

#[tokio::test(start_paused = true)]
async fn an_outage_of_six_hours_costs_few_attempts_and_everything_arrives_soon_after() {
    let outage = 6 * HOUR;
    let script = move |attempt: &Attempt| {
        let outcome = if attempt.at < outage { refused() } else { ok() };
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
    // Five until it opens, the others that were under way then, and probes: 9 while the interval grows to 300 s, and one
    // each 240 s to 360 s of the rest.
    assert!(during <= 5 + 15 + 9 + 90, "{during} attempts were spent on a dead endpoint");
    assert_eq!(after, 10_000, "one for each delivery");
    // Up to 360 s until the next probe, and 10,000 deliveries of 20 ms, 16 at a time; a little more since the window grows.
    assert!(took < Duration::from_secs(360 + 13 + 7), "it took {took:?} after the recovery");
}

#[tokio::test(start_paused = true)]
async fn a_failing_delivery_is_tried_by_the_schedule_and_then_exhausted() {
    let mut world = World::start("jitter = 0.0\nbreaker_failures = 100", Limits::default(), |_| {
        (SECOND / 100, refused())
    });
    world.accept(1, None).await;
    world.settle().await;
    let attempts = world.attempts();
    let waits: Vec<_> = attempts.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs()).collect();
    assert_eq!(waits, [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000]);
}

#[tokio::test(start_paused = true)]
async fn the_limits_of_a_webhook_and_of_the_process_hold() {
    // One webhook leaves half to others.
    for (webhook, process, expected) in [(4, 512, 4), (256, 512, 256), (64, 16, 8)] {
        let limits = Limits { in_flight: process, ..Limits::default() };
        let mut world = World::start(&format!("concurrency = {webhook}"), limits, |_| (SECOND, ok()));
        world.accept(300, None).await;
        world.settle().await;
        assert_eq!(world.most_in_flight(), expected);
        assert!(world.attempts_of_each().values().all(|attempts| *attempts == 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_holds_and_waiting_for_it_costs_no_attempt() {
    let mut world = World::start("rate_limit = \"50/s\"", Limits::default(), |_| (SECOND / 10, ok()));
    world.accept(1_000, None).await;
    let took = world.settle().await;
    let attempts = world.attempts();
    assert!(world.each_was_sent_once());
    for window in attempts.windows(56) {
        assert!(window[55].at - window[0].at >= SECOND, "more than 55 within a second");
    }
    println!("1,000 deliveries at 50/s took {took:?}");
    assert!((19 * SECOND..=22 * SECOND).contains(&took), "{took:?}");

    world.publish_ops(Some("rate_limit = \"1/h\""));
    sleep(SECOND).await;
    world.accept(10, None).await;
    sleep(SECOND).await;
    assert!(world.attempts().len() <= 1_001);
    world.publish_ops(Some(""));
    sleep(SECOND).await;
    assert!(world.each_was_sent_once(), "it is lifted at once");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_breaks_off_is_made_again() {
    let broken = AtomicUsize::new(0);
    let mut world = World::start("concurrency = 1", Limits::default(), move |_| {
        assert!(broken.fetch_add(1, Ordering::Relaxed) >= 2, "this one breaks off on purpose");
        (SECOND, ok())
    });
    world.accept(2, None).await;
    world.settle().await;
    assert_eq!((world.calls(), world.settled().await), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn a_body_without_room_in_memory_is_read_again_and_sent() {
    let limits = Limits { body_bytes: 1_024, lane_bytes: 0, ..Limits::default() };
    let mut world = World::start("", limits, |_| (SECOND, ok()));
    world.accept(1_000, None).await;
    world.settle().await;
    assert_eq!(world.attempts_of_each().len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_wait_for_a_dead_endpoint_take_no_room_from_others() {
    let ops = "breaker_failures = 1\nretry = [\"1s\"]";
    let other = "[projects.urban.webhooks.other]\nurl = \"https://other.example\"\nevents = [\"*\"]\n";
    let script =
        |attempt: &Attempt| (SECOND / 10, if attempt.url.contains("other") { ok() } else { refused() });
    let limits = Limits { body_bytes: 64 * 1_024, ..Limits::default() };
    let mut world = World::start(ops, limits, script);
    world.publish(Setup { ops: Some(ops), acme: other, ..SETUP });
    world.accept(500, None).await;
    sleep(10 * SECOND).await;
    world.accept_for("other", 100, None, aquarium_delivery::Order::None, |_| vec![]).await;
    sleep(2 * SECOND).await;
    let attempts = world.attempts();
    assert_eq!(attempts.iter().filter(|attempt| attempt.url.contains("other")).count(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_hears_of_the_first_attempt_also_when_it_waited_in_the_queue() {
    let mut world = World::start("concurrency = 1", Limits::default(), |_| (SECOND, refused()));
    let (watcher, mut reports) = mpsc::channel::<Report>(1);
    world.accept(400, None).await;
    world.accept(1, Some(watcher)).await;
    world.publish_ops(Some("concurrency = 1\nbreaker_failures = 1000000"));
    let report = tokio::time::timeout(HOUR, reports.recv()).await.unwrap().unwrap();
    assert_eq!(report.outcome, refused());
    assert!(reports.recv().await.is_none(), "one report, then no more");
}

#[tokio::test(start_paused = true)]
async fn a_new_secret_is_used_by_the_very_next_attempt_of_what_was_queued_before() {
    const SECOND_SECRET: &str = "second-secret-0123456789";
    let script = |attempt: &Attempt| (SECOND, if attempt.secret == SECOND_SECRET { ok() } else { refused() });
    let mut world = World::start("", Limits::default(), script);
    world.accept(3, None).await;
    sleep(2 * SECOND).await;
    world.publish(Setup { secret: SECOND_SECRET, ..SETUP });
    world.settle().await;
    let secrets: Vec<_> = world.attempts().into_iter().map(|attempt| attempt.secret).collect();
    let (before, after) = secrets.split_at(3);
    assert!(before.iter().all(|secret| secret == SECRET), "{secrets:?}");
    assert_eq!(after, [SECOND_SECRET; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_gone_endpoint_is_left_alone_until_its_url_changes() {
    let script = |attempt: &Attempt| (SECOND, if attempt.at < HOUR { answered(410) } else { ok() });
    let mut world = World::start("concurrency = 1", Limits::default(), script);
    world.accept(5, None).await;
    sleep(2 * HOUR).await;
    assert_eq!(world.attempts().len(), 1);
    world.accept(1, None).await;
    world.publish_ops(Some("concurrency = 2"));
    sleep(HOUR).await;
    assert_eq!(world.attempts().len(), 1, "another limit is not another URL");
    assert_eq!(world.queue.backlog().await.unwrap().suspended.len(), 1);

    world.publish(Setup { url: "https://ops.example/b", ..SETUP });
    world.settle().await;
    assert_eq!(world.attempts_of_each().len(), 6);
    assert!(world.queue.backlog().await.unwrap().suspended.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_endpoint_asks_for_is_kept_by_the_whole_lane() {
    let busy = Outcome::Answered { status: 503, retry_after: Some(RetryAfter::Delay(HOUR)) };
    let script = move |attempt: &Attempt| (SECOND, if attempt.at < HOUR { busy.clone() } else { ok() });
    let mut world = World::start("concurrency = 1", Limits::default(), script);
    world.accept(50, None).await;
    world.settle().await;
    let attempts = world.attempts();
    assert_eq!(attempts.len(), 51, "one attempt was refused");
    assert!(attempts[1].at >= HOUR);
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_attempts_end_and_records_them_within_the_grace_period() {
    let mut world = World::start("concurrency = 2", Limits::default(), |_| (10 * SECOND, ok()));
    world.accept(5, None).await;
    sleep(SECOND).await;
    world.shutdown.cancel();
    (&mut world.running).await.unwrap();
    assert_eq!(world.clock.now().since(EPOCH).as_secs(), 10);
    assert_eq!(world.attempts().len(), 2);
    assert_eq!(world.settled().await, 2);

    let mut world = World::start("", Limits::default(), |_| (HOUR, ok()));
    let (ops, aquarium) = (Some("concurrency = 2"), "shutdown_grace = \"5s\"");
    world.publish(Setup { ops, aquarium, ..SETUP });
    world.accept(5, None).await;
    sleep(SECOND).await;
    let stopped_at = world.clock.now();
    world.shutdown.cancel();
    (&mut world.running).await.unwrap();
    assert_eq!(world.clock.now().since(stopped_at).as_secs(), 5, "what takes longer is cut off");
    assert_eq!(world.settled().await, 0);
}
