//! The guard, and a naive model of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aquarium_verify::{Claim, Guard, Repeated};
use proptest::prelude::*;

const WINDOW: Duration = Duration::from_secs(10);

#[expect(clippy::disallowed_methods, reason = "a guard is told the time; it needs some to start from")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn what_failed_is_let_in_again_and_what_was_handled_is_not() {
    let (guard, now) = (Guard::new(10, WINDOW), now());
    let claim = guard.claim("evt_1", now).unwrap();
    assert_eq!(guard.claim("evt_1", now).unwrap_err(), Repeated::InHand);
    assert!(guard.claim("evt_2", now).is_ok());

    drop(claim);
    let elsewhere = guard.clone();
    thread::spawn(move || elsewhere.claim("evt_1", now).unwrap().keep()).join().unwrap();
    assert_eq!(guard.claim("evt_1", now).unwrap_err(), Repeated::Handled);
    assert_eq!(guard.claim("evt_1", now + WINDOW - Duration::from_nanos(1)).unwrap_err(), Repeated::Handled);
    assert!(guard.claim("evt_1", now + WINDOW).is_ok());
}

#[test]
fn a_handler_that_panics_lets_the_call_in_again() {
    let (guard, now) = (Guard::new(10, WINDOW), now());
    let handler = thread::spawn({
        let claim = guard.claim("evt_1", now).unwrap();
        move || {
            let _claim = claim;
            panic!("on purpose");
        }
    });
    assert!(handler.join().is_err());
    assert!(guard.claim("evt_1", now).is_ok());
}

#[test]
fn a_claim_that_was_forgotten_does_not_end_the_one_made_after_it() {
    let (guard, now) = (Guard::new(1, WINDOW), now());
    let first = guard.claim("evt_1", now).unwrap();
    drop(guard.claim("evt_2", now).unwrap());
    let second = guard.claim("evt_1", now).unwrap();
    drop(first);
    assert_eq!(guard.claim("evt_1", now).unwrap_err(), Repeated::InHand);
    second.keep();
    assert_eq!(guard.claim("evt_1", now).unwrap_err(), Repeated::Handled);
}

#[test]
fn an_earlier_time_counts_as_the_latest() {
    let (guard, latest) = (Guard::new(10, WINDOW), now() + WINDOW * 10);
    drop(guard.claim("evt_1", latest).unwrap());
    guard.claim("evt_2", latest - WINDOW * 5).unwrap().keep();
    assert_eq!(guard.claim("evt_2", latest + WINDOW / 2).unwrap_err(), Repeated::Handled);
    assert!(guard.claim("evt_2", latest + WINDOW).is_ok());
}

#[test]
fn of_many_at_once_one_gets_the_claim() {
    let (guard, now, claimed) = (Guard::new(1000, WINDOW), now(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for id in 0..100_u32 {
                    if let Ok(claim) = guard.claim(id.to_le_bytes(), now) {
                        claimed.fetch_add(1, Ordering::Relaxed);
                        claim.keep();
                    }
                }
            });
        }
    });
    assert_eq!(claimed.into_inner(), 100);
}

/// The guard as anybody would write it who had all the memory of the world: a list of claims, the first one first.
struct Model {
    capacity: usize,
    claims: Vec<Remembered>,
    next: usize,
}

struct Remembered {
    number: usize,
    id: u8,
    at: Duration,
    handled: bool,
}

impl Model {
    fn claim(&mut self, id: u8, now: Duration) -> Result<usize, Repeated> {
        self.claims.retain(|claim| now - claim.at < WINDOW);
        if let Some(claim) = self.claims.iter().find(|claim| claim.id == id) {
            return Err(if claim.handled { Repeated::Handled } else { Repeated::InHand });
        }
        if self.claims.len() == self.capacity {
            self.claims.remove(0);
        }
        self.next += 1;
        self.claims.push(Remembered { number: self.next, id, at: now, handled: false });
        Ok(self.next)
    }

    fn keep(&mut self, number: usize) {
        self.claims.iter_mut().filter(|claim| claim.number == number).for_each(|claim| claim.handled = true);
    }

    fn drop(&mut self, number: usize) {
        self.claims.retain(|claim| claim.number != number);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Claim(u8),
    /// Of the claims in hand, one by its place.
    Keep(usize),
    Drop(usize),
    /// The time that passes, in milliseconds.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8_u8).prop_map(Step::Claim),
        2 => any::<usize>().prop_map(Step::Keep),
        1 => any::<usize>().prop_map(Step::Drop),
        1 => (0..6000_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn a_guard_remembers_what_a_list_would(capacity in 0..6_usize, steps in prop::collection::vec(step(), 1..200)) {
        let (guard, start, mut elapsed) = (Guard::new(capacity, WINDOW), now(), Duration::ZERO);
        let mut model = Model { capacity: capacity.max(1), claims: Vec::new(), next: 0 };
        let mut in_hand: Vec<(Claim, usize)> = Vec::new();
        for step in steps {
            match step {
                Step::Claim(id) => {
                    // Whatever its length, an id is one entry.
                    let text = format!("evt_{id}").repeat(1 + usize::from(id) * 50);
                    match (guard.claim(text, start + elapsed), model.claim(id, elapsed)) {
                        (Ok(claim), Ok(number)) => in_hand.push((claim, number)),
                        (Err(repeated), Err(expected)) => prop_assert_eq!(repeated, expected),
                        (claim, expected) => prop_assert!(false, "{:?} instead of {:?}", claim, expected),
                    }
                }
                Step::Keep(at) if !in_hand.is_empty() => {
                    let (claim, number) = in_hand.swap_remove(at % in_hand.len());
                    claim.keep();
                    model.keep(number);
                }
                Step::Drop(at) if !in_hand.is_empty() => {
                    let (claim, number) = in_hand.swap_remove(at % in_hand.len());
                    drop(claim);
                    model.drop(number);
                }
                Step::Keep(_) | Step::Drop(_) => {}
                Step::Wait(milliseconds) => elapsed += Duration::from_millis(milliseconds),
            }
        }
    }
}
