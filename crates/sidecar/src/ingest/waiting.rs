//! Requests that wait for the results of their first attempts (`?wait=`).
//!
//! Waiting is a capacity of its own. Each wait keeps a connection for up to a minute, and a result for each delivery. A wait
//! that finds no room is not an error: the event is durable, and the answer comes at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that may wait at once, where there are connections enough: others keep three of four.
pub(crate) const REQUESTS: usize = 256;
const SHARE: usize = 4;
/// Deliveries that all of them may wait for.
const DELIVERIES: u32 = 16_384;

/// How many may wait.
#[derive(Debug)]
pub(super) struct Waits {
    requests: Arc<Semaphore>,
    deliveries: Arc<Semaphore>,
}

/// Leave to wait, which goes back when this is dropped.
#[derive(Debug)]
pub(super) struct Wait {
    _request: OwnedSemaphorePermit,
    _deliveries: OwnedSemaphorePermit,
}

impl Waits {
    /// For a listener that serves so many connections.
    pub(super) fn new(connections: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new((connections / SHARE).clamp(1, REQUESTS))),
            deliveries: Arc::new(Semaphore::new(DELIVERIES as usize)),
        }
    }

    /// Leave to wait for so many deliveries, if there is room.
    pub(super) fn enter(&self, deliveries: usize) -> Option<Wait> {
        let deliveries = u32::try_from(deliveries).ok()?;
        let request = self.requests.clone().try_acquire_owned().ok()?;
        let deliveries = self.deliveries.clone().try_acquire_many_owned(deliveries).ok()?;
        Some(Wait { _request: request, _deliveries: deliveries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_deliveries_are_bounded_and_come_back() {
        let waits = Waits::new(1_024);
        let mut all: Vec<_> = (0..300).map_while(|_| waits.enter(1)).collect();
        assert_eq!(all.len(), REQUESTS);
        all.pop();
        assert!(
            waits.enter(1).is_some() && waits.enter(usize::MAX).is_none() && waits.enter(20_000).is_none()
        );
        all.clear();
        let large: Vec<_> = (0..300).map_while(|_| waits.enter(10_000)).collect();
        assert_eq!(large.len(), 1);
        assert!(waits.enter(6_384).is_some() && waits.enter(6_385).is_none());
    }

    #[test]
    fn where_there_are_few_connections_fewer_wait() {
        for (connections, most) in [(1, 1), (8, 2), (100, 25), (100_000, REQUESTS)] {
            let waits = Waits::new(connections);
            let all: Vec<_> = (0..300).map_while(|_| waits.enter(0)).collect();
            assert_eq!(all.len(), most, "of {connections} connections");
        }
    }
}
