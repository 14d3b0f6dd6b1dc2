//! When a failure of the storage is told, when its end, and how long to wait before the file is opened anew.
//!
//! On a full disk small commits may succeed between large ones that fail. That is told as one outage, and not as many as
//! there are commits: it is over when writing has worked for a while. The wait is short again after any commit, so that
//! as much is accepted as there is room for.

use std::time::Duration;

use tokio::time::Instant;

/// The first wait before a failed file is opened anew; it doubles up to [`LONGEST_INTERVAL`].
const FIRST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);
/// How long writing has to work until the outage is over.
const STEADY: Duration = Duration::from_secs(10);

/// An outage of the storage, or none.
#[derive(Debug)]
pub(super) struct Outage {
    /// Set from when it was told that writing failed until it is told that it works again.
    told: bool,
    /// The first commit that succeeded since the last failure, while there is an outage.
    works_since: Option<Instant>,
    /// The next wait.
    interval: Duration,
}

impl Outage {
    pub(super) fn none() -> Self {
        Self { told: false, works_since: None, interval: FIRST_INTERVAL }
    }

    /// Writing failed. True if that is to be told.
    pub(super) fn failed(&mut self) -> bool {
        self.works_since = None;
        !std::mem::replace(&mut self.told, true)
    }

    /// How long to wait before the file is opened anew.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// It is opened anew. If that does not help, the next wait is longer.
    pub(super) fn retried(&mut self) {
        self.interval = (self.interval * 2).min(LONGEST_INTERVAL);
    }

    /// A commit succeeded. True if it is to be told that writing works again.
    pub(super) fn committed(&mut self, now: Instant) -> bool {
        self.interval = FIRST_INTERVAL;
        if !self.told || now - *self.works_since.get_or_insert(now) < STEADY {
            return false;
        }
        *self = Self::none();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_until_writing_works_steadily() {
        let (mut outage, mut now) = (Outage::none(), Instant::now());
        assert!(!outage.committed(now), "nothing was wrong");
        assert!(outage.failed());
        for _ in 0..10 {
            assert!(!outage.committed(now), "it may be a small one between large ones");
            now += STEADY / 2;
            assert!(!outage.committed(now));
            assert!(!outage.failed(), "it is told already");
        }
        assert!(!outage.committed(now));
        assert!(outage.committed(now + STEADY));
        assert!(!outage.committed(now + STEADY), "that too is told once");
        assert!(outage.failed(), "this is another one");
    }

    #[test]
    fn the_wait_doubles_until_a_commit_succeeds() {
        let mut outage = Outage::none();
        outage.failed();
        for interval in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            assert_eq!(outage.interval(), Duration::from_millis(interval));
            outage.retried();
            outage.failed();
        }
        outage.committed(Instant::now());
        assert_eq!(outage.interval(), FIRST_INTERVAL);
    }
}
