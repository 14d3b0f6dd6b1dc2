//! An HTTP/1.1 connection.
//!
//! It has no task of its own. Whoever has a request on it drives it, so that a request costs no wake-up of another task;
//! in between it lies in the [pool](crate::pool), and is looked at now and then.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::coop::unconstrained;

use crate::answer::{Deadline, Ended, Excerpt, Unanswered};
use crate::failure::{broken_off, classify};
use crate::transport::{Reading, Transport};
use crate::{Endpoint, MAX_RESPONSE_HEAD};

/// How long a connection may lie idle before it is closed. Common servers and balancers close theirs after 60 s (AWS) or
/// 75 s (nginx): a little less than those, so that a request seldom meets a connection that is just being closed. Those
/// that close much sooner (5 s: Apache, Node) say so in `Keep-Alive`, as a rule.
pub(crate) const IDLE_LIFETIME: Duration = Duration::from_secs(50);

/// What comes of a request that was handed over.
type Sending = Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>>;

/// A connection, with nothing or one request on it.
#[derive(Debug)]
pub(crate) struct Http1 {
    sender: SendRequest<Full<Bytes>>,
    /// None when it has ended.
    connection: Option<Connection<TokioIo<Transport>, Full<Bytes>>>,
    reading: Arc<Reading>,
    /// Whether a request was answered over it.
    reused: bool,
    /// How long it may lie idle.
    lifetime: Duration,
}

impl Http1 {
    pub(crate) async fn new(transport: Transport) -> Result<Box<Self>, hyper::Error> {
        let reading = transport.reading();
        let io = TokioIo::new(transport.patient());
        let (sender, connection) = Builder::new().max_buf_size(MAX_RESPONSE_HEAD).handshake(io).await?;
        let (connection, lifetime) = (Some(connection), IDLE_LIFETIME);
        Ok(Box::new(Self { sender, connection, reading, reused: false, lifetime }))
    }

    /// How long it may lie idle.
    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Whether it can take another request right after one. It may have been closed since: that is looked at when it is
    /// taken, or swept.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.connection.is_some() && (self.sender.is_ready() || self.is_usable())
    }

    /// Whether it can take a request, as far as is known. Who asks is not woken when that changes, nor is who asked
    /// before.
    pub(crate) fn is_usable(&mut self) -> bool {
        let glance = pin!(unconstrained(poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(())
        })));
        let _ready = glance.poll(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Lets the connection do what it can. When it ends, it is dropped, which answers whatever is still on it.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(cx).is_ready()
        {
            self.connection = None;
        }
    }

    /// Hands a request over. What it gives back is for [`Http1::poll_answer`].
    pub(crate) fn hand_over(
        &mut self,
        endpoint: &Endpoint,
        headers: HeaderMap,
        body: Bytes,
    ) -> impl Future<Output = Sending> + use<> {
        self.reading.expect();
        // Only the connection can complete it, which is driven right there: it needs no waker, and no budget.
        unconstrained(self.sender.try_send_request(request(endpoint, headers, body)))
    }

    /// The head of the answer to the request that was handed over.
    pub(crate) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        sending: Pin<&mut impl Future<Output = Sending>>,
        deadline: &mut Deadline<'_>,
    ) -> Poll<Result<Response<Incoming>, Unanswered>> {
        self.drive(cx);
        match sending.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(response)) => {
                self.note(response.headers());
                Poll::Ready(Ok(response))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.unanswered(error))),
            Poll::Pending => deadline.poll(cx).map(|()| Err(Unanswered::too_late())),
        }
    }

    fn unanswered(&self, mut error: TrySendError<Request<Full<Bytes>>>) -> Unanswered {
        let unsent = error.take_message();
        let error = error.into_error();
        let failure = classify(&error);
        let unheard = self.reused && !self.reading.heard() && broken_off(&error);
        match unsent {
            Some(request) => {
                let headers = Some(Box::new(request.into_parts().0.headers));
                Unanswered::GivenBack { failure, headers }
            }
            None if unheard => Unanswered::Unheard(failure),
            None => Unanswered::Failed(failure),
        }
    }

    /// Learns from an answer how long the connection may lie idle.
    fn note(&mut self, headers: &HeaderMap) {
        self.reused = true;
        if let Some(hint) = headers.get("keep-alive").and_then(|value| keep_alive(value.as_bytes())) {
            self.lifetime = hint.min(IDLE_LIFETIME);
        }
    }

    /// Reads a body to its end, so that the connection can be used again, or until there is too much of it.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Incoming,
        excerpt: &mut Excerpt,
        deadline: &mut Deadline<'_>,
    ) -> Poll<Ended> {
        let mut driven = false;
        loop {
            // Here as well: what is to come comes from the connection.
            match Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(Ok(frame))) => {
                    driven = false;
                    if frame.data_ref().is_some_and(|data| !excerpt.add(data)) {
                        return Poll::Ready(Ended::Oversized);
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Ended::Failed(classify(&error))),
                Poll::Ready(None) => return Poll::Ready(Ended::Whole),
                Poll::Pending if driven => break,
                Poll::Pending => {
                    self.drive(cx);
                    driven = true;
                }
            }
        }
        deadline.poll(cx).map(|()| Ended::too_late())
    }
}

fn request(endpoint: &Endpoint, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.path.clone();
    *request.headers_mut() = headers;
    request
}

/// What `Keep-Alive: timeout=5, max=100` asks for, less a second for the way there (RFC 2068, section 19.7.1.1).
fn keep_alive(value: &[u8]) -> Option<Duration> {
    let text = str::from_utf8(value).ok()?;
    let timeout = text.split(',').find_map(|parameter| parameter.trim().strip_prefix("timeout="))?;
    let seconds: u64 = timeout.parse().ok()?;
    Some(Duration::from_secs(seconds.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_of_the_receiver_is_followed_a_second_early() {
        for (value, seconds) in [
            ("timeout=5, max=100", Some(4)),
            ("max=100,timeout=72", Some(71)),
            ("timeout=0", Some(0)),
            ("timeout=soon", None),
            ("", None),
        ] {
            assert_eq!(keep_alive(value.as_bytes()), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
