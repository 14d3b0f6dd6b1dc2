//! When to try again, and when to give up.

use std::time::Duration;

/// A webhook's retry schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The wait before each further attempt; after the last of them the delivery is exhausted.
    pub retry: Vec<Duration>,
    /// How far a wait may stray from the schedule, as a fraction of it: 0.2 is ±20 %. From 0 to 1.
    pub jitter: f64,
    /// How old a delivery may become before it is exhausted, counted from the event's acceptance.
    pub give_up_after: Duration,
}

impl Default for Schedule {
    /// 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h; ±20 %; three days.
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let seconds = [5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR];
        Self {
            retry: seconds.map(Duration::from_secs).to_vec(),
            jitter: 0.2,
            give_up_after: Duration::from_secs(72 * HOUR),
        }
    }
}
