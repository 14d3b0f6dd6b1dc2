//! What a request's head must be before anything is looked up for it, on every listener: framed and addressed as HTTP/1.1
//! wants it (RFC 9112), and not sent by a web page.
//!
//! A page in somebody's browser can send requests to this machine. It comes under a name of its own that leads here (DNS
//! rebinding), which `Host` shows, or from another site (CSRF), which `Origin` shows. A browser neither connects to a unix
//! socket nor knows a token.

use std::net::IpAddr;

use aquarium_config::Secret;
use http::header::{HOST, HeaderName, ORIGIN, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Version};

use super::{Address, Code, Problem};

/// What is checked of the requests of one listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadCheck {
    /// Whether it is a TCP socket, which a browser can connect to.
    tcp: bool,
}

impl HeadCheck {
    pub(crate) fn of(listener: &Address) -> Self {
        Self { tcp: matches!(listener, Address::Tcp(_)) }
    }

    /// Checks the framing, `Host` and `Origin`, in this order. `token` is what the listener asks for: who knows it may come
    /// under any name.
    pub(crate) fn check(self, head: &Parts, token: Option<&Secret>) -> Result<(), Problem> {
        check_framing(head)?;
        let host = host(head)?;
        if self.tcp && token.is_none() && !host.as_ref().is_some_and(names_this_machine) {
            let detail = "the Host header does not name this machine; accepted: 127.0.0.1, [::1], localhost";
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, Code::ForeignHost, detail));
        }
        if head.method.is_safe() { Ok(()) } else { check_origin(&head.headers, host.as_ref()) }
    }
}

/// Only the whole body in chunks is understood: another transfer coding is answered with 501 (RFC 9112, section 6.1).
fn check_framing(head: &Parts) -> Result<(), Problem> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let unknown = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(coding), None) => !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    };
    if unknown {
        let detail = "the body has a transfer coding that is not known here; accepted: chunked, or none";
        return Err(Problem::new(StatusCode::NOT_IMPLEMENTED, Code::UnknownTransferCoding, detail).closing());
    }
    Ok(())
}

/// The authority that the request is for. Of a target in absolute form it is that, whatever `Host` says (RFC 9112, section
/// 3.2.2); HTTP/1.0 needs none.
fn host(head: &Parts) -> Result<Option<Authority>, Problem> {
    let refused =
        |detail: &str| Err(Problem::new(StatusCode::BAD_REQUEST, Code::InvalidHost, detail).closing());
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) if head.version < Version::HTTP_11 => return Ok(head.uri.authority().cloned()),
        (None, _) => return refused("there is no Host header, which every HTTP/1.1 request has"),
        (Some(_), Some(_)) => return refused("there is more than one Host header"),
    };
    if let Some(authority) = head.uri.authority() {
        return Ok(Some(authority.clone()));
    }
    if host.is_empty() {
        return Ok(None);
    }
    match Authority::try_from(host.as_bytes()) {
        Ok(authority) if !authority.as_str().contains('@') => Ok(Some(authority)),
        _ => refused("the Host header is no host with an optional port"),
    }
}

/// A page of another site must not change anything here. Programs send no `Origin`.
fn check_origin(headers: &HeaderMap, host: Option<&Authority>) -> Result<(), Problem> {
    let Some(origin) = only(headers, &ORIGIN) else { return Ok(()) };
    let authority = origin.and_then(|origin| {
        let rest = [&b"http://"[..], b"https://"].iter().find_map(|scheme| origin.strip_prefix(*scheme));
        rest.and_then(|rest| Authority::try_from(rest).ok())
    });
    if authority.is_some() && authority.as_ref() == host {
        return Ok(());
    }
    let detail = "the Origin header names another site";
    Err(Problem::new(StatusCode::FORBIDDEN, Code::ForeignOrigin, detail))
}

/// The value of a header; `Some(None)` if there are several.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Option<&'h [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    Some(values.next().is_none().then_some(first.as_bytes()))
}

/// Whether it is a loopback address, or a name that always leads to one (RFC 6761, section 6.3).
fn names_this_machine(authority: &Authority) -> bool {
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if let Ok(address) = address.parse::<IpAddr>() {
        return address.to_canonical().is_loopback();
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let top = name.rsplit('.').next().unwrap_or(name);
    top.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const TCP: HeadCheck = HeadCheck { tcp: true };
    const UNIX: HeadCheck = HeadCheck { tcp: false };

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn status(check: HeadCheck, token: bool, head: &Parts) -> u16 {
        let token = token.then(|| Secret::new("a-token-of-a-listener").unwrap());
        check.check(head, token.as_ref()).map_or_else(|problem| problem.answer().status().as_u16(), |()| 200)
    }

    #[test]
    fn a_tcp_listener_without_a_token_is_reached_under_names_of_this_machine_only() {
        let own = [
            "localhost",
            "LOCALHOST:7878",
            "localhost.",
            "app.localhost:1",
            "127.0.0.1",
            "127.8.9.1:80",
            "[::1]",
            "[::1]:7878",
            "[::ffff:127.0.0.1]",
        ];
        let foreign = [
            "evil.example.com",
            "evil.example.com:7878",
            "localhost.evil.example.com",
            "localhostx",
            "128.0.0.1",
            "127.0.0.1.nip.io",
            "[::2]",
            "0.0.0.0",
            "192.168.1.1",
            "127.1",
            "2130706433",
        ];
        for (hosts, expected) in [(&own[..], 200), (&foreign[..], 421)] {
            for host in hosts {
                let head = head("/", &[("Host", host)]);
                assert_eq!(status(TCP, false, &head), expected, "{host}");
                assert_eq!(status(TCP, true, &head), 200, "{host} with a token");
                assert_eq!(status(UNIX, false, &head), 200, "{host} at a unix socket");
            }
        }
        assert_eq!(status(TCP, false, &head("/", &[("Host", "")])), 421);
        assert_eq!(status(UNIX, false, &head("/", &[("Host", "")])), 200);
        // The target counts, not the header.
        assert_eq!(status(TCP, false, &head("http://evil.example.com/", &[("Host", "localhost")])), 421);
        assert_eq!(status(TCP, false, &head("http://localhost/", &[("Host", "evil.example.com")])), 200);
    }

    #[test]
    fn a_request_has_one_host_and_a_body_in_chunks_or_as_it_is() {
        for check in [TCP, UNIX] {
            for hosts in [&[][..], &["localhost", "localhost"], &["a b"], &["user@localhost"], &["/"]] {
                let headers: Vec<_> = hosts.iter().map(|host| ("Host", *host)).collect();
                assert_eq!(status(check, false, &head("/", &headers)), 400, "{hosts:?}");
            }
            for codings in [
                &["gzip, chunked"][..],
                &["chunked, chunked"],
                &["gzip"],
                &["identity"],
                &["chunked", "chunked"],
            ] {
                let mut headers = vec![("Host", "localhost")];
                headers.extend(codings.iter().map(|coding| ("Transfer-Encoding", *coding)));
                assert_eq!(status(check, true, &head("/", &headers)), 501, "{codings:?}");
            }
            let chunked = [("Host", "localhost"), ("Transfer-Encoding", " Chunked ")];
            assert_eq!(status(check, false, &head("/", &chunked)), 200);
        }
        let mut old = head("/", &[]);
        old.version = Version::HTTP_10;
        assert_eq!(
            (status(UNIX, false, &old), status(TCP, true, &old), status(TCP, false, &old)),
            (200, 200, 421)
        );
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let from = |origins: &[&str]| {
            let mut headers = vec![("Host", "localhost:7878")];
            headers.extend(origins.iter().map(|origin| ("Origin", *origin)));
            head("/", &headers)
        };
        for (origins, expected) in [
            (&[][..], 200),
            (&["http://localhost:7878"], 200),
            (&["https://localhost:7878"], 200),
            (&["http://localhost"], 403),
            (&["https://evil.example.com"], 403),
            (&["null"], 403),
            (&[""], 403),
            (&["http://localhost:7878", "https://evil.example.com"], 403),
        ] {
            for check in [TCP, UNIX] {
                assert_eq!(status(check, false, &from(origins)), expected, "{origins:?}");
                let mut reading = from(origins);
                reading.method = http::Method::GET;
                assert_eq!(status(check, false, &reading), 200, "{origins:?}");
            }
        }
    }
}
