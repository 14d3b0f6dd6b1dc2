//! A webhook call as an argument of an axum handler.
//!
//! [`Webhook`] checks that the call is genuine, reads its body within [`Limits`], and has the event in it. A handler
//! cannot get one without the check: where no [`VerifyLayer`](crate::tower::VerifyLayer) has done it, the extractor
//! does it by itself, with the [`Verifier`] of the state.
//!
//! ```
//! use aquarium_event::Event;
//! use aquarium_verify::axum::Webhook;
//! use aquarium_verify::{Secrets, Verifier};
//! use axum::{Router, http::StatusCode, routing::post};
//!
//! async fn receive(call: Webhook) -> StatusCode {
//!     match call.event {
//!         Event::DatasetComplete(e) => println!("{}: {:?} is complete", e.project, e.entity),
//!         Event::IssuesCreated(e) => println!("{}: {} issues", e.project, e.issues().len()),
//!         // Of an operator's own, or newer than this program.
//!         Event::Custom(e) => println!("{}: {} {:?}", e.project, e.name, e.rest),
//!         // A success too: what is not of interest need not come again.
//!         other => println!("{}: not interested in {}", other.project(), other.name()),
//!     }
//!     StatusCode::NO_CONTENT
//! }
//!
//! let verifier = Verifier::new(Secrets::new(["correct-horse-battery-staple"])?);
//! let app: Router = Router::new().route("/hooks", post(receive)).with_state(verifier);
//! # Ok::<(), aquarium_verify::InvalidSecret>(())
//! ```
//!
//! A state that has more than the verifier says where it is, with [`FromRef`]:
//!
//! ```
//! use aquarium_verify::Verifier;
//! use axum::extract::FromRef;
//!
//! #[derive(Clone)]
//! struct App {
//!     verifier: Verifier,
//!     database: String,
//! }
//!
//! impl FromRef<App> for Verifier {
//!     fn from_ref(app: &App) -> Verifier {
//!         app.verifier.clone()
//!     }
//! }
//! ```
//!
//! [`Limits`] are an `Extension`:
//!
//! ```
//! use std::time::Duration;
//! use aquarium_verify::axum::{Limits, Webhook};
//! use aquarium_verify::{Secrets, Verifier};
//! use axum::{Extension, Router, routing::post};
//!
//! # let verifier = Verifier::new(Secrets::new(["correct-horse-battery-staple"])?);
//! let limits = Limits::default().size(8 << 20).time(Duration::from_secs(5));
//! let app: Router = Router::new()
//!     .route("/hooks", post(async |_: Webhook| {}).layer(Extension(limits)))
//!     .with_state(verifier);
//! # Ok::<(), aquarium_verify::InvalidSecret>(())
//! ```
//!
//! [`Verified`] is an extractor too, for handlers that read the body in another way.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use aquarium_event::{Event, NotAnEvent};
use axum_core::body::Body;
use axum_core::extract::{FromRef, FromRequest, FromRequestParts, Request};
use axum_core::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;
use tokio::time::timeout;

use crate::answer::PROBLEM;
use crate::tower::admit;
use crate::verifier::{Rejection, Verified, Verifier};
use crate::webhook::is_json;
pub use crate::webhook::{Limits, Webhook};

/// Why a handler got no [`Webhook`]. As a response it is a problem document (RFC 9457).
///
/// A handler that takes a `Result<Webhook, Rejected>` sees it, and answers by itself:
///
/// ```
/// use aquarium_verify::axum::{Rejected, Webhook};
/// use axum::response::{IntoResponse, Response};
///
/// async fn receive(call: Result<Webhook, Rejected>) -> Response {
///     match call {
///         Ok(call) => call.event.name().to_owned().into_response(),
///         Err(rejected) => {
///             eprintln!("{rejected}");
///             rejected.into_response()
///         }
///     }
/// }
/// # axum::Router::<aquarium_verify::Verifier>::new().route("/", axum::routing::post(receive));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// The call is not genuine: 401. Why is the source of the error, and is not to be answered.
    #[error("the call is not genuine")]
    Unauthorized(#[source] Rejection),
    /// The `Content-Type` is not `application/json`, with or without parameters: 415.
    #[error("the Content-Type is not application/json")]
    ContentType,
    /// The body has more than this many bytes: 413.
    #[error("the body has more than {limit} bytes")]
    TooLarge {
        /// What [`Limits`] allow.
        limit: usize,
    },
    /// The body was not there within this time: 408.
    #[error("the body did not end within {limit:?}")]
    TooSlow {
        /// What [`Limits`] allow.
        limit: Duration,
    },
    /// The body broke off: 400.
    #[error("the body cannot be read")]
    Unreadable(#[source] axum_core::Error),
    /// The body is no event: 400.
    #[error(transparent)]
    NotAnEvent(#[from] NotAnEvent),
}

impl Rejected {
    /// The status that it is answered with.
    pub fn status(&self) -> StatusCode {
        match self {
            Rejected::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Rejected::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Rejected::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Rejected::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Rejected::Unreadable(_) | Rejected::NotAnEvent(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl IntoResponse for Rejected {
    fn into_response(self) -> Response {
        if let Rejected::Unauthorized(rejection) = self {
            return rejection.response().map(Body::from);
        }
        let status = self.status();
        let title = status.canonical_reason().unwrap_or_default();
        // Who sent this has the secret, and wants to know.
        let detail = serde_json::Value::from(self.to_string());
        let body = format!(
            r#"{{"type":"about:blank","title":"{title}","status":{},"detail":{detail}}}"#,
            status.as_u16()
        );
        (status, [(CONTENT_TYPE, HeaderValue::from_static(PROBLEM))], body).into_response()
    }
}

impl<S> FromRequestParts<S> for Verified
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Rejected;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Verified, Rejected> {
        admit(&Verifier::from_ref(state), parts).map_err(Rejected::Unauthorized)
    }
}

/// It needs a tokio runtime with a clock, as `axum::serve` does.
impl<S> FromRequest<S> for Webhook
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = Rejected;

    async fn from_request(request: Request, state: &S) -> Result<Webhook, Rejected> {
        let (mut parts, body) = request.into_parts();
        let verified = Verified::from_request_parts(&mut parts, state).await?;
        let limits = parts.extensions.get().copied().unwrap_or_default();
        let read = Webhook::read(&parts.headers, verified, body, limits).await;
        read.inspect_err(|rejected| {
            tracing::warn!(target: "aquarium_verify", reason = %rejected, "refused a genuine call");
        })
    }
}

impl Webhook {
    async fn read(
        headers: &HeaderMap,
        verified: Verified,
        body: Body,
        limits: Limits,
    ) -> Result<Webhook, Rejected> {
        if !is_json(only(headers, CONTENT_TYPE.as_str())) {
            return Err(Rejected::ContentType);
        }
        let read = timeout(limits.time, whole(body, limits.size)).await;
        let body = read.map_err(|_| Rejected::TooSlow { limit: limits.time })??;
        let event = Event::from_slice(&body)?;
        Ok(Webhook::new(event, body, verified, |name| only(headers, name)))
    }
}

/// All of a body that has at most `limit` bytes. One that says at once that it has more is not read.
async fn whole(mut body: Body, limit: usize) -> Result<Bytes, Rejected> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Rejected::TooLarge { limit });
    }
    let mut whole = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(Rejected::Unreadable)?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > limit - whole.len() {
            return Err(Rejected::TooLarge { limit });
        }
        // Copied: a piece of one byte would keep the whole buffer alive that it was read into.
        whole.extend_from_slice(data);
    }
    Ok(whole.into())
}

/// The value of a header that is there once, and is text.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
