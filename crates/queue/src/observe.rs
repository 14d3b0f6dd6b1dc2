//! What is told of a queue while it works: for metrics.

use std::fmt::Debug;
use std::time::Duration;

/// Hears of a queue. What it does is on the way of every commit: it must not wait.
pub trait Observe: Debug + Send + Sync + 'static {
    /// The queue is open for writing, and has this size in bytes.
    fn opened(&self, size: u64);

    /// That many requests were made durable by one commit, which took so long. The queue has this size in bytes now.
    fn committed(&self, requests: usize, took: Duration, size: u64);

    /// Why nothing is accepted, or that events are accepted again: told when that changes.
    fn outage(&self, reason: Option<OutageReason>);
}

/// Why nothing is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutageReason {
    /// Writing failed. The file is opened anew until that works.
    Failing,
    /// The file is damaged. That lasts until the process is restarted with another one.
    Damaged,
}

impl OutageReason {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Failing, Self::Damaged];

    /// As it is written in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Damaged => "damaged",
        }
    }
}

/// Hears of nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observe for Unobserved {
    fn opened(&self, _: u64) {}

    fn committed(&self, _: usize, _: Duration, _: u64) {}

    fn outage(&self, _: Option<OutageReason>) {}
}
