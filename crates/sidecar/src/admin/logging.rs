//! What is logged, while the sidecar runs.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::api::{Api, Call};
use super::body;
use super::fields::Fields;
use crate::http::{Answer, Code, Problem, ProblemDetails, json};

/// What is logged.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Logging {
    /// A level, or a level for each of several modules.
    #[schema(example = "info,aquarium_dispatch=debug")]
    filter: String,
}

/// What is logged
#[utoipa::path(get, path = "/v1/log", operation_id = "getLog", tag = "config",
    responses(
        (status = 200, description = "What is logged", body = Logging),
        (status = 400, description = "There are parameters, and there should be none", body = ProblemDetails),
        (status = 409, description = "The process does not log by itself", body = ProblemDetails)))]
pub(super) async fn show<Q>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let log = api.log.as_ref().ok_or_else(silent)?;
    Ok(json(StatusCode::OK, &Logging { filter: log.get() }))
}

/// Log something else, until the next start
#[utoipa::path(post, path = "/v1/log", operation_id = "setLog", tag = "config", request_body = Logging,
    responses(
        (status = 200, description = "What is logged now", body = Logging),
        (status = 400, description = "There is no filter, or it is none", body = ProblemDetails),
        (status = 408, description = "The body came too slowly", body = ProblemDetails),
        (status = 409, description = "The process does not log by itself", body = ProblemDetails),
        (status = 413, description = "The body has more than 64 KiB", body = ProblemDetails),
        (status = 415, description = "The body is not `application/json`", body = ProblemDetails),
    ))]
pub(super) async fn set<Q>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let log = api.log.as_ref().ok_or_else(silent)?;
    let value = body::json(&call.head, call.body).await?.unwrap_or_else(|| serde_json::json!({}));
    let mut fields = Fields::of_object::<Logging>(value, "")?;
    let filter = fields.required("filter")?;
    log.set(&filter).map_err(|error| fields.wrong("filter", error))?;
    Ok(json(StatusCode::OK, &Logging { filter: log.get() }))
}

fn silent() -> Problem {
    Problem::new(StatusCode::CONFLICT, Code::NotLogging, "this process does not log by itself")
}
