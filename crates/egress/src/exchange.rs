//! One request on its way to a connection, and from there to the head of its answer.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use aquarium_delivery::{Failure, FailureKind};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::capture_connection;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::Http;
use crate::failure::{classify, timed_out};

/// When an attempt ends.
#[derive(Clone, Copy)]
pub(crate) struct Deadlines {
    /// If there is no connection by then.
    pub(crate) connect: Instant,
    /// Whatever has happened by then.
    pub(crate) whole: Instant,
}

/// A request that got no answer.
pub(crate) struct Unanswered {
    pub(crate) failure: Failure,
    /// The connection was closed before anything of the request was written. It may be sent again.
    pub(crate) given_back: bool,
}

/// Sends the request, and waits for the head of its answer. `None` if `revoked` completed before the request was handed
/// to a connection.
pub(crate) async fn exchange(
    client: &Http,
    mut request: Request<Full<Bytes>>,
    deadlines: Deadlines,
    revoked: Pin<&mut impl Future<Output = ()>>,
) -> Option<Result<Response<Incoming>, Unanswered>> {
    let connection = capture_connection(&mut request);
    let is_handed_over = || connection.connection_metadata().is_some();
    // It becomes true only while the request below is polled, and is looked at right after: it needs no waker.
    let handed_over = poll_fn(|_| if is_handed_over() { Poll::Ready(()) } else { Poll::Pending });
    let mut answer = pin!(client.request(request));
    // The order counts. A poll that sees the revocation does not poll the request, so it cannot hand it over.
    let answered = tokio::select! {
        biased;
        () = revoked => return None,
        answered = &mut answer => answered,
        () = handed_over => match timeout_at(deadlines.whole, answer).await {
            Ok(answered) => answered,
            Err(_) => return Some(Err(late(FailureKind::ResponseTimeout, "no answer"))),
        },
        () = sleep_until(deadlines.connect) => {
            return Some(Err(late(FailureKind::ConnectTimeout, "no connection")));
        }
    };
    Some(answered.map_err(|error| Unanswered {
        failure: classify(&error, is_handed_over()),
        given_back: is_given_back(&error),
    }))
}

fn late(kind: FailureKind, what: &str) -> Unanswered {
    Unanswered { failure: timed_out(kind, what), given_back: false }
}

/// Of a request that was not even started, hyper says that it was canceled, and of no other one.
fn is_given_back(error: &(dyn Error + 'static)) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
    cause.is_some_and(hyper::Error::is_canceled)
}
