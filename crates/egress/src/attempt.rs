//! One attempt under way.

use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use aquarium_delivery::{Failure, Outcome, RetryAfter};
use http::header::{HeaderMap, RETRY_AFTER};
use http::{Response, StatusCode};
use hyper::body::Body;
use tokio::time::{Instant, sleep_until};

use crate::answer::{Deadline, Ended, Excerpt, Unanswered};
use crate::connect::Progress;
use crate::http1::Http1;
use crate::http2::Slot;
use crate::pool::{Connection, Pool};
use crate::send::Way;
use crate::{Egress, Endpoint, Message, request};

/// How often an attempt goes to another connection, when the one that it was given to turns out to be closed.
const MOST_GIVEN_BACK: u32 = 8;

/// An attempt under way.
pub(crate) struct Attempt<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) message: &'a Message,
    /// When it ends if there is no connection by then.
    pub(crate) connect_deadline: Instant,
    pub(crate) progress: Progress,
    pub(crate) excerpt: Excerpt,
}

impl Attempt<'_> {
    /// What it comes to, by `deadline` at the latest. `None` if `revoked` completed while the request was with no
    /// connection.
    pub(crate) async fn outcome(
        &mut self,
        egress: &Egress,
        mut revoked: Pin<&mut impl Future<Output = ()>>,
        mut deadline: Deadline<'_>,
    ) -> Option<Outcome> {
        let (mut given_back, mut fresh) = (0, false);
        // Those of the request, as long as it is with nobody.
        let mut headers = HeaderMap::new();
        loop {
            if headers.is_empty() {
                headers = request::headers(self.endpoint, self.message).await;
            }
            let way = egress.way();
            let connection = match self.connection(&way, fresh, revoked.as_mut()).await? {
                Ok(connection) => connection,
                Err(failure) => return Some(Outcome::Failed(failure)),
            };
            // From here on there is no waiting until the request is handed over: `revoked` was looked at last.
            let unanswered = match connection {
                Connection::Http1(http1) => {
                    self.over_http1(http1, &mut headers, &way.pool, &mut deadline).await
                }
                Connection::Http2(slot) => self.over_http2(slot, &mut headers, &mut deadline).await,
            };
            match unanswered {
                Ok(outcome) => return Some(outcome),
                Err(Unanswered::GivenBack { headers: unsent, .. }) if given_back < MOST_GIVEN_BACK => {
                    given_back += 1;
                    headers = unsent.map(|unsent| *unsent).unwrap_or_default();
                }
                Err(Unanswered::Unheard(_)) if !fresh => fresh = true,
                Err(
                    Unanswered::GivenBack { failure, .. }
                    | Unanswered::Unheard(failure)
                    | Unanswered::Failed(failure),
                ) => return Some(Outcome::Failed(failure)),
            }
        }
    }

    /// A connection for the request. `None` if `revoked` completed before there was one.
    async fn connection(
        &mut self,
        way: &Way,
        fresh: bool,
        mut revoked: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Result<Connection, Failure>> {
        if poll_fn(|cx| Poll::Ready(revoked.as_mut().poll(cx))).await.is_ready() {
            return None;
        }
        if !fresh && let Some(connection) = way.pool.take(&self.endpoint.origin, Instant::now()) {
            return Some(Ok(connection));
        }
        let sleep = pin!(sleep_until(self.connect_deadline));
        let mut deadline = Deadline::new(sleep);
        // It is rare, and large: it has its own place.
        let connecting = Box::pin(way.connect(self.endpoint, fresh, &mut self.progress));
        // The order counts. A poll that sees the revocation does not come to a connection, so nothing is handed over.
        tokio::select! {
            biased;
            () = revoked => None,
            connected = connecting => Some(connected),
            () = poll_fn(|cx| deadline.poll(cx)) => {
                Some(Err(self.progress.too_late()))
            }
        }
    }

    async fn over_http1(
        &mut self,
        mut http1: Box<Http1>,
        headers: &mut HeaderMap,
        pool: &Arc<Pool>,
        deadline: &mut Deadline<'_>,
    ) -> Result<Outcome, Unanswered> {
        let handed_over = Instant::now();
        let (headers, body) = (mem::take(headers), self.message.body.clone());
        let response = {
            let mut sending = pin!(http1.hand_over(self.endpoint, headers, body));
            poll_fn(|cx| http1.poll_answer(cx, sending.as_mut(), deadline)).await?
        };
        let (answered, mut body) = self.answered(handed_over, response);
        let ended = match body.is_end_stream() {
            true => Ended::Whole,
            false => {
                let excerpt = &mut self.excerpt;
                poll_fn(|cx| http1.poll_body(cx, &mut body, excerpt, deadline)).await
            }
        };
        let now = Instant::now();
        if matches!(ended, Ended::Whole) && http1.is_ready() {
            pool.put(&self.endpoint.origin, http1, now);
        }
        Ok(self.conclude(answered, ended, handed_over, now))
    }

    async fn over_http2(
        &mut self,
        slot: Slot,
        headers: &mut HeaderMap,
        deadline: &mut Deadline<'_>,
    ) -> Result<Outcome, Unanswered> {
        let handed_over = Instant::now();
        let (headers, body) = (mem::take(headers), self.message.body.clone());
        // What is sent lives as long as the answer is read: dropped, it would be called off.
        let mut sent = slot.hand_over(self.endpoint, headers, body)?;
        let response = poll_fn(|cx| sent.poll_answer(cx, deadline)).await?;
        let (answered, mut body) = self.answered(handed_over, response);
        let excerpt = &mut self.excerpt;
        let ended = poll_fn(|cx| sent.poll_body(cx, &mut body, excerpt, deadline)).await;
        Ok(self.conclude(answered, ended, handed_over, Instant::now()))
    }

    /// The head of an answer is there.
    fn answered<B>(&mut self, handed_over: Instant, response: Response<B>) -> (Answered, B) {
        self.progress.phases.first_byte = Some(handed_over.elapsed());
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| RetryAfter::parse(value.as_bytes()));
        (Answered { status: response.status(), retry_after }, response.into_body())
    }

    /// Its body has ended, one way or the other.
    fn conclude(&mut self, answered: Answered, ended: Ended, handed_over: Instant, now: Instant) -> Outcome {
        self.progress.phases.body =
            self.progress.phases.first_byte.map(|head| now.saturating_duration_since(handed_over + head));
        let Answered { status, retry_after } = answered;
        let outcome = Outcome::Answered { status: status.as_u16(), retry_after };
        match ended {
            Ended::Failed(failure) if outcome.is_delivered() => Outcome::Failed(failure),
            _ => outcome,
        }
    }
}

struct Answered {
    status: StatusCode,
    retry_after: Option<RetryAfter>,
}
