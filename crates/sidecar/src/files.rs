//! Open files: how many the limits of the parts add up to, and who does with fewer where the system allows fewer.
//!
//! Connections of clients must not use up what deliveries and the queue need. So each part has a share of its own, which it
//! keeps to, and accepting a connection never fails for want of a file.

use aquarium_dispatch::Limits;
use aquarium_egress::MAX_KEPT;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::http::{CONNECTIONS, REFUSED_AT_ONCE};

/// The queue with its readers and its log, the configuration and what watches it, the runtime, the standard streams, and some
/// to spare.
const OWN: usize = 64;
/// An attempt has a connection, and while that is set up a second one, or a socket that a name is asked for with.
const PER_ATTEMPT: usize = 2;
/// The least of a part that is of any use.
const LEAST: usize = 8;

/// How many of each there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Connections that a listener serves.
    pub(crate) connections: usize,
    /// Attempts under way.
    pub(crate) attempts: usize,
    /// Connections to endpoints that are kept for the next request.
    pub(crate) kept: usize,
}

impl Share {
    /// What the parts have when nothing is short.
    fn full() -> Self {
        Self { connections: CONNECTIONS, attempts: Limits::default().in_flight, kept: MAX_KEPT }
    }

    /// The files that it takes at the most.
    fn files(self) -> usize {
        // As many refusals as there are connections, at the most, are being written.
        let listener = self.connections + REFUSED_AT_ONCE.min(self.connections);
        OWN + 2 * listener + PER_ATTEMPT * self.attempts + self.kept
    }

    /// What the parts have where so many files may be open.
    fn of(limit: usize) -> Self {
        let full = Self::full();
        let need = full.files();
        if limit >= need {
            return full;
        }
        let share = |part: usize| part * limit.saturating_sub(OWN) / need;
        let listener = share(full.connections + REFUSED_AT_ONCE);
        let connections = listener.saturating_sub(REFUSED_AT_ONCE).max(listener / 2).max(LEAST);
        Self { connections, attempts: share(full.attempts).max(LEAST), kept: share(full.kept).max(LEAST) }
    }
}

/// Has the system let us open as many files as it may, and shares them. It says so if they are too few.
pub(crate) fn share() -> Share {
    let need = Share::full().files();
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let mut limit = current;
    // No limit is no number.
    if current.is_some_and(|current| maximum.is_none_or(|maximum| current < maximum)) {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => limit = maximum,
            Err(error) if current.is_some_and(|current| current < need as u64) => {
                warn!(%error, "the limit of open files could not be raised");
            }
            Err(_) => {}
        }
    }
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let share = Share::of(limit);
    if limit < need {
        let Share { connections, attempts, kept } = share;
        warn!(
            limit,
            need,
            "too few files may be open: each listener serves {connections} connections at once, and {attempts} attempts and {kept} idle connections to endpoints are what there is room for; raise the hard limit (LimitNOFILE=, ulimit -Hn, --ulimit nofile=)"
        );
    }
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_the_limit() {
        let full = Share::full();
        assert_eq!(Share::of(full.files()), full);
        assert_eq!(Share::of(usize::MAX), full);
        let mut before = Share::of(0);
        for limit in 0..full.files() {
            let share = Share::of(limit);
            assert!(limit < 131 || share.files() <= limit, "{limit}: {share:?} takes {}", share.files());
            for (less, more) in [
                (before.connections, share.connections),
                (before.attempts, share.attempts),
                (before.kept, share.kept),
            ] {
                assert!((LEAST..=more).contains(&less), "{limit}: {before:?}, {share:?}");
            }
            before = share;
        }
    }

    #[test]
    fn what_is_needed_is_what_the_guide_says() {
        let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating.md");
        let guide = std::fs::read_to_string(guide).unwrap();
        let need = Share::full().files().to_string();
        let need = format!("{},{}", &need[..need.len() - 3], &need[need.len() - 3..]);
        assert!(guide.contains(&format!("**{need}**")), "docs/operating.md, Sizing: {need} files are needed");
    }
}
