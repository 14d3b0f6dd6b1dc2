//! What a lane is told, and what it wants done.

use std::sync::Arc;

use aquarium_config::Webhook;
use aquarium_delivery::{DeliveryId, Exhaustion, Outcome, Timestamp};
use aquarium_egress::Sent;
use aquarium_queue::{Claim, Delivery, Report, Settlement, Watcher};

#[cfg(doc)]
use super::Lane;
use crate::{Reserved, Traced};

/// A delivery that is to be sent, and the part of the byte budget that its body takes.
#[derive(Debug)]
pub struct Item {
    /// The delivery.
    pub delivery: Delivery,
    /// Held as long as the body is in memory.
    pub reserved: Option<Reserved>,
}

/// An attempt that was made.
#[derive(Debug)]
pub struct Made {
    /// When it started.
    pub at: Timestamp,
    /// The webhook as it was configured when the request was handed over.
    pub webhook: Arc<Webhook>,
    /// What it came to.
    pub sent: Sent,
    /// Set if its trace is recorded.
    pub traced: Option<Box<Traced>>,
}

/// What a lane wants done.
#[derive(Debug)]
pub enum Step {
    /// Make an attempt for this, and tell [`Lane::attempted`].
    Send(Box<Item>),
    /// Ask the queue, and tell [`Lane::claimed`] or [`Lane::claim_failed`].
    Claim(Claim),
    /// Carry this out: a delivery was given up without an attempt.
    Conclude(Box<Concluded>),
    /// Ask again at this time, or when something happened.
    Wait(Option<Timestamp>),
    /// There is nothing to send, and nothing will be, or not while it is held.
    End,
}

/// What became of a delivery.
#[derive(Debug)]
pub struct Concluded {
    /// Since when the delivery was waited for.
    pub since: Timestamp,
    /// To be recorded; tell [`Lane::recorded`].
    pub settlement: Settlement,
    /// Who waits for the first attempt, and what to say.
    pub report: Option<(Watcher, Report)>,
    /// What an operator should know.
    pub notices: Vec<Notice>,
}

/// Something that an operator acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The breaker opened: only probes are sent.
    BreakerOpened(Outcome),
    /// The breaker closed: deliveries flow again.
    BreakerClosed,
    /// The endpoint asked for a pause.
    Paused(Timestamp),
    /// The endpoint is gone: nothing is sent until it is resumed.
    Suspended,
    /// A delivery was given up.
    Exhausted(DeliveryId, Exhaustion, Option<Outcome>),
}
