//! What a lane does, step by step; and in every order in which offers, pages, records and restarts can meet.

mod world;

use std::time::Duration;

use aquarium_config::{Config, Memory, load};
use aquarium_delivery::{EventId, Exhaustion, Failure, FailureKind, Outcome, Phases};
use aquarium_egress::Sent;
use aquarium_queue::{Settled, Settlement};
use bytes::Bytes;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// The one webhook of a configuration with these lines in it.
fn webhook(lines: &str) -> Arc<Webhook> {
    let organization = format!(
        "version = 1\n[projects.urban.webhooks.ops]\nurl = \"https://ops.example\"\nevents = [\"*\"]\n{lines}\n"
    );
    let source = Memory::new()
        .file("c/aquarium.toml", "version = 1\n")
        .file("c/organizations/acme.toml", organization);
    let config: Config = load("c".as_ref(), &source).unwrap().config;
    config.webhooks().next().unwrap().clone()
}

fn delivery(key: u64, due_at: Timestamp, attempts: u32) -> Delivery {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&key.to_be_bytes());
    Delivery {
        key: Key(key),
        id: DeliveryId::new(NOW, random),
        webhook: "acme/urban/ops".parse().unwrap(),
        event: EventId::new(NOW, random),
        event_key: Key(key),
        accepted_at: NOW,
        due_at,
        attempts,
        earlier_attempts: 0,
        replayed_at: None,
        test: false,
        ordered: true,
        size: 2,
        body: None,
        trace: None,
        hops: aquarium_delivery::Hops::FIRST,
        damaged: false,
        watcher: None,
    }
}

fn sent(outcome: Outcome) -> Sent {
    Sent { outcome, duration: Duration::from_millis(3), phases: Phases::default(), excerpt: Bytes::new() }
}

fn answered(status: u16) -> Outcome {
    Outcome::Answered { status, retry_after: None }
}

fn refused() -> Outcome {
    Outcome::Failed(Failure::new(FailureKind::Connect, "connection refused"))
}

fn offer(lane: &mut Lane, key: u64) {
    lane.offer(Item { delivery: delivery(key, NOW, 0), reserved: None });
}

fn send(lane: &mut Lane, now: Timestamp) -> Key {
    match lane.next(now, true) {
        Step::Send(item) => item.delivery.key,
        other => panic!("{other:?}"),
    }
}

fn attempted(lane: &mut Lane, key: Key, outcome: Outcome, now: Timestamp) -> Concluded {
    let made = Made { at: now, webhook: lane.webhook.clone(), sent: sent(outcome), traced: None };
    lane.attempted(key, made, now, (0.5, 0.5)).unwrap()
}

#[test]
fn it_sends_the_oldest_first_and_no_more_at_once_than_allowed() {
    let mut lane = Lane::new(webhook("concurrency = 2"), None);
    (1..=3).for_each(|key| offer(&mut lane, key));
    assert_eq!([send(&mut lane, NOW), send(&mut lane, NOW)], [Key(1), Key(2)]);
    assert!(matches!(lane.next(NOW, true), Step::Wait(None)));
    let concluded = attempted(&mut lane, Key(2), answered(200), NOW);
    assert_eq!(concluded.settlement.state, Settled::Delivered);
    assert_eq!(send(&mut lane, NOW), Key(3), "a slot is free before the outcome is recorded");
}

#[test]
fn it_ends_only_when_nothing_is_under_way_or_waits() {
    let mut lane = Lane::new(webhook(""), None);
    assert!(matches!(lane.next(NOW, true), Step::End));
    offer(&mut lane, 1);
    send(&mut lane, NOW);
    assert!(matches!(lane.next(NOW, true), Step::Wait(None)));
    let concluded = attempted(&mut lane, Key(1), refused(), NOW);
    let due = NOW + Duration::from_secs(5);
    assert_eq!(concluded.settlement.state, Settled::Retry(due));
    lane.recorded(Key(1));
    match lane.next(NOW, true) {
        Step::Wait(at) => assert_eq!(at, Some(due)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(lane.next(due, true), Step::Claim(_)));
}

#[test]
fn behind_an_open_breaker_nothing_is_sent_but_probes_and_nothing_else_spends_an_attempt() {
    let mut lane = Lane::new(webhook("breaker_failures = 3\nconcurrency = 8"), None);
    (1..=20).for_each(|key| offer(&mut lane, key));
    let first: Vec<_> = (0..8).map(|_| send(&mut lane, NOW)).collect();
    let notices: Vec<_> =
        first.into_iter().flat_map(|key| attempted(&mut lane, key, refused(), NOW).notices).collect();
    assert_eq!(notices, [Notice::BreakerOpened(refused())], "it is said once");
    (1..=8).for_each(|key| lane.recorded(Key(key)));

    let probe_at = NOW + Duration::from_secs(1);
    assert!(matches!(lane.next(NOW, true), Step::Wait(Some(at)) if at == probe_at));
    assert_eq!(send(&mut lane, probe_at), Key(9), "the oldest that is due");
    assert!(!lane.wants_to_send(probe_at), "one probe at a time");
    let concluded = attempted(&mut lane, Key(9), answered(200), probe_at);
    assert_eq!(concluded.notices, [Notice::BreakerClosed]);
    for key in 10..=13 {
        assert_eq!(send(&mut lane, probe_at), Key(key));
    }
    assert!(!lane.wants_to_send(probe_at), "not all at once: the failures have halved the window");
    for key in 10..=13 {
        attempted(&mut lane, Key(key), answered(200), probe_at);
    }
    assert_eq!(
        [14, 15, 16, 17, 18].map(|_| send(&mut lane, probe_at)),
        [14, 15, 16, 17, 18].map(Key),
        "it grows"
    );
}

#[test]
fn while_the_breaker_is_open_what_is_too_old_is_given_up_and_otherwise_it_is_tried() {
    let late = NOW + Duration::from_secs(7_200);
    let lines = "give_up_after = \"1h\"\nbreaker_failures = 1\nconcurrency = 1";
    let mut lane = Lane::new(webhook(lines), None);
    (1..=2).for_each(|key| offer(&mut lane, key));
    assert_eq!(send(&mut lane, late), Key(1), "it is old, but was never tried");
    let concluded = attempted(&mut lane, Key(1), refused(), late);
    assert_eq!(concluded.settlement.state, Settled::Exhausted(Exhaustion::Age));
    match lane.next(late, true) {
        Step::Conclude(concluded) => {
            let settlement = concluded.settlement;
            assert_eq!((settlement.delivery, settlement.attempt), (Key(2), None));
            assert_eq!(settlement.state, Settled::Exhausted(Exhaustion::Age));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_damaged_is_given_up_and_says_nothing_of_the_endpoint() {
    let mut lane = Lane::new(webhook("breaker_failures = 1\nconcurrency = 1"), None);
    (1..=3).for_each(|key| offer(&mut lane, key));
    assert_eq!(send(&mut lane, NOW), Key(1));
    let concluded = lane.damaged(Key(1), NOW).unwrap();
    let Settlement { delivery, attempt, state, ordered, .. } = concluded.settlement;
    assert_eq!((delivery, attempt, ordered), (Key(1), None, true), "others may wait for it");
    assert_eq!(state, Settled::Exhausted(Exhaustion::Damaged));
    assert!(matches!(concluded.notices[..], [Notice::Exhausted(_, Exhaustion::Damaged, None)]));
    assert!(lane.damaged(Key(1), NOW).is_none(), "it is given up once");

    assert_eq!(send(&mut lane, NOW), Key(2), "the breaker is closed, and there is room");
    attempted(&mut lane, Key(2), refused(), NOW);
    let probe_at = NOW + Duration::from_secs(2);
    assert_eq!(send(&mut lane, probe_at), Key(3));
    lane.damaged(Key(3), probe_at).unwrap();
    offer(&mut lane, 4);
    assert_eq!(send(&mut lane, probe_at), Key(4), "it was no probe: the next one is");
}

#[test]
fn a_pause_that_the_endpoint_asked_for_holds_the_whole_lane() {
    let mut lane = Lane::new(webhook(""), None);
    (1..=2).for_each(|key| offer(&mut lane, key));
    send(&mut lane, NOW);
    let hint = aquarium_delivery::RetryAfter::Delay(Duration::from_secs(60));
    let until = NOW + Duration::from_secs(60);
    let outcome = Outcome::Answered { status: 429, retry_after: Some(hint) };
    let concluded = attempted(&mut lane, Key(1), outcome, NOW);
    assert_eq!(
        (concluded.settlement.state, concluded.notices),
        (Settled::Retry(until), vec![Notice::Paused(until)])
    );
    lane.recorded(Key(1));
    assert!(matches!(lane.next(NOW, true), Step::Wait(Some(at)) if at == until));
    assert_eq!(send(&mut lane, until), Key(2));
}

#[test]
fn a_rate_limit_spreads_attempts_and_is_changed_and_lifted_while_it_runs() {
    let millis = |number| NOW + Duration::from_millis(number);
    let mut lane = Lane::new(webhook("rate_limit = \"20/s\""), None);
    (1..=9).for_each(|key| offer(&mut lane, key));
    assert_eq!([send(&mut lane, NOW), send(&mut lane, NOW)], [Key(1), Key(2)], "the burst");
    assert!(!lane.wants_to_send(NOW));
    assert!(matches!(lane.next(NOW, true), Step::Wait(Some(at)) if at == millis(50)));
    assert_eq!(send(&mut lane, millis(50)), Key(3));
    lane.configure(webhook("rate_limit = \"2/s\""));
    assert!(matches!(lane.next(millis(50), true), Step::Wait(Some(at)) if at == millis(150)));
    assert_eq!(send(&mut lane, millis(150)), Key(4));
    assert!(matches!(lane.next(millis(150), true), Step::Wait(Some(at)) if at == millis(650)));
    lane.configure(webhook(""));
    for key in 5..=9 {
        assert_eq!(send(&mut lane, millis(151)), Key(key));
    }
}

#[test]
fn after_410_nothing_is_sent_and_the_lane_ends_when_all_is_recorded() {
    let mut lane = Lane::new(webhook(""), None);
    (1..=3).for_each(|key| offer(&mut lane, key));
    let (first, second) = (send(&mut lane, NOW), send(&mut lane, NOW));
    let concluded = attempted(&mut lane, first, answered(410), NOW);
    assert_eq!(concluded.notices, [Notice::Suspended]);
    assert_eq!(concluded.settlement.state, Settled::Suspended { url: "https://ops.example/".into() });
    assert!(attempted(&mut lane, second, answered(410), NOW).notices.is_empty(), "it is said once");
    assert!(matches!(lane.next(NOW, true), Step::Wait(None)));
    lane.recorded(first);
    lane.recorded(second);
    offer(&mut lane, 4);
    assert!(matches!(lane.next(NOW, true), Step::End));
}

#[test]
fn a_410_from_another_url_than_the_present_one_suspends_nothing_and_the_delivery_is_due_again() {
    let mut lane = Lane::new(webhook(""), None);
    offer(&mut lane, 1);
    let key = send(&mut lane, NOW);
    let previous =
        Webhook { url: "https://previous.example".parse().unwrap(), ..Webhook::clone(&lane.webhook) };
    let made = Made { at: NOW, webhook: Arc::new(previous), sent: sent(answered(410)), traced: None };
    let concluded = lane.attempted(key, made, NOW, (0.5, 0.5)).unwrap();
    assert_eq!(concluded.settlement.state, Settled::Retry(NOW));
    assert!(!lane.is_held());
    lane.recorded(key);
    assert!(matches!(lane.next(NOW, true), Step::Claim(_)));
}

#[test]
fn while_it_is_not_active_it_does_nothing_and_then_goes_on_where_it_was() {
    let off = webhook("active = false\nbreaker_failures = 1\nconcurrency = 4");
    let on = webhook("breaker_failures = 1\nconcurrency = 4");
    let mut lane = Lane::new(on.clone(), None);
    (1..=3).for_each(|key| offer(&mut lane, key));
    let (first, second) = (send(&mut lane, NOW), send(&mut lane, NOW));
    lane.configure(off);
    assert!(!lane.wants_to_send(NOW));
    attempted(&mut lane, first, refused(), NOW);
    lane.recorded(first);
    let later = NOW + Duration::from_secs(1_000_000);
    assert!(matches!(lane.next(later, true), Step::Wait(None)), "it reads nothing, and gives nothing up");
    lane.configure(on);
    let probe_at = NOW + Duration::from_secs(1);
    let step = lane.next(NOW, true);
    assert!(matches!(step, Step::Wait(Some(at)) if at == probe_at), "the breaker is still open: {step:?}");
    lane.configure(webhook("active = false"));
    attempted(&mut lane, second, refused(), NOW);
    lane.recorded(second);
    assert!(matches!(lane.next(later, true), Step::End));
}

#[test]
fn a_retry_that_is_recorded_while_a_page_is_awaited_is_not_forgotten() {
    let mut lane = Lane::new(webhook(""), None);
    offer(&mut lane, 1);
    send(&mut lane, NOW);
    attempted(&mut lane, Key(1), refused(), NOW);
    lane.missed_offers(NOW);
    let Step::Claim(claim) = lane.next(NOW, true) else { panic!("there is something to claim") };
    assert!(claim.held.contains(&Key(1)));
    lane.recorded(Key(1));
    lane.claimed(Page::default(), |_| None);
    let due = NOW + Duration::from_secs(5);
    assert!(matches!(lane.next(NOW, true), Step::Wait(Some(at)) if at == due));
}

#[test]
fn what_waits_behind_another_is_not_kept_and_read_when_it_is_released() {
    let mut lane = Lane::new(webhook("order = \"entity\""), None);
    offer(&mut lane, 1);
    let (watcher, _reports) = tokio::sync::mpsc::channel(1);
    let mut behind = delivery(2, PARKED, 0);
    behind.watcher = Some(watcher);
    lane.offer(Item { delivery: behind, reserved: None });
    assert_eq!(send(&mut lane, NOW), Key(1));
    assert!(matches!(lane.next(NOW, true), Step::Wait(None)));
    let concluded = attempted(&mut lane, Key(1), answered(200), NOW);
    assert!(concluded.settlement.ordered);
    lane.recorded(Key(1));
    lane.released(NOW);
    let Step::Claim(claim) = lane.next(NOW, true) else { panic!("it was released") };
    assert!(!claim.parked);
    lane.claimed(Page { deliveries: vec![delivery(2, NOW, 0)], next_due: None }, |_| None);
    let Step::Send(item) = lane.next(NOW, true) else { panic!("it may be sent") };
    assert!(item.delivery.watcher.is_some(), "who watches it is not forgotten");
}

#[test]
fn another_order_counts_for_what_is_in_memory_and_on_its_way_there() {
    let (none, fifo) = (webhook("concurrency = 4"), webhook("concurrency = 4\norder = \"fifo\""));
    let mut lane = Lane::new(none.clone(), None);
    (1..=3).for_each(|key| offer(&mut lane, key));
    assert_eq!(send(&mut lane, NOW), Key(1));
    lane.missed_offers(NOW);
    let Step::Claim(claim) = lane.next(NOW, false) else { panic!("there is something to claim") };
    assert!(claim.parked, "without order nothing waits for another");
    lane.configure(fifo);
    lane.claimed(Page { deliveries: vec![delivery(4, NOW, 0)], next_due: None }, |_| None);
    let Step::Claim(claim) = lane.next(NOW, true) else { panic!("it asks again") };
    assert!(!claim.parked);
    lane.claimed(Page { deliveries: vec![delivery(2, NOW, 0)], next_due: None }, |_| None);
    assert!(matches!(lane.next(NOW, true), Step::Wait(None)), "one at a time");
    attempted(&mut lane, Key(1), answered(200), NOW);
    assert_eq!(send(&mut lane, NOW), Key(2));
    lane.configure(none);
    let Step::Claim(claim) = lane.next(NOW, true) else { panic!("it asks for what waits behind") };
    assert!(claim.parked);
}
