//! Spans, and how OTLP writes them.
//!
//! | span | kind | follows from | covers |
//! |---|---|---|---|
//! | `accept` | server | the app's span | a request of an app, until it is answered |
//! | `wait` | internal | `accept` | since a delivery could have been attempted, until it is |
//! | `attempt` | client | `accept`; linked with its `wait` | a request to an endpoint, which gets it as its parent |
//!
//! Attributes are those of OpenTelemetry's semantic conventions for HTTP, and our own under `aquarium.`.

use std::time::Duration;

use aquarium_delivery::{DeliveryId, EventId, Outcome, Phases, SpanId, Timestamp, TraceContext, WebhookName};
use http::{Method, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::{self as otlp, ResourceSpans, ScopeSpans, Status, status};

/// What was recorded.
#[derive(Debug)]
pub(crate) enum Span {
    Accept(Box<AcceptSpan>),
    /// With the wait before it.
    Attempt(Box<AttemptSpan>),
}

impl Span {
    /// How many spans it is written as.
    pub(super) fn count(&self) -> usize {
        match self {
            Span::Accept(_) => 1,
            Span::Attempt(_) => 2,
        }
    }
}

#[derive(Debug)]
pub(crate) struct AcceptSpan {
    /// The trace, at this span.
    pub(super) trace: TraceContext,
    pub(super) parent: Option<SpanId>,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) at: Timestamp,
    pub(super) took: Duration,
    pub(super) status: StatusCode,
    pub(super) refusal: Option<&'static str>,
    pub(super) event: Option<EventId>,
    pub(super) events: usize,
}

#[derive(Debug)]
pub(crate) struct AttemptSpan {
    /// The trace, at the span that this one follows from.
    pub(super) trace: TraceContext,
    pub(super) event: EventId,
    pub(super) delivery: DeliveryId,
    pub(super) number: u32,
    pub(super) due_at: Timestamp,
    pub(super) at: Timestamp,
    pub(super) took: Duration,
    pub(super) webhook: WebhookName,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) outcome: Outcome,
    pub(super) phases: Phases,
}

/// A request of OTLP with these spans.
pub(super) fn request(resource: &Resource, spans: &[Span]) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let mut written = Vec::with_capacity(spans.len() * 2);
    for span in spans {
        match span {
            Span::Accept(span) => written.push(accept(span)),
            Span::Attempt(span) => written.extend([wait(span), attempt(span)]),
        }
    }
    let of_scope = ScopeSpans { scope: Some(scope), spans: written, schema_url: String::new() };
    let of_resource = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![of_scope],
        schema_url: String::new(),
    };
    ExportTraceServiceRequest { resource_spans: vec![of_resource] }
}

fn accept(span: &AcceptSpan) -> otlp::Span {
    let AcceptSpan { trace, parent, method, path, at, took, status, refusal, event, events } = span;
    let mut attributes = vec![
        text("http.request.method", method.as_str()),
        text("url.path", path),
        number("http.response.status_code", status.as_u16()),
    ];
    attributes.extend(event.map(|event| text("aquarium.event", &event.to_string())));
    if *events > 1 {
        attributes.push(number("aquarium.events", u32::try_from(*events).unwrap_or(u32::MAX)));
    }
    attributes.extend(refusal.map(|code| text("error.type", code)));
    // What is wrong with a request is the app's error, not ours (semantic conventions for HTTP servers).
    let failed = status.is_server_error().then(|| refusal.unwrap_or_default().to_owned());
    otlp::Span {
        kind: SpanKind::Server.into(),
        attributes,
        status: failed.map(failure),
        ..base("accept", trace, trace.span(), *parent, nanos(*at), length(*took))
    }
}

fn wait(span: &AttemptSpan) -> otlp::Span {
    let own = SpanId::of_wait(&span.delivery, span.number);
    let waited = span.at.since(span.due_at);
    otlp::Span {
        kind: SpanKind::Internal.into(),
        attributes: of_delivery(span),
        ..base("wait", &span.trace, own, Some(span.trace.span()), nanos(span.due_at), length(waited))
    }
}

fn attempt(span: &AttemptSpan) -> otlp::Span {
    let own = SpanId::of_attempt(&span.delivery, span.number);
    let waited = SpanId::of_wait(&span.delivery, span.number);
    let mut attributes = of_delivery(span);
    attributes.extend([text("http.request.method", "POST"), text("server.address", &span.host)]);
    attributes.extend(span.port.map(|port| number("server.port", port)));
    if span.number > 1 {
        attributes.push(number("http.request.resend_count", span.number - 1));
    }
    let (status, error) = match &span.outcome {
        Outcome::Answered { status, .. } => {
            attributes.push(number("http.response.status_code", *status));
            let failed = (!span.outcome.is_delivered()).then(|| status.to_string());
            (failed.as_ref().map(|_| failure(String::new())), failed)
        }
        Outcome::Failed(failed) => {
            (Some(failure(failed.detail.to_string())), Some(failed.kind.as_str().to_owned()))
        }
    };
    attributes.extend(error.map(|error| text("error.type", &error)));
    let Phases { dns, connect, tls, first_byte, body } = span.phases;
    let names = ["dns", "connect", "tls", "first_byte", "body"];
    for (name, took) in names.into_iter().zip([dns, connect, tls, first_byte, body]) {
        let took = took.map(|took| Value::DoubleValue(took.as_secs_f64()));
        attributes.extend(took.map(|took| attribute(format!("aquarium.phase.{name}"), took)));
    }
    let link = Link {
        trace_id: span.trace.trace_id().to_vec(),
        span_id: waited.to_bytes().to_vec(),
        ..Link::default()
    };
    otlp::Span {
        kind: SpanKind::Client.into(),
        attributes,
        links: vec![link],
        status,
        ..base("attempt", &span.trace, own, Some(span.trace.span()), nanos(span.at), length(span.took))
    }
}

fn of_delivery(span: &AttemptSpan) -> Vec<KeyValue> {
    vec![
        text("aquarium.event", &span.event.to_string()),
        text("aquarium.delivery", &span.delivery.to_string()),
        text("aquarium.webhook", span.webhook.as_str()),
        number("aquarium.attempt", span.number),
    ]
}

fn base(
    name: &str,
    trace: &TraceContext,
    own: SpanId,
    parent: Option<SpanId>,
    start: u64,
    took: u64,
) -> otlp::Span {
    otlp::Span {
        trace_id: trace.trace_id().to_vec(),
        span_id: own.to_bytes().to_vec(),
        parent_span_id: parent.map(|parent| parent.to_bytes().to_vec()).unwrap_or_default(),
        flags: trace.flags().into(),
        name: name.to_owned(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(took),
        ..otlp::Span::default()
    }
}

fn failure(message: String) -> Status {
    Status { message, code: status::StatusCode::Error.into() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key.to_owned(), Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: impl Into<i64>) -> KeyValue {
    attribute(key.to_owned(), Value::IntValue(value.into()))
}

pub(super) fn attribute(key: String, value: Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn nanos(at: Timestamp) -> u64 {
    at.as_millis().saturating_mul(1_000_000)
}

fn length(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
