//! The answer to an accepted event, in JSON.

use aquarium_delivery::{DeliveryId, Outcome};
use aquarium_queue::{Receipt, ReceiptEntry, Report, Settled};
use serde::Serialize;

/// The body of a 202.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Body {
    Single(Event),
    Batch { events: Vec<Event> },
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Event {
    id: String,
    deliveries: Vec<Delivery>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<Delivery>,
}

#[derive(Debug, Serialize)]
struct Delivery {
    id: String,
    webhook: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<FirstAttempt>,
}

/// What the first attempt came to.
#[derive(Debug, Serialize)]
struct FirstAttempt {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u128>,
}

/// The answer for these receipts; with outcomes if `reports` were waited for.
pub(super) fn of(receipts: &[Receipt], reports: Option<&[Report]>, batch: bool) -> Body {
    let mut events: Vec<_> = receipts.iter().map(|receipt| event(receipt, reports)).collect();
    if batch { Body::Batch { events } } else { Body::Single(events.pop().unwrap_or_default()) }
}

fn event(receipt: &Receipt, reports: Option<&[Report]>) -> Event {
    let (skipped, queued): (Vec<_>, Vec<_>) = receipt.deliveries.iter().partition(|entry| entry.skipped);
    Event {
        id: receipt.event.to_string(),
        deliveries: queued
            .into_iter()
            .map(|entry| delivery(entry, reports.map(|reports| first_attempt(entry.id, reports))))
            .collect(),
        skipped: skipped.into_iter().map(|entry| delivery(entry, None)).collect(),
    }
}

fn delivery(entry: &ReceiptEntry, outcome: Option<FirstAttempt>) -> Delivery {
    Delivery { id: entry.id.to_string(), webhook: entry.webhook.to_string(), outcome }
}

fn first_attempt(delivery: DeliveryId, reports: &[Report]) -> FirstAttempt {
    let Some(report) = reports.iter().find(|report| report.delivery == delivery) else {
        return FirstAttempt { state: "pending", status: None, error: None, duration_ms: None };
    };
    let (status, error) = match &report.outcome {
        Outcome::Answered { status, .. } => (Some(*status), None),
        Outcome::Failed(failure) => (None, Some(failure.to_string())),
    };
    let state = match report.next {
        Settled::Delivered => "delivered",
        Settled::Retry(_) => "retrying",
        Settled::Exhausted(_) => "exhausted",
        Settled::Suspended { .. } => "held",
    };
    FirstAttempt { state, status, error, duration_ms: Some(report.duration.as_millis()) }
}
