//! The configuration in force.

use std::time::Duration;

use aquarium_config::reload::{Refused, Rejected, ReloadOptions, Status};
use http::StatusCode;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::api::{Api, Call};
use super::fields::{Fields, parameters};
use crate::http::{Answer, Code, Problem, ProblemDetails, json};

/// What is in force, and what is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConfigStatus {
    /// 1 at the start, and one more for each configuration that was accepted since.
    generation: u64,
    /// Equal for sidecars with the same files, secrets aside.
    digest: String,
    /// Since when it is in force.
    #[schema(format = DateTime)]
    loaded_at: String,
    /// Settings that were changed, and wait for a restart.
    needs_restart: Vec<&'static str>,
    /// Why what the files say now is not in force, if it is not.
    #[schema(required = true)]
    rejected: Option<RejectedConfig>,
    /// How many times that happened since the start.
    rejections: u64,
    /// Why files are polled only, if they are.
    #[schema(required = true)]
    watch_error: Option<String>,
}

/// A configuration that cannot be used.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RejectedConfig {
    /// When it was tried.
    #[schema(format = DateTime)]
    at: String,
    /// Everything that is wrong with it, a line each: file, line, column and reason.
    errors: Vec<String>,
}

/// A configuration that was put in force, or was already.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConfigReloaded {
    /// Which one.
    generation: u64,
    /// What is different from before, in words.
    changes: Vec<String>,
}

/// What the operator says about a reload.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes parameters")]
pub(super) struct ReloadParameters {
    /// Use the files although no organization is left, or their directory is on another device than before. Otherwise that is taken
    /// for a volume that is not mounted, and refused.
    #[param(default = false)]
    allow_empty: Option<bool>,
}

/// Which configuration is in force
#[utoipa::path(get, path = "/v1/config", operation_id = "getConfig", tag = "config",
    responses(
        (status = 200, description = "What is in force, and what is wrong", body = ConfigStatus),
        (status = 400, description = "There are parameters, and there should be none", body = ProblemDetails)))]
pub(super) async fn show<Q>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    Ok(json(StatusCode::OK, &ConfigStatus::of(&api.configuration.status())))
}

/// Read the configuration now
///
/// Answers when what the files say is in force.
#[utoipa::path(post, path = "/v1/config/reload", operation_id = "reloadConfig", tag = "config",
    params(ReloadParameters),
    responses(
        (status = 200, description = "It is in force", body = ConfigReloaded),
        (status = 400, description = "A parameter is unknown, or not as it should be", body = ProblemDetails),
        (status = 422, description = "The files cannot be used; `errors` has all that is wrong", body = ProblemDetails),
        (status = 503, description = "Too many ask at once, or the files cannot be read", body = ProblemDetails),
    ))]
pub(super) async fn reload<Q>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    let mut fields = Fields::of_query(call.head.uri.query(), &parameters::<ReloadParameters>())?;
    let options = ReloadOptions { allow_empty: fields.flag("allow_empty")?.unwrap_or_default() };
    let reloaded = api.configuration.reload_with(options).await.map_err(refused)?;
    let body = ConfigReloaded { generation: reloaded.generation, changes: reloaded.changes };
    Ok(json(StatusCode::OK, &body))
}

impl ConfigStatus {
    fn of(status: &Status) -> Self {
        let rejected = |rejected: &Rejected| RejectedConfig {
            at: rejected.at.to_string(),
            errors: rejected.errors.clone(),
        };
        Self {
            generation: status.generation,
            digest: status.digest.to_string(),
            loaded_at: status.loaded_at.to_string(),
            needs_restart: status.needs_restart.clone(),
            rejected: status.rejected.as_deref().map(rejected),
            rejections: status.rejections,
            watch_error: status.watched.as_ref().err().cloned(),
        }
    }
}

fn refused(refused: Refused) -> Problem {
    let detail = refused.to_string();
    match refused {
        Refused::Rejected(rejected) => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidConfig, detail)
                .errors(rejected.errors.clone())
        }
        Refused::Busy | Refused::Stopped | Refused::TimedOut(_) => {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::ReloadUnavailable, detail);
            problem.retry_after(Duration::from_secs(1))
        }
    }
}
