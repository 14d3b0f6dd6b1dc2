//! Forgets what is past its retention, in steps that never hold up accepting.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aquarium_config::Config;
use aquarium_dispatch::Clock;
use aquarium_queue::Queue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Events looked at in one step, which shares a transaction with what is being accepted.
const STEP: usize = 200;
/// The rest between two steps.
const PAUSE: Duration = Duration::from_millis(100);
/// The rest when there is nothing to forget.
const INTERVAL: Duration = Duration::from_secs(60);

/// Runs until `shutdown`.
pub(crate) async fn run<Q: Queue>(
    queue: Q,
    config: watch::Receiver<Arc<Config>>,
    clock: Clock,
    shutdown: CancellationToken,
) {
    loop {
        let (before, configured) = {
            let config = config.borrow();
            let configured: HashSet<_> = config.webhooks().map(|webhook| webhook.name.clone()).collect();
            (clock.now() - config.queue.retention, Arc::new(configured))
        };
        let rest = match queue.purge(before, configured, STEP).await {
            Ok(purged) => {
                if purged.abandoned > 0 {
                    warn!(
                        deliveries = purged.abandoned,
                        "held deliveries of removed webhooks are past their retention and were removed"
                    );
                }
                if purged.more { PAUSE } else { INTERVAL }
            }
            Err(_) => INTERVAL,
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
        }
    }
}
