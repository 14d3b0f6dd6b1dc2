//! Deliveries that stay in order, through failures, restarts and changes.

use std::sync::Mutex;

use aquarium_delivery::Order;
use aquarium_dispatch::Chance;

use super::*;

const FIFO: &str = "order = \"fifo\"\njitter = 0.0\nbreaker_failures = 1000000";
const ENTITY: &str = "order = \"entity\"\njitter = 0.0\nbreaker_failures = 1000000";

/// One of ten entities; every seventh delivery is about two, and every eleventh about none.
fn about(number: u64) -> Vec<u64> {
    match number {
        number if number % 11 == 0 => vec![],
        number if number % 7 == 0 => vec![1 + number % 10, 1 + (number + 3) % 10],
        number => vec![1 + number % 10],
    }
}

#[tokio::test(start_paused = true)]
async fn in_line_one_goes_at_a_time_and_a_failing_one_holds_all_behind_it() {
    let script = |attempt: &Attempt| (SECOND, if attempt.at < 6 * SECOND { refused() } else { ok() });
    let mut world = World::start(FIFO, Limits::default(), script);
    world.accept_about(20, None, Order::Fifo, |_| vec![]).await;
    world.settle().await;
    assert_eq!(world.most_in_flight(), 1);
    assert_eq!(world.delivered(), (1..=20).collect::<Vec<_>>());
    let at: Vec<_> = world.attempts().iter().take(3).map(|attempt| attempt.at.as_secs()).collect();
    assert_eq!(at, [0, 6, 7], "nobody overtook the first one while it waited for its second attempt");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_given_up_holds_nobody_any_more() {
    let failing = Mutex::new(None);
    let script = move |attempt: &Attempt| {
        let first = *failing.lock().unwrap().get_or_insert(attempt.delivery);
        (SECOND, if attempt.delivery == first { refused() } else { ok() })
    };
    let lines = format!("{FIFO}\nretry = [\"1m\"]");
    let mut world = World::start(&lines, Limits::default(), script);
    world.accept_about(3, None, Order::Fifo, |_| vec![]).await;
    assert!(world.settle().await < 90 * SECOND);
    assert_eq!(world.delivered(), [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_entity_holds_its_own_deliveries_and_no_other() {
    // Whatever is about the first entity fails for an hour.
    let script = |attempt: &Attempt| {
        let number = u64::from_be_bytes(*attempt.delivery.as_bytes().last_chunk().unwrap()) & 0xffff_ffff;
        let fails = attempt.at < HOUR && number % 10 == 0;
        (SECOND / 10, if fails { refused() } else { ok() })
    };
    let mut world = World::start(ENTITY, Limits::default(), script);
    world.accept_about(1_000, None, Order::Entity, |number| vec![1 + number % 10]).await;
    sleep(60 * SECOND).await;
    assert_eq!(world.delivered().len(), 900, "nine entities do not notice");
    assert!(world.most_in_flight() >= 9, "they go side by side");
    let first: Vec<_> = world.attempts().into_iter().filter(|attempt| attempt.number > 1).collect();
    assert!(
        first.windows(2).all(|pair| pair[0].delivery == pair[1].delivery),
        "one of the first entity is tried"
    );
    world.settle().await;
    let delivered = world.delivered();
    for entity in 0..10 {
        let of_it: Vec<_> = delivered.iter().filter(|number| *number % 10 == entity).collect();
        assert!(of_it.len() == 100 && of_it.is_sorted(), "{entity}: {of_it:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn order_holds_and_nothing_is_lost_through_failures_and_restarts() {
    for seed in 0..60 {
        let order = if seed % 3 == 0 { Order::Fifo } else { Order::Entity };
        let (chance, draw) = (Chance::seeded(seed), Chance::seeded(seed + 1_000));
        let script = move |_: &Attempt| {
            let outcome = if draw.fraction() < 0.3 { refused() } else { ok() };
            (Duration::from_millis((draw.fraction() * 900.0) as u64), outcome)
        };
        let retry = "\"1s\", ".repeat(60);
        let lines = format!("{}\nretry = [{retry}]", if order == Order::Fifo { FIFO } else { ENTITY });
        let mut world = World::start(&lines, Limits::default(), script);
        let mut accepted = 0;
        for _ in 0..12 {
            let number = (chance.fraction() * 12.0) as u64;
            world.accept_about(number, None, order, about).await;
            accepted += number;
            sleep(Duration::from_millis((chance.fraction() * 3_000.0) as u64)).await;
            if chance.fraction() < 0.4 {
                world.restart().await;
            }
        }
        world.settle().await;
        let delivered = world.delivered();
        assert_eq!(delivered.len() as u64, accepted, "seed {seed}");
        for subject in 0..=10 {
            let concerns = |number: &&u64| order == Order::Fifo || about(**number).contains(&subject);
            let line: Vec<_> = delivered.iter().filter(concerns).collect();
            assert!(line.is_sorted(), "seed {seed}, subject {subject}: {line:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_order_what_waited_goes_at_once_also_after_a_restart() {
    for restarted in [false, true] {
        let script = |attempt: &Attempt| (SECOND, if attempt.at < SECOND { refused() } else { ok() });
        let lines = format!("{FIFO}\nretry = [\"1h\"]");
        let mut world = World::start(&lines, Limits::default(), script);
        world.accept_about(300, None, Order::Fifo, |_| vec![]).await;
        sleep(10 * SECOND).await;
        assert_eq!(world.attempts().len(), 1);
        world.publish_ops(Some("retry = [\"1h\"]"));
        if restarted {
            world.restart().await;
        }
        sleep(60 * SECOND).await;
        assert_eq!(world.delivered().len(), 299, "restarted: {restarted}");
        world.settle().await;
        assert_eq!(world.attempts_of_each().len(), 300);
    }
}

#[tokio::test(start_paused = true)]
async fn who_watches_hears_of_what_had_to_wait_behind_others() {
    let mut world = World::start(FIFO, Limits::default(), |_| (SECOND, ok()));
    let (watcher, mut reports) = mpsc::channel::<Report>(10);
    world.accept_about(10, Some(watcher), Order::Fifo, |_| vec![]).await;
    for _ in 0..10 {
        assert_eq!(reports.recv().await.unwrap().outcome, ok());
    }
    assert!((10..=12).contains(&world.clock.now().since(EPOCH).as_secs()));
}
