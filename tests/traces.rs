//! A trace goes from the app's request through the queue to the endpoint, and is whole at the collector.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use aquarium_testkit::client::Client;
use aquarium_testkit::config::ConfigDirectory;
use aquarium_testkit::eventually;
use aquarium_testkit::receiver::{Behaviour, Received, Receiver};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;

use support::{BATCH, EVENTS, NDJSON, SOON, event, start};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const APP_SPAN: &str = "00f067aa0ba902b7";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// A collector of spans: what it got is read from what was posted to it.
struct Collector(Receiver);

impl Collector {
    async fn start() -> Self {
        Self(Receiver::builder().script(|_| Behaviour::status(200)).start().await)
    }

    /// Where it is, as it is written in the configuration.
    fn section(&self) -> String {
        format!("otlp = \"{}\"\nheaders = {{ X-Collector = \"ours\" }}", self.0.url(""))
    }

    fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for request in self.0.received() {
            assert_eq!(request.path, "/v1/traces");
            assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
            assert_eq!(request.header("x-collector"), Some("ours"));
            let export = ExportTraceServiceRequest::decode(&request.body[..]).unwrap();
            for resource in export.resource_spans {
                let attributes = resource.resource.unwrap().attributes;
                assert!(attributes.iter().any(|attribute| attribute.key == "service.name"));
                spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        spans
    }

    async fn wait_for(&self, spans: usize) -> Vec<Span> {
        eventually(SOON, "the spans are there", async || self.spans().len() >= spans).await;
        self.spans()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    })
}

fn one<'s>(spans: &'s [Span], name: &str, attempt: Option<&str>) -> &'s Span {
    let is_it = |span: &&Span| {
        span.name == name
            && attempt.is_none_or(|number| attribute(span, "aquarium.attempt").unwrap() == number)
    };
    let found: Vec<_> = spans.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{name} {attempt:?} in {spans:#?}");
    found[0]
}

/// Posts an event with a `traceparent`.
async fn post(client: &Client, traceparent: &str) -> u16 {
    let headers = [("Content-Type", "application/json"), ("traceparent", traceparent)];
    client.post(EVENTS, &headers, event("ds_1")).await.unwrap().status.as_u16()
}

/// The parts of the `traceparent` of a request: trace, span and flags.
fn traceparent(request: &Received) -> (String, String, String) {
    let header = request.header("traceparent").unwrap();
    let parts: Vec<_> = header.split('-').collect();
    assert_eq!((parts.len(), parts[0]), (4, "00"), "{header}");
    (parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned())
}

#[tokio::test]
async fn a_trace_is_whole_from_the_app_to_the_endpoint_over_a_restart() {
    let collector = Collector::start().await;
    let script = Behaviour::in_turn([Behaviour::status(500), Behaviour::status(204)]);
    let receiver = Receiver::builder().script(script).start().await;
    let mut config = ConfigDirectory::new();
    config.section("traces", &collector.section());
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "retry = [\"2s\"]\njitter = 0.0");
    let (mut sidecar, client) = start(&config).await;
    assert_eq!(post(&client, SAMPLED).await, 202);
    receiver.wait_for(1, SOON).await;
    sidecar.restart().await;
    let received = receiver.wait_for(2, SOON).await;
    let spans = collector.wait_for(5).await;
    sidecar.terminate(SOON).await;
    assert_eq!(spans.len(), 5, "{spans:#?}");

    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    let accept = one(&spans, "accept", None);
    assert_eq!(hex(&accept.parent_span_id), APP_SPAN);
    assert_eq!(accept.kind, i32::from(SpanKind::Server));
    assert_eq!(attribute(accept, "http.response.status_code").unwrap(), "202");
    let id = received[0].header("webhook-id").unwrap();
    let mut end_of_last = accept.start_time_unix_nano;
    for (request, number, status) in [(&received[0], "1", "500"), (&received[1], "2", "204")] {
        let wait = one(&spans, "wait", Some(number));
        let attempt = one(&spans, "attempt", Some(number));
        for span in [wait, attempt] {
            assert_eq!(span.parent_span_id, accept.span_id);
            assert_eq!(attribute(span, "aquarium.event").unwrap(), id);
            assert_eq!(attribute(span, "aquarium.webhook").unwrap(), "acme/urban/ops");
            assert!(span.start_time_unix_nano >= end_of_last, "{span:#?}");
            assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        }
        assert_eq!(attempt.kind, i32::from(SpanKind::Client));
        assert_eq!(attempt.links[0].span_id, wait.span_id);
        assert_eq!(attribute(attempt, "http.response.status_code").unwrap(), status);
        assert_eq!(attempt.status.is_some(), status == "500", "{attempt:#?}");
        // What the endpoint does follows from the attempt.
        assert_eq!(traceparent(request), (TRACE.to_owned(), hex(&attempt.span_id), "01".to_owned()));
        end_of_last = attempt.end_time_unix_nano;
    }
}

#[tokio::test]
async fn without_a_collector_what_the_app_sent_is_passed_on_as_it_is() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let (_sidecar, client) = start(&config).await;
    let sent = [Some(SAMPLED), Some(UNSAMPLED), None];
    for traceparent in ["", "00-no-trace-01", &SAMPLED.to_uppercase()] {
        assert_eq!(post(&client, traceparent).await, 202, "a malformed one is as if there was none");
    }
    let malformed = receiver.wait_for(3, SOON).await;
    assert!(malformed.iter().all(|request| request.header("traceparent").is_none()));
    for (sent, number) in sent.into_iter().zip(4..) {
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(sent.map(|sent| ("traceparent", sent)));
        assert_eq!(client.post(EVENTS, &headers, event("ds_1")).await.unwrap().status, 202);
        let received = receiver.wait_for(number, SOON).await;
        assert_eq!(received[number - 1].header("traceparent"), sent);
    }
}

#[tokio::test]
async fn what_the_app_left_open_is_sampled_and_what_it_decided_holds() {
    let (collector, receiver) = (Collector::start().await, Receiver::start().await);
    let mut config = ConfigDirectory::new();
    config.section("traces", &collector.section());
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let (mut sidecar, client) = start(&config).await;
    // It is not to be recorded.
    assert_eq!(post(&client, UNSAMPLED).await, 202);
    let received = receiver.wait_for(1, SOON).await;
    assert_eq!(received[0].header("traceparent"), Some(UNSAMPLED));
    // Nothing was said: a trace begins here. The events of a batch share it.
    let batch = format!("{}\n{}\n", event("ds_1"), event("ds_2"));
    assert_eq!(client.post(BATCH, NDJSON, batch).await.unwrap().status, 202);
    let received = receiver.wait_for(3, SOON).await;
    // Another one, that is refused.
    assert_eq!(client.post(EVENTS, NDJSON, "{}").await.unwrap().status, 415);
    sidecar.terminate(SOON).await;

    let mut traces: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for span in collector.spans() {
        assert_ne!(hex(&span.trace_id), TRACE);
        traces.entry(span.trace_id.clone()).or_default().push(span);
    }
    let mut traces: Vec<_> = traces.into_values().collect();
    traces.sort_by_key(Vec::len);
    let [refused, accepted] = &traces[..] else { panic!("{traces:#?}") };
    assert_eq!(attribute(one(refused, "accept", None), "error.type").unwrap(), "wrong-content-type");
    let accept = one(accepted, "accept", None);
    assert!(accept.parent_span_id.is_empty());
    assert_eq!(attribute(accept, "aquarium.events").unwrap(), "2");
    let attempts: Vec<_> = accepted.iter().filter(|span| span.name == "attempt").collect();
    assert_eq!((accepted.len(), attempts.len()), (5, 2), "{accepted:#?}");
    for request in &received[1..] {
        let (trace, span, _) = traceparent(request);
        assert!(
            attempts.iter().any(|attempt| hex(&attempt.trace_id) == trace && hex(&attempt.span_id) == span)
        );
    }
}

#[tokio::test]
async fn endpoints_need_not_be_told_and_a_collector_that_is_away_costs_no_delivery() {
    let receiver = Receiver::start().await;
    let mut config = ConfigDirectory::new();
    let away = format!("http://127.0.0.1:{}", support::free_port());
    config.section("traces", &format!("propagate = false\notlp = \"{away}\""));
    config.webhook("acme", "urban", "ops", &receiver.url("/"), &["*"], "");
    let (mut sidecar, client) = start(&config).await;
    assert_eq!(post(&client, SAMPLED).await, 202);
    let received = receiver.wait_for(1, SOON).await;
    assert_eq!(received[0].header("traceparent"), None);
    sidecar.wait_for_log("spans cannot be exported", SOON).await;
    assert_eq!(post(&client, SAMPLED).await, 202);
    receiver.wait_for(2, SOON).await;
    // What it is told from now on takes effect at once.
    let collector = Collector::start().await;
    config.section("traces", &collector.section());
    sidecar.wait_for_log("traces.otlp: changed", SOON).await;
    assert_eq!(post(&client, SAMPLED).await, 202);
    let received = receiver.wait_for(3, SOON).await;
    assert_eq!(traceparent(&received[2]).0, TRACE);
    eventually(Duration::from_secs(40), "the collector gets them", async || collector.spans().len() >= 3)
        .await;
    sidecar.terminate(SOON).await;
}
