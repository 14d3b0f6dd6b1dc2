//! A memory of who was turned away lately, for probes and for the log.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long it is remembered that somebody was turned away: a probe must not miss it.
pub(super) const REMEMBERED: Duration = Duration::from_secs(5);
/// The longest time between two log lines about it.
pub(super) const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// When somebody was turned away last. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct TurnedAway(Arc<Mutex<Times>>);

#[derive(Debug, Default)]
struct Times {
    last: Option<Instant>,
    logged: Option<Instant>,
}

impl TurnedAway {
    /// Somebody is turned away.
    pub(crate) fn note(&self) {
        self.times().last = Some(Instant::now());
    }

    /// Whether somebody was a moment ago.
    pub(crate) fn lately(&self) -> bool {
        self.times().last.is_some_and(|last| last.elapsed() < REMEMBERED)
    }

    /// Whether it is time to log it.
    pub(crate) fn is_to_be_logged(&self) -> bool {
        let mut times = self.times();
        let again = times.logged.is_none_or(|logged| logged.elapsed() >= TOLD_AGAIN);
        if again {
            times.logged = Some(Instant::now());
        }
        again
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
