//! Probes.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::api::{Api, Call};
use crate::http::{Answer, Problem, json};

/// The answer to a probe.
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

/// Whether it takes events
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "health", security(),
    responses((status = 200, description = "It does", body = Health)))]
pub(super) async fn readyz<Q>(_: &Api<Q>, _: Call) -> Result<Answer, Problem> {
    Ok(json(StatusCode::OK, &Health { status: "ok" }))
}
