//! Events, deliveries and attempts as the API shows them.

use std::time::Duration;

use aquarium_delivery::{Failure, Outcome, Phases, Timestamp};
use aquarium_queue::history::{self, DeliverySummary, EventSummary};
use aquarium_queue::{PARKED, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::filter::StateName;

/// An event, without its payload.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Event {
    /// `evt_…`: what receivers see as `Webhook-Id`.
    id: String,
    /// What happened.
    event_type: String,
    /// The organization that owns it.
    organization: String,
    /// The project in which it happened.
    project: String,
    /// When it was accepted.
    #[schema(format = DateTime)]
    accepted_at: String,
    /// The size of its payload in bytes.
    size: usize,
}

/// An event on its way to a webhook.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Delivery {
    /// `dlv_…`: what receivers see as `Aquarium-Delivery`.
    id: String,
    /// The event.
    event: Event,
    /// The webhook: `organization/project/webhook`.
    webhook: String,
    /// How it stands.
    state: StateName,
    /// Why it was given up, if it was.
    #[schema(required = true)]
    exhausted_because: Option<String>,
    /// When it is due, if it is pending and waits for nothing else.
    #[schema(required = true, format = DateTime)]
    due_at: Option<String>,
    /// Whether it waits for an earlier one, as the webhook's `order` wants it.
    waits_behind_another: bool,
    /// Why nothing is sent, if it is pending and held.
    #[schema(required = true)]
    held_because: Option<String>,
    /// How many attempts were made.
    attempts: u32,
    /// The last of them.
    #[schema(required = true)]
    last_attempt: Option<Attempt>,
    /// When its state was decided, if it is not pending.
    #[schema(required = true, format = DateTime)]
    settled_at: Option<String>,
    /// When it was replayed last.
    #[schema(required = true, format = DateTime)]
    replayed_at: Option<String>,
    /// Whether it is a test, which is not tried again.
    test: bool,
}

/// One HTTP request made for a delivery.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Attempt {
    /// Counted from 1.
    number: u32,
    /// When it started.
    #[schema(format = DateTime)]
    started_at: String,
    /// How long it took, whole.
    duration_ms: f64,
    /// What it was spent on.
    phases: PhasesMs,
    /// The status that the endpoint answered with.
    #[schema(required = true)]
    status: Option<u16>,
    /// Why there was no answer.
    #[schema(required = true)]
    error: Option<AttemptError>,
    /// The start of the answer's body, as text.
    #[schema(required = true)]
    body: Option<String>,
    /// Whether the webhook's breaker was open: it was a probe, or a test.
    breaker_open: bool,
}

/// Why an attempt got no answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AttemptError {
    /// The step that failed, such as `dns` or `connect-timeout`.
    kind: &'static str,
    /// What went wrong, in words; may be missing in a list.
    detail: String,
}

/// What the time of an attempt was spent on, in milliseconds. What did not happen is null.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = Phases)]
pub(super) struct PhasesMs {
    /// Looking up the name.
    #[schema(required = true)]
    dns_ms: Option<f64>,
    /// Connecting.
    #[schema(required = true)]
    connect_ms: Option<f64>,
    /// The TLS handshake.
    #[schema(required = true)]
    tls_ms: Option<f64>,
    /// Until the head of the answer was there.
    #[schema(required = true)]
    first_byte_ms: Option<f64>,
    /// Reading its body.
    #[schema(required = true)]
    body_ms: Option<f64>,
}

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Count {
    /// At least so many.
    pub(super) at_least: u64,
    /// Whether there are no more.
    pub(super) exact: bool,
}

impl From<history::Count> for Count {
    fn from(count: history::Count) -> Self {
        Self { at_least: count.at_least, exact: count.exact }
    }
}

impl From<&EventSummary> for Event {
    fn from(event: &EventSummary) -> Self {
        Self {
            id: event.id.to_string(),
            event_type: event.kind.to_string(),
            organization: event.organization.to_string(),
            project: event.project.to_string(),
            accepted_at: event.accepted_at.to_string(),
            size: event.size,
        }
    }
}

impl Delivery {
    /// What is shown of a delivery whose webhook is held for this reason.
    pub(super) fn of(delivery: &DeliverySummary, held_because: Option<String>) -> Self {
        let due_at = match delivery.state {
            State::Pending { due_at } => Some(due_at),
            _ => None,
        };
        let pending = due_at.is_some();
        let parked = due_at == Some(PARKED);
        let exhausted_because = match delivery.state {
            State::Exhausted(why) => Some(why.to_string()),
            _ => None,
        };
        // A test, and what is replayed, is due before everything else: since it was accepted.
        let due_at = due_at.filter(|_| !parked).map(|due_at| due_at.max(delivery.event.accepted_at));
        Self {
            id: delivery.id.to_string(),
            event: Event::from(&delivery.event),
            webhook: delivery.webhook.to_string(),
            state: delivery.state.kind().into(),
            exhausted_because,
            due_at: text(due_at),
            waits_behind_another: parked,
            held_because: held_because.filter(|_| pending),
            attempts: delivery.attempts,
            last_attempt: delivery.last_attempt.as_ref().map(Attempt::from),
            settled_at: text(Some(delivery.settled_at).filter(|_| !pending)),
            replayed_at: text(delivery.replayed_at),
            test: delivery.test,
        }
    }
}

impl From<&aquarium_queue::Attempt> for Attempt {
    fn from(attempt: &aquarium_queue::Attempt) -> Self {
        let (status, error) = told(&attempt.outcome);
        let error = error
            .map(|failure| AttemptError { kind: failure.kind.as_str(), detail: failure.detail.to_string() });
        Self {
            number: attempt.number,
            started_at: attempt.started_at.to_string(),
            duration_ms: milliseconds(attempt.duration),
            phases: attempt.phases.into(),
            status,
            error,
            body: excerpt(&attempt.excerpt),
            breaker_open: attempt.breaker_open,
        }
    }
}

impl From<Phases> for PhasesMs {
    fn from(phases: Phases) -> Self {
        Self {
            dns_ms: phases.dns.map(milliseconds),
            connect_ms: phases.connect.map(milliseconds),
            tls_ms: phases.tls.map(milliseconds),
            first_byte_ms: phases.first_byte.map(milliseconds),
            body_ms: phases.body.map(milliseconds),
        }
    }
}

/// The status, or what failed.
pub(super) fn told(outcome: &Outcome) -> (Option<u16>, Option<&Failure>) {
    match outcome {
        Outcome::Answered { status, .. } => (Some(*status), None),
        Outcome::Failed(failure) => (None, Some(failure)),
    }
}

/// Milliseconds, with three places.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The start of an answer's body, if there is any.
pub(super) fn excerpt(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
}

/// A time, as it is printed.
pub(super) fn text(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}
