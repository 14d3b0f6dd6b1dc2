//! What stays the same from one attempt to the next.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT as USER_AGENT_HEADER};
use http::uri::{PathAndQuery, Scheme};

use crate::{Tls, request};

/// How the sidecar names itself.
pub const USER_AGENT: &str = concat!("aquarium-sidecar/", env!("CARGO_PKG_VERSION"));

/// Where a webhook's requests go, and within which limits.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub(crate) uri: Uri,
    /// The same without scheme and authority, as HTTP/1.1 wants it (RFC 9112, section 3.2.1).
    pub(crate) path: Uri,
    pub(crate) origin: Arc<Origin>,
    /// All headers, with `Host`; those that differ from request to request are there, and empty.
    pub(crate) headers: HeaderMap,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

/// Where connections go to. Requests of one origin share them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) encrypted: bool,
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// What is special about its TLS sessions.
    pub(crate) tls: Option<Arc<Tls>>,
}

/// A host, as a URL names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Address(IpAddr),
    /// In lower case.
    Name(Box<str>),
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
    /// It holds a user or a password.
    #[error("it holds a user or a password")]
    User,
    /// Its host is no name, and no address in its plain form. What looks like an address in another form (decimal, octal,
    /// hexadecimal, short) leads elsewhere than it seems to, depending on who reads it.
    #[error("its host is neither a name nor an address in its plain form")]
    Host,
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
        let origin = Origin::new(&uri)?;
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut all = HeaderMap::with_capacity(16);
        all.insert(HOST, host_header(&uri, &origin)?);
        all.extend(headers);
        all.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
        request::reserve(&mut all);
        Ok(Self { path: path.into(), origin: Arc::new(origin), uri, headers: all, timeout, connect_timeout })
    }

    /// The same endpoint, with TLS sessions of its own kind.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<Tls>) -> Self {
        Arc::make_mut(&mut self.origin).tls = Some(tls);
        self
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

impl Origin {
    fn new(uri: &Uri) -> Result<Self, InvalidEndpoint> {
        let encrypted = match uri.scheme() {
            None => return Err(InvalidEndpoint::NotAbsolute),
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(_) => return Err(InvalidEndpoint::Scheme),
        };
        let authority = uri.authority().ok_or(InvalidEndpoint::NotAbsolute)?;
        if authority.as_str().contains('@') {
            return Err(InvalidEndpoint::User);
        }
        let host = Host::new(authority.host())?;
        let port = authority.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        Ok(Self { encrypted, host, port, tls: None })
    }
}

impl Host {
    /// A host, spelt plainly.
    pub(crate) fn new(text: &str) -> Result<Self, InvalidEndpoint> {
        if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            return inner.parse().map(|v6| Host::Address(IpAddr::V6(v6))).map_err(|_| InvalidEndpoint::Host);
        }
        if let Ok(address) = text.parse() {
            return Ok(Host::Address(IpAddr::V4(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let plain = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if !name.split('.').all(plain) || name.rsplit('.').next().is_some_and(is_number) {
            return Err(InvalidEndpoint::Host);
        }
        Ok(Host::Name(text.to_ascii_lowercase().into()))
    }
}

/// Whether some readers of URLs take a name that ends in this label for an IPv4 address (WHATWG URL, "ends in a number").
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|b| b.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Without the port that goes without saying (RFC 9110, section 7.2).
fn host_header(uri: &Uri, origin: &Origin) -> Result<HeaderValue, InvalidEndpoint> {
    let host = uri.host().ok_or(InvalidEndpoint::NotAbsolute)?;
    let value = match (origin.encrypted, origin.port) {
        (true, 443) | (false, 80) => HeaderValue::from_str(host),
        (_, port) => HeaderValue::try_from(format!("{host}:{port}")),
    };
    value.map_err(|_| InvalidEndpoint::Host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Result<Endpoint, InvalidEndpoint> {
        Endpoint::new(url, [], Duration::from_secs(1), Duration::from_secs(1))
    }

    #[test]
    fn a_url_is_taken_apart_once() {
        for (url, encrypted, host, port, header, path) in [
            ("https://Ops.Example.com", true, "ops.example.com", 443, "Ops.Example.com", "/"),
            ("https://ops.example.com:443/a?b", true, "ops.example.com", 443, "ops.example.com", "/a?b"),
            ("http://ops.example.com./", false, "ops.example.com.", 80, "ops.example.com.", "/"),
            ("http://a_b.example:8080/x", false, "a_b.example", 8080, "a_b.example:8080", "/x"),
        ] {
            let endpoint = endpoint(url).unwrap();
            let expected = Origin { encrypted, host: Host::Name(host.into()), port, tls: None };
            assert_eq!(*endpoint.origin, expected, "{url}");
            assert_eq!(
                (endpoint.headers[HOST].to_str().unwrap(), endpoint.path.to_string()),
                (header, path.into())
            );
        }
        let v6 = endpoint("https://[2001:db8::1]:8443/").unwrap();
        assert_eq!(v6.origin.host, Host::Address("2001:db8::1".parse().unwrap()));
        assert_eq!(v6.headers[HOST], "[2001:db8::1]:8443");
    }

    #[test]
    fn a_url_that_hides_where_it_leads_is_refused() {
        for url in [
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://127.0.0.1./",
            "http://127.0.0.256/",
            "http://example.0x/",
            "http://a..b/",
            "http://127%2e0.0.1/",
            "http://[fe80::1%25eth0]/",
        ] {
            assert!(endpoint(url).is_err(), "{url}");
        }
        assert_eq!(endpoint("https://user:word@example.com/").unwrap_err(), InvalidEndpoint::User);
        assert_eq!(endpoint("https://@example.com/").unwrap_err(), InvalidEndpoint::User);
        assert_eq!(endpoint("ftp://example.com/").unwrap_err(), InvalidEndpoint::Scheme);
        assert_eq!(endpoint("/hooks").unwrap_err(), InvalidEndpoint::NotAbsolute);
    }
}
