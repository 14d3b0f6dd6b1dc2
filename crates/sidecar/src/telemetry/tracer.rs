//! Which requests and attempts are recorded as spans, and handing those to who exports them.

use std::sync::Arc;
use std::time::Duration;

use aquarium_config::{Traces, Webhook};
use aquarium_delivery::{EventId, SpanId, Timestamp, TraceContext, WebhookName};
use aquarium_dispatch::{Chance, Clock, Observe, ObserveLane, Traced};
use aquarium_egress::Sent;
use aquarium_queue::{Receipt, Settled};
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::metrics::{Dropped, Metrics};
use super::spans::{AcceptSpan, AttemptSpan, Span};

/// Spans that wait to be exported at the most; what comes beyond is dropped, and counted.
const WAITING: usize = 8_192;
/// What is kept of a request's path, in characters.
const MAX_PATH: usize = 256;

/// Takes spans. Cheap to clone, and never waits.
#[derive(Debug, Clone)]
pub(crate) struct Tracer {
    spans: mpsc::Sender<Span>,
    metrics: Metrics,
    clock: Clock,
    chance: Chance,
}

/// A request of an app, and the trace that its events belong to.
#[derive(Debug, Default)]
pub(crate) struct Accepting {
    /// What the events are stored with: everything that becomes of them follows from this span.
    pub(crate) trace: Option<TraceContext>,
    /// The event, if there is one only; how many, otherwise.
    event: Option<EventId>,
    events: usize,
    recorded: Option<Box<Recorded>>,
}

impl Accepting {
    /// The request's events were stored.
    pub(crate) fn stored(&mut self, receipts: &[Receipt]) {
        self.events = receipts.len();
        self.event = receipts.first().filter(|_| receipts.len() == 1).map(|receipt| receipt.event);
    }
}

#[derive(Debug)]
struct Recorded {
    parent: Option<SpanId>,
    method: Method,
    path: String,
    at: Timestamp,
}

/// Where the events of a request stand in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    trace: TraceContext,
    /// The span that the request follows from.
    parent: Option<SpanId>,
    /// Whether the request is a span of its own, which is the one that `trace` is at.
    recorded: bool,
}

/// Decides where the events of a request stand. `fraction` is from 0 up to 1, `fresh` a new trace.
fn place(
    incoming: Option<TraceContext>,
    traces: &Traces,
    fraction: f64,
    fresh: TraceContext,
) -> Option<Place> {
    match (incoming, &traces.export) {
        (Some(incoming), Some(_)) if incoming.is_sampled() => {
            Some(Place { trace: incoming.at(fresh.span()), parent: Some(incoming.span()), recorded: true })
        }
        // Whoever began it decided that it is not recorded, or there is nowhere to record it.
        (Some(incoming), _) => Some(Place { trace: incoming, parent: None, recorded: false }),
        (None, Some(export)) if fraction < export.sample => {
            Some(Place { trace: fresh, parent: None, recorded: true })
        }
        (None, _) => None,
    }
}

/// The `traceparent` of a request. Several, or one that is malformed, are as if there was none (W3C Trace Context,
/// section 3.2.2).
pub(crate) fn incoming(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()?.trim_ascii().parse().ok()
}

impl Tracer {
    /// Also returns where the spans come out.
    pub(crate) fn new(metrics: Metrics, clock: Clock, chance: Chance) -> (Self, mpsc::Receiver<Span>) {
        let (spans, waiting) = mpsc::channel(WAITING);
        (Self { spans, metrics, clock, chance }, waiting)
    }

    /// A request has come.
    pub(crate) fn accepting<B>(&self, request: &Request<B>, traces: &Traces) -> Accepting {
        let incoming = incoming(request.headers());
        if incoming.is_none() && traces.export.is_none() {
            return Accepting::default();
        }
        let fresh = TraceContext::start(self.chance.bytes(), self.chance.bytes());
        let Some(place) = place(incoming, traces, self.chance.fraction(), fresh) else {
            return Accepting::default();
        };
        let recorded = place.recorded.then(|| {
            let path = request.uri().path().chars().take(MAX_PATH).collect();
            let method = request.method().clone();
            Box::new(Recorded { parent: place.parent, method, path, at: self.clock.now() })
        });
        Accepting { trace: Some(place.trace), recorded, ..Accepting::default() }
    }

    /// The request was answered; `refusal` is the code of the problem, if it was refused.
    pub(crate) fn accepted(
        &self,
        accepting: Accepting,
        status: StatusCode,
        refusal: Option<&'static str>,
        took: Duration,
    ) {
        let Accepting { trace: Some(trace), event, events, recorded: Some(recorded) } = accepting else {
            return;
        };
        let Recorded { parent, method, path, at } = *recorded;
        let span = AcceptSpan { trace, parent, method, path, at, took, status, refusal, event, events };
        self.record(Span::Accept(Box::new(span)));
    }

    fn record(&self, span: Span) {
        if let Err(TrySendError::Full(span) | TrySendError::Closed(span)) = self.spans.try_send(span) {
            self.metrics.spans_dropped(Dropped::Overflow, span.count());
        }
    }
}

/// Hears of lanes for metrics and traces.
#[derive(Debug)]
pub(crate) struct Observer {
    metrics: Metrics,
    tracer: Tracer,
}

impl Observer {
    pub(crate) fn new(metrics: Metrics, tracer: Tracer) -> Self {
        Self { metrics, tracer }
    }
}

impl Observe for Observer {
    fn lane(&self, webhook: &WebhookName) -> Arc<dyn ObserveLane> {
        Arc::new(Lane { counts: self.metrics.lane(webhook), tracer: self.tracer.clone() })
    }
}

#[derive(Debug)]
struct Lane {
    counts: Arc<dyn ObserveLane>,
    tracer: Tracer,
}

impl ObserveLane for Lane {
    fn attempted(&self, sent: &Sent) {
        self.counts.attempted(sent);
    }

    fn traced(&self, traced: &Traced, at: Timestamp, webhook: &Webhook, sent: &Sent) {
        let Traced { trace, event, delivery, number, due_at } = *traced;
        self.tracer.record(Span::Attempt(Box::new(AttemptSpan {
            trace,
            event,
            delivery,
            number,
            due_at,
            at,
            took: sent.duration,
            webhook: webhook.name.clone(),
            host: webhook.url.host_str().unwrap_or_default().to_owned(),
            port: webhook.url.port_or_known_default(),
            outcome: sent.outcome.clone(),
            phases: sent.phases,
        })));
    }

    fn settled(&self, state: &Settled, waited: Duration) {
        self.counts.settled(state, waited);
    }
}

#[cfg(test)]
mod tests {
    use aquarium_config::TraceExport;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn traces(sample: Option<f64>) -> Traces {
        let export = |sample| TraceExport {
            otlp: "http://127.0.0.1:4318/v1/traces".parse().unwrap(),
            headers: Vec::new(),
            sample,
        };
        Traces { propagate: true, export: sample.map(export) }
    }

    #[test]
    fn what_the_app_decided_holds_and_what_it_left_open_is_sampled() {
        let fresh = TraceContext::start([1; 16], [2; 8]);
        let (unsampled, parent) = (UNSAMPLED.parse().unwrap(), PARENT.parse::<TraceContext>().unwrap());
        // Without an export there are no spans of our own; what came is passed on as it is.
        for context in [parent, unsampled] {
            let passed_on = Place { trace: context, parent: None, recorded: false };
            assert_eq!(place(Some(context), &traces(None), 0.0, fresh), Some(passed_on));
        }
        assert_eq!(place(None, &traces(None), 0.0, fresh), None);
        // With one, what is sampled goes on at a span of its own.
        let own = Place { trace: parent.at(fresh.span()), parent: Some(parent.span()), recorded: true };
        assert_eq!(place(Some(parent), &traces(Some(0.0)), 0.9, fresh), Some(own));
        let passed_on = Place { trace: unsampled, parent: None, recorded: false };
        assert_eq!(place(Some(unsampled), &traces(Some(1.0)), 0.0, fresh), Some(passed_on));
        let new = place(None, &traces(Some(0.5)), 0.49, fresh).unwrap();
        assert!(new.recorded && new.parent.is_none() && new.trace.is_sampled());
        assert_eq!(new.trace, fresh);
        assert_eq!(place(None, &traces(Some(0.5)), 0.5, fresh), None);
        assert_eq!(place(None, &traces(Some(0.0)), 0.0, fresh), None);
        assert!(place(None, &traces(Some(1.0)), 0.999, fresh).is_some());
    }

    #[test]
    fn several_traceparents_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(incoming(&headers), None);
        headers.append("traceparent", PARENT.parse().unwrap());
        assert_eq!(incoming(&headers).unwrap().to_string(), PARENT);
        headers.append("traceparent", PARENT.parse().unwrap());
        assert_eq!(incoming(&headers), None);
    }
}
