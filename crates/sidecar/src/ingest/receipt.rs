//! The answer to an accepted event, in JSON.

use std::collections::HashMap;
use std::fmt;

use aquarium_delivery::{DeliveryId, EventId, Outcome};
use aquarium_queue::{Receipt, ReceiptEntry, Report, Settled};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

/// The body of a 202: for one event, or for each of a batch. With outcomes, if `results` were waited for.
#[derive(Debug)]
pub(super) struct Body<'a> {
    pub(super) receipts: &'a [Receipt],
    pub(super) results: Option<&'a HashMap<DeliveryId, FirstAttempt>>,
    pub(super) batch: bool,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = |receipt| Event { receipt, results: self.results };
        match self.receipts {
            [receipt] if !self.batch => event(receipt).serialize(serializer),
            receipts => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("events", &Sequence(|| receipts.iter().map(event)))?;
                map.end()
            }
        }
    }
}

struct Event<'a> {
    receipt: &'a Receipt,
    results: Option<&'a HashMap<DeliveryId, FirstAttempt>>,
}

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { receipt, results } = *self;
        let entries = |skipped| receipt.deliveries.iter().filter(move |entry| entry.skipped == skipped);
        let queued = || {
            entries(false).map(|entry| {
                let outcome = results.map(|results| results.get(&entry.id).unwrap_or(&PENDING));
                Delivery::new(entry, outcome)
            })
        };
        let skipped = || entries(true).map(|entry| Delivery::new(entry, None));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &Printed::<EventId>(receipt.event))?;
        map.serialize_entry("deliveries", &Sequence(queued))?;
        if skipped().next().is_some() {
            map.serialize_entry("skipped", &Sequence(skipped))?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Delivery<'a> {
    id: Printed<DeliveryId>,
    webhook: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a FirstAttempt>,
}

impl<'a> Delivery<'a> {
    fn new(entry: &'a ReceiptEntry, outcome: Option<&'a FirstAttempt>) -> Self {
        Self { id: Printed(entry.id), webhook: entry.webhook.as_str(), outcome }
    }
}

/// What the first attempt came to.
#[derive(Debug, Serialize)]
pub(super) struct FirstAttempt {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u128>,
}

/// There is no result yet.
static PENDING: FirstAttempt =
    FirstAttempt { state: "pending", status: None, error: None, duration_ms: None };

impl FirstAttempt {
    pub(super) fn of(report: &Report) -> Self {
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
        Self { state, status, error, duration_ms: Some(report.duration.as_millis()) }
    }
}

/// What prints itself, as a string.
struct Printed<T>(T);

impl<T: fmt::Display> Serialize for Printed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// What an iterator gives, as an array. It is made anew for each time that it is written.
struct Sequence<F>(F);

impl<F, I> Serialize for Sequence<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(None)?;
        for item in self.0() {
            sequence.serialize_element(&item)?;
        }
        sequence.end()
    }
}
