//! The decision after an attempt.

use std::fmt;
use std::time::Duration;

use crate::{Outcome, Schedule, Timestamp};

/// What is known of a delivery when an attempt for it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// When the event was accepted.
    pub accepted_at: Timestamp,
    /// The attempts made, the one that just ended included.
    pub attempts: u32,
}

/// What happens to a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The endpoint has it.
    Delivered,
    /// Another attempt, not before this.
    RetryAt(Timestamp),
    /// The endpoint is gone (410): the webhook is suspended, and this delivery held with the others.
    Suspend,
    /// There is no further attempt.
    Exhausted(Exhaustion),
}

/// Why a delivery is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhaustion {
    /// The last step of the schedule failed.
    Attempts,
    /// It is older than `give_up_after`, or would be at its next attempt.
    Age,
    /// What is stored of it was damaged, so it was not sent.
    Damaged,
}

impl Exhaustion {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Attempts, Self::Age, Self::Damaged];
}

impl fmt::Display for Exhaustion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Exhaustion::Attempts => "no attempts left",
            Exhaustion::Age => "older than give_up_after",
            Exhaustion::Damaged => "damaged in the queue's file",
        })
    }
}

/// What follows from an outcome: for the delivery, and for its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What happens to the delivery.
    pub next: Next,
    /// The endpoint asked for a pause: nothing goes to this webhook before then.
    pub pause_until: Option<Timestamp>,
}

/// Decides what follows from `outcome`, which came about at `now`.
///
/// `jitter` is a number from 0 up to 1 that the caller drew: 0 makes the wait as short as the schedule's jitter allows,
/// 0.5 leaves it as it is.
///
/// ```
/// use aquarium_delivery::{Next, Outcome, Schedule, State, Timestamp, next};
/// use std::time::Duration;
///
/// let now = Timestamp::from_millis(1_000_000);
/// let state = State { accepted_at: now, attempts: 1 };
/// let refused = Outcome::Answered { status: 500, retry_after: None };
/// let decision = next(state, &Schedule::default(), &refused, now, 0.5);
/// assert_eq!(decision.next, Next::RetryAt(now + Duration::from_secs(5)));
/// ```
pub fn next(state: State, schedule: &Schedule, outcome: &Outcome, now: Timestamp, jitter: f64) -> Decision {
    let hint = match outcome {
        Outcome::Answered { status: 200..=299, .. } => return Decision::of(Next::Delivered),
        Outcome::Answered { status: 410, .. } => return Decision::of(Next::Suspend),
        Outcome::Answered { status: 429 | 503, retry_after } => retry_after.map(|hint| hint.at(now)),
        Outcome::Answered { .. } | Outcome::Failed(_) => None,
    };
    Decision { next: retry(state, schedule, hint, now, jitter), pause_until: hint.filter(|at| *at > now) }
}

impl Decision {
    fn of(next: Next) -> Self {
        Self { next, pause_until: None }
    }
}

/// Decides what follows from the outcome of a test. It is not tried again, and it suspends nothing.
pub fn next_of_test(outcome: &Outcome, now: Timestamp) -> Decision {
    let hint = match outcome {
        Outcome::Answered { status: 200..=299, .. } => return Decision::of(Next::Delivered),
        Outcome::Answered { status: 429 | 503, retry_after } => retry_after.map(|hint| hint.at(now)),
        Outcome::Answered { .. } | Outcome::Failed(_) => None,
    };
    Decision { next: Next::Exhausted(Exhaustion::Attempts), pause_until: hint.filter(|at| *at > now) }
}

fn retry(state: State, schedule: &Schedule, hint: Option<Timestamp>, now: Timestamp, jitter: f64) -> Next {
    let step = usize::try_from(state.attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(wait) = schedule.retry.get(step) else {
        return Next::Exhausted(Exhaustion::Attempts);
    };
    let scheduled = now + jittered(*wait, schedule.jitter, jitter);
    let at = hint.map_or(scheduled, |hint| hint.max(scheduled));
    if is_too_old(state.accepted_at, schedule, at) {
        Next::Exhausted(Exhaustion::Age)
    } else {
        Next::RetryAt(at)
    }
}

/// True when a delivery accepted at `accepted_at` is past the schedule's `give_up_after`.
pub fn is_too_old(accepted_at: Timestamp, schedule: &Schedule, now: Timestamp) -> bool {
    now.since(accepted_at) > schedule.give_up_after
}

/// `wait`, moved by up to `spread` of itself in either direction: `random` runs from 0 (shortest) up to 1 (longest).
pub fn jittered(wait: Duration, spread: f64, random: f64) -> Duration {
    let factor = 1.0 + spread.clamp(0.0, 1.0) * (2.0 * random.clamp(0.0, 1.0) - 1.0);
    wait.mul_f64(factor).min(wait.saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Failure, FailureKind, RetryAfter};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn answered(status: u16, retry_after: Option<u64>) -> Outcome {
        let retry_after = retry_after.map(|seconds| RetryAfter::Delay(Duration::from_secs(seconds)));
        Outcome::Answered { status, retry_after }
    }

    fn retry_in(seconds: u64) -> Next {
        Next::RetryAt(NOW + Duration::from_secs(seconds))
    }

    fn decide(attempts: u32, outcome: &Outcome) -> Decision {
        next(State { accepted_at: NOW, attempts }, &Schedule::default(), outcome, NOW, 0.5)
    }

    #[test]
    fn every_row_of_the_outcome_table() {
        let pause = |seconds| Some(NOW + Duration::from_secs(seconds));
        for (outcome, expected, pause_until) in [
            (answered(200, None), Next::Delivered, None),
            (answered(204, Some(60)), Next::Delivered, None),
            (answered(299, None), Next::Delivered, None),
            (answered(410, None), Next::Suspend, None),
            (answered(429, None), retry_in(5), None),
            (answered(429, Some(2)), retry_in(5), pause(2)),
            (answered(429, Some(60)), retry_in(60), pause(60)),
            (answered(503, Some(60)), retry_in(60), pause(60)),
            (answered(503, Some(9_999_999)), retry_in(86_400), pause(86_400)),
            (answered(503, Some(0)), retry_in(5), None),
            (answered(500, Some(60)), retry_in(5), None),
            (answered(101, None), retry_in(5), None),
            (answered(301, None), retry_in(5), None),
            (answered(308, None), retry_in(5), None),
            (answered(400, None), retry_in(5), None),
            (answered(404, None), retry_in(5), None),
            (answered(599, None), retry_in(5), None),
        ] {
            assert_eq!(decide(1, &outcome), Decision { next: expected, pause_until }, "{outcome:?}");
        }
        for kind in FailureKind::ALL {
            let failed = Outcome::Failed(Failure::new(*kind, "x"));
            assert_eq!(decide(1, &failed), Decision { next: retry_in(5), pause_until: None }, "{kind}");
        }
    }

    #[test]
    fn the_default_schedule_is_walked_step_by_step_and_then_exhausted() {
        let steps: Vec<_> = (1..=8).map(|attempts| decide(attempts, &answered(500, None)).next).collect();
        let mut expected: Vec<_> = [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000].map(retry_in).to_vec();
        expected.push(Next::Exhausted(Exhaustion::Attempts));
        assert_eq!(steps, expected);
        assert_eq!(decide(u32::MAX, &answered(500, None)).next, Next::Exhausted(Exhaustion::Attempts));
    }

    #[test]
    fn a_pause_is_kept_even_when_the_delivery_that_brought_it_is_exhausted() {
        let decision = decide(8, &answered(429, Some(60)));
        assert_eq!(decision.next, Next::Exhausted(Exhaustion::Attempts));
        assert_eq!(decision.pause_until, Some(NOW + Duration::from_secs(60)));
    }

    #[test]
    fn a_delivery_is_given_up_when_its_next_attempt_would_come_too_late() {
        let schedule = Schedule { give_up_after: Duration::from_secs(100), ..Schedule::default() };
        let at_age = |seconds| {
            let state = State { accepted_at: NOW - Duration::from_secs(seconds), attempts: 1 };
            next(state, &schedule, &answered(500, None), NOW, 0.5).next
        };
        assert_eq!(at_age(95), retry_in(5));
        assert_eq!(at_age(96), Next::Exhausted(Exhaustion::Age));
    }

    proptest! {
        #[test]
        fn a_wait_stays_within_its_jitter(
            millis in 1_u64..100_000_000, spread in 0.0_f64..=1.0, random in 0.0_f64..1.0
        ) {
            let wait = Duration::from_millis(millis);
            let moved = jittered(wait, spread, random).as_secs_f64();
            let (low, high) = (wait.as_secs_f64() * (1.0 - spread), wait.as_secs_f64() * (1.0 + spread));
            prop_assert!(moved >= low - 1e-6 && moved <= high + 1e-6, "{moved} is not in {low}..{high}");
        }

        #[test]
        fn a_retry_is_never_sooner_than_schedule_and_hint_nor_more_than_a_day_after_the_schedule(
            attempts in 1_u32..8, hint in 0_u64..200_000, random in 0.0_f64..1.0
        ) {
            let schedule = Schedule::default();
            let state = State { accepted_at: NOW, attempts };
            let outcome = answered(429, Some(hint));
            let step = schedule.retry[attempts as usize - 1].mul_f64(1.0 - schedule.jitter);
            match next(state, &schedule, &outcome, NOW, random).next {
                Next::RetryAt(at) => {
                    prop_assert!(at.since(NOW) + Duration::from_millis(1) >= step);
                    prop_assert!(at.since(NOW) >= Duration::from_secs(hint.min(86_400)));
                    prop_assert!(at.since(NOW) <= RetryAfter::LONGEST);
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
