//! How many attempts for one webhook may be under way at once, by how its endpoint copes with them.
//!
//! It starts at the webhook's own limit: an endpoint that copes is never held back. It is additive increase,
//! multiplicative decrease:
//!
//! | what an attempt tells | then |
//! |---|---|
//! | the endpoint is overloaded or away: a timeout, no connection, 429, 503 or 504 | the window is halved |
//! | answers take at least [`SLOW`], and four times as long as the best of the last minutes | the window shrinks by a quarter, but not below a quarter of the limit |
//! | a round of successes in which the window was full | it grows by a sixteenth of the limit, at least by 1 |
//! | anything else | nothing |
//!
//! A round is as many successes as the window has places. The window shrinks at most once a round trip: an attempt that
//! started before it shrank the last time says nothing new. From 1 to the limit it takes 16 rounds at the most.
//!
//! That an endpoint is slow need not be our doing, and then a smaller window only makes it slower: that is why slowness
//! never costs more than three quarters of the window, and why what it takes now becomes its best after two minutes.

use std::time::Duration;

use crate::{FailureKind, Outcome, Timestamp};

/// What takes less is never slow.
pub const SLOW: Duration = Duration::from_secs(1);
/// How much longer than its best an endpoint may take.
const FAR_ABOVE: u32 = 4;
/// How long the best is remembered for, at least; at most twice that.
const PERIOD: Duration = Duration::from_secs(60);

/// The number of attempts that may be under way at once, between 1 and the webhook's limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    limit: usize,
    size: usize,
    /// Successes in this round.
    counted: usize,
    /// Whether the window was full in this round.
    was_full: bool,
    /// When it last shrank.
    shrank_at: Timestamp,
    latency: Latency,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Latency {
    /// Of the last answers, the later ones counting more. Zero before the first one.
    recent: Duration,
    /// The least of this period, and of the one before.
    best: Option<Duration>,
    previous: Option<Duration>,
    since: Timestamp,
}

impl Latency {
    fn add(&mut self, took: Duration, now: Timestamp) {
        self.recent = if self.best.is_none() { took } else { self.recent * 7 / 8 + took / 8 };
        if now.since(self.since) >= PERIOD || now < self.since {
            self.previous = self.best.take();
            self.since = now;
        }
        self.best = Some(self.best.map_or(took, |best| best.min(took)));
    }

    fn is_far_above_best(&self) -> bool {
        if self.recent < SLOW {
            return false;
        }
        let best = [self.best, self.previous].into_iter().flatten().min();
        best.is_some_and(|best| self.recent > best * FAR_ABOVE)
    }
}

/// Whether an outcome tells that there is too much for the endpoint, or for the way to it.
fn is_overload(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Answered { status, .. } => matches!(status, 429 | 503 | 504),
        Outcome::Failed(failure) => matches!(
            failure.kind,
            FailureKind::Connect
                | FailureKind::ConnectTimeout
                | FailureKind::ResponseTimeout
                | FailureKind::BodyTimeout
        ),
    }
}

impl Window {
    /// A window of `limit` places.
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        let (shrank_at, latency) = (Timestamp::default(), Latency::default());
        Self { limit, size: limit, counted: 0, was_full: false, shrank_at, latency }
    }

    /// Changes the limit. A window that was as large as it could be still is.
    pub fn set_limit(&mut self, limit: usize) {
        let limit = limit.max(1);
        self.size = if self.size == self.limit { limit } else { self.size.min(limit) };
        self.limit = limit;
    }

    /// How many attempts may be under way.
    pub fn size(&self) -> usize {
        self.size
    }

    /// An attempt ended at `now` that started at `started_at` and took so long; `was_full` tells whether no further one
    /// could have started.
    pub fn ended(
        &mut self,
        outcome: &Outcome,
        started_at: Timestamp,
        took: Duration,
        now: Timestamp,
        was_full: bool,
    ) {
        if is_overload(outcome) {
            self.shrink(self.size / 2, started_at, now);
        } else if outcome.is_delivered() {
            self.latency.add(took, now);
            if self.latency.is_far_above_best() {
                self.shrink((self.size * 3 / 4).max(self.limit / 4), started_at, now);
            } else if self.size < self.limit {
                self.grow(was_full);
            }
        }
    }

    fn shrink(&mut self, to: usize, started_at: Timestamp, now: Timestamp) {
        // A clock that was set back must not keep it from shrinking.
        if started_at > self.shrank_at || now < self.shrank_at {
            self.size = to.clamp(1, self.size);
            (self.counted, self.was_full) = (0, false);
            self.shrank_at = now;
        }
    }

    fn grow(&mut self, was_full: bool) {
        self.counted += 1;
        self.was_full |= was_full;
        if self.counted >= self.size {
            self.counted = 0;
            if !std::mem::take(&mut self.was_full) {
                return;
            }
            self.size = (self.size + self.limit.div_ceil(16)).min(self.limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Failure;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const TOOK: Duration = Duration::from_millis(50);

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, retry_after: None }
    }

    fn failed(kind: FailureKind) -> Outcome {
        Outcome::Failed(Failure::new(kind, "x"))
    }

    /// One round of a full window: all of its attempts start at `now`, and come to this.
    fn round(window: &mut Window, outcome: &Outcome, took: Duration, now: &mut Timestamp) {
        let started_at = *now + Duration::from_millis(1);
        *now = started_at + took;
        for _ in 0..window.size() {
            window.ended(outcome, started_at, took, *now, true);
        }
    }

    #[test]
    fn every_row_of_the_table() {
        use FailureKind::*;
        for (outcome, expected) in [
            (answered(204), 16),
            (answered(400), 16),
            (answered(500), 16),
            (answered(410), 16),
            (answered(429), 8),
            (answered(503), 8),
            (answered(504), 8),
            (failed(Connect), 8),
            (failed(ConnectTimeout), 8),
            (failed(ResponseTimeout), 8),
            (failed(BodyTimeout), 8),
            (failed(Dns), 16),
            (failed(Tls), 16),
            (failed(Blocked), 16),
            (failed(Request), 16),
        ] {
            let (mut window, mut now) = (Window::new(16), NOW);
            round(&mut window, &outcome, TOOK, &mut now);
            assert_eq!(window.size(), expected, "{outcome}: once a round trip");
        }
    }

    #[test]
    fn it_is_halved_each_round_down_to_one_and_grows_back_within_sixteen() {
        for limit in [1, 2, 16, 100, 1_024] {
            let (mut window, mut now) = (Window::new(limit), NOW);
            let mut size = limit;
            while window.size() > 1 {
                round(&mut window, &answered(503), TOOK, &mut now);
                assert_eq!(window.size(), size / 2);
                size = window.size();
            }
            round(&mut window, &answered(503), TOOK, &mut now);
            assert_eq!(window.size(), 1);
            let mut rounds = 0;
            while window.size() < limit {
                round(&mut window, &answered(204), TOOK, &mut now);
                rounds += 1;
            }
            assert!(rounds <= 16, "{rounds} rounds to {limit}");
        }
    }

    #[test]
    fn it_does_not_grow_while_it_is_not_full() {
        let (mut window, mut now) = (Window::new(16), NOW);
        round(&mut window, &answered(503), TOOK, &mut now);
        for _ in 0..100 {
            window.ended(&answered(204), now, TOOK, now + TOOK, false);
        }
        assert_eq!(window.size(), 8);
    }

    #[test]
    fn answers_that_become_slow_cost_three_quarters_at_the_most_and_are_the_usual_after_a_while() {
        let (mut window, mut now) = (Window::new(16), NOW);
        for _ in 0..10 {
            round(&mut window, &answered(204), TOOK, &mut now);
        }
        let mut sizes = Vec::new();
        for _ in 0..100 {
            round(&mut window, &answered(204), Duration::from_secs(3), &mut now);
            sizes.push(window.size());
        }
        assert_eq!(sizes.iter().min(), Some(&4), "{sizes:?}");
        assert_eq!(sizes.last(), Some(&16), "{sizes:?}");
    }

    #[test]
    fn what_is_slow_from_the_start_or_not_very_slow_is_left_alone() {
        for times in [[14_000, 14_000], [1, 900], [300, 1_150]] {
            let (mut window, mut now) = (Window::new(16), NOW);
            for took in times {
                for _ in 0..20 {
                    round(&mut window, &answered(204), Duration::from_millis(took), &mut now);
                    assert_eq!(window.size(), 16, "{times:?}");
                }
            }
        }
    }

    #[test]
    fn another_limit_counts_at_once() {
        let mut window = Window::new(16);
        window.set_limit(32);
        assert_eq!(window.size(), 32);
        window.set_limit(4);
        assert_eq!(window.size(), 4);
        window.ended(&answered(503), NOW, TOOK, NOW, true);
        window.set_limit(16);
        assert_eq!(window.size(), 2, "it has shrunk, and has to grow");
    }

    proptest! {
        #[test]
        fn it_stays_between_one_and_its_limit_and_is_full_again_after_sixteen_good_rounds(
            limit in 1_usize..200,
            steps in prop::collection::vec((0_u8..5, 0_u64..20_000, 0_u64..20_000, any::<bool>(), 1_usize..200), 0..200)
        ) {
            let (mut window, mut now, mut limit) = (Window::new(limit), NOW, limit);
            for (kind, took, passed, was_full, other) in steps {
                let (took, started_at) = (Duration::from_millis(took), now);
                now = now + Duration::from_millis(passed);
                let before = window.size();
                match kind {
                    0 => window.ended(&answered(503), started_at, took, now, was_full),
                    1 => window.ended(&failed(FailureKind::ResponseTimeout), started_at, took, now, was_full),
                    2 => { window.set_limit(other); limit = other; }
                    _ => window.ended(&answered(200), started_at, took, now, was_full),
                }
                prop_assert!((1..=limit).contains(&window.size()), "{window:?}");
                if kind != 2 {
                    prop_assert!(window.size() >= before / 2);
                }
            }
            // Long after, so that all that was is forgotten.
            now = now + PERIOD * 3;
            for _ in 0..40 {
                round(&mut window, &answered(204), TOOK, &mut now);
            }
            prop_assert_eq!(window.size(), limit);
        }
    }
}
