//! What came of a request that was handed to a connection.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aquarium_delivery::{Failure, FailureKind};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

use crate::failure::timed_out;
use crate::{MAX_EXCERPT, MAX_RESPONSE_BODY};

/// How late a timer fires, at the least, if the process did not run meanwhile.
const LATE: Duration = Duration::from_millis(50);
/// How long the runtime then has to look at the sockets. A timer can fire before that, and a socket that was not looked at is
/// taken to be empty.
const LOOK: Duration = Duration::from_millis(100);

/// When an attempt ends, or the part of it in which a connection is set up.
///
/// It is looked at also when the task has used up its share of the runtime, as by reading without a pause: it must not depend
/// on what the receiver does.
///
/// The process may have been stopped (SIGSTOP, a frozen container, a suspended machine) when the deadline passed, while the
/// answer came. Then what is in the socket counts: the deadline is put off once, by [`LOOK`].
#[derive(Debug)]
pub(crate) struct Deadline<'a> {
    sleep: Pin<&'a mut Sleep>,
    looked: bool,
}

impl<'a> Deadline<'a> {
    pub(crate) fn new(sleep: Pin<&'a mut Sleep>) -> Self {
        Self { sleep, looked: false }
    }

    /// Ready when it has passed. Poll what is waited for before this.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(pin!(unconstrained(self.sleep.as_mut())).poll(cx));
            match put_off(self.sleep.deadline(), Instant::now()).filter(|_| !self.looked) {
                Some(until) => {
                    self.looked = true;
                    self.sleep.as_mut().reset(until);
                }
                None => return Poll::Ready(()),
            }
        }
    }
}

/// Until when a deadline is put off that is found to have passed at `now`, if the process did not run in between.
fn put_off(deadline: Instant, now: Instant) -> Option<Instant> {
    (now.saturating_duration_since(deadline) >= LATE).then(|| now + LOOK)
}

/// A request that got no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The connection was closed before anything of the request was written. It may be sent again, as often as it takes.
    GivenBack {
        failure: Failure,
        /// Its headers, unless they are gone.
        headers: Option<Box<HeaderMap>>,
    },
    /// The connection had been used before, and ended before a byte of an answer came: most likely the other side closed
    /// it when nothing was on it, and the request met that. Or the other side says that it did not look at the request.
    /// It may be sent once more.
    Unheard(Failure),
    /// Anything else: it may have been acted on.
    Failed(Failure),
}

impl Unanswered {
    /// The deadline has passed.
    pub(crate) fn too_late() -> Self {
        Self::Failed(timed_out(FailureKind::ResponseTimeout, "no answer"))
    }
}

/// How the reading of a body ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It was read whole.
    Whole,
    /// There is more than anyone needs to read.
    Oversized,
    /// It broke off, or did not end in time.
    Failed(Failure),
}

impl Ended {
    /// The deadline has passed.
    pub(crate) fn too_late() -> Self {
        Self::Failed(timed_out(FailureKind::BodyTimeout, "the answer's body did not end"))
    }
}

/// The start of a body, and how long it is so far.
#[derive(Debug, Default)]
pub(crate) struct Excerpt {
    kept: BytesMut,
    length: usize,
}

impl Excerpt {
    /// Takes note of the next part. False if there is too much by now.
    pub(crate) fn add(&mut self, part: &[u8]) -> bool {
        self.length += part.len();
        let room = MAX_EXCERPT - self.kept.len();
        self.kept.extend_from_slice(&part[..part.len().min(room)]);
        self.length <= MAX_RESPONSE_BODY
    }

    /// At most [`MAX_EXCERPT`].
    pub(crate) fn into_bytes(self) -> Bytes {
        self.kept.freeze()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{advance, sleep_until};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_passed_while_the_process_was_stopped_is_put_off_once() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut sleep = pin!(sleep_until(start + second));
        let mut deadline = Deadline::new(sleep.as_mut());
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(start.elapsed(), second, "nothing is put off while the process runs");

        for (late, expected) in [(Duration::from_millis(40), Duration::ZERO), (20 * second, LOOK)] {
            let start = Instant::now();
            let mut sleep = pin!(sleep_until(start + second));
            let mut deadline = Deadline::new(sleep.as_mut());
            advance(second + late).await;
            poll_fn(|cx| deadline.poll(cx)).await;
            assert_eq!(start.elapsed(), second + late + expected);
            // Once: another pause, in the look, is not waited for.
            let mut sleep = pin!(sleep_until(Instant::now() + second));
            let mut deadline = Deadline { sleep: sleep.as_mut(), looked: true };
            advance(20 * second).await;
            assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx))).await.is_ready());
        }
    }
}
