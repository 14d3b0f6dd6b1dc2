//! The admin door: health.

use http::header::HOST;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use crate::http::{Answer, Handler, Problem, json as answer};
use crate::ingest::Token;

/// Answers operators and probes.
#[derive(Debug)]
pub(crate) struct Admin {
    token: Option<Token>,
    /// Only a local listener is reached under local names: anything else is a rebound name in somebody's browser.
    local: bool,
}

impl Admin {
    pub(crate) fn new(admin: &aquarium_config::Admin) -> Self {
        Self { token: admin.token.as_ref().and_then(Token::new), local: admin.listen.is_local() }
    }

    fn route(&self, request: &Request<Incoming>) -> Result<Answer, Problem> {
        if self.local && self.token.is_none() && !names_this_machine(request.headers()) {
            let detail = "the Host header does not name this machine";
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "foreign-host", detail));
        }
        match request.uri().path() {
            // Probes carry no token.
            "/livez" | "/readyz" if request.method() != Method::GET => Err(Problem::method("GET")),
            "/livez" | "/readyz" => Ok(answer(StatusCode::OK, &json!({ "status": "ok" }))),
            path => {
                if let Some(token) = &self.token {
                    token.check(request.headers())?;
                }
                Err(Problem::no_such_path(path, "/livez and /readyz"))
            }
        }
    }
}

impl Handler for Admin {
    async fn handle(&self, request: Request<Incoming>) -> Answer {
        self.route(&request).unwrap_or_else(|problem| problem.answer())
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
