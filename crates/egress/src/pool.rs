//! The connections that are kept for the next request.
//!
//! Everything is behind one lock, which is held for as long as it takes to look something up, and never while a connection
//! is opened or closed.

mod opening;
mod sweeper;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::endpoint::Origin;
use crate::http1::Http1;
use crate::http2::{Http2, Slot};
pub(crate) use opening::Opening;

/// The most idle HTTP/1.1 connections of one origin.
const MAX_IDLE_PER_ORIGIN: usize = 64;
/// The most connections that are kept, unless it is told to keep fewer. When there are more, the oldest idle ones are closed.
pub const MAX_KEPT: usize = 1024;
/// The part of them that is closed then, so that it is seldom looked for them.
const CLOSED_AT_ONCE: usize = 8;

/// The connections of one way out.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    origins: HashMap<Arc<Origin>, Entry>,
    /// How many connections are in there.
    kept: usize,
    /// How many there may be.
    most: usize,
    /// Nothing is kept any more.
    closed: bool,
    sweeper: Option<AbortHandle>,
}

/// What is known of an origin.
#[derive(Debug, Default)]
struct Entry {
    /// The one that was used last comes last.
    http1: Vec<Idle>,
    http2: Vec<Http2>,
    /// What it spoke last; none, if that is not known.
    protocol: Option<Protocol>,
    /// Whether a connection is being opened that others wait for.
    opening: bool,
    /// How many of those came to nothing.
    failures: u64,
    /// Told when there is something new for those who wait.
    news: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

#[derive(Debug)]
struct Idle {
    connection: Box<Http1>,
    since: Instant,
    until: Instant,
}

/// A connection for one request.
#[derive(Debug)]
pub(crate) enum Connection {
    /// All of it.
    Http1(Box<Http1>),
    /// A place on it.
    Http2(Slot),
}

/// What there is for a request.
#[derive(Debug)]
pub(crate) enum Found {
    /// A connection.
    Connection(Connection),
    /// None; one is to be opened.
    Open(Opening),
    /// None, but there may be one soon.
    Wait(Waiting),
}

/// A request that waits for what comes of a connection that is opened for another one, or for news of how much a
/// connection can take.
#[derive(Debug)]
pub(crate) struct Waiting {
    news: watch::Receiver<()>,
    failures: u64,
}

impl Waiting {
    /// Waits until it is worth looking again. Gives back how often opening had failed by the time it began to wait.
    pub(crate) async fn over(mut self) -> u64 {
        // It is gone only when the origin was forgotten: there is nothing to wait for any more.
        let _ = self.news.changed().await;
        self.failures
    }
}

impl Pool {
    /// A pool that keeps at most so many connections.
    pub(crate) fn new(most: usize) -> Self {
        Self { state: Mutex::new(State { most, ..State::default() }) }
    }

    /// Keeps at most so many from now on.
    pub(crate) fn keep_at_most(&self, most: usize) {
        self.state().most = most;
    }

    /// A connection that is there and open, as far as is known.
    pub(crate) fn take(&self, origin: &Origin, now: Instant) -> Option<Connection> {
        loop {
            let idle = {
                let mut state = self.state();
                let entry = state.origins.get_mut(origin)?;
                if let Some(slot) = entry.http2.iter_mut().find_map(Http2::slot) {
                    return Some(Connection::Http2(slot));
                }
                let idle = entry.http1.pop()?;
                state.kept -= 1;
                idle
            };
            let Idle { mut connection, until, .. } = idle;
            if until > now && connection.is_usable() {
                return Some(Connection::Http1(connection));
            }
        }
    }

    /// Keeps a connection, of which it is known that it can take another request.
    pub(crate) fn put(self: &Arc<Self>, origin: &Arc<Origin>, connection: Box<Http1>, now: Instant) {
        let idle = Idle { until: now + connection.lifetime(), since: now, connection };
        let mut state = self.state();
        if state.closed {
            drop(state);
            return;
        }
        // Entries are made here for what is not encrypted, and before the first connection for what is.
        let entry = match state.origins.get_mut(origin) {
            Some(entry) => entry,
            None => state.origins.entry(origin.clone()).or_default(),
        };
        let spare = (entry.http1.len() >= MAX_IDLE_PER_ORIGIN).then(|| entry.http1.remove(0));
        entry.http1.push(idle);
        state.kept += usize::from(spare.is_none());
        let oldest = state.make_room();
        self.keep_swept(&mut state);
        drop(state);
        // Closing them is nothing to hold the lock for.
        drop((spare, oldest));
    }

    /// What to do to get a connection, when there is none to take. `failures` is what the last wait gave back: if opening
    /// has failed since, this request goes on by itself.
    pub(crate) fn find(self: &Arc<Self>, origin: &Arc<Origin>, failures: Option<u64>) -> Found {
        if !origin.encrypted {
            return Found::Open(self.fresh(origin));
        }
        let mut guard = self.state();
        let state = &mut *guard;
        let closed = state.closed;
        let entry = state.origins.entry(origin.clone()).or_default();
        // Before anything is looked at: whatever changes from here on is told.
        let news = entry.news.subscribe();
        let before = entry.http2.len();
        entry.http2.retain_mut(Http2::is_usable);
        state.kept -= before - entry.http2.len();
        if let Some(slot) = entry.http2.iter_mut().find_map(Http2::slot) {
            return Found::Connection(Connection::Http2(slot));
        }
        let alone = closed
            || entry.protocol == Some(Protocol::Http1)
            || failures.is_some_and(|failures| failures != entry.failures);
        if !alone && (entry.opening || entry.http2.iter().any(Http2::is_new)) {
            return Found::Wait(Waiting { news, failures: entry.failures });
        }
        entry.opening |= !alone;
        self.keep_swept(state);
        Found::Open(Opening::new(self, origin, !alone))
    }

    /// A connection of its own, whatever there is.
    pub(crate) fn fresh(self: &Arc<Self>, origin: &Arc<Origin>) -> Opening {
        Opening::new(self, origin, false)
    }

    /// Closes what is idle, and keeps nothing from now on.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.kept = 0;
        let (origins, sweeper) = (std::mem::take(&mut state.origins), state.sweeper.take());
        drop(state);
        drop(origins);
        if let Some(sweeper) = sweeper {
            sweeper.abort();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(sweeper) = self.state().sweeper.take() {
            sweeper.abort();
        }
    }
}

impl State {
    /// Takes out the oldest connections that nothing is on, if there are too many.
    fn make_room(&mut self) -> (Vec<Idle>, Vec<Http2>) {
        let (mut http1, mut http2) = (Vec::new(), Vec::new());
        if self.kept <= self.most {
            return (http1, http2);
        }
        let mut since: Vec<Instant> = self.origins.values().flat_map(Entry::idle_since).collect();
        if since.is_empty() {
            return (http1, http2);
        }
        let last = (self.most / CLOSED_AT_ONCE).clamp(1, since.len()) - 1;
        let newest = *since.select_nth_unstable(last).1;
        for entry in self.origins.values_mut() {
            http1.extend(entry.http1.extract_if(.., |idle| idle.since <= newest));
            let old = |http2: &mut Http2| http2.idle_since().is_some_and(|since| since <= newest);
            http2.extend(entry.http2.extract_if(.., old));
        }
        self.kept -= http1.len() + http2.len();
        (http1, http2)
    }
}

impl Entry {
    fn idle_since(&self) -> impl Iterator<Item = Instant> {
        let http1 = self.http1.iter().map(|idle| idle.since);
        http1.chain(self.http2.iter().filter_map(Http2::idle_since))
    }

    /// Whether nothing is lost if it is forgotten.
    fn is_vacant(&self) -> bool {
        self.http1.is_empty() && self.http2.is_empty() && !self.opening && self.news.receiver_count() == 0
    }
}
