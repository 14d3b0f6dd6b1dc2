//! How many attempts may start in a time: the rate limit of one webhook.
//!
//! It is the generic cell rate algorithm (ITU-T I.371), which is a token bucket that stores one number: the time at
//! which the next attempt would be exactly on time. An attempt may be early by the burst. So the limit is smooth: within
//! any time `t` there start at most `burst + t * rate` attempts.

use std::fmt;
use std::time::Duration;

use crate::Timestamp;

/// In nanoseconds.
const MILLISECOND: u128 = 1_000_000;

/// A number of attempts for each second, minute or hour. Printed as it is written in the configuration: `50/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    number: u32,
    per: Per,
}

/// The time that a [`Rate`] counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// `/s`
    Second,
    /// `/m`
    Minute,
    /// `/h`
    Hour,
}

impl Per {
    /// Every one, the shortest first.
    pub const ALL: [Per; 3] = [Per::Second, Per::Minute, Per::Hour];

    /// The letter that stands for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Per::Second => "s",
            Per::Minute => "m",
            Per::Hour => "h",
        }
    }

    /// How long it is.
    pub fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Per::Second => 1,
            Per::Minute => 60,
            Per::Hour => 3_600,
        })
    }
}

impl Rate {
    /// So many attempts, at least one, for each of these times.
    pub fn new(number: u32, per: Per) -> Self {
        Self { number: number.max(1), per }
    }

    /// How many attempts may start at once after a pause: a tenth of a second's worth, at least one. So no second holds
    /// more than a tenth above the rate.
    pub fn burst(self) -> u32 {
        let tenth = self.per.duration().as_secs() * 10;
        u32::try_from(u64::from(self.number) / tenth).unwrap_or(u32::MAX).max(1)
    }

    /// Nanoseconds from one attempt to the next.
    fn interval(self) -> u128 {
        self.per.duration().as_nanos() / u128::from(self.number)
    }

    /// By how many nanoseconds an attempt may be early: by the burst, and by less than a millisecond, since that is what
    /// time is counted in. Whoever comes at the first millisecond that is allowed is never late.
    fn tolerance(self) -> u128 {
        self.interval() * u128::from(self.burst() - 1) + MILLISECOND - 1
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.per.as_str())
    }
}

/// Keeps to a [`Rate`].
///
/// ```
/// use aquarium_delivery::{Limiter, Per, Rate, Timestamp};
/// use std::time::Duration;
///
/// let now = Timestamp::from_millis(1_000_000);
/// let mut limiter = Limiter::new(Rate::new(4, Per::Second));
/// assert_eq!(limiter.permit(now), Ok(()));
/// limiter.start(now);
/// assert_eq!(limiter.permit(now), Err(now + Duration::from_millis(250)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limiter {
    /// From one attempt to the next. All of these are nanoseconds; points in time count from the epoch.
    interval: u128,
    /// By how much an attempt may be early.
    tolerance: u128,
    /// When the next attempt would be on time.
    on_time: u128,
    /// When the last one started.
    last: u128,
}

fn nanos(time: Timestamp) -> u128 {
    u128::from(time.as_millis()) * MILLISECOND
}

impl Limiter {
    /// A limiter under which nothing has started yet.
    pub fn new(rate: Rate) -> Self {
        Self { interval: rate.interval(), tolerance: rate.tolerance(), on_time: 0, last: 0 }
    }

    /// Goes on with another rate: nobody waits longer than it asks for.
    pub fn set_rate(&mut self, rate: Rate) {
        (self.interval, self.tolerance) = (rate.interval(), rate.tolerance());
        self.on_time = self.on_time.min(self.last + self.tolerance + self.interval);
    }

    /// Whether an attempt may start at `now`. `Err` tells when one may.
    pub fn permit(&self, now: Timestamp) -> Result<(), Timestamp> {
        let earliest = self.on_time.saturating_sub(self.tolerance);
        // A clock that was set back must not hold everything up until it is there again.
        if nanos(now) >= earliest || nanos(now) < self.last {
            return Ok(());
        }
        Err(Timestamp::from_millis(u64::try_from(earliest.div_ceil(MILLISECOND)).unwrap_or(u64::MAX)))
    }

    /// An attempt starts that [`Limiter::permit`] allowed.
    pub fn start(&mut self, now: Timestamp) {
        let now = nanos(now);
        let from = if now < self.last { now } else { self.on_time.max(now) };
        self.on_time = from + self.interval;
        self.last = now;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    /// Starts whatever is allowed for so long, and returns when that was, in milliseconds.
    fn saturate(limiter: &mut Limiter, from: u64, millis: u64) -> Vec<u64> {
        let (mut now, mut starts) = (from, Vec::new());
        while now < from + millis {
            match limiter.permit(NOW + Duration::from_millis(now)) {
                Ok(()) => {
                    limiter.start(NOW + Duration::from_millis(now));
                    starts.push(now);
                }
                Err(at) => now = u64::try_from(at.since(NOW).as_millis()).unwrap().max(now + 1),
            }
        }
        starts
    }

    #[test]
    fn attempts_start_at_even_intervals_after_the_burst() {
        for (rate, burst, in_ten_seconds) in [
            (Rate::new(50, Per::Second), 5, 504),
            (Rate::new(3, Per::Second), 1, 31),
            (Rate::new(1_000, Per::Second), 100, 10_099),
            (Rate::new(6_000, Per::Minute), 10, 1_009),
            (Rate::new(30, Per::Minute), 1, 5),
            (Rate::new(1, Per::Hour), 1, 1),
        ] {
            let starts = saturate(&mut Limiter::new(rate), 0, 10_000);
            let at_once = starts.iter().take_while(|at| **at == 0).count();
            assert_eq!(
                (rate.burst(), at_once, starts.len()),
                (burst, burst as usize, in_ten_seconds),
                "{rate}"
            );
        }
        let starts = saturate(&mut Limiter::new(Rate::new(4, Per::Second)), 0, 1_500);
        assert_eq!(starts, [0, 250, 500, 750, 1_000, 1_250]);
    }

    #[test]
    fn another_rate_counts_at_once_and_a_clock_that_was_set_back_holds_nothing_up() {
        let mut limiter = Limiter::new(Rate::new(1, Per::Hour));
        limiter.start(NOW);
        limiter.set_rate(Rate::new(10, Per::Second));
        assert_eq!(limiter.permit(NOW), Err(NOW + Duration::from_millis(100)));
        limiter.set_rate(Rate::new(1, Per::Hour));
        assert_eq!(
            limiter.permit(NOW),
            Err(NOW + Duration::from_millis(100)),
            "it is not longer for what was"
        );
        let earlier = NOW - Duration::from_secs(3_600);
        assert_eq!(limiter.permit(earlier), Ok(()));
        limiter.start(earlier);
        assert_eq!(limiter.permit(earlier), Err(NOW));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn no_time_holds_more_than_the_burst_and_the_rate_and_none_is_wasted(
            number in 1_u32..800, per in 0_usize..3, asks in prop::collection::vec(0_u64..2_000, 1..20)
        ) {
            let rate = Rate::new(number, Per::ALL[per]);
            let (mut limiter, mut starts, mut now) = (Limiter::new(rate), Vec::new(), 0);
            for ask in asks {
                now += ask;
                starts.extend(saturate(&mut limiter, now, ask / 4));
                now += ask / 4;
            }
            for (index, from) in starts.iter().enumerate().step_by(11) {
                for (number, to) in (1..).zip(&starts[index..]) {
                    let nanos = u128::from(to - from + 1) * MILLISECOND;
                    let allowed = u128::from(rate.burst()) + nanos.div_ceil(rate.interval());
                    prop_assert!(number <= allowed, "{number} within {} ms at {rate}", to - from);
                }
            }
            let all = saturate(&mut limiter, now + 10_000_000, 10_000).len() as u128;
            let expected = 10_000_000_000 / rate.interval();
            prop_assert!(all >= expected, "{all} of {expected} at {rate}");
        }
    }
}
