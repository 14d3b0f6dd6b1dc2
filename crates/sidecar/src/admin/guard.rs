//! Who may ask at all: what is checked of a request before anything is looked up for it.

use aquarium_config::Admin;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::http::{Code, Problem};
use crate::ingest::check_token;

/// Checks `Host`, `Origin` and the token, in this order. Probes carry no token.
pub(super) fn check(admin: &Admin, method: &Method, headers: &HeaderMap, probe: bool) -> Result<(), Problem> {
    // Only a local listener is reached under local names: anything else is a rebound name in somebody's browser.
    if admin.listen.is_local() && admin.token.is_none() && !names_this_machine(headers) {
        let detail = "the Host header does not name this machine";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, Code::ForeignHost, detail));
    }
    if !method.is_safe() {
        check_origin(headers)?;
    }
    if probe { Ok(()) } else { check_token(admin.token.as_ref(), headers) }
}

/// A page of another site in somebody's browser must not change anything here. Programs send no `Origin`.
fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let own = headers.get(HOST).map(HeaderValue::as_bytes);
    let authority =
        [&b"http://"[..], b"https://"].iter().find_map(|scheme| origin.as_bytes().strip_prefix(*scheme));
    match authority {
        Some(authority) if Some(authority) == own => Ok(()),
        _ => {
            let detail = "the Origin header names another site";
            Err(Problem::new(StatusCode::FORBIDDEN, Code::ForeignOrigin, detail))
        }
    }
}

/// Whether `Host` is a loopback address or `localhost`; a unix socket's client may send anything or nothing.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Ok(authority) = http::uri::Authority::try_from(host.as_bytes()) else { return host.is_empty() };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|address: std::net::IpAddr| address.to_canonical().is_loopback())
}
