//! Webhooks that are switched off and on, or removed and added back.

use std::future::poll_fn;
use std::task::Poll;

use aquarium_dispatch::Chance;

use super::*;

const OFF: Option<&str> = Some("concurrency = 4\nactive = false");
const ON: Option<&str> = Some("concurrency = 4");
const REMOVED: Option<&str> = None;

fn start(attempt: Duration) -> World {
    World::start("concurrency = 4", Limits::default(), move |_| (attempt, ok()))
}

#[tokio::test(start_paused = true)]
async fn what_is_inactive_or_removed_is_held_and_goes_on_when_it_is_active_again() {
    for off in [OFF, REMOVED] {
        let mut world = start(SECOND);
        world.accept(20, None).await;
        sleep(SECOND * 5 / 2).await;
        world.publish_ops(off);
        sleep(HOUR).await;
        assert_eq!(world.attempts().len(), 12, "the attempts under way ended, and no new one started");
        assert_eq!(world.settled().await, 12, "what they came to is recorded");
        world.publish_ops(ON);
        let on_at = world.clock.now().since(EPOCH);
        world.settle().await;
        assert!(world.each_was_sent_once());
        assert_eq!(world.attempts()[12].at, on_at, "its lane had ended, and another one starts at once");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_waits_for_its_connection_is_not_sent_once_its_webhook_is_switched_off() {
    for off in [OFF, REMOVED] {
        let mut world = start(SECOND);
        world.connect_within(5 * SECOND);
        world.accept(1, None).await;
        sleep(SECOND).await;
        world.publish_ops(off);
        sleep(HOUR).await;
        assert_eq!((world.attempts().len(), world.settled().await), (0, 0), "it is held");
        world.publish_ops(ON);
        world.settle().await;
        let numbers: Vec<_> = world.attempts().iter().map(|attempt| attempt.number).collect();
        assert_eq!(numbers, [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_switched_on_before_it_has_ended_goes_on_at_once() {
    for off in [OFF, REMOVED] {
        let mut world = start(10 * SECOND);
        world.accept(2, None).await;
        for ops in [off, ON, off, ON] {
            sleep(SECOND).await;
            world.publish_ops(ops);
            world.accept(1, None).await;
        }
        world.settle().await;
        assert!(world.each_was_sent_once());
        let at: Vec<_> = world.attempts().iter().map(|attempt| attempt.at.as_secs()).collect();
        assert_eq!(at, [0, 0, 2, 2, 10, 10], "it does not wait for the attempts under way, but for a slot");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_off_in_the_end_sends_nothing_more_however_often_it_was_on_and_off() {
    for off in [OFF, REMOVED] {
        let mut world = start(10 * SECOND);
        world.accept(10, None).await;
        for ops in [off, ON, off, ON, off] {
            sleep(SECOND).await;
            world.publish_ops(ops);
        }
        sleep(HOUR).await;
        assert_eq!((world.attempts().len(), world.settled().await), (4, 4));
        world.publish_ops(ON);
        world.settle().await;
        assert!(world.each_was_sent_once());
    }
}

/// Lets every task that is ready take a turn. (`yield_now` lets them take all that they have.)
async fn turn() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Switches off a lane that waits for the time of a retry, so that it ends at once, and on again so many turns later. If
/// there are more of them than `accepted_after`, then an event is accepted between.
async fn blink(off: Option<&'static str>, accepted_after: usize, on_after: usize) {
    let script = |attempt: &Attempt| (SECOND, if attempt.number == 1 { refused() } else { ok() });
    let mut world = World::start("concurrency = 4", Limits::default(), script);
    world.accept(1, None).await;
    sleep(3 * SECOND).await;
    world.publish_ops(off);
    for number in 0..on_after {
        if number == accepted_after {
            world.accept(1, None).await;
        }
        turn().await;
    }
    world.publish_ops(ON);
    sleep(30 * SECOND).await;
    assert!(!world.pending().await, "{off:?}, on again after {on_after} turns");
    let of_each = world.attempts_of_each();
    assert!(of_each.values().all(|attempts| *attempts == 2), "{off:?}, after {on_after} turns: {of_each:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_ends_while_its_webhook_is_switched_on_again_is_followed_by_another_one() {
    for round in 0..1_000 {
        let (off, on_after) = (if round % 2 == 0 { OFF } else { REMOVED }, round / 2 % 10);
        // In a task of its own: the test itself takes its turn only when all others have none.
        tokio::spawn(blink(off, round / 20 % 10, on_after)).await.unwrap();
    }
}

/// Accepts an event so many turns after the time at which an idle lane ends.
async fn meet_the_end(turns: usize) {
    let mut world = start(SECOND);
    world.accept(1, None).await;
    sleep(11 * SECOND).await;
    for _ in 0..turns {
        turn().await;
    }
    world.accept(1, None).await;
    sleep(5 * SECOND).await;
    assert!(world.each_was_sent_once(), "after {turns} turns");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_meets_a_lane_at_its_end_is_sent() {
    for round in 0..200 {
        tokio::spawn(meet_the_end(round % 10)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_sent_twice_however_a_webhook_is_switched() {
    for seed in 0..200 {
        let chance = Chance::seeded(seed);
        let below = |limit: u32| (chance.fraction() * f64::from(limit)) as u32;
        let mut world = start(Duration::from_millis(u64::from(below(3_000))));
        world.connect_within(Duration::from_millis(u64::from(below(1_000))));
        for _ in 0..30 {
            match below(6) {
                0..2 => world.accept(u64::from(below(10)), None).await,
                2..4 => sleep(Duration::from_millis(u64::from(below(4_000)))).await,
                kind => {
                    world.publish_ops(if kind == 4 { OFF } else { REMOVED });
                    let sent = world.attempts().len();
                    sleep(Duration::from_millis(u64::from(below(4_000)))).await;
                    assert_eq!(
                        world.attempts().len(),
                        sent,
                        "seed {seed}: something was sent while it was off"
                    );
                    world.publish_ops(ON);
                }
            }
        }
        world.settle().await;
        assert!(world.each_was_sent_once(), "seed {seed}");
    }
}
