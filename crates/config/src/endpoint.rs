//! Checks the URL of a webhook, or of the proxy.
//!
//! URLs are read as browsers read them (WHATWG), which is generous: `http://0x7f.1/` is `http://127.0.0.1/`. A
//! configuration says what it means, so an address has to be spelt as one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use url::{Host, Url};

use crate::diagnostic::quote;
use crate::document::Value;

/// The longest URL, in bytes.
const MAX_URL: usize = 8 << 10;

const ACCEPTED: &str = "https://host/path, or http:// within egress.allow";

/// Why a text is no URL to send to.
#[derive(Debug, PartialEq, thiserror::Error)]
enum Refused {
    #[error("this is not a URL: {0}")]
    Unreadable(url::ParseError),
    #[error("a URL has no white space or control characters")]
    Space,
    #[error("a URL has at most {MAX_URL} bytes")]
    TooLong,
    #[error("the URL must start with https:// or http://")]
    Scheme,
    #[error("the URL has no host")]
    Host,
    #[error("a URL must not hold a user name or password")]
    User,
    #[error("a URL must not have a fragment: it is never sent")]
    Fragment,
    #[error("port 0 cannot be connected to")]
    Port,
    #[error("this spelling of an address hides where it leads; write {canonical}")]
    Spelling { canonical: String },
    #[error("http:// to {address} is not allowed: it is not within egress.allow")]
    NotAllowed { address: IpAddr },
}

/// The URL of a webhook. `allow` is none if it could not be read, and is then not asked.
///
/// `listeners` are the sidecar's own. A URL that plainly leads to one is warned about: each attempt will fail.
pub(crate) fn endpoint(
    value: &Value<'_, '_>,
    allow: Option<&[IpNet]>,
    listeners: &[SocketAddr],
) -> Option<Url> {
    // What stands before an @ may be a password, wherever the parser says that it is.
    if value.inner.as_str().is_none_or(|text| text.contains('@')) {
        value.mask();
    }
    let text = value.text("a URL")?;
    match check(text, allow) {
        Ok(url) => {
            let named = url.scheme() == "http" && matches!(url.host(), Some(Host::Domain(_)));
            if named && allow.is_some_and(<[_]>::is_empty) {
                let message = "nothing can be sent here: http:// goes only to egress.allow, which is empty";
                value.report(value.warning(message));
            }
            if listeners.iter().any(|listener| leads_to(&url, listener)) {
                let message = "this is the sidecar's own listener: every attempt will fail, since an event must not come back";
                value.report(value.warning(message));
            }
            Some(url)
        }
        Err(refused) => {
            let problem = value.problem(refused.to_string());
            value.report(match refused {
                Refused::Spelling { .. } | Refused::User | Refused::Fragment => problem,
                Refused::NotAllowed { address } => problem
                    .help(format!("use https://, or add {} to it", quote(&IpNet::from(address).to_string()))),
                _ => problem.accepted(ACCEPTED),
            });
            None
        }
    }
}

/// Whether a URL says, without a look-up, that it leads to a listener.
fn leads_to(url: &Url, listener: &SocketAddr) -> bool {
    let listens = listener.ip().to_canonical();
    let host = match url.host() {
        Some(Host::Domain(name)) => {
            let local = name.trim_end_matches('.').eq_ignore_ascii_case("localhost");
            return local
                && url.port_or_known_default() == Some(listener.port())
                && (listens.is_loopback() || listens.is_unspecified());
        }
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical(),
        None => return false,
    };
    let meets = host == listens
        || (host.is_unspecified() && listens.is_loopback())
        || (host.is_loopback() && listens.is_unspecified());
    meets && listener.port() != 0 && url.port_or_known_default() == Some(listener.port())
}

/// The proxy that a value names: `http://host:port`.
pub(crate) fn proxy(value: &Value<'_, '_>) -> Option<Arc<str>> {
    const ACCEPTED: &str = "http://host:port";
    if value.inner.as_str().is_none_or(|text| text.contains('@')) {
        value.mask();
    }
    let problem = match check(value.text("a URL")?, None) {
        Err(Refused::Scheme) => value.problem("a proxy is spoken to by http://").accepted(ACCEPTED),
        Err(refused) => value.problem(refused.to_string()).accepted(ACCEPTED),
        Ok(url) if url.scheme() != "http" => {
            value.problem("a proxy is spoken to by http://; what goes through it is encrypted all the same")
        }
        Ok(url) if url.path() != "/" || url.query().is_some() => {
            value.problem("a proxy has no path and no query").accepted(ACCEPTED)
        }
        Ok(url) => {
            let port = url.port_or_known_default().unwrap_or(80);
            return url.host_str().map(|host| format!("http://{host}:{port}").into());
        }
    };
    value.report(problem);
    None
}

/// The collector that a value names.
pub(crate) fn collector(value: &Value<'_, '_>) -> Option<Url> {
    if value.inner.as_str().is_none_or(|text| text.contains('@')) {
        value.mask();
    }
    check(value.text("a URL")?, None)
        .inspect_err(|refused| {
            let problem = value.problem(refused.to_string());
            value.report(problem.accepted("the URL of OTLP over HTTP, such as http://host:4318"));
        })
        .ok()
}

fn check(text: &str, allow: Option<&[IpNet]>) -> Result<Url, Refused> {
    if text.len() > MAX_URL {
        return Err(Refused::TooLong);
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Refused::Space);
    }
    let (scheme, rest) = text.split_once("://").ok_or(Refused::Scheme)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Refused::Scheme);
    }
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err(Refused::Host);
    }
    // An empty user is one as well, though the parser drops it.
    if authority.contains('@') {
        return Err(Refused::User);
    }
    let url = Url::parse(text).map_err(Refused::Unreadable)?;
    if url.fragment().is_some() {
        return Err(Refused::Fragment);
    }
    if url.port() == Some(0) {
        return Err(Refused::Port);
    }
    let address = match url.host() {
        None => return Err(Refused::Host),
        Some(Host::Domain(_)) => return Ok(url),
        Some(Host::Ipv4(address)) => {
            let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
            if host != address.to_string() {
                return Err(Refused::Spelling { canonical: address.to_string() });
            }
            IpAddr::V4(address)
        }
        Some(Host::Ipv6(address)) => {
            if let Some(mapped) = address.to_ipv4_mapped() {
                return Err(Refused::Spelling { canonical: mapped.to_string() });
            }
            IpAddr::V6(address)
        }
    };
    let allowed = allow.is_none_or(|allow| allow.iter().any(|network| network.contains(&address)));
    if url.scheme() == "http" && !allowed {
        return Err(Refused::NotAllowed { address });
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_leads_to_a_listener_is_known_by_its_address_or_localhost() {
        for (url, listener, expected) in [
            ("http://127.0.0.1:7878/", "127.0.0.1:7878", true),
            ("http://localhost:7878/", "127.0.0.1:7878", true),
            ("http://LOCALHOST.:7878/", "[::1]:7878", true),
            ("http://[::1]:7878/", "[::]:7878", true),
            ("http://127.0.0.1:7878/", "0.0.0.0:7878", true),
            ("http://0.0.0.0:7878/", "127.0.0.1:7878", true),
            ("https://10.0.0.1/", "10.0.0.1:443", true),
            ("http://127.0.0.1:7878/", "127.0.0.1:7879", false),
            ("http://127.0.0.1/", "127.0.0.1:0", false),
            ("http://example.com:7878/", "0.0.0.0:7878", false),
            ("http://10.0.0.1:7878/", "0.0.0.0:7878", false),
        ] {
            let found = leads_to(&url.parse().unwrap(), &listener.parse().unwrap());
            assert_eq!(found, expected, "{url} {listener}");
        }
    }

    #[test]
    fn a_url_says_plainly_where_it_leads() {
        let allow = ["127.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for good in [
            "https://ops.example.com/hooks?a=b",
            "HTTPS://ops.example.com",
            "https://10.0.0.1:8443/",
            "https://[2001:db8::1]/",
            "http://127.0.0.1:8080/",
            "http://[fd00::1]/",
            "http://receiver.svc.cluster.local/",
            "https://bücher.example/",
        ] {
            assert!(check(good, Some(&allow)).is_ok(), "{good}");
        }
        let hidden = || Refused::Spelling { canonical: "127.0.0.1".to_owned() };
        for (bad, why) in [
            ("http://0x7f.1/", hidden()),
            ("http://2130706433/", hidden()),
            ("http://0177.0.0.1/", hidden()),
            ("http://127.1:80/", hidden()),
            ("http://127%2e0.0.1/", hidden()),
            ("http://127.0.0.1./", hidden()),
            ("http://１27.0.0.1/", hidden()),
            ("http://[::ffff:127.0.0.1]/", hidden()),
            ("http://10.0.0.1/", Refused::NotAllowed { address: "10.0.0.1".parse().unwrap() }),
            ("ftp://example.com/", Refused::Scheme),
            ("https:example.com", Refused::Scheme),
            ("example.com", Refused::Scheme),
            ("https:///example.com", Refused::Host),
            ("https://", Refused::Host),
            ("https://user:word@example.com/", Refused::User),
            ("https://@example.com/", Refused::User),
            ("https://example.com/#top", Refused::Fragment),
            ("https://example.com/a b", Refused::Space),
            ("https://example.com\n", Refused::Space),
            ("https://example.com:0/", Refused::Port),
            ("https://exa<mple/", Refused::Unreadable(url::ParseError::IdnaError)),
        ] {
            assert_eq!(check(bad, Some(&allow)), Err(why), "{bad}");
        }
    }
}
