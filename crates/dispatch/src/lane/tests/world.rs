//! A lane against a model of the queue, with everything that is on its way between the two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aquarium_delivery::Order;
use proptest::prelude::*;

use super::*;

/// A pending delivery in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    due: Timestamp,
    attempts: u32,
    /// What it stays in order about.
    subjects: Vec<u64>,
}

struct World {
    lane: Lane,
    now: Timestamp,
    last_key: u64,
    pending: BTreeMap<Key, Pending>,
    offers: VecDeque<Delivery>,
    claim: Option<Claim>,
    page: Option<Page>,
    sending: BTreeSet<Key>,
    settlements: VecDeque<Settlement>,
    /// Recorded, and whether that released any.
    acknowledgements: VecDeque<(Key, bool)>,
    delivered: BTreeSet<Key>,
    /// By subject, the last delivery that succeeded for the first time.
    last_delivered: BTreeMap<u64, Key>,
    /// False once the order was changed: what was sent without order cannot be in order.
    in_order: bool,
}

fn configured(order: Order) -> Arc<Webhook> {
    let lines = "concurrency = 3\nretry = [\"1ms\", \"20ms\", \"1ms\"]\njitter = 0.0\nbreaker_failures = 2";
    webhook(&format!("{lines}\norder = \"{order}\""))
}

impl World {
    fn new(order: Order) -> Self {
        Self {
            lane: Lane::new(configured(order), None),
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
            last_delivered: BTreeMap::new(),
            in_order: true,
        }
    }

    /// What the next delivery is about: one of a few entities, two of them, or none.
    fn subjects(&self) -> Vec<u64> {
        match self.lane.webhook.order {
            Order::None => vec![],
            Order::Fifo => vec![0],
            Order::Entity if self.last_key.is_multiple_of(7) => vec![],
            Order::Entity if self.last_key.is_multiple_of(5) => vec![1, 2],
            Order::Entity => vec![1 + self.last_key % 3],
        }
    }

    fn commit(&mut self, number: usize, offered: bool) {
        for _ in 0..number {
            self.last_key += 1;
            let (key, subjects) = (Key(self.last_key), self.subjects());
            let parked = self.is_behind(key, &subjects);
            let due = if parked { PARKED } else { self.now };
            self.pending.insert(key, Pending { due, attempts: 0, subjects });
            // What is parked is offered if somebody watches it.
            if offered && (!parked || self.last_key.is_multiple_of(2)) {
                self.offers.push_back(delivery(self.last_key, due, 0));
            }
        }
        if !offered {
            self.lane.missed_offers(self.now);
        }
    }

    fn is_behind(&self, key: Key, subjects: &[u64]) -> bool {
        let mut earlier = self.pending.range(..key);
        !subjects.is_empty()
            && earlier.any(|(_, other)| other.subjects.iter().any(|subject| subjects.contains(subject)))
    }

    fn switch(&mut self, active: bool) {
        let webhook = Webhook { active, ..Webhook::clone(&self.lane.webhook) };
        self.lane.configure(Arc::new(webhook));
    }

    fn reorder(&mut self, order: Order) {
        self.in_order = false;
        let active = self.lane.webhook.active;
        self.lane.configure(Arc::new(Webhook { active, ..Webhook::clone(&configured(order)) }));
    }

    /// A kill, and another process: what was on its way is gone, and what was not recorded is as if it had not been.
    fn restart(&mut self) {
        let webhook = self.lane.webhook.clone();
        self.lane = Lane::new(webhook, Some(Timestamp::default()));
        self.offers.clear();
        (self.claim, self.page) = (None, None);
        self.sending.clear();
        self.settlements.clear();
        self.acknowledgements.clear();
        self.delivered.retain(|key| !self.pending.contains_key(key));
    }

    fn step(&mut self, may_send: bool) -> bool {
        match self.lane.next(self.now, may_send) {
            Step::Send(item) => {
                assert!(self.lane.webhook.active, "it sends while it is switched off");
                let key = item.delivery.key;
                assert!(self.sending.insert(key), "{key:?} is sent while it is being sent");
                assert!(!self.delivered.contains(&key), "{key:?} is sent again after it was delivered");
                let Pending { due, attempts, subjects } = &self.pending[&key];
                assert_eq!(item.delivery.attempts, *attempts, "{key:?} counts its attempts wrongly");
                match self.lane.webhook.order {
                    Order::None => assert!(*due <= self.now || *due == PARKED, "{key:?} is not due"),
                    _ => assert!(*due <= self.now, "{key:?} is sent before it is due"),
                }
                if self.in_order {
                    assert!(!self.is_behind(key, subjects), "{key:?} overtakes another one");
                }
            }
            Step::Claim(claim) => self.claim = Some(claim),
            Step::Conclude(concluded) => self.settlements.push_back(concluded.settlement),
            Step::Wait(_) | Step::End => return false,
        }
        true
    }

    fn read(&mut self) {
        let Some(claim) = self.claim.take() else { return };
        let due_at = |due: Timestamp| match due {
            PARKED if claim.parked => Some(NOW),
            PARKED => None,
            due => Some(due),
        };
        let due = self
            .pending
            .iter()
            .filter_map(|(key, pending)| Some((due_at(pending.due)?, *key, pending.attempts)));
        let mut due: Vec<_> = due.collect();
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
            for subject in &self.pending[&key].subjects {
                let last = self.last_delivered.insert(*subject, key);
                assert!(!self.in_order || last <= Some(key), "{key:?} came after {last:?}");
            }
        }
        self.settlements.push_back(concluded.settlement);
    }

    fn settle(&mut self) {
        let Some(settlement) = self.settlements.pop_front() else { return };
        let Settlement { delivery: key, attempt, state, .. } = settlement;
        let mut released = false;
        if let Settled::Retry(at) = state {
            let pending = self.pending.get_mut(&key).unwrap();
            (pending.due, pending.attempts) = (at, attempt.map_or(0, |attempt| attempt.number));
        } else if self.pending.remove(&key).is_some_and(|gone| !gone.subjects.is_empty()) {
            let parked = self.pending.iter().filter(|(_, pending)| pending.due == PARKED);
            let free = parked.filter(|(key, pending)| !self.is_behind(**key, &pending.subjects));
            let free: Vec<_> = free.map(|(key, _)| *key).collect();
            for key in free {
                self.pending.get_mut(&key).unwrap().due = NOW;
                released = true;
            }
        }
        self.acknowledgements.push_back((key, released));
    }

    fn acknowledge(&mut self) {
        if let Some((key, released)) = self.acknowledgements.pop_front() {
            self.lane.recorded(key);
            if released {
                self.lane.released(self.now);
            }
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

const ORDERS: [Order; 3] = [Order::None, Order::Fifo, Order::Entity];

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_sent_twice_or_overtaken_however_offers_pages_records_and_restarts_meet(
        order in 0_usize..3,
        may_change in prop::bool::weighted(0.3),
        moves in prop::collection::vec((0_u8..28, 0_usize..400), 1..300)
    ) {
        let mut world = World::new(ORDERS[order]);
        for (kind, number) in moves {
            match kind {
                0 | 14 => world.commit(number % 8, true),
                1 | 15 if order == 0 => world.commit(number, number % 7 != 0),
                1 | 15 => world.commit(number / 40, number % 7 != 0),
                2 | 3 | 16 | 17 => (0..number % 12).for_each(|_| world.take_offer()),
                4 | 5 | 18 | 19 => drop(world.step(number % 5 != 0)),
                6 | 20 => while world.step(true) {},
                7 | 21 => world.read(),
                8 | 22 => world.deliver_page(),
                9 | 23 => world.answer(number, number % 4 != 0),
                10 | 24 => world.settle(),
                11 | 25 => world.acknowledge(),
                12 => world.switch(number % 2 == 0),
                26 if number % 4 == 0 => world.restart(),
                26 if may_change => world.reorder(ORDERS[number % 3]),
                _ => world.now = world.now + Duration::from_millis(number as u64 / 8),
            }
        }
        world.finish();
        prop_assert!(world.lane.is_idle());
    }
}
