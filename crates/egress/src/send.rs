//! One attempt: a request, its answer, and what that came to.

use std::time::Duration;

use aquarium_delivery::{DeliveryId, EventId, Failure, FailureKind, Outcome, RetryAfter, Timestamp};
use bytes::{Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use crate::connect::{Bounded, Connector};
use crate::failure::classify;
use crate::{Endpoint, Guard, Roots, TlsError, tls};

/// The most that is read of an answer's body, in bytes. What goes beyond ends the connection.
pub const MAX_RESPONSE_BODY: usize = 64 * 1024;
/// The most that is kept of an answer's body, in bytes.
pub const MAX_EXCERPT: usize = 4 * 1024;
/// The most that an answer's head may take, in bytes.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;
const MAX_RESPONSE_HEADERS: usize = 128;
/// No handshake goes on for longer, also when the attempt that began it has ended.
const LONGEST_CONNECT: Duration = Duration::from_secs(60);
const IDLE_CONNECTIONS_PER_HOST: usize = 64;
const IDLE_CONNECTION_LIFETIME: Duration = Duration::from_secs(60);

const SECRET: HeaderName = HeaderName::from_static("x-aquarium-secret");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const DELIVERY: HeaderName = HeaderName::from_static("aquarium-delivery");
const ATTEMPT: HeaderName = HeaderName::from_static("aquarium-attempt");

/// How the way out is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which addresses may be connected to.
    pub guard: Guard,
    /// Which authorities an endpoint's certificate may come from.
    pub roots: Roots,
}

/// What one attempt sends.
#[derive(Debug, Clone)]
pub struct Message {
    /// The payload, byte for byte.
    pub body: Bytes,
    /// The event, the same on every attempt.
    pub event: EventId,
    /// The delivery.
    pub delivery: DeliveryId,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When it starts.
    pub at: Timestamp,
    /// The organization's secret. It is marked as sensitive, so that HTTP/2 does not index it and no log shows it.
    pub secret: Option<HeaderValue>,
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// The decision's input.
    pub outcome: Outcome,
    /// How long it took, whole.
    pub duration: Duration,
    /// The start of the answer's body, at most [`MAX_EXCERPT`].
    pub excerpt: Bytes,
}

type Http = Client<Bounded<HttpsConnector<Connector>>, Full<Bytes>>;

/// Makes requests. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Egress {
    client: Http,
}

impl Egress {
    /// A way out that speaks HTTP/1.1 and HTTP/2 and keeps connections for the next request.
    ///
    /// # Errors
    /// [`TlsError`], when there is no usable certificate authority.
    pub fn new(options: Options) -> Result<Self, TlsError> {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(&options.roots)?)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(Connector::new(options.guard));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_CONNECTION_LIFETIME)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http1_max_buf_size(MAX_RESPONSE_HEAD)
            .http1_max_headers(MAX_RESPONSE_HEADERS)
            .http2_max_header_list_size(MAX_RESPONSE_HEAD as u32)
            .http2_initial_stream_window_size(MAX_RESPONSE_BODY as u32)
            .build(Bounded::new(connector, LONGEST_CONNECT));
        Ok(Self { client })
    }

    /// Makes one attempt. It ends by the endpoint's timeout, whatever the other side does.
    ///
    /// An answer counts by its status. One with a 2xx status counts only when its body came in time and whole, or was
    /// longer than anyone needs to read; for any other status the body is just what is kept of it.
    pub async fn send(&self, endpoint: &Endpoint, message: Message) -> Sent {
        let started = Instant::now();
        let mut request = request(endpoint, message);
        let connection = capture_connection(&mut request);
        let deadlines = Deadlines {
            connect: started + endpoint.connect_timeout.min(endpoint.timeout),
            whole: started + endpoint.timeout,
        };
        let (outcome, excerpt) = match self.answer(request, connection, deadlines).await {
            Err(failure) => (Outcome::Failed(failure), Bytes::new()),
            Ok(response) => conclude(response, deadlines.whole).await,
        };
        Sent { outcome, duration: started.elapsed(), excerpt }
    }

    async fn answer(
        &self,
        request: Request<Full<Bytes>>,
        mut connection: CaptureConnection,
        deadlines: Deadlines,
    ) -> Result<Response<Incoming>, Failure> {
        let mut answer = self.client.request(request);
        let first = tokio::select! {
            biased;
            answer = &mut answer => Some(answer),
            _ = connection.wait_for_connection_metadata() => None,
            () = tokio::time::sleep_until(deadlines.connect) => {
                return Err(timed_out(FailureKind::ConnectTimeout, "no connection"));
            }
        };
        let answer = match first {
            Some(answer) => answer,
            None => timeout_at(deadlines.whole, answer)
                .await
                .map_err(|_| timed_out(FailureKind::ResponseTimeout, "no answer"))?,
        };
        answer.map_err(|error| classify(&error, connection.connection_metadata().is_some()))
    }
}

#[derive(Clone, Copy)]
struct Deadlines {
    connect: Instant,
    whole: Instant,
}

fn timed_out(kind: FailureKind, what: &str) -> Failure {
    Failure { kind, detail: format!("{what} within the time allowed") }
}

fn request(endpoint: &Endpoint, message: Message) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(message.body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.uri.clone();
    let headers = request.headers_mut();
    *headers = endpoint.headers.clone();
    if let Some(mut secret) = message.secret {
        secret.set_sensitive(true);
        headers.insert(SECRET, secret);
    }
    headers.insert(WEBHOOK_ID, printed(message.event));
    headers.insert(WEBHOOK_TIMESTAMP, message.at.as_secs().into());
    headers.insert(DELIVERY, printed(message.delivery));
    headers.insert(ATTEMPT, message.attempt.into());
    request
}

fn printed(id: impl std::fmt::Display) -> HeaderValue {
    // An identifier is made of letters, digits, hyphens and an underscore.
    HeaderValue::try_from(id.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Reads as much of the answer's body as is good for anything, and decides what the answer comes to.
async fn conclude(response: Response<Incoming>, deadline: Instant) -> (Outcome, Bytes) {
    let status = response.status().as_u16();
    let retry_after =
        response.headers().get(RETRY_AFTER).and_then(|value| RetryAfter::parse(value.as_bytes()));
    let mut excerpt = BytesMut::new();
    let body = response.into_body();
    let read = match timeout_at(deadline, drain(body, &mut excerpt)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(classify(&error, true)),
        Err(_) => Err(timed_out(FailureKind::BodyTimeout, "the answer's body did not end")),
    };
    let answered = Outcome::Answered { status, retry_after };
    let outcome = match read {
        Err(failure) if answered.is_delivered() => Outcome::Failed(failure),
        _ => answered,
    };
    (outcome, excerpt.freeze())
}

/// Reads a body to its end, so that the connection can be used again, or until there is too much of it.
async fn drain(mut body: Incoming, excerpt: &mut BytesMut) -> Result<(), hyper::Error> {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        read += data.len();
        let room = MAX_EXCERPT.saturating_sub(excerpt.len());
        excerpt.extend_from_slice(&data[..data.len().min(room)]);
        if read > MAX_RESPONSE_BODY {
            break;
        }
    }
    Ok(())
}
