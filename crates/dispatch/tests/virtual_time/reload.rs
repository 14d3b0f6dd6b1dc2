//! Configurations that change while attempts are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aquarium_config::Config;

use super::*;

const SECOND_SECRET: &str = "second-secret-0123456789";
const FIRST: Setup<'static> = SETUP;
const SECOND_URL: &str = "https://ops.example/b";
/// Another URL, which knows another secret.
const MOVED: Setup<'static> = Setup { url: SECOND_URL, secret: SECOND_SECRET, ..SETUP };

#[tokio::test(start_paused = true)]
async fn an_attempt_that_waits_for_its_connection_goes_out_with_the_secret_that_came_meanwhile() {
    let mut world = World::start("", Limits::default(), |_| (SECOND, ok()));
    world.connect_within(4 * SECOND);
    world.accept(1, None).await;
    sleep(SECOND).await;
    world.publish(Setup { secret: SECOND_SECRET, ..SETUP });
    world.settle().await;
    let [attempt] = &world.attempts()[..] else { panic!("{:?}", world.attempts()) };
    assert_eq!(attempt.secret, SECOND_SECRET);
    assert_eq!((attempt.stamp, attempt.at), (SECOND, 5 * SECOND), "it began anew, with all of its time");
    assert_eq!(attempt.number, 1, "what was withdrawn is no attempt");
}

#[tokio::test(start_paused = true)]
async fn a_url_and_a_secret_are_of_one_configuration_whenever_that_changes() {
    let mut world = World::start("concurrency = 4", Limits::default(), |_| (SECOND / 3, ok()));
    world.connect_within(SECOND / 2);
    world.accept(100, None).await;
    let mut published = vec![(Duration::ZERO, FIRST)];
    for round in 0..20 {
        sleep(Duration::from_millis(700 + 13 * round)).await;
        let setup = Setup { ops: Some("concurrency = 4"), ..if round % 2 == 0 { MOVED } else { FIRST } };
        world.publish(setup);
        published.push((world.clock.now().since(EPOCH), setup));
    }
    world.settle().await;
    assert!(world.each_was_sent_once());
    for attempt in world.attempts() {
        let (_, newest) = published.iter().rfind(|(at, _)| *at <= attempt.at).unwrap();
        assert_eq!(
            (attempt.url.as_str(), attempt.secret.as_str()),
            (newest.url, newest.secret),
            "{attempt:?}"
        );
    }
    assert!(world.calls() > 100, "no attempt was under way when the configuration changed");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_waits_for_its_connection_is_not_disturbed_by_what_does_not_concern_it() {
    let mut world = World::start("", Limits::default(), |_| (SECOND, ok()));
    world.connect_within(10 * SECOND);
    world.accept(1, None).await;
    let other = "[projects.urban.webhooks.other]\nurl = \"https://other.example\"\nevents = [\"*\"]\n";
    let globex = format!("{other}concurrency = 3\n");
    for setup in [
        Setup { acme: other, ..SETUP },
        Setup { acme: other, globex: &globex, ..SETUP },
        Setup { acme: other, aquarium: "[events]\ncustom = [\"model-trained\"]\n", ..SETUP },
        SETUP,
    ] {
        sleep(SECOND).await;
        world.publish(setup);
    }
    sleep(SECOND).await;
    // The same organization, and not just one like it, next to another one.
    let mut shared = Config::clone(&Setup { globex: &globex, ..SETUP }.load());
    shared.organizations.insert("acme".into(), world.config.borrow().organizations["acme"].clone());
    world.config.send(Arc::new(shared)).unwrap();
    world.settle().await;
    assert_eq!(world.calls(), 1);
    assert_eq!(world.attempts()[0].at, 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_previous_organization_is_let_go_when_the_last_attempt_that_was_made_from_it_has_ended() {
    let mut world = World::start("", Limits::default(), |_| (10 * SECOND, ok()));
    world.accept(1, None).await;
    sleep(SECOND).await;
    let first = Arc::downgrade(&world.config.borrow().organizations["acme"]);
    world.connect_within(10 * SECOND);
    world.accept(1, None).await;
    sleep(SECOND).await;
    world.publish(Setup { secret: SECOND_SECRET, ..SETUP });
    sleep(SECOND).await;
    assert_eq!(first.strong_count(), 1, "by the attempt under way, and not by the one that was withdrawn");
    sleep(10 * SECOND).await;
    assert_eq!(first.strong_count(), 0);
}

/// Six hours of outage, then a quiet end; every half minute of the first hour a configuration is published.
async fn outage(setups: &[Setup<'_>]) -> World {
    let script = |attempt: &Attempt| {
        let outcome = if attempt.at < 6 * HOUR { refused() } else { ok() };
        (SECOND / 10, outcome)
    };
    let mut world = World::start("concurrency = 8", Limits::default(), script);
    world.accept(60, None).await;
    for setup in setups.iter().cycle().take(120) {
        sleep(30 * SECOND).await;
        world.publish(*setup);
    }
    sleep(6 * HOUR - world.clock.now().since(EPOCH)).await;
    world.most_in_flight();
    world.settle().await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_change_keeps_the_breaker_open_the_probes_on_time_and_the_order() {
    let untouched = Setup { ops: Some("concurrency = 8"), ..SETUP };
    let alone = outage(&[]).await.attempts();
    let other = |line| {
        format!(
            "[projects.urban.webhooks.other]\nurl = \"https://other.example\"\nevents = [\"*\"]\n{line}\n"
        )
    };
    let (added, changed) = (other("active = false"), other("concurrency = 3"));
    let beside = [Setup { acme: &added, ..untouched }, Setup { acme: &changed, ..untouched }, untouched];
    assert_eq!(outage(&beside).await.attempts(), alone, "another webhook is no concern of this one");

    let world = outage(&[Setup { ops: Some("concurrency = 2\ntimeout = \"3s\""), ..SETUP }]).await;
    let attempts = world.attempts();
    let during = |attempts: &[Attempt]| -> Vec<_> {
        let during = attempts.iter().filter(|attempt| attempt.at < 6 * HOUR);
        during.map(|attempt| (attempt.at, attempt.delivery)).collect()
    };
    assert_eq!(during(&attempts), during(&alone));
    let (before, after) = attempts.split_at(attempts.partition_point(|attempt| attempt.at < 30 * SECOND));
    assert!(before.iter().all(|attempt| attempt.timeout == 15 * SECOND));
    assert!(after.iter().all(|attempt| attempt.timeout == 3 * SECOND), "the very next attempt has it");
    assert_eq!(world.most_in_flight(), 2, "so has the lane, once there is something to send at once");
}

#[tokio::test(start_paused = true)]
async fn a_410_from_the_previous_url_does_not_suspend_the_webhook() {
    let script =
        |attempt: &Attempt| (10 * SECOND, if attempt.url == SECOND_URL { ok() } else { answered(410) });
    let mut world = World::start("", Limits::default(), script);
    world.accept(3, None).await;
    sleep(SECOND).await;
    world.publish(Setup { url: SECOND_URL, ..SETUP });
    sleep(30 * SECOND).await;
    assert_eq!(world.settled().await, 3);
    assert!(world.queue.backlog().await.unwrap().suspended.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_suspension_is_lifted_by_a_url_that_came_while_other_attempts_were_under_way() {
    let asked = AtomicUsize::new(0);
    let script = move |attempt: &Attempt| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => (SECOND, answered(410)),
        _ if attempt.url == SECOND_URL => (SECOND, ok()),
        _ => (10 * SECOND, refused()),
    };
    let mut world = World::start("", Limits::default(), script);
    world.accept(3, None).await;
    sleep(5 * SECOND).await;
    world.publish(Setup { url: SECOND_URL, ..SETUP });
    sleep(30 * SECOND).await;
    assert_eq!(world.settled().await, 3);
    assert!(world.queue.backlog().await.unwrap().suspended.is_empty());
}
