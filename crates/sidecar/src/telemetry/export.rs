//! Exporting spans to a collector: OTLP over HTTP, in batches.
//!
//! A collector that is away costs spans, never events: what is being exported is tried for half a minute, as much again
//! as [`WAITING`](super::tracer) holds waits behind it, and the rest is dropped and counted.

#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt::Write;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aquarium_config::{Config, Traces};
use aquarium_dispatch::Chance;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::resource::{EnvResourceDetector, SdkProvidedResourceDetector};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::metrics::{Dropped, Metrics};
use super::spans::{self, Span};
use crate::reload::roots;

/// The most spans of one request.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// The longest that one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a batch is tried before it is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// Between the first try and the second; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long exporting may go on after a stop was asked for, all of it.
const FLUSH: Duration = Duration::from_secs(2);
/// The most that is read of an answer, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Posts to the collector.
trait Post: Send + 'static {
    /// Makes one request, and reads the answer.
    ///
    /// # Errors
    /// Why there is none, in words.
    fn post(
        &mut self,
        config: &Config,
        body: Bytes,
    ) -> impl Future<Output = Result<Response<Bytes>, String>> + Send;
}

/// Exports spans until it is told to stop.
struct Exporter<P> {
    waiting: mpsc::Receiver<Span>,
    config: watch::Receiver<Arc<Config>>,
    post: P,
    metrics: Metrics,
    chance: Chance,
    resource: Resource,
    /// Set once it was told that the collector does not take spans, until it does.
    failing: bool,
}

/// An exporter at work.
#[derive(Debug)]
pub(crate) struct Exporting {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Exporting {
    /// Exports what comes out of `waiting`, to where the configuration says.
    pub(crate) fn start(
        waiting: mpsc::Receiver<Span>,
        config: watch::Receiver<Arc<Config>>,
        metrics: Metrics,
        chance: Chance,
    ) -> Self {
        let stop = CancellationToken::new();
        let exporter = Exporter::new(waiting, config, Http::default(), metrics, chance);
        Self { task: tokio::spawn(exporter.run(stop.clone())), stop }
    }

    /// Exports what is there. What the collector does not take in time is given up.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            warn!(%error, "traces: exporting broke off");
        }
    }
}

/// What came of a batch, or of a part of it.
enum Given {
    /// The collector took it, but for so many.
    Taken { rejected: usize },
    /// It will not take it.
    Refused(String),
    /// It may take it later.
    Later { reason: String, not_before: Duration },
}

impl<P: Post> Exporter<P> {
    fn new(
        waiting: mpsc::Receiver<Span>,
        config: watch::Receiver<Arc<Config>>,
        post: P,
        metrics: Metrics,
        chance: Chance,
    ) -> Self {
        Self { waiting, config, post, metrics, chance, resource: resource(), failing: false }
    }

    async fn run(mut self, stop: CancellationToken) {
        let out_of_time = async {
            stop.cancelled().await;
            sleep(FLUSH).await;
        };
        tokio::pin!(out_of_time);
        while let Some(batch) = self.gather(&stop).await {
            let spans = batch.iter().map(Span::count).sum();
            tokio::select! {
                () = self.export(&batch, spans) => {}
                () = &mut out_of_time => {
                    self.waiting.close();
                    let mut given_up = spans;
                    while let Ok(span) = self.waiting.try_recv() {
                        given_up += span.count();
                    }
                    self.metrics.spans_dropped(Dropped::Stopped, given_up);
                    return;
                }
            }
        }
    }

    /// The next batch. `None` if there is nothing left, and nothing will be.
    async fn gather(&mut self, stop: &CancellationToken) -> Option<Vec<Span>> {
        let mut batch = Vec::new();
        let first = tokio::select! {
            biased;
            first = self.waiting.recv() => first?,
            () = stop.cancelled() => return None,
        };
        batch.push(first);
        let until = Instant::now() + GATHER;
        while batch.len() < BATCH {
            let next = tokio::select! {
                biased;
                next = self.waiting.recv() => next,
                () = tokio::time::sleep_until(until) => None,
                () = stop.cancelled() => None,
            };
            match next {
                Some(span) => batch.push(span),
                None => break,
            }
        }
        Some(batch)
    }

    /// Exports a batch, or gives it up.
    async fn export(&mut self, batch: &[Span], spans: usize) {
        let body = Bytes::from(spans::request(&self.resource, batch).encode_to_vec());
        let deadline = Instant::now() + GIVE_UP_AFTER;
        let mut pause = FIRST_PAUSE;
        loop {
            let config = self.config.borrow().clone();
            if config.traces.export.is_none() {
                return self.metrics.spans_dropped(Dropped::NotConfigured, spans);
            }
            let limit = deadline.min(Instant::now() + TIMEOUT);
            let posting = timeout_at(limit, self.post.post(&config, body.clone()));
            let answer = posting.await.unwrap_or_else(|_| Err("there was no answer in time".to_owned()));
            let (reason, not_before) = match judge(answer) {
                Given::Taken { rejected: 0 } => return self.taken(spans),
                Given::Taken { rejected } => {
                    let rejected = rejected.min(spans);
                    self.metrics.spans_exported(spans - rejected);
                    return self.refused("the collector rejected some", rejected);
                }
                Given::Refused(reason) => return self.refused(&reason, spans),
                Given::Later { reason, not_before } => (reason, not_before),
            };
            self.tell(&reason);
            let jittered = pause.mul_f64(0.5 + self.chance.fraction()).max(not_before);
            if Instant::now() + jittered >= deadline {
                return self.metrics.spans_dropped(Dropped::Unreachable, spans);
            }
            sleep(jittered).await;
            pause *= 2;
        }
    }

    fn taken(&mut self, spans: usize) {
        self.metrics.spans_exported(spans);
        if std::mem::take(&mut self.failing) {
            info!("traces: spans are exported again");
        }
    }

    fn refused(&mut self, reason: &str, spans: usize) {
        self.metrics.spans_dropped(Dropped::Refused, spans);
        self.tell(reason);
    }

    fn tell(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            warn!(%reason, "traces: spans cannot be exported; deliveries go on without them");
        }
    }
}

/// What an answer says (OTLP specification, "OTLP/HTTP Response").
fn judge(answer: Result<Response<Bytes>, String>) -> Given {
    let answer = match answer {
        Ok(answer) => answer,
        Err(reason) => return Given::Later { reason, not_before: Duration::ZERO },
    };
    let status = answer.status();
    match status {
        _ if status.is_success() => {
            // An answer that cannot be read says nothing of a rejection.
            let told = ExportTraceServiceResponse::decode(answer.body().clone()).unwrap_or_default();
            let rejected = told.partial_success.map_or(0, |partial| partial.rejected_spans);
            Given::Taken { rejected: usize::try_from(rejected).unwrap_or(0) }
        }
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let seconds =
                answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let not_before = Duration::from_secs(seconds.unwrap_or(0));
            Given::Later { reason: format!("the collector answered {status}"), not_before }
        }
        _ => Given::Refused(format!("the collector answered {status}")),
    }
}

/// What the spans are of: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say more of it.
fn resource() -> Resource {
    let detected = opentelemetry_sdk::Resource::builder_empty()
        .with_detector(Box::new(SdkProvidedResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build();
    let mut attributes = ResourceAttributesWithSchema::from(&detected).attributes.0;
    let unknown = |value: &Option<Value>| match value {
        Some(Value::StringValue(name)) => name.starts_with("unknown_service"),
        _ => true,
    };
    attributes.retain(|attribute| {
        attribute.key != "service.name" || !attribute.value.as_ref().is_none_or(|value| unknown(&value.value))
    });
    for (key, value) in
        [("service.name", env!("CARGO_PKG_NAME")), ("service.version", env!("CARGO_PKG_VERSION"))]
    {
        if attributes.iter().all(|attribute| attribute.key != key) {
            attributes.push(spans::attribute(key.to_owned(), Value::StringValue(value.to_owned())));
        }
    }
    Resource { attributes, ..Resource::default() }
}

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Posts over HTTP and HTTPS.
#[derive(Debug, Default)]
struct Http {
    /// With the configuration that it was made from.
    client: Option<(Arc<aquarium_config::Egress>, HttpClient)>,
}

impl Http {
    /// The client that trusts whom the configuration says.
    async fn client(&mut self, config: &Config) -> Result<HttpClient, String> {
        if let Some((of, client)) = &self.client
            && Arc::ptr_eq(of, &config.egress)
        {
            return Ok(client.clone());
        }
        let roots = roots(config);
        // It may read the certificates of the system.
        let tls = tokio::task::spawn_blocking(move || aquarium_egress::client_config(&roots)).await;
        let tls = tls.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        self.client = Some((config.egress.clone(), client.clone()));
        Ok(client)
    }
}

impl Post for Http {
    async fn post(&mut self, config: &Config, body: Bytes) -> Result<Response<Bytes>, String> {
        let client = self.client(config).await?;
        let request = head(&config.traces, body)?;
        let answer = client.request(request).await.map_err(|error| reasons(&error))?;
        let (parts, body) = answer.into_parts();
        let body = timeout(TIMEOUT, Limited::new(body, MAX_ANSWER).collect()).await;
        // What it says does not matter as much as its status.
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        Ok(Response::from_parts(parts, body))
    }
}

fn head(traces: &Traces, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
    let export = traces.export.as_ref().ok_or("there is no collector")?;
    let mut headers = HeaderMap::new();
    for header in &export.headers {
        headers.insert(header.name.clone(), header.value.clone());
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers.insert(USER_AGENT, HeaderValue::from_static(aquarium_egress::USER_AGENT));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = export.otlp.as_str().parse::<Uri>().map_err(|error| error.to_string())?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// An error and what it came from.
fn reasons(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a string does not fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
