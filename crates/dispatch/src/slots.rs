//! The attempts that may be under way at once in the whole process, and how lanes share them.
//!
//! There are so many slots, and an attempt holds one from its start to its end. Three rules:
//!
//! 1. **The poorest first.** A slot that becomes free goes to the lane, of those that wait, which holds the fewest; among
//!    equals to the one that has waited longest. A lane waits for one slot at a time.
//! 2. **What is free decides how many a lane may hold.** While more than half of all slots are free: as many as its window
//!    (`aquarium_delivery::Window`, which shrinks when an endpoint does not cope). While more than a quarter: [`FEW`]. After
//!    that one: the last quarter is for lanes that hold none.
//!
//! So one webhook alone can have half of the slots and one; and slow endpoints, however many deliveries wait for them,
//! leave room for others before these come.
//!
//! **The bound.** Let there be `C` slots, and `h` lanes whose attempts hang. Since they last got a slot that was not their
//! first, which was when more than a quarter was free, each of them can have got one more: they hold at most `3C/4 + h`.
//! The other lanes share at least `C/4 - h`. Let `n` of these hold none and have something to send. They are served in
//! turn, and nobody else before them, so that each starts within `ceil(n / (C/4 - h))` times the longest of their attempts,
//! whatever the hanging ones take, and however much waits for whom. With 512 slots that holds for up to 127 webhooks that
//! hang at the same time; a webhook whose attempts keep failing has one probe at a time only, and that seldom.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::Load;

/// What a lane may hold while between a quarter and half of the slots are free.
const FEW: usize = 4;

/// The slots of the process. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    state: Arc<Mutex<State>>,
}

/// One lane's place among the others, which goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    slots: Slots,
    number: usize,
}

/// Allows one attempt, until it is dropped.
#[derive(Debug)]
#[must_use = "the slot goes back when this is dropped"]
pub(crate) struct Slot {
    slots: Slots,
    number: usize,
}

#[derive(Debug)]
struct State {
    number: usize,
    free: usize,
    seats: Vec<Place>,
    /// Seats that nobody has.
    vacant: Vec<usize>,
    /// Who waits: how many slots it holds, since when it waits, and its seat.
    waiting: BTreeSet<(usize, u64, usize)>,
    next_ticket: u64,
}

#[derive(Debug, Default)]
struct Place {
    held: usize,
    /// Set while it waits.
    ticket: Option<u64>,
    waker: Option<Waker>,
    /// A slot was put down here for it.
    granted: bool,
    /// Its lane has ended; attempts may not have.
    left: bool,
}

impl State {
    fn may_have(&self, held: usize) -> bool {
        let kept = match held {
            0 => 0,
            1..FEW => self.number / 4,
            _ => self.number / 2,
        };
        self.free > kept
    }

    /// Serves those that wait, as far as there is anything for them. Afterwards nobody waits who may have a slot: so who
    /// may have one when it asks overtakes nobody. The wakers are for when the state is not locked any more: what they wake
    /// may come back here.
    fn serve(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some((held, _, number)) = self.waiting.first().copied()
            && self.may_have(held)
        {
            self.waiting.pop_first();
            self.free -= 1;
            let place = &mut self.seats[number];
            place.held += 1;
            place.ticket = None;
            place.granted = true;
            woken.extend(place.waker.take());
        }
        woken
    }

    fn release(&mut self, number: usize) -> Vec<Waker> {
        let place = &mut self.seats[number];
        if let Some(ticket) = place.ticket {
            // It has become poorer.
            self.waiting.remove(&(place.held, ticket, number));
            self.waiting.insert((place.held - 1, ticket, number));
        }
        place.held -= 1;
        self.free += 1;
        self.vacate(number);
        self.serve()
    }

    fn vacate(&mut self, number: usize) {
        if self.seats[number].left && self.seats[number].held == 0 {
            self.seats[number] = Place::default();
            self.vacant.push(number);
        }
    }
}

impl Slots {
    /// So many slots.
    pub(crate) fn new(number: usize) -> Self {
        let number = number.max(1);
        let (seats, vacant, waiting) = (Vec::new(), Vec::new(), BTreeSet::new());
        let state = State { number, free: number, seats, vacant, waiting, next_ticket: 0 };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// How many seats are taken, and how many slots.
    pub(crate) fn load(&self) -> Load {
        let state = self.state();
        Load { lanes: state.seats.len() - state.vacant.len(), in_flight: state.number - state.free }
    }

    /// A place for one more lane.
    pub(crate) fn seat(&self) -> Seat {
        let mut state = self.state();
        let number = state.vacant.pop().unwrap_or_else(|| {
            state.seats.push(Place::default());
            state.seats.len() - 1
        });
        Seat { slots: self.clone(), number }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn slot(&self) -> Slot {
        Slot { slots: self.slots.clone(), number: self.number }
    }

    /// Takes a slot if this lane may have one now.
    pub(crate) fn try_take(&self) -> Option<Slot> {
        let mut state = self.slots.state();
        let place = &mut state.seats[self.number];
        if !std::mem::take(&mut place.granted) {
            let held = place.held;
            if !state.may_have(held) {
                return None;
            }
            state.free -= 1;
            let place = &mut state.seats[self.number];
            place.held += 1;
            if let Some(ticket) = place.ticket.take() {
                state.waiting.remove(&(held, ticket, self.number));
            }
        }
        drop(state);
        Some(self.slot())
    }

    /// Takes a slot, or waits for one: until it is there, or [`Seat::give_up`].
    pub(crate) fn poll_take(&self, context: &mut Context<'_>) -> Poll<Slot> {
        if let Some(slot) = self.try_take() {
            return Poll::Ready(slot);
        }
        let mut state = self.slots.state();
        let ticket = state.next_ticket;
        let place = &mut state.seats[self.number];
        // Between the two locks one may have been put down here.
        if place.granted {
            place.granted = false;
            return Poll::Ready(self.slot());
        }
        let previous = match &place.waker {
            Some(waker) if waker.will_wake(context.waker()) => None,
            _ => place.waker.replace(context.waker().clone()),
        };
        let mut woken = Vec::new();
        if place.ticket.is_none() {
            place.ticket = Some(ticket);
            let held = place.held;
            state.next_ticket += 1;
            state.waiting.insert((held, ticket, self.number));
            // Between the two locks one may have become free.
            woken = state.serve();
        }
        drop(state);
        drop(previous);
        woken.into_iter().for_each(Waker::wake);
        Poll::Pending
    }

    /// Waits no more.
    pub(crate) fn give_up(&self) {
        let mut state = self.slots.state();
        let mut woken = Vec::new();
        let place = &mut state.seats[self.number];
        let waker = place.waker.take();
        if let Some(ticket) = place.ticket.take() {
            let held = place.held;
            state.waiting.remove(&(held, ticket, self.number));
        } else if std::mem::take(&mut place.granted) {
            woken = state.release(self.number);
        }
        drop(state);
        drop(waker);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.give_up();
        let mut state = self.slots.state();
        state.seats[self.number].left = true;
        state.vacate(self.number);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let woken = self.slots.state().release(self.number);
        woken.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests;
