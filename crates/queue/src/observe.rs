//! What is told of a queue while it works: for metrics.

use std::fmt::Debug;
use std::time::Duration;

/// Hears of a queue. What it does is on the way of every commit: it must not wait.
pub trait Observe: Debug + Send + Sync + 'static {
    /// The queue is open for writing, and has this size in bytes.
    fn opened(&self, size: u64);

    /// That many requests were made durable by one commit, which took so long. The queue has this size in bytes now.
    fn committed(&self, requests: usize, took: Duration, size: u64);

    /// Whether writing works: told when that changes.
    fn writable(&self, writable: bool);
}

/// Hears of nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observe for Unobserved {
    fn opened(&self, _: u64) {}

    fn committed(&self, _: usize, _: Duration, _: u64) {}

    fn writable(&self, _: bool) {}
}
