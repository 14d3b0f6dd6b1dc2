//! What stays the same from one attempt to the next.

use std::time::Duration;

use http::Uri;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT as USER_AGENT_HEADER};
use http::uri::Scheme;

/// How the sidecar names itself.
pub const USER_AGENT: &str = concat!("aquarium-sidecar/", env!("CARGO_PKG_VERSION"));

/// Where a webhook's requests go, and within which limits.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

/// A URL that no request can be made from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// It is no absolute URL.
    #[error("not an absolute URL")]
    NotAbsolute,
    /// It is neither `http` nor `https`.
    #[error("neither http:// nor https://")]
    Scheme,
}

impl Endpoint {
    /// An endpoint at `url`. `headers` are the webhook's own; `timeout` covers a whole attempt, and `connect_timeout`
    /// the part of it until there is a connection.
    ///
    /// # Errors
    /// [`InvalidEndpoint`].
    pub fn new(
        url: &str,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
        timeout: Duration,
        connect_timeout: Duration,
    ) -> Result<Self, InvalidEndpoint> {
        let uri: Uri = url.parse().map_err(|_| InvalidEndpoint::NotAbsolute)?;
        match uri.scheme() {
            None => return Err(InvalidEndpoint::NotAbsolute),
            Some(scheme) if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS => {
                return Err(InvalidEndpoint::Scheme);
            }
            Some(_) => {}
        }
        let mut all = HeaderMap::with_capacity(16);
        all.extend(headers);
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
        Ok(Self { uri, headers: all, timeout, connect_timeout })
    }

    /// Where its requests go.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The time for a whole attempt.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}
