//! One request over HTTP/2, and its answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use aquarium_delivery::{Failure, FailureKind};
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, Method, Request, Response, Version};

use super::Slot;
use crate::Endpoint;
use crate::answer::{Deadline, Ended, Excerpt, Unanswered};
use crate::failure::classify;

/// A request on its way, and its place on the connection. Dropped before the answer has ended, it is called off.
#[derive(Debug)]
pub(crate) struct Sent {
    response: ResponseFuture,
    _body: SendStream<Bytes>,
    slot: Slot,
}

impl Slot {
    /// Hands a request over.
    pub(crate) fn hand_over(
        mut self,
        endpoint: &Endpoint,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Sent, Unanswered> {
        let empty = body.is_empty();
        self.load.reading.expect_one_of(self.load.streams.load(Ordering::Acquire));
        let request = request(endpoint, headers, body.len());
        let (response, mut stream) = match self.sender.send_request(request, empty) {
            Ok(sent) => sent,
            // Nobody but us could have made it wrong; otherwise the connection has just ended.
            Err(error) if is_ours(&error) => return Err(Unanswered::Failed(wrong(&error))),
            Err(error) => return Err(Unanswered::GivenBack { failure: classify(&error), headers: None }),
        };
        if !empty && let Err(error) = stream.send_data(body, true) {
            return Err(self.unanswered(&error));
        }
        Ok(Sent { response, _body: stream, slot: self })
    }

    fn unanswered(&self, error: &h2::Error) -> Unanswered {
        let failure = self.failed(error);
        if error.is_go_away() && error.is_remote() {
            // Streams that the other side has, or may have, begun with do not end like this (RFC 9113, section 6.8).
            return Unanswered::GivenBack { failure, headers: None };
        }
        let refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
        if refused || (self.reused && error.is_io()) {
            return Unanswered::Unheard(failure);
        }
        Unanswered::Failed(failure)
    }

    /// A stream came to a bad end.
    fn failed(&self, error: &h2::Error) -> Failure {
        if error.is_library() {
            // The other side broke the rules. It may go on to, and not listen: no other request is to meet that.
            self.load.retire();
        }
        classify(error)
    }
}

impl Sent {
    /// The head of the answer.
    pub(crate) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &mut Deadline<'_>,
    ) -> Poll<Result<Response<RecvStream>, Unanswered>> {
        match Pin::new(&mut self.response).poll(cx) {
            Poll::Ready(answered) => Poll::Ready(answered.map_err(|error| self.slot.unanswered(&error))),
            Poll::Pending => deadline.poll(cx).map(|()| {
                // It may be dead, or kept busy with something else: nobody is to wait for it again.
                self.slot.load.retire();
                Err(Unanswered::too_late())
            }),
        }
    }

    /// Reads a body to its end, or until there is too much of it.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RecvStream,
        excerpt: &mut Excerpt,
        deadline: &mut Deadline<'_>,
    ) -> Poll<Ended> {
        while let Poll::Ready(next) = body.poll_data(cx) {
            let data = match next {
                Some(Ok(data)) => data,
                // It is all that was wanted, said before the request was received whole (RFC 9113, section 8.1).
                Some(Err(error)) if error.is_remote() && error.reason() == Some(Reason::NO_ERROR) => {
                    return Poll::Ready(Ended::Whole);
                }
                Some(Err(error)) => return Poll::Ready(Ended::Failed(self.slot.failed(&error))),
                None => return Poll::Ready(Ended::Whole),
            };
            if !excerpt.add(&data) {
                // The stream is called off. Nothing else keeps the other side from sending all the same.
                self.slot.load.retire();
                return Poll::Ready(Ended::Oversized);
            }
            // It fails when the stream has ended, which is told next.
            let _ = body.flow_control().release_capacity(data.len());
        }
        deadline.poll(cx).map(|()| Ended::too_late())
    }
}

fn request(endpoint: &Endpoint, mut headers: HeaderMap, length: usize) -> Request<()> {
    headers.remove(HOST);
    headers.insert(CONTENT_LENGTH, length.into());
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint.uri.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    request
}

/// Whether the request itself is what is wrong.
fn is_ours(error: &h2::Error) -> bool {
    !error.is_io() && !error.is_go_away() && !error.is_reset() && error.reason().is_none()
}

fn wrong(error: &h2::Error) -> Failure {
    Failure::new(FailureKind::Request, error)
}
