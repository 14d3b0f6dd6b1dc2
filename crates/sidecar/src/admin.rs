//! The admin door: health, and the configuration in force.

use std::time::Duration;

use aquarium_config::reload::{Handle, Refused, Rejected, Status};
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::http::{Answer, Handler, Problem, json as answer};
use crate::ingest::check_token;

/// What there is, for who asked for something else.
const PATHS: &str = "/livez, /readyz, /v1/config and /v1/config/reload";

/// Answers operators and probes.
#[derive(Debug)]
pub(crate) struct Admin {
    configuration: Handle,
}

impl Admin {
    pub(crate) fn new(configuration: Handle) -> Self {
        Self { configuration }
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Problem> {
        let admin = self.configuration.config().borrow().admin.clone();
        let (method, headers) = (request.method(), request.headers());
        // Only a local listener is reached under local names: anything else is a rebound name in somebody's browser.
        if admin.listen.is_local() && admin.token.is_none() && !names_this_machine(headers) {
            let detail = "the Host header does not name this machine";
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "foreign-host", detail));
        }
        let path = request.uri().path();
        // Probes carry no token.
        if let "/livez" | "/readyz" = path {
            return match *method {
                Method::GET => Ok(answer(StatusCode::OK, &json!({ "status": "ok" }))),
                _ => Err(Problem::method("GET")),
            };
        }
        check_token(admin.token.as_ref(), headers)?;
        match (path, method) {
            ("/v1/config", &Method::GET) => {
                Ok(answer(StatusCode::OK, &described(&self.configuration.status())))
            }
            ("/v1/config", _) => Err(Problem::method("GET")),
            ("/v1/config/reload", &Method::POST) => {
                check_origin(headers)?;
                self.reload().await
            }
            ("/v1/config/reload", _) => Err(Problem::method("POST")),
            _ => Err(Problem::no_such_path(path, PATHS)),
        }
    }

    async fn reload(&self) -> Result<Answer, Problem> {
        let reloaded = self.configuration.reload().await.map_err(refused)?;
        let body = json!({ "generation": reloaded.generation, "changes": reloaded.changes });
        Ok(answer(StatusCode::OK, &body))
    }
}

impl Handler for Admin {
    async fn handle(&self, request: Request<Incoming>) -> Answer {
        self.route(request).await.unwrap_or_else(|problem| problem.answer())
    }
}

fn described(status: &Status) -> Value {
    let rejected = |rejected: &Rejected| json!({ "at": rejected.at.to_string(), "errors": rejected.errors });
    json!({
        "generation": status.generation,
        "digest": status.digest.to_string(),
        "loaded_at": status.loaded_at.to_string(),
        "needs_restart": status.needs_restart,
        "rejected": status.rejected.as_deref().map(rejected),
        "rejections": status.rejections,
        "watch_error": status.watched.as_ref().err(),
    })
}

fn refused(refused: Refused) -> Problem {
    let detail = refused.to_string();
    match refused {
        Refused::Rejected(rejected) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-config", detail)
                .errors(rejected.errors.clone())
        }
        Refused::Busy | Refused::Stopped | Refused::TimedOut(_) => {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "reload-unavailable", detail);
            problem.retry_after(Duration::from_secs(1))
        }
    }
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
            Err(Problem::new(StatusCode::FORBIDDEN, "foreign-origin", detail))
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
