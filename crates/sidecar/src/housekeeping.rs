//! What is done in the background, in steps that never hold up accepting: forgets what is past its retention, and
//! prepares what makes lists fast.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aquarium_config::Config;
use aquarium_dispatch::Clock;
use aquarium_queue::Queue;
use aquarium_queue::history::History;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Events looked at in one step, which shares a transaction with what is being accepted.
const STEP: usize = 500;
/// The rest between two steps.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest rest when there is nothing to forget.
const INTERVAL: Duration = Duration::from_secs(60);
/// The part of the retention that the rest is, if that is less.
const PART: u32 = 4;
/// The rest between two steps of preparing lists.
const INDEX_PAUSE: Duration = Duration::from_millis(10);
/// The rest when there is nothing to prepare.
const INDEX_INTERVAL: Duration = Duration::from_secs(10);

/// Runs until `shutdown`.
pub(crate) async fn run<Q: Queue>(
    queue: Q,
    config: watch::Receiver<Arc<Config>>,
    clock: Clock,
    shutdown: CancellationToken,
) {
    loop {
        let (before, configured, interval) = {
            let config = config.borrow();
            let configured: HashSet<_> = config.webhooks().map(|webhook| webhook.name.clone()).collect();
            let retention = config.queue.retention;
            (clock.now() - retention, Arc::new(configured), INTERVAL.min(retention / PART))
        };
        let rest = match queue.purge(before, configured, STEP).await {
            Ok(purged) => {
                if purged.abandoned > 0 {
                    warn!(
                        deliveries = purged.abandoned,
                        "held deliveries of removed webhooks are past their retention and were removed"
                    );
                }
                if purged.more { PAUSE } else { interval }
            }
            Err(_) => interval,
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Prepares lists until `shutdown`.
pub(crate) async fn index<Q: History>(queue: Q, shutdown: CancellationToken) {
    loop {
        // A queue that fails is left alone for as long as one that has nothing to do.
        let rest = if queue.index().await.unwrap_or(false) { INDEX_PAUSE } else { INDEX_INTERVAL };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
        }
    }
}
