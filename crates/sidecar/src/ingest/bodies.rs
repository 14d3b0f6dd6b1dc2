//! Request bodies as they arrive, and the memory that they may take.
//!
//! Memory is reserved for what has come, not for what is announced: a client that announces 16 MiB and sends a byte takes a
//! byte. Reservations grow in steps. Each step has a budget of its own, for bodies of its size:
//!
//! - the first 16 KiB need none. There are no more of them than connections, so that small bodies never wait for large ones;
//! - a body that grows out of a step reserves the next one, and then gives the smaller one back. It waits with what it has,
//!   but only for larger ones, and the largest step is the whole body: so bodies cannot wait for each other in a circle;
//! - a body that finds no room for long is refused, and one that comes too slowly ([`super::pace`]) is given up. Both free what
//!   they hold;
//! - events with many deliveries take memory beyond their bodies. That has a budget too, the last that is waited for.
//!
//! The sum of the budgets bounds the memory for bodies, whatever clients do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aquarium_dispatch::{Budget, Reserved};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

use super::pace::{CONTENDED, LEAST, LONGEST, PATIENT, Pace};
use crate::http::{BodyError, Code, Problem, TurnedAway};

const KIB: usize = 1_024;
const MIB: usize = 1_024 * KIB;
/// What of each body needs no reservation.
const FREE: usize = 16 * KIB;
/// The steps: how large a body may be in it, what all bodies in it may take, and how long one waits for room in it. Who waits
/// for much gives up sooner, so that what it holds goes to those who want less.
const STEPS: [(usize, usize, Duration); 4] = [
    (64 * KIB, 16 * MIB, Duration::from_millis(5_000)),
    (256 * KIB, 16 * MIB, Duration::from_millis(4_500)),
    (MIB, 16 * MIB, Duration::from_millis(4_000)),
    (usize::MAX, 64 * MIB, Duration::from_millis(3_000)),
];
/// What a delivery takes until it is stored, in bytes: the target, and its entry in the answer.
const PER_DELIVERY: usize = 256;
/// What all deliveries take of those requests that have more than [`FREE`] has room for.
const DELIVERIES: usize = 16 * MIB;
const DELIVERIES_PATIENCE: Duration = Duration::from_secs(5);

/// The memory for bodies. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Bodies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    steps: [Step; STEPS.len()],
    deliveries: Step,
    turned_away: TurnedAway,
}

#[derive(Debug)]
struct Step {
    up_to: usize,
    budget: Budget,
    patience: Duration,
    /// How many wait for room in it.
    waiting: watch::Sender<usize>,
}

/// What a body has reserved. It goes back when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    /// The bytes that it may have.
    room: usize,
    reserved: Option<Reserved>,
    deliveries: Option<Reserved>,
    /// How many wait for what it holds.
    waiting: Option<watch::Receiver<usize>>,
    /// How long it has waited for room, in all.
    waited: Duration,
}

impl Held {
    fn nothing() -> Self {
        Self { room: FREE, reserved: None, deliveries: None, waiting: None, waited: Duration::ZERO }
    }

    /// Whether it takes a part of a budget.
    pub(super) fn is_reserved(&self) -> bool {
        self.reserved.is_some() || self.deliveries.is_some()
    }

    /// Does this work, and gives everything back when it is done: also if nobody waits for its result by then. Clients that
    /// come and go while the disk stalls would fill the memory otherwise. `None` if the work panicked.
    pub(super) async fn until_end_of<T: Send + 'static>(
        self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let work = tokio::spawn(async move {
            let _held = self;
            work.await
        });
        work.await.ok()
    }

    /// Gives back what is more than `bytes`.
    fn shrink(&mut self, bytes: usize) {
        self.waiting = None;
        if bytes <= FREE {
            (self.room, self.reserved) = (FREE, None);
        } else if let Some(reserved) = &mut self.reserved {
            reserved.shrink(bytes);
            self.room = bytes;
        }
    }

    /// Completes when the body is too slow, with the window that it missed.
    async fn too_slow(&mut self, pace: &Pace) -> Duration {
        loop {
            let contended = self.waiting.as_mut().is_some_and(|waiting| *waiting.borrow_and_update() > 0);
            let slow = sleep_until(pace.deadline(contended));
            let window = if contended { CONTENDED } else { PATIENT };
            let Some(waiting) = &mut self.waiting else {
                slow.await;
                return window;
            };
            tokio::select! {
                () = slow => return window,
                Ok(()) = waiting.changed() => {}
            }
        }
    }
}

impl Bodies {
    pub(crate) fn new() -> Self {
        let step = |(up_to, bytes, patience)| {
            let (budget, waiting) = (Budget::new(bytes), watch::Sender::new(0));
            Step { up_to, budget, patience, waiting }
        };
        let deliveries = step((usize::MAX, DELIVERIES, DELIVERIES_PATIENCE));
        Self(Arc::new(Inner { steps: STEPS.map(step), deliveries, turned_away: TurnedAway::default() }))
    }

    /// Whether a body was refused for want of memory a moment ago.
    pub(crate) fn are_turned_away(&self) -> bool {
        self.0.turned_away.lately()
    }

    /// Reads a whole body of at most `limit` bytes. `announced` is its length, if that is known.
    pub(super) async fn receive<B>(
        &self,
        mut body: B,
        announced: Option<usize>,
        limit: usize,
    ) -> Result<(Bytes, Held), Problem>
    where
        B: Body<Data = Bytes, Error: fmt::Display> + Unpin,
    {
        let whole = announced.unwrap_or(limit).min(limit);
        let (mut held, mut pace) = (Held::nothing(), Pace::new(Instant::now()));
        let mut buffer = Vec::new();
        loop {
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                window = held.too_slow(&pace) => return Err(too_slow(window)),
            };
            let data = match frame {
                None => break,
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(BodyError::Broken(error.to_string()).into()),
            };
            let size = buffer.len() + data.len();
            if size > limit {
                return Err(BodyError::TooLarge { limit }.into());
            }
            if buffer.is_empty() && size <= FREE && body.is_end_stream() {
                // What came is a part of the connection's buffer, which is several times as large.
                return Ok((Bytes::copy_from_slice(&data), held));
            }
            let asked = Instant::now();
            if self.grow(&mut held, size, whole).await? {
                pace.resumed(asked, Instant::now());
            }
            if announced.is_some() && buffer.capacity() < size {
                buffer.reserve_exact(held.room.min(whole) - buffer.len());
            }
            buffer.extend_from_slice(&data);
            pace.came(data.len(), Instant::now());
        }
        buffer.shrink_to_fit();
        held.shrink(buffer.len());
        Ok((buffer.into(), held))
    }

    /// Reserves room for what so many deliveries take until they are stored.
    pub(super) async fn add_deliveries(&self, held: &mut Held, deliveries: usize) -> Result<(), Problem> {
        let (size, step) = (deliveries.saturating_mul(PER_DELIVERY), &self.0.deliveries);
        if size > FREE {
            held.deliveries = Some(match step.budget.try_reserve(size) {
                Some(reserved) => reserved,
                None => self.wait(step, size, &mut held.waited).await?,
            });
        }
        Ok(())
    }

    /// Reserves room for `size` bytes, of `whole` at the most. Returns whether it waited for that.
    async fn grow(&self, held: &mut Held, size: usize, whole: usize) -> Result<bool, Problem> {
        if size <= held.room {
            return Ok(false);
        }
        let Some(step) = self.0.steps.iter().find(|step| size <= step.up_to) else {
            return Err(self.turn_away());
        };
        let room = whole.clamp(size, step.up_to.max(size));
        let (reserved, waited) = match step.budget.try_reserve(room) {
            Some(reserved) => (reserved, false),
            None => (self.wait(step, room, &mut held.waited).await?, true),
        };
        (held.room, held.reserved, held.waiting) = (room, Some(reserved), Some(step.waiting.subscribe()));
        Ok(waited)
    }

    async fn wait(&self, step: &Step, room: usize, waited: &mut Duration) -> Result<Reserved, Problem> {
        let asked = Instant::now();
        let _waiter = Waiter::new(&step.waiting);
        let patience = step.patience.saturating_sub(*waited);
        let Ok(reserved) = timeout(patience, step.budget.reserve(room)).await else {
            return Err(self.turn_away());
        };
        *waited += asked.elapsed();
        Ok(reserved)
    }

    fn turn_away(&self) -> Problem {
        self.0.turned_away.note();
        if self.0.turned_away.is_to_be_logged() {
            warn!("the memory for bodies of requests is in use; further ones are turned away");
        }
        let detail = "too many bodies are being received at once";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::Busy, detail)
            .retry_after(Duration::from_secs(1))
            .closing()
    }
}

fn too_slow(window: Duration) -> Problem {
    let detail = format!(
        "the body came too slowly: {} KiB have to come within {window:?}, and all of it within {LONGEST:?}",
        LEAST / KIB
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, Code::TooSlow, detail).closing()
}

/// Counts as waiting until it is dropped. Those who hold what is waited for learn when the first comes, and the last goes.
struct Waiter<'a>(&'a watch::Sender<usize>);

impl<'a> Waiter<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_if_modified(|number| {
            *number += 1;
            *number == 1
        });
        Self(waiting)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.send_if_modified(|number| {
            *number -= 1;
            *number == 0
        });
    }
}

#[cfg(test)]
mod tests;
