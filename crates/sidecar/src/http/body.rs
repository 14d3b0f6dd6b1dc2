//! Request bodies, within limits of size and time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

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
