//! Why there is no event for the handler, and how that is answered: as `application/problem+json` (RFC 9457).

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use actix_web::web::Bytes;
use actix_web::{HttpResponse, ResponseError};
use aquarium_event::NotAnEvent;

use crate::answer::UNAUTHORIZED;
use crate::verifier::Rejection;

/// A call from which there is no [`Webhook`](super::Webhook) to be had.
///
/// A handler that takes the `Webhook` never sees it: the call is answered. One that takes a
/// `Result<Webhook, Error>` also gets the calls that are *not genuine*, and should return the error, which answers as
/// it would have been:
///
/// ```
/// use actix_web::HttpResponse;
/// use aquarium_verify::actix::{Error, Webhook};
///
/// async fn receive(call: Result<Webhook, Error>) -> Result<HttpResponse, Error> {
///     let call = call.inspect_err(|error| eprintln!("refused with a {}: {error}", error.reason().status()))?;
///     println!("{} in {}", call.event.name(), call.event.project());
///     Ok(HttpResponse::NoContent().finish())
/// }
/// ```
pub struct Error {
    reason: Reason,
    /// What was not read of the body. It goes with the answer.
    unread: RefCell<Payload>,
}

/// Why there is no [`Webhook`](super::Webhook).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The call is not genuine. Answered with a 401 that says no more.
    #[error("the call is not genuine")]
    Unauthorized(#[source] Rejection),
    /// There is nothing to verify the call with. Answered with a 500 that says no more.
    #[error("there is no aquarium_verify::Verifier to verify the call with")]
    NoVerifier,
    /// The body is said to be something else, or nothing is said. Answered with a 415.
    #[error("the Content-Type of a webhook call is application/json")]
    ContentType,
    /// The body is too large. Answered with a 413.
    #[error("the body has more than {limit} bytes")]
    TooLarge {
        /// The most bytes that are accepted.
        limit: usize,
    },
    /// The body takes too long. Answered with a 408.
    #[error("the body did not arrive within {within:?}")]
    TooSlow {
        /// The time that it has.
        within: Duration,
    },
    /// The body broke off. Answered with a 400, if somebody is there to read it.
    #[error("the body broke off")]
    Broken(#[source] PayloadError),
    /// The body is no event. Answered with a 400.
    #[error(transparent)]
    NotAnEvent(#[from] NotAnEvent),
}

impl Reason {
    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Reason::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Reason::NoVerifier => StatusCode::INTERNAL_SERVER_ERROR,
            Reason::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Reason::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Reason::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Reason::Broken(_) | Reason::NotAnEvent(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// What who called is told of it: nothing, if the call is not known to be genuine.
    fn detail(&self) -> Option<String> {
        match self {
            Reason::Unauthorized(_) | Reason::NoVerifier => None,
            genuine => Some(genuine.to_string()),
        }
    }
}

impl Error {
    pub(super) fn new(reason: Reason, unread: Payload) -> Error {
        Error { reason, unread: RefCell::new(unread) }
    }

    /// Why there is no [`Webhook`](super::Webhook).
    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// The same, for an error type that is sent between threads.
    pub fn into_reason(self) -> Reason {
        self.reason
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.reason.source()
    }
}

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        self.reason.status()
    }

    fn error_response(&self) -> HttpResponse {
        let unread = self.unread.replace(Payload::None);
        let status = self.reason.status();
        if status == StatusCode::UNAUTHORIZED {
            return unauthorized(unread);
        }
        let mut problem = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
        });
        if let Some(detail) = self.reason.detail() {
            problem["detail"] = detail.into();
        }
        answer(status, problem.to_string().into(), unread)
    }
}

/// The one answer to a call that is not genuine.
pub(super) fn unauthorized(unread: Payload) -> HttpResponse {
    let mut answer = answer(StatusCode::UNAUTHORIZED, Bytes::from_static(UNAUTHORIZED.as_bytes()), unread);
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Aquarium-Secret"));
    answer
}

fn answer(status: StatusCode, problem: Bytes, unread: Payload) -> HttpResponse {
    let body = Closing { problem: Some(problem), _unread: unread };
    let mut answer = HttpResponse::new(status).set_body(body.boxed());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    answer
}

/// The body of an answer, which keeps what was not read of the body of the call until it is sent.
///
/// If it were dropped before, actix would take a chunked body to be unwanted, and read and discard it to its end: who
/// sends one without end would have a connection for ever. As long as it is there, actix closes the connection.
struct Closing {
    problem: Option<Bytes>,
    _unread: Payload,
}

impl MessageBody for Closing {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.problem.as_ref().map_or(0, |problem| problem.len() as u64))
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(self.problem.take().map(Ok))
    }
}
