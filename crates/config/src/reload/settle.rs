//! When a reading of the files is believed: pure.
//!
//! A reading is doubtful if something is wrong in it, or if something is missing that was there before: a program may be in the middle
//! of saving. It is believed when the files have stayed as they are for [`SETTLE`]. Files that never stay are believed after
//! [`DOUBT_AT_MOST`], so that what was really removed is removed.

use tokio::time::Instant;

use super::{DOUBT_AT_MOST, SETTLE};
use crate::Fingerprint;

/// What a reading came to, as far as it decides whether it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) doubtful: bool,
    /// None if the files changed while they were read.
    pub(super) fingerprint: Option<Fingerprint>,
}

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is believed: put it in force, or reject it.
    Act,
    /// Read again at this moment, or when the files have changed.
    ReadAgain(Instant),
}

/// What is known of a doubt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    since: Instant,
    /// What was read last, and when first.
    latest: (Option<Fingerprint>, Instant),
}

impl Doubt {
    /// When whatever is read is believed.
    pub(super) fn ends(&self) -> Instant {
        self.since + DOUBT_AT_MOST
    }
}

/// What to do after a reading at `now`, and what is known of the doubt then.
pub(super) fn step(doubt: Option<Doubt>, reading: Reading, now: Instant) -> (Step, Option<Doubt>) {
    if !reading.doubtful {
        return (Step::Act, None);
    }
    let mut doubt = doubt.unwrap_or(Doubt { since: now, latest: (reading.fingerprint, now) });
    let (fingerprint, first) = doubt.latest;
    let same = fingerprint.is_some() && fingerprint == reading.fingerprint;
    if now >= doubt.ends() || (same && now >= first + SETTLE) {
        return (Step::Act, None);
    }
    if !same {
        doubt.latest = (reading.fingerprint, now);
    }
    let settled = doubt.latest.1 + SETTLE;
    (Step::ReadAgain(settled.min(doubt.ends())), Some(doubt))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::{Memory, load};

    fn doubtful(version: u32) -> Reading {
        let files = Memory::new()
            .file("aquarium.toml", format!("version = 1 # {version}\n"))
            .directory("organizations", 0);
        let fingerprint = load(Path::new(""), &files).unwrap().inputs.fingerprint();
        Reading { doubtful: true, fingerprint: Some(fingerprint) }
    }

    /// Reads whenever it is told to, or as often as the files change; returns how long it took until it acted.
    fn until_it_acts(every: Option<Duration>, mut reading: impl FnMut(u32) -> Reading) -> Duration {
        let start = Instant::now();
        let (mut now, mut doubt) = (start, None);
        for number in 0..10_000 {
            let (step, next) = step(doubt, reading(number), now);
            let Step::ReadAgain(at) = step else { return now - start };
            assert!(at > now && at <= now + SETTLE, "it neither spins nor sleeps for long");
            now = every.map_or(at, |every| at.min(now + every));
            doubt = next;
        }
        panic!("it never acts");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_certain_counts_at_once() {
        assert_eq!(until_it_acts(None, |_| Reading { doubtful: false, ..doubtful(0) }), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_doubtful_counts_when_it_has_stayed_the_same() {
        assert_eq!(until_it_acts(None, |_| doubtful(0)), SETTLE);
        let often = Some(SETTLE / 7);
        assert_eq!(until_it_acts(often, |_| doubtful(0)), SETTLE);
        // It changes once, half a settle after the first reading.
        assert_eq!(until_it_acts(Some(SETTLE / 2), |number| doubtful(number.min(1))), SETTLE * 3 / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_ends_though_the_files_never_stay_the_same() {
        for every in [Duration::from_millis(1), SETTLE / 3, SETTLE * 9 / 10] {
            assert_eq!(until_it_acts(Some(every), doubtful), DOUBT_AT_MOST, "{every:?}");
        }
        let torn = |_| Reading { doubtful: true, fingerprint: None };
        assert_eq!(until_it_acts(None, torn), DOUBT_AT_MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_is_over_when_nothing_is_missing_any_more() {
        let back = |number| Reading { doubtful: number < 2, ..doubtful(number) };
        assert_eq!(until_it_acts(Some(SETTLE / 4), back), SETTLE / 2);
    }
}
