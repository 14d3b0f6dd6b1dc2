//! An HTTP proxy that connections go through (CONNECT: RFC 9110, section 9.3.6).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use aquarium_delivery::{Failure, FailureKind};
use http::Uri;
use http::uri::Scheme;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{MAX_ADDRESSES, interleaved, race};
use crate::USER_AGENT;
use crate::endpoint::{Host, Origin};
use crate::resolve::Resolve;

/// The most that its answer may take, in bytes.
const MAX_ANSWER: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;

/// A proxy, as the operator names it: `http://host:port`. It may be at any address.
///
/// The addresses of an endpoint's name are checked here first. For `http://` the proxy is asked for one of those: asked for the
/// name, it would look that up itself, and could find a public address, to which the secret would go in clear text. For
/// `https://` it is asked for the name, unless [`Proxy::by_address`] says otherwise: some proxies allow names only, and TLS protects the
/// secret wherever the name leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    host: Host,
    port: u16,
    by_address: bool,
}

/// A text that does not name a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a proxy is named by http://host:port, without a user, a path or a query")]
pub struct InvalidProxy;

impl FromStr for Proxy {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        let uri: Uri = text.parse().map_err(|_| InvalidProxy)?;
        let plain = uri.scheme() == Some(&Scheme::HTTP) && uri.path() == "/" && uri.query().is_none();
        let authority = uri.authority().filter(|authority| plain && !authority.as_str().contains('@'));
        let authority = authority.ok_or(InvalidProxy)?;
        let host = Host::new(authority.host()).map_err(|_| InvalidProxy)?;
        Ok(Self { host, port: authority.port_u16().unwrap_or(80), by_address: false })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        authority(&self.host, self.port).fmt(f)
    }
}

impl Proxy {
    /// The same, which is asked for the checked address of `https://` endpoints too, if so.
    #[must_use]
    pub fn by_address(self, by_address: bool) -> Self {
        Self { by_address, ..self }
    }

    /// A connection to the origin, whose addresses that were checked are `checked`.
    pub(super) async fn connect(
        &self,
        origin: &Origin,
        checked: &[SocketAddr],
        resolver: &dyn Resolve,
    ) -> Result<TcpStream, Failure> {
        let failed = |why: String| Failure::new(FailureKind::Proxy, format_args!("the proxy {self} {why}"));
        let addresses = match &self.host {
            Host::Address(address) => vec![address.to_canonical()],
            Host::Name(name) => {
                let found = resolver.resolve(name).await;
                found.map_err(|error| failed(format!("cannot be resolved: {error}")))?
            }
        };
        let addresses = interleaved(addresses).take(MAX_ADDRESSES);
        let addresses: Vec<_> = addresses.map(|address| SocketAddr::new(address, self.port)).collect();
        let stream = race::connect(&addresses).await;
        let mut stream = stream.map_err(|error| failed(format!("cannot be reached: {error}")))?;
        let target = match checked.first() {
            Some(address) if !origin.encrypted || self.by_address => address.to_string(),
            _ => authority(&origin.host, origin.port),
        };
        match ask(&mut stream, &target).await {
            Ok(Answer { status: 200..=299, .. }) => Ok(stream),
            Ok(Answer { status, reason }) => {
                Err(failed(format!("does not connect to {target}: {status} {reason}").trim_end().to_owned()))
            }
            Err(error) => Err(failed(format!("does not answer as one: {error}"))),
        }
    }
}

/// A host and a port, as a request names them (RFC 9110, section 7.2).
fn authority(host: &Host, port: u16) -> String {
    match host {
        Host::Address(address) => SocketAddr::new(*address, port).to_string(),
        Host::Name(name) => format!("{name}:{port}"),
    }
}

struct Answer {
    status: u16,
    /// Letters, digits, hyphens and spaces of what it says about the status.
    reason: String,
}

async fn ask(stream: &mut TcpStream, target: &str) -> io::Result<Answer> {
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {USER_AGENT}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(invalid("the connection ended"));
        }
        if let Some((parsed, length)) = parse(&answer)? {
            // Nobody speaks before we do. Of a refusal, nobody wants to know the rest.
            if (200..300).contains(&parsed.status) && length != answer.len() {
                return Err(invalid("there is more than an answer"));
            }
            return Ok(parsed);
        }
        if answer.len() >= MAX_ANSWER {
            return Err(invalid("the answer does not end"));
        }
    }
}

/// The answer and its length; none, if it has not come whole.
fn parse(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes).map_err(invalid)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete(length) => {
            let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-');
            let reason = response.reason.unwrap_or_default().chars().filter(plain).take(100).collect();
            Ok(Some((Answer { status: response.code.unwrap_or_default(), reason }, length)))
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_named_by_its_host_and_port() {
        for (text, shown) in [
            ("http://egress-proxy:4750", "egress-proxy:4750"),
            ("http://egress-proxy:4750/", "egress-proxy:4750"),
            ("http://Proxy.internal", "proxy.internal:80"),
            ("http://10.0.0.1:3128", "10.0.0.1:3128"),
            ("http://[fd00::1]:3128", "[fd00::1]:3128"),
        ] {
            assert_eq!(text.parse::<Proxy>().unwrap().to_string(), shown, "{text}");
        }
        for text in [
            "egress-proxy:4750",
            "https://egress-proxy:4750",
            "socks5://egress-proxy:4750",
            "http://user:word@egress-proxy:4750",
            "http://egress-proxy:4750/path",
            "http://egress-proxy:4750?query",
            "http://0x7f.1:3128",
            "http://",
            "",
        ] {
            assert_eq!(text.parse::<Proxy>(), Err(InvalidProxy), "{text}");
        }
    }
}
