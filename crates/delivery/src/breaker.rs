//! The breaker of one webhook: when its endpoint is down, stop spending attempts on it.
//!
//! ```text
//!            `limit` failures in a row
//!   Closed ───────────────────────────▶ Open { probe_at }
//!     ▲                                   │        ▲
//!     │ success                 probe_at  │        │ failure: the interval doubles
//!     │                                   ▼        │
//!     └────────────────────────────────  Probing ──┘
//! ```

use std::time::Duration;

use crate::Timestamp;
use crate::next::jittered;

/// The first wait before a probe; it doubles up to [`LONGEST_PROBE_INTERVAL`].
pub const FIRST_PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The longest wait between two probes.
pub const LONGEST_PROBE_INTERVAL: Duration = Duration::from_secs(300);
const PROBE_JITTER: f64 = 0.2;

/// Counts failures in a row, and lets one attempt at a time through once there were too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    limit: u32,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Attempts flow. Becomes `Open` when `failures` reaches the limit.
    Closed { failures: u32 },
    /// Nothing flows. Becomes `Probing` when an attempt starts at or after `probe_at`.
    Open { probe_at: Timestamp, interval: Duration },
    /// One attempt is under way. Becomes `Closed` by a success, `Open` again by a failure.
    Probing { interval: Duration },
}

/// Whether an attempt may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// It may.
    Go,
    /// It may as a probe: report its start with [`Breaker::start`], and start no second one.
    Probe,
    /// Not before this.
    NotBefore(Timestamp),
    /// Not before the probe under way has ended.
    AfterProbe,
}

/// How a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerStatus {
    /// Attempts flow.
    Closed,
    /// Nothing flows before the next probe.
    Open {
        /// When that may start.
        probe_at: Timestamp,
    },
    /// A probe is under way.
    Probing,
}

impl Breaker {
    /// A closed breaker that opens after `limit` failures in a row.
    pub fn new(limit: u32) -> Self {
        Self { limit: limit.max(1), state: State::Closed { failures: 0 } }
    }

    /// Changes the limit; what was counted stays.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit.max(1);
    }

    /// Whether an attempt may start at `now`.
    pub fn permit(&self, now: Timestamp) -> Permit {
        match self.state {
            State::Closed { .. } => Permit::Go,
            State::Open { probe_at, .. } if now < probe_at => Permit::NotBefore(probe_at),
            State::Open { .. } => Permit::Probe,
            State::Probing { .. } => Permit::AfterProbe,
        }
    }

    /// An attempt started that [`Breaker::permit`] allowed.
    pub fn start(&mut self) {
        if let State::Open { interval, .. } = self.state {
            self.state = State::Probing { interval };
        }
    }

    /// An attempt ended with a 2xx. True if this closed the breaker.
    pub fn success(&mut self) -> bool {
        let was_open = self.is_open();
        self.state = State::Closed { failures: 0 };
        was_open
    }

    /// An attempt failed at `now`; `probe` tells whether it was the probe. `random` is from 0 up to 1. True if this
    /// opened the breaker.
    pub fn failure(&mut self, now: Timestamp, probe: bool, random: f64) -> bool {
        let after = |interval: Duration| State::Open {
            probe_at: now + jittered(interval, PROBE_JITTER, random),
            interval,
        };
        match self.state {
            State::Closed { failures } if failures + 1 >= self.limit => {
                self.state = after(FIRST_PROBE_INTERVAL);
                return true;
            }
            State::Closed { failures } => self.state = State::Closed { failures: failures + 1 },
            State::Probing { interval } if probe => {
                self.state = after((interval * 2).min(LONGEST_PROBE_INTERVAL))
            }
            // Attempts from before it opened tell nothing new.
            State::Open { .. } | State::Probing { .. } => {}
        }
        false
    }

    /// The probe under way did not come about; the next one may start at `probe_at`.
    pub fn cancel_probe(&mut self, probe_at: Timestamp) {
        if let State::Probing { interval } = self.state {
            self.state = State::Open { probe_at, interval };
        }
    }

    /// How it stands.
    pub fn status(&self) -> BreakerStatus {
        match self.state {
            State::Closed { .. } => BreakerStatus::Closed,
            State::Open { probe_at, .. } => BreakerStatus::Open { probe_at },
            State::Probing { .. } => BreakerStatus::Probing,
        }
    }

    /// True unless attempts flow freely.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(3);
        assert_eq!([0; 3].map(|_| breaker.failure(NOW, false, 0.5)), [false, false, true]);
        breaker
    }

    #[test]
    fn it_opens_after_the_limit_in_a_row_and_a_success_starts_the_count_anew() {
        let mut breaker = Breaker::new(3);
        for _ in 0..10 {
            breaker.failure(NOW, false, 0.5);
            breaker.failure(NOW, false, 0.5);
            assert_eq!(breaker.permit(NOW), Permit::Go);
            breaker.success();
        }
        assert_eq!(opened().permit(NOW), Permit::NotBefore(NOW + FIRST_PROBE_INTERVAL));
    }

    #[test]
    fn probes_go_one_at_a_time_at_intervals_that_double_up_to_the_longest() {
        let mut breaker = opened();
        let mut now = NOW;
        let mut waits = Vec::new();
        for _ in 0..11 {
            let Permit::NotBefore(at) = breaker.permit(now) else { panic!("{breaker:?}") };
            waits.push(at.since(now).as_secs());
            now = at;
            assert_eq!(breaker.permit(now), Permit::Probe);
            breaker.start();
            assert_eq!(breaker.permit(now), Permit::AfterProbe);
            breaker.failure(now, true, 0.5);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert!(breaker.success());
        assert_eq!(breaker.permit(now), Permit::Go);
    }

    #[test]
    fn late_failures_of_attempts_from_before_it_opened_change_nothing() {
        let mut breaker = opened();
        let before = breaker.clone();
        assert!(!breaker.failure(NOW + Duration::from_secs(9), false, 0.5));
        assert_eq!(breaker, before);
        breaker.start();
        assert!(!breaker.failure(NOW, false, 0.5));
        assert_eq!(breaker.permit(NOW), Permit::AfterProbe);
    }

    proptest! {
        #[test]
        fn it_never_lets_two_probes_out_and_never_waits_longer_than_the_longest_interval(
            steps in prop::collection::vec((0_u8..4, 0.0_f64..1.0), 1..200)
        ) {
            let (mut breaker, mut now, mut probing) = (Breaker::new(2), NOW, false);
            for (step, random) in steps {
                match (step, breaker.permit(now)) {
                    (0, Permit::Probe) => { prop_assert!(!probing); breaker.start(); probing = true; }
                    (0, Permit::Go) => breaker.start(),
                    (0, Permit::NotBefore(at)) => {
                        prop_assert!(at.since(now) <= LONGEST_PROBE_INTERVAL.mul_f64(1.2));
                        now = at;
                    }
                    (1, _) => { breaker.failure(now, probing, random); probing = false; }
                    (2, _) => { breaker.success(); probing = false; }
                    _ => now = now + Duration::from_millis(300),
                }
            }
        }
    }
}
