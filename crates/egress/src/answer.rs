//! What came of a request that was handed to a connection.

use std::pin::Pin;

use aquarium_delivery::{Failure, FailureKind};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::task::coop::Unconstrained;
use tokio::time::Sleep;

use crate::failure::timed_out;
use crate::{MAX_EXCERPT, MAX_RESPONSE_BODY};

/// When an attempt ends. It is looked at also when the task has used up its share of the runtime, as by reading without a
/// pause: it must not depend on what the receiver does.
pub(crate) type Deadline<'a> = Pin<&'a mut Unconstrained<Sleep>>;

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
