//! Probes.

use aquarium_queue::OutageReason;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::api::{Api, Call};
use crate::http::{Answer, Problem, json};

/// The answer to a probe of the process.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    status: &'static str,
}

/// Whether the process is alive
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "health", security(),
    responses((status = 200, description = "It is", body = Health)))]
pub(super) async fn livez<Q>(_: &Api<Q>, _: Call) -> Result<Answer, Problem> {
    Ok(json(StatusCode::OK, &Health { status: "ok" }))
}

/// Whether events are taken, and if not, why.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ok`, or `not ready`.
    status: &'static str,
    /// What each check found.
    checks: Vec<Check>,
}

/// What one check found.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Check {
    /// What was looked at.
    #[schema(example = "queue")]
    name: &'static str,
    /// Whether it is as it should be.
    ok: bool,
    /// What is wrong, and what helps.
    detail: Option<String>,
}

impl Check {
    fn new(name: &'static str, wrong: Option<String>) -> Self {
        Self { name, ok: wrong.is_none(), detail: wrong }
    }
}

/// Whether it takes events
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "health", security(),
    responses(
        (status = 200, description = "It does", body = Readiness),
        (status = 503, description = "It does not; the checks that are not `ok` say why", content(
            (Readiness = "application/json"))),
    ))]
pub(super) async fn readyz<Q>(api: &Api<Q>, _: Call) -> Result<Answer, Problem> {
    let (size, most) = (api.metrics.queue_size(), api.config().queue.max_size);
    let outage = api.metrics.queue_outage().map(|reason| {
        let detail = match reason {
            OutageReason::Failing => {
                "writing to the queue failed, and it could not be opened anew yet; see the log for the reason"
            }
            OutageReason::Damaged => {
                "the queue's file is damaged; stop the sidecar, keep a copy of the file and its log, save what can be read with `aquarium-sidecar queue recover`, and restart it with that"
            }
        };
        detail.to_owned()
    });
    let full = (size >= most).then(|| {
        format!("{size} of {most} bytes are in use; it takes events again when some were delivered and are past their retention, or with a larger queue.max_size")
    });
    let crowded = api.room.is_full().then(|| {
        format!("all {} connections that the ingest serves at once are in use, and others are turned away; it takes them again by itself when some are closed, which idle ones are after 30 s", api.room.limit())
    });
    let busy = api.bodies.are_turned_away().then(|| {
        "the memory for bodies of requests is in use, and requests are answered with 503 `busy`; it takes them again by itself when others have ended".to_owned()
    });
    let checks = vec![
        Check::new("queue", outage),
        Check::new("room", full),
        Check::new("connections", crowded),
        Check::new("bodies", busy),
    ];
    let ready = checks.iter().all(|check| check.ok);
    let (code, status) = match ready {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    Ok(json(code, &Readiness { status, checks }))
}
