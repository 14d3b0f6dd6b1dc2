//! What is told of lanes while they work: for metrics.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use aquarium_delivery::WebhookName;
use aquarium_egress::Sent;
use aquarium_queue::Settled;

/// Hears of lanes. What it does is on the way of every delivery: it must not wait.
pub trait Observe: Debug + Send + Sync + 'static {
    /// A lane starts: who hears of what it does.
    fn lane(&self, webhook: &WebhookName) -> Arc<dyn ObserveLane>;
}

/// Hears of one lane.
pub trait ObserveLane: Debug + Send + Sync + 'static {
    /// An attempt has ended.
    fn attempted(&self, sent: &Sent);

    /// What became of a delivery, so long after its event was accepted, or it was replayed. It is about to be recorded.
    fn settled(&self, state: &Settled, waited: Duration);
}

/// Hears of nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observe for Unobserved {
    fn lane(&self, _: &WebhookName) -> Arc<dyn ObserveLane> {
        Arc::new(Self)
    }
}

impl ObserveLane for Unobserved {
    fn attempted(&self, _: &Sent) {}

    fn settled(&self, _: &Settled, _: Duration) {}
}
