//! A lane against a model of the queue, in every order in which offers, pages and records can meet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use aquarium_config::{Config, Memory, load};
use aquarium_delivery::{EventId, Exhaustion, Failure, FailureKind, Outcome};
use aquarium_egress::{Phases, Sent};
use aquarium_queue::{Settled, Settlement};
use bytes::Bytes;
use proptest::prelude::*;

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
        size: 2,
        body: None,
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
    Outcome::Failed(Failure { kind: FailureKind::Connect, detail: "connection refused".into() })
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
    let made = Made { at: now, webhook: lane.webhook.clone(), sent: sent(outcome) };
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
    for key in 10..=17 {
        assert_eq!(send(&mut lane, probe_at), Key(key));
    }
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
        Step::Conclude(Concluded { settlement, .. }) => {
            assert_eq!((settlement.delivery, settlement.attempt), (Key(2), None));
            assert_eq!(settlement.state, Settled::Exhausted(Exhaustion::Age));
        }
        other => panic!("{other:?}"),
    }
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
    let made = Made { at: NOW, webhook: Arc::new(previous), sent: sent(answered(410)) };
    let concluded = lane.attempted(key, made, NOW, (0.5, 0.5)).unwrap();
    assert_eq!(concluded.settlement.state, Settled::Retry(NOW));
    assert!(!lane.is_held());
    lane.recorded(key);
    assert!(matches!(lane.next(NOW, true), Step::Claim(_)));
}

#[test]
fn while_it_is_not_active_it_does_nothing_and_then_goes_on_where_it_was() {
    let off = webhook("active = false\nbreaker_failures = 1\nconcurrency = 2");
    let on = webhook("breaker_failures = 1\nconcurrency = 2");
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

/// The queue, and everything that is on its way between it and the lane.
struct World {
    lane: Lane,
    now: Timestamp,
    last_key: u64,
    /// Pending deliveries: when they are due, and the attempts made.
    pending: BTreeMap<Key, (Timestamp, u32)>,
    offers: VecDeque<Delivery>,
    claim: Option<Claim>,
    page: Option<Page>,
    sending: BTreeSet<Key>,
    settlements: VecDeque<Settlement>,
    acknowledgements: VecDeque<Key>,
    delivered: BTreeSet<Key>,
}

impl World {
    fn new() -> Self {
        let lines =
            "concurrency = 3\nretry = [\"1ms\", \"20ms\", \"1ms\"]\njitter = 0.0\nbreaker_failures = 2";
        Self {
            lane: Lane::new(webhook(lines), None),
            now: NOW,
            last_key: 0,
            pending: BTreeMap::new(),
            offers: VecDeque::new(),
            claim: None,
            page: None,
            sending: BTreeSet::new(),
            settlements: VecDeque::new(),
            acknowledgements: VecDeque::new(),
            delivered: BTreeSet::new(),
        }
    }

    fn commit(&mut self, number: usize, offered: bool) {
        for _ in 0..number {
            self.last_key += 1;
            self.pending.insert(Key(self.last_key), (self.now, 0));
            if offered {
                self.offers.push_back(delivery(self.last_key, self.now, 0));
            }
        }
        if !offered {
            self.lane.missed_offers(self.now);
        }
    }

    fn switch(&mut self, active: bool) {
        let webhook = Webhook { active, ..Webhook::clone(&self.lane.webhook) };
        self.lane.configure(Arc::new(webhook));
    }

    fn step(&mut self, may_send: bool) -> bool {
        match self.lane.next(self.now, may_send) {
            Step::Send(item) => {
                assert!(self.lane.webhook.active, "it sends while it is switched off");
                let key = item.delivery.key;
                assert!(self.sending.insert(key), "{key:?} is sent while it is being sent");
                assert!(!self.delivered.contains(&key), "{key:?} is sent again after it was delivered");
                let (due, attempts) = self.pending[&key];
                assert!(due <= self.now, "{key:?} is sent before it is due");
                assert_eq!(item.delivery.attempts, attempts, "{key:?} counts its attempts wrongly");
            }
            Step::Claim(claim) => self.claim = Some(claim),
            Step::Conclude(concluded) => self.settlements.push_back(concluded.settlement),
            Step::Wait(_) | Step::End => return false,
        }
        true
    }

    fn read(&mut self) {
        let Some(claim) = self.claim.take() else { return };
        let mut due: Vec<_> =
            self.pending.iter().map(|(key, (due, attempts))| (*due, *key, *attempts)).collect();
        due.sort();
        let mut page = Page::default();
        for (due_at, key, attempts) in due.into_iter().filter(|(_, key, _)| !claim.held.contains(key)) {
            if due_at > claim.now || page.deliveries.len() == claim.limit {
                page.next_due = Some(due_at);
                break;
            }
            page.deliveries.push(delivery(key.0, due_at, attempts));
        }
        self.page = Some(page);
    }

    fn deliver_page(&mut self) {
        if let Some(page) = self.page.take() {
            self.lane.claimed(page, |_| None);
        }
    }

    fn answer(&mut self, index: usize, good: bool) {
        let Some(key) = self.sending.iter().nth(index % self.sending.len().max(1)).copied() else { return };
        self.sending.remove(&key);
        let outcome = if good { answered(200) } else { refused() };
        let concluded = attempted(&mut self.lane, key, outcome, self.now);
        if good {
            assert!(self.delivered.insert(key));
        }
        self.settlements.push_back(concluded.settlement);
    }

    fn settle(&mut self) {
        let Some(settlement) = self.settlements.pop_front() else { return };
        let made = settlement.attempt.map_or(0, |attempt| attempt.number);
        match settlement.state {
            Settled::Retry(at) => drop(self.pending.insert(settlement.delivery, (at, made))),
            _ => drop(self.pending.remove(&settlement.delivery)),
        }
        self.acknowledgements.push_back(settlement.delivery);
    }

    fn acknowledge(&mut self) {
        if let Some(key) = self.acknowledgements.pop_front() {
            self.lane.recorded(key);
        }
    }

    fn take_offer(&mut self) {
        if let Some(delivery) = self.offers.pop_front() {
            self.lane.offer(Item { delivery, reserved: None });
        }
    }

    /// From now on everything goes well: everything must be settled.
    fn finish(&mut self) {
        self.switch(true);
        for _ in 0..200_000 {
            while self.step(true) {}
            let quiet = self.offers.is_empty() && self.sending.is_empty() && self.settlements.is_empty();
            if quiet && self.pending.is_empty() && self.acknowledgements.is_empty() && self.claim.is_none() {
                return;
            }
            self.take_offer();
            self.read();
            self.deliver_page();
            self.answer(0, true);
            self.settle();
            self.acknowledge();
            self.now = self.now + Duration::from_millis(50);
        }
        panic!("stuck with {} pending, lane {:?}", self.pending.len(), self.lane);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_sent_twice_however_offers_pages_and_records_overlap(
        moves in prop::collection::vec((0_u8..14, 0_usize..400), 1..400)
    ) {
        let mut world = World::new();
        for (kind, number) in moves {
            match kind {
                0 => world.commit(number % 8, true),
                1 => world.commit(number, number % 7 != 0),
                2 | 3 => (0..number % 12).for_each(|_| world.take_offer()),
                4 | 5 => drop(world.step(number % 5 != 0)),
                6 => while world.step(true) {},
                7 => world.read(),
                8 => world.deliver_page(),
                9 => world.answer(number, number % 4 != 0),
                10 => world.settle(),
                11 => world.acknowledge(),
                12 => world.switch(number % 2 == 0),
                _ => world.now = world.now + Duration::from_millis(number as u64 / 8),
            }
        }
        world.finish();
        prop_assert!(world.lane.is_idle());
    }
}
