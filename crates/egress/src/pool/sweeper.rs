//! Closes what is not needed any more. It runs only while there is something to look after.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Entry, Idle, Pool, State};
use crate::endpoint::Origin;
use crate::http1::IDLE_LIFETIME;
use crate::http2::Http2;

/// From one look to the next. For so long, a connection that the other side has closed may stay half closed.
const INTERVAL: Duration = Duration::from_secs(2);

impl Pool {
    /// Sees to it that what is in there is looked after.
    pub(super) fn keep_swept(self: &Arc<Self>, state: &mut State) {
        if state.sweeper.is_none() && !state.closed {
            state.sweeper = Some(tokio::spawn(run(Arc::downgrade(self))).abort_handle());
        }
    }

    /// One look at everything. False if there is nothing left.
    fn sweep(&self, now: Instant) -> bool {
        let origins: Vec<Arc<Origin>> = self.state().origins.keys().cloned().collect();
        for origin in &origins {
            // The lock is held for one origin at a time, and nothing is closed meanwhile.
            let mut state = self.state();
            let Some(entry) = state.origins.get_mut(origin) else { continue };
            let swept = entry.sweep(now);
            let vacant = entry.is_vacant();
            state.kept -= swept.0.len() + swept.1.len();
            if vacant {
                state.origins.remove(origin);
            }
            drop(state);
            drop(swept);
        }
        let mut state = self.state();
        if state.origins.is_empty() {
            state.sweeper = None;
        }
        state.sweeper.is_some()
    }
}

impl Entry {
    /// Takes out what is too old, and what the other side has closed.
    fn sweep(&mut self, now: Instant) -> (Vec<Idle>, Vec<Http2>) {
        let http1 = self.http1.extract_if(.., |idle| idle.until <= now || !idle.connection.is_usable());
        let useless = |http2: &mut Http2| {
            let old = http2.idle_since().is_some_and(|since| since + IDLE_LIFETIME <= now);
            old || !http2.is_usable()
        };
        (http1.collect(), self.http2.extract_if(.., useless).collect())
    }
}

async fn run(pool: Weak<Pool>) {
    loop {
        sleep(INTERVAL).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.sweep(Instant::now()) {
            return;
        }
    }
}
