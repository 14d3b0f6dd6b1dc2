//! Request bodies, within limits of size and time, and of the type that is expected.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{Code, Problem};

/// The longest that a request's body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body has more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body did not arrive within {BODY_TIMEOUT:?}")]
    TooSlow,
    #[error("the body broke off: {0}")]
    Broken(String),
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let (status, code) = match &error {
            BodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge),
            BodyError::TooSlow => (StatusCode::REQUEST_TIMEOUT, Code::TooSlow),
            BodyError::Broken(_) => (StatusCode::BAD_REQUEST, Code::BrokenBody),
        };
        Problem::new(status, code, error.to_string()).closing()
    }
}

/// Reads a whole body of at most `limit` bytes.
pub(crate) async fn read(body: Incoming, limit: usize) -> Result<Bytes, BodyError> {
    match timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Err(_) => Err(BodyError::TooSlow),
        Ok(Ok(collected)) => Ok(alone(collected.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge { limit }),
        Ok(Err(error)) => Err(BodyError::Broken(error.to_string())),
    }
}

/// The same bytes in memory of their own. A body that came in one piece is a part of its connection's buffer, which is
/// several times as large and would be kept whole as long as the body waits.
fn alone(body: Bytes) -> Bytes {
    if body.is_unique() { body } else { Bytes::copy_from_slice(&body) }
}

/// A browser can be made to post anything but a JSON type without asking first: another one is refused.
pub(crate) fn check_content_type(headers: &HeaderMap, accepted: &[&str]) -> Result<(), Problem> {
    let found = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let essence = found.and_then(|found| found.split(|byte| *byte == b';').next()).unwrap_or_default();
    if accepted.iter().any(|accepted| essence.trim_ascii().eq_ignore_ascii_case(accepted.as_bytes())) {
        return Ok(());
    }
    let found = found.map_or("no Content-Type".to_owned(), |found| {
        format!("Content-Type {:?}", String::from_utf8_lossy(found))
    });
    let detail = format!("found {found}; accepted: {}", accepted.join(", "));
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::WrongContentType, detail))
}
