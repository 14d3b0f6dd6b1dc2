//! One attempt: a request, its answer, and what that came to.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aquarium_delivery::{DeliveryId, EventId, Failure, FailureKind, Outcome, RetryAfter, Timestamp};
use bytes::{Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, timeout_at};

use crate::client::{self, Http};
use crate::exchange::{Deadlines, Unanswered, exchange};
use crate::failure::{classify, timed_out};
use crate::{Endpoint, Guard, Roots, SigningKey, TlsError};

/// The most that is read of an answer's body, in bytes. What goes beyond ends the connection.
pub const MAX_RESPONSE_BODY: usize = 64 * 1024;
/// The most that is kept of an answer's body, in bytes.
pub const MAX_EXCERPT: usize = 4 * 1024;
/// How often an attempt goes to another connection, when the one that it was given to turns out to be closed.
const MOST_GIVEN_BACK: u32 = 8;

const SECRET: HeaderName = HeaderName::from_static("x-aquarium-secret");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
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
    /// What the request is signed with; without it there is no signature.
    pub signing_key: Option<SigningKey>,
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

/// Makes requests. Cheap to clone; clones share their connections, and what [`Egress::reconfigure`] changes.
#[derive(Debug, Clone)]
pub struct Egress {
    client: Arc<RwLock<Arc<Http>>>,
}

impl Egress {
    /// A way out that speaks HTTP/1.1 and HTTP/2 and keeps connections for the next request.
    ///
    /// # Errors
    /// [`TlsError`], when there is no usable certificate authority.
    pub fn new(options: Options) -> Result<Self, TlsError> {
        Ok(Self { client: Arc::new(RwLock::new(Arc::new(client::build(options)?))) })
    }

    /// Changes the options of this way out and of all its clones. What is sent from now on goes over new connections;
    /// idle ones are closed. A request that waits for its connection or its answer stays with the options that it began
    /// with. If it must not, withdraw it afterwards, and send it anew.
    ///
    /// It reads the platform's certificates if those are asked for, which blocks for a moment.
    ///
    /// # Errors
    /// [`TlsError`], when there is no usable certificate authority. Nothing is changed then.
    pub fn reconfigure(&self, options: Options) -> Result<(), TlsError> {
        let client = Arc::new(client::build(options)?);
        let previous = {
            let mut current = self.client.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, client)
        };
        // It may be the last one, and closing its connections is nothing to hold the lock for.
        drop(previous);
        Ok(())
    }

    /// Makes one attempt. It ends by the endpoint's timeout, whatever the other side does.
    ///
    /// An answer counts by its status. One with a 2xx status counts only when its body came in time and whole, or was
    /// longer than anyone needs to read; for any other status the body is just what is kept of it.
    ///
    /// The attempt can be withdrawn while its name is looked up, or its connection or TLS session is set up. `None` if
    /// `revoked` completed before the request was handed to a connection: nothing of it has left. On every poll
    /// `revoked` is polled before the request, which is never handed over once that has completed. After the hand-over
    /// it is not looked at, unless the connection turns out to be closed and gives the request back unsent.
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        message: Message,
        revoked: impl Future<Output = ()> + Send,
    ) -> Option<Sent> {
        let started = Instant::now();
        let deadlines = Deadlines {
            connect: started + endpoint.connect_timeout.min(endpoint.timeout),
            whole: started + endpoint.timeout,
        };
        let (outcome, excerpt) = match self.answer(endpoint, &message, deadlines, revoked).await? {
            Err(failure) => (Outcome::Failed(failure), Bytes::new()),
            Ok(response) => conclude(response, deadlines.whole).await,
        };
        Some(Sent { outcome, duration: started.elapsed(), excerpt })
    }

    /// `None` if `revoked` completed while the request was with no connection.
    async fn answer(
        &self,
        endpoint: &Endpoint,
        message: &Message,
        deadlines: Deadlines,
        revoked: impl Future<Output = ()>,
    ) -> Option<Result<Response<Incoming>, Failure>> {
        // It is polled also when the task has used up its share of the runtime: it must not be overlooked.
        let mut revoked = pin!(unconstrained(revoked));
        let mut given_back = 0;
        loop {
            let request = request(endpoint, message).await;
            let client = self.client();
            match exchange(&client, request, deadlines, revoked.as_mut()).await? {
                Ok(response) => return Some(Ok(response)),
                Err(Unanswered { given_back: true, .. }) if given_back < MOST_GIVEN_BACK => given_back += 1,
                Err(Unanswered { failure, .. }) => return Some(Err(failure)),
            }
        }
    }

    fn client(&self) -> Arc<Http> {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn request(endpoint: &Endpoint, message: &Message) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(message.body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.uri.clone();
    let headers = request.headers_mut();
    *headers = endpoint.headers.clone();
    if let Some(mut secret) = message.secret.clone() {
        secret.set_sensitive(true);
        headers.insert(SECRET, secret);
    }
    let (id, timestamp) = (printed(message.event), HeaderValue::from(message.at.as_secs()));
    if let Some(key) = &message.signing_key {
        headers.insert(WEBHOOK_SIGNATURE, key.sign(&id, &timestamp, &message.body).await);
    }
    headers.insert(WEBHOOK_ID, id);
    headers.insert(WEBHOOK_TIMESTAMP, timestamp);
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
