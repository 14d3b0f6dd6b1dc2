//! A memory of what was handled already, of bounded size.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

/// Remembers for a while what was handled, so that it is not handled again. Cheap to clone; clones share the memory.
///
/// Deliveries are at least once: what was delivered comes again when the answer was lost on its way. Claim the
/// `Webhook-Id` of a call after the call was verified:
///
/// ```
/// use aquarium_verify::{Guard, Repeated};
/// use std::time::{Duration, Instant};
///
/// let guard = Guard::new(100_000, Duration::from_secs(24 * 60 * 60));
///
/// // In the handler. What is returned is a status to answer with.
/// let receive = |id: &str| match guard.claim(id, Instant::now()) {
///     Err(Repeated::Handled) => 200,     // it was delivered: the sender can stop
///     Err(Repeated::InHand) => 503,      // nobody knows yet how that ends: the sender shall try again
///     Ok(claim) => {
///         let handled = true;            // ... what the service does with the call
///         if handled {
///             claim.keep();
///             200
///         } else {
///             500                        // the claim is dropped: when the sender tries again, it is let in
///         }
///     }
/// };
/// assert_eq!(receive("evt_0190c0de"), 200);
/// assert_eq!(receive("evt_0190c0de"), 200);
/// ```
///
/// Against calls that somebody recorded and sends again (feature `signature`), claim `Signed::attempt` for twice the
/// verifier's tolerance: as long as that, from a clock that goes fast to one that goes slow, a signature is accepted. Who
/// claims the id for at least as long needs no second guard for that.
///
/// # What it does not do
/// - When it is full, it forgets what was claimed first. What was forgotten is let in again, and so is everything after
///   a restart. As for duplicates, that is what "at least once" allows; as for recorded calls, it is a gap, so the
///   capacity is to be more than the calls of one window. Only who can make a genuine call fills it, if it is asked
///   after the call was verified.
/// - It is the memory of one process. Several that share the calls need a unique key in a database they share.
///
/// Each entry takes about 200 bytes, however long the ids are. Nothing runs in the background: what is too old goes when
/// the next claim is made.
#[derive(Clone)]
pub struct Guard(Arc<Shared>);

struct Shared {
    capacity: usize,
    window: Duration,
    memory: Mutex<Memory>,
}

/// What is remembered: by what was claimed, and in the order of the claims.
#[derive(Default)]
struct Memory {
    numbers: HashMap<Digest, u64>,
    entries: BTreeMap<u64, Entry>,
    next: u64,
    latest: Option<Instant>,
}

type Digest = [u8; 32];

struct Entry {
    digest: Digest,
    claimed: Instant,
    handled: bool,
}

impl Guard {
    /// A guard that remembers up to `capacity` claims (at least one), each for `window` from when it was made.
    pub fn new(capacity: usize, window: Duration) -> Guard {
        Guard(Arc::new(Shared { capacity: capacity.max(1), window, memory: Mutex::default() }))
    }

    /// Claims `id` to handle it, unless that was done within the window.
    ///
    /// An earlier `now` than one that was given before counts as that one.
    ///
    /// # Errors
    /// It was claimed before, and that claim was kept or is not decided yet.
    pub fn claim(&self, id: impl AsRef<[u8]>, now: Instant) -> Result<Claim, Repeated> {
        let digest: Digest = Sha256::digest(id).into();
        let mut memory = self.memory();
        let now = memory.forget_old(now, self.0.window);
        if let Some(entry) = memory.get(&digest) {
            return Err(if entry.handled { Repeated::Handled } else { Repeated::InHand });
        }
        if memory.entries.len() >= self.0.capacity {
            memory.forget_first();
        }
        let number = memory.insert(digest, now);
        Ok(Claim { guard: self.clone(), number, kept: false })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("capacity", &self.0.capacity)
            .field("window", &self.0.window)
            .finish_non_exhaustive()
    }
}

impl Memory {
    fn get(&self, digest: &Digest) -> Option<&Entry> {
        self.entries.get(self.numbers.get(digest)?)
    }

    /// Forgets what is too old; the time is at least that of the latest claim, and so the first claim is the oldest.
    fn forget_old(&mut self, now: Instant, window: Duration) -> Instant {
        let now = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(now);
        while self.entries.first_key_value().is_some_and(|(_, first)| now - first.claimed >= window) {
            self.forget_first();
        }
        now
    }

    fn forget_first(&mut self) {
        if let Some((_, first)) = self.entries.pop_first() {
            self.numbers.remove(&first.digest);
        }
    }

    /// Forgets a claim, if it is remembered. One of the same that was made since then has another number.
    fn forget(&mut self, number: u64) {
        if let Some(entry) = self.entries.remove(&number) {
            self.numbers.remove(&entry.digest);
        }
    }

    fn insert(&mut self, digest: Digest, claimed: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.numbers.insert(digest, number);
        self.entries.insert(number, Entry { digest, claimed, handled: false });
        number
    }
}

/// The right to handle what was claimed. Dropped without [`Claim::keep`], as when handling failed or panicked, it lets
/// the next call with the same id in.
#[must_use = "dropped, it lets the next call with the same id in"]
pub struct Claim {
    guard: Guard,
    number: u64,
    kept: bool,
}

impl Claim {
    /// It was handled: for the rest of the window, a call with the same id is [`Repeated::Handled`].
    pub fn keep(mut self) {
        self.kept = true;
        if let Some(entry) = self.guard.memory().entries.get_mut(&self.number) {
            entry.handled = true;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            self.guard.memory().forget(self.number);
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Why something cannot be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Repeated {
    /// It was handled. Answer as if it were handled now (200), so that the sender stops.
    #[error("it was handled already")]
    Handled,
    /// It is being handled. Answer so that the sender tries again (503): told that all is well, it would stop, and if
    /// the handling fails then, the call is lost.
    #[error("it is being handled")]
    InHand,
}
