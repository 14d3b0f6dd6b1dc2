//! What is told of lanes while they work: for metrics.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use aquarium_config::Webhook;
#[cfg(doc)]
use aquarium_delivery::SpanId;
use aquarium_delivery::{DeliveryId, EventId, Timestamp, TraceContext, WebhookName};
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

    /// An attempt has ended whose trace is recorded. It started at `at`, for a webhook that was configured like this.
    fn traced(&self, _traced: &Traced, _at: Timestamp, _webhook: &Webhook, _sent: &Sent) {}

    /// What became of a delivery, so long after its event was accepted, or it was replayed. It is about to be recorded.
    fn settled(&self, state: &Settled, waited: Duration);
}

/// An attempt whose trace is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// The trace, at the span that the attempt follows from. Its own span is [`SpanId::of_attempt`].
    pub trace: TraceContext,
    /// The event.
    pub event: EventId,
    /// The delivery.
    pub delivery: DeliveryId,
    /// Which attempt it is, from 1.
    pub number: u32,
    /// Since when it could have been made.
    pub due_at: Timestamp,
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
