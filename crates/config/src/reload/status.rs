//! What a reload came to.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aquarium_delivery::Timestamp;

use super::Uncertain;
use crate::Digest;

/// What is in force, and what is not as it should be.
#[derive(Debug, Clone)]
pub struct Status {
    /// Which configuration is in force: 1 at the start, and one more for each that was accepted since.
    pub generation: u64,
    /// Equal to that of another sidecar if their configuration files are the same.
    pub digest: Digest,
    /// Since when it is in force.
    pub loaded_at: Timestamp,
    /// Settings that were changed, and wait for a restart, as they are written in the configuration.
    pub needs_restart: Vec<&'static str>,
    /// Why what the files say now is not in force, if it is not.
    pub rejected: Option<Arc<Rejected>>,
    /// How many times that happened since the start.
    pub rejections: u64,
    /// Organizations that there may be, though they are not in force: until the files can be used, or have settled.
    pub uncertain: Uncertain,
    /// Whether the files are watched; if not, why, and they are polled only.
    pub watched: Result<(), String>,
}

impl Status {
    pub(super) fn first(digest: Digest, now: Timestamp) -> Self {
        Self {
            generation: 1,
            digest,
            loaded_at: now,
            needs_restart: Vec::new(),
            rejected: None,
            rejections: 0,
            uncertain: Uncertain::default(),
            watched: Ok(()),
        }
    }

    pub(super) fn accept(&mut self, digest: Digest, now: Timestamp, needs_restart: Vec<&'static str>) {
        self.generation += 1;
        self.digest = digest;
        self.loaded_at = now;
        self.needs_restart = needs_restart;
        self.rejected = None;
        self.uncertain = Uncertain::default();
    }

    pub(super) fn reject(&mut self, rejected: Arc<Rejected>, uncertain: Uncertain) {
        self.rejected = Some(rejected);
        self.uncertain = uncertain;
        self.rejections += 1;
    }
}

/// A configuration that was put in force, or was already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Which one.
    pub generation: u64,
    /// What is different from before, in words; empty if nothing is.
    pub changes: Vec<String>,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// When it was tried.
    pub at: Timestamp,
    /// Everything that is wrong with it, a line each: file, line, column and reason.
    pub errors: Vec<String>,
}

impl fmt::Display for Rejected {
    /// One line: the first error, and how many there are besides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, rest) =
            self.errors.split_first().map_or(("", 0), |(first, rest)| (first.as_str(), rest.len()));
        f.write_str(first)?;
        match rest {
            0 => Ok(()),
            1 => f.write_str(" (and 1 more error)"),
            more => write!(f, " (and {more} more errors)"),
        }
    }
}

/// Why a reload that was asked for did not put anything in force.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// The files cannot be used.
    #[error("{0}")]
    Rejected(Arc<Rejected>),
    /// Too many have asked, and wait.
    #[error("too many reloads were asked for at once")]
    Busy,
    /// The files could not be read in time.
    #[error("no reload within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// Nobody follows the files any more.
    #[error("the configuration is not followed any more")]
    Stopped,
}
