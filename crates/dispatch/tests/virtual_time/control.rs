//! Tests, and what an operator asks and tells the dispatcher.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aquarium_delivery::{BreakerStatus, Exhaustion, Outcome, RetryAfter, WebhookName};
use aquarium_dispatch::Limits;
use aquarium_queue::{Report, Settled};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::world::{Attempt, HOUR, SECOND, SETUP, Setup, World, answered, ok, refused};

fn ops() -> WebhookName {
    "acme/urban/ops".parse().unwrap()
}

/// Sends a test, and says what came of it within a second.
async fn test(world: &mut World) -> Option<Report> {
    let (watcher, mut reports) = mpsc::channel(1);
    world.accept_test(Some(watcher)).await;
    timeout(SECOND, reports.recv()).await.ok().flatten()
}

#[tokio::test(start_paused = true)]
async fn a_test_is_sent_at_once_while_the_breaker_is_open_and_is_not_tried_again() {
    let mut world = World::start("breaker_failures = 2", Limits::default(), |_| (SECOND / 10, refused()));
    world.accept(400, None).await;
    sleep(HOUR).await;
    let before = world.attempts().len();
    let report = test(&mut world).await.expect("it does not wait for the next probe");
    assert_eq!((report.outcome, report.next), (refused(), Settled::Exhausted(Exhaustion::Attempts)));
    assert_eq!(world.attempts().len(), before + 1);
    let of_each = world.attempts_of_each();
    sleep(12 * HOUR).await;
    assert_eq!(
        world.attempts_of_each()[&report.delivery],
        of_each[&report.delivery],
        "it is not tried again"
    );
}

#[tokio::test(start_paused = true)]
async fn tests_move_no_probe() {
    let mut world = World::start("breaker_failures = 1", Limits::default(), |_| (SECOND / 10, refused()));
    world.accept(100, None).await;
    sleep(SECOND).await;
    let mut tests = Vec::new();
    for _ in 0..200 {
        sleep(3 * SECOND).await;
        tests.push(test(&mut world).await.unwrap().delivery);
    }
    let attempts = world.attempts().into_iter().filter(|attempt| !tests.contains(&attempt.delivery));
    // The first 16 went side by side.
    let probes: Vec<_> = attempts.skip(15).map(|attempt| attempt.at.as_secs_f64()).collect();
    let waits: Vec<_> = probes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.len() > 6, "{waits:?}");
    for (wait, expected) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]) {
        assert!((wait - 0.1) / expected > 0.79 && (wait - 0.2) / expected < 1.21, "{waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_test_that_arrives_closes_the_breaker() {
    let up = Arc::new(AtomicBool::new(false));
    let is_up = up.clone();
    let script =
        move |_: &Attempt| (SECOND / 10, if is_up.load(Ordering::Relaxed) { ok() } else { refused() });
    let mut world = World::start("breaker_failures = 1\nretry = [\"1s\"]", Limits::default(), script);
    world.accept(50, None).await;
    sleep(SECOND * 400).await;
    assert!(world.control().status(&ops()).is_some());
    up.store(true, Ordering::Relaxed);
    assert_eq!(test(&mut world).await.unwrap().next, Settled::Delivered);
    assert!(world.settle().await < 3 * SECOND, "what waited behind the breaker goes at once");
    assert_eq!(world.control().status(&ops()), None);
}

#[tokio::test(start_paused = true)]
async fn a_test_waits_neither_for_a_pause_nor_for_the_rate_nor_behind_what_hangs() {
    let hint = RetryAfter::Delay(HOUR);
    let pause = Outcome::Answered { status: 429, retry_after: Some(hint) };
    let script = move |attempt: &Attempt| match attempt.number {
        1 if attempt.at.is_zero() => (SECOND / 10, pause.clone()),
        _ => (SECOND / 10, ok()),
    };
    let mut world = World::start("rate_limit = \"1/h\"", Limits::default(), script);
    world.accept(300, None).await;
    sleep(SECOND).await;
    assert!(world.control().status(&ops()).is_some_and(|status| status.paused_until.is_some()));
    assert_eq!(test(&mut world).await.unwrap().next, Settled::Delivered);

    let hang = |attempt: &Attempt| (if attempt.at.is_zero() { HOUR } else { SECOND / 10 }, ok());
    let mut world = World::start("concurrency = 1", Limits::default(), hang);
    world.accept(2, None).await;
    sleep(SECOND).await;
    assert_eq!(test(&mut world).await.unwrap().next, Settled::Delivered);
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_over_a_restart_and_the_end_of_a_lane_and_ends_with_the_url() {
    let pause = Outcome::Answered { status: 429, retry_after: Some(RetryAfter::Delay(HOUR)) };
    let script =
        move |attempt: &Attempt| (SECOND / 10, if attempt.at.is_zero() { pause.clone() } else { ok() });
    // Without a retry the first delivery is given up, and its lane has nothing to do and ends.
    for ops in ["concurrency = 1", "concurrency = 1\nretry = []"] {
        for restart in [false, true] {
            let mut world = World::start(ops, Limits::default(), script.clone());
            world.accept(1, None).await;
            sleep(HOUR / 2).await;
            if restart {
                world.restart().await;
            }
            world.accept(1, None).await;
            sleep(HOUR / 2 - SECOND).await;
            assert_eq!(world.attempts().len(), 1, "{ops} {restart}");
            world.settle().await;
            let second = world.attempts()[1].at;
            assert!(second >= HOUR && second <= HOUR + SECOND, "{second:?}");
            world.restart().await;
            world.accept(1, None).await;
            assert!(world.settle().await <= SECOND, "it is over");

            let mut world = World::start(ops, Limits::default(), script.clone());
            world.accept(1, None).await;
            sleep(HOUR / 2).await;
            world.publish(Setup { ops: Some(ops), url: "https://ops.example/b", ..SETUP });
            if restart {
                world.restart().await;
            }
            world.accept(1, None).await;
            sleep(SECOND).await;
            assert_eq!(world.attempts().len(), 2, "another endpoint asked for nothing");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_test_that_answers_gone_suspends_nothing() {
    let gone = |attempt: &Attempt| (SECOND / 10, if attempt.at.is_zero() { answered(410) } else { ok() });
    let mut world = World::start("", Limits::default(), gone);
    let report = test(&mut world).await.unwrap();
    assert_eq!((report.outcome, report.next), (answered(410), Settled::Exhausted(Exhaustion::Attempts)));
    world.accept(1, None).await;
    assert!(world.settle().await <= SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_webhook_is_resumed_for_good_and_what_was_held_is_sent() {
    let gone = |attempt: &Attempt| (SECOND / 10, if attempt.at < 10 * SECOND { answered(410) } else { ok() });
    for restart in [false, true] {
        let mut world = World::start("concurrency = 1", Limits::default(), gone);
        assert!(!world.control().resume(ops()).await.unwrap(), "there is nothing to resume");
        world.accept(3, None).await;
        sleep(20 * SECOND).await;
        assert_eq!(world.attempts().len(), 1);
        if restart {
            world.restart().await;
            sleep(SECOND).await;
        }
        assert!(world.control().resume(ops()).await.unwrap());
        assert!(world.settle().await <= SECOND);
        assert_eq!(world.attempts().len(), 4);
        world.restart().await;
        world.accept(1, None).await;
        assert!(world.settle().await <= SECOND, "it is not suspended again by a restart");
        assert!(!world.control().resume(ops()).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn resuming_works_in_the_very_moment_of_the_suspension() {
    let gone = |attempt: &Attempt| {
        let first = attempt.at < SECOND / 2;
        (SECOND / 10, if first { answered(410) } else { ok() })
    };
    // Another attempt is still under way, so the lane has not ended.
    let slow = move |attempt: &Attempt| {
        let (_, outcome) = gone(attempt);
        (if attempt.delivery.as_bytes()[15] == 1 { SECOND / 10 } else { 5 * SECOND }, outcome)
    };
    let mut world = World::start("", Limits::default(), slow);
    world.accept(2, None).await;
    sleep(SECOND).await;
    assert_eq!(
        world.control().status(&ops()).map(|status| (status.suspended, status.breaker)),
        Some((true, BreakerStatus::Closed))
    );
    assert!(world.control().resume(ops()).await.unwrap());
    assert!(world.settle().await < 7 * SECOND);
}
