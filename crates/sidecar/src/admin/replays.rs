//! Replays in bulk: asked for here, run in the background.

use std::collections::BTreeSet;
use std::sync::Arc;

use aquarium_config::Config;
use aquarium_delivery::{ReplayId, Timestamp};
use aquarium_queue::history::{Filter, History, Job, JobFilter, JobState, Missed};
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};
use utoipa::{IntoParams, ToSchema};

use super::api::{Api, Call};
use super::fields::Fields;
use super::filter::Wanted;
use super::{body, names, time};
use crate::http::{Answer, Code, Problem, ProblemDetails, json};
use crate::ingest::unavailable;

/// The most replays that are listed.
const LISTED: usize = 1_000;

/// A replay in bulk.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replay)]
pub(super) struct Shown {
    /// `rpl_…`
    id: String,
    /// How it stands.
    state: ReplayState,
    /// What it sends again.
    what: What,
    /// When it was asked for. Only events that were accepted by then are looked at.
    #[schema(format = DateTime)]
    created_at: String,
    /// Since when it stands so.
    #[schema(format = DateTime)]
    state_since: String,
    /// How far it has come, from 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    progress: f64,
    /// Deliveries that it sent again.
    replayed: u64,
    /// What it found and passed over, since nothing could be sent for it.
    passed_over: u64,
}

/// How a replay stands
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ReplayState {
    /// It goes on
    Running,
    /// It has come to its end
    Done,
    /// It was cancelled: what it had sent again by then stays so
    Cancelled,
}

/// What to send again: one of these
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum What {
    Filter(ByFilter),
    Missed(ByMissed),
    Everything(All),
}

/// Deliveries that there are, whatever became of them.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ByFilter {
    /// Those that are pending when their turn comes, and tests, are passed over
    filter: Wanted,
}

/// Events that a webhook would have got, had it been there.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ByMissed {
    /// Those that it wants, and has no delivery of
    missed: MissedBy,
}

/// Every delivery that is stored.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct All {
    /// Said explicitly
    #[schema(schema_with = yes)]
    everything: bool,
}

/// `true`, and nothing else.
fn yes() -> Object {
    ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true])).build()
}

/// Events that a webhook has no delivery of.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Missed)]
pub(super) struct MissedBy {
    /// The webhook: `organization/project/webhook`
    webhook: String,
    /// Of these types; of those that it wants, if absent
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Option<Vec<String>>, nullable = false)]
    event_type: BTreeSet<String>,
    /// Accepted then or later
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    since: Option<String>,
    /// Accepted before
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime, nullable = false)]
    until: Option<String>,
}

/// The latest replays.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReplayList {
    /// The replays, the latest first, at most 1,000.
    items: Vec<Shown>,
}

/// The identifier of a replay
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is what the document says of the path")]
pub(super) struct ReplayPath {
    /// The replay: `rpl_…`
    id: String,
}

/// Send again what was stored
///
/// It runs in the background, in steps that leave room for fresh events, and goes on after a restart.
#[utoipa::path(post, path = "/v1/replays", operation_id = "createReplay", tag = "replay", request_body = What,
    responses(
        (status = 202, description = "It goes on in the background", body = Shown,
            headers(("Location" = String, description = "Where to look how far it has come"))),
        (status = 400, description = "A field is not as it should be", body = ProblemDetails),
        (status = 404, description = "There is nothing of the name that a field has", body = ProblemDetails),
        (status = 422, description = "The filter admits everything, and does not say so", body = ProblemDetails),
    ))]
pub(super) async fn create<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let value = body::json(&call.head, call.body).await?.unwrap_or(Value::Null);
    let config = api.config();
    let what = read(value, &config)?;
    if let JobFilter::Deliveries(filter) = &what {
        names::check(&api.queue, &config, filter).await?;
    }
    let now = api.clock.now();
    let id = ReplayId::new(now, api.chance.bytes());
    let job = api.queue.create_job(id, what, now).await.map_err(unavailable)?;
    api.replays.wake();
    let mut answer = json(StatusCode::ACCEPTED, &Shown::of(&job));
    if let Ok(location) = HeaderValue::try_from(format!("/v1/replays/{id}")) {
        answer.headers_mut().insert(LOCATION, location);
    }
    Ok(answer)
}

/// The latest replays
#[utoipa::path(get, path = "/v1/replays", operation_id = "listReplays", tag = "replay",
    responses(
        (status = 200, description = "At most 1,000 of them, the latest first", body = ReplayList),
        (status = 400, description = "There are parameters, and there should be none", body = ProblemDetails),
    ))]
pub(super) async fn list<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let jobs = api.queue.jobs(LISTED).await.map_err(unavailable)?;
    Ok(json(StatusCode::OK, &ReplayList { items: jobs.iter().map(Shown::of).collect() }))
}

/// How far a replay has come
#[utoipa::path(get, path = "/v1/replays/{id}", operation_id = "getReplay", tag = "replay", params(ReplayPath),
    responses(
        (status = 200, description = "The replay", body = Shown),
        (status = 400, description = "There are parameters, and there should be none", body = ProblemDetails),
        (status = 404, description = "There is no such replay", body = ProblemDetails),
    ))]
pub(super) async fn show<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let id = call.path.get("id");
    let job = api.queue.job(parsed(id)?).await.map_err(unavailable)?;
    Ok(json(StatusCode::OK, &Shown::of(&job.ok_or_else(|| unknown(id))?)))
}

/// End a replay
///
/// What it had sent again by then stays so. One that has ended already stays as it is.
#[utoipa::path(post, path = "/v1/replays/{id}/cancel", operation_id = "cancelReplay", tag = "replay",
    params(ReplayPath),
    responses(
        (status = 200, description = "The replay as it is now", body = Shown),
        (status = 400, description = "There are parameters or fields, and there should be none", body = ProblemDetails),
        (status = 404, description = "There is no such replay", body = ProblemDetails),
    ))]
pub(super) async fn cancel<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let Call { head, path, body } = call;
    body::none(&head, body).await?;
    let id = path.get("id");
    let job = api.queue.cancel_job(parsed(id)?, api.clock.now()).await.map_err(unavailable)?;
    api.replays.wake();
    Ok(json(StatusCode::OK, &Shown::of(&job.ok_or_else(|| unknown(id))?)))
}

fn parsed(id: &str) -> Result<ReplayId, Problem> {
    id.parse().map_err(|_| unknown(id))
}

fn unknown(id: &str) -> Problem {
    let detail = format!("there is no replay {:?}, or no longer", super::word::clip(id));
    Problem::new(StatusCode::NOT_FOUND, Code::UnknownReplay, detail).about("id")
}

/// The one of these fields that a body has: `filter`, `missed` or `everything`.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it tells the names of the fields")]
struct Either {
    filter: Option<Wanted>,
    missed: Option<MissedBy>,
    everything: Option<bool>,
}

/// What a body asks for.
fn read(value: Value, config: &Config) -> Result<JobFilter, Problem> {
    const CHOICE: &str = "the body has one of \"filter\", \"missed\" and \"everything\"";
    let mut fields = Fields::of_object::<Either>(value, "")?;
    let parts = (fields.value("filter"), fields.value("missed"), fields.flag("everything")?);
    match parts {
        (Some(filter), None, None) => {
            let filter = Wanted::read(&mut Fields::of_object::<Wanted>(filter, "/filter")?, config)?;
            match filter == Filter::default() {
                true => Err(everything("/filter")),
                false => Ok(JobFilter::Deliveries(filter)),
            }
        }
        (None, Some(missed), None) => read_missed(missed, config).map(JobFilter::Missed),
        (None, None, Some(true)) => Ok(JobFilter::Deliveries(Filter::default())),
        (None, None, Some(false)) => Err(everything("/everything")),
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, Code::InvalidBody, CHOICE).about("")),
    }
}

fn everything(pointer: &str) -> Problem {
    let detail = "that would send everything again: narrow it down, or say {\"everything\": true}";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, Code::ReplayOfEverything, detail).about(pointer)
}

fn read_missed(value: Value, config: &Config) -> Result<Missed, Problem> {
    let mut fields = Fields::of_object::<MissedBy>(value, "/missed")?;
    let name = fields.required("webhook")?;
    let webhook = names::webhook(config, &name)?;
    if config.webhook(&webhook).is_none() {
        return Err(names::unknown_webhook(config, &name));
    }
    let kinds = fields.texts("event_type")?;
    let kind = |name: &String| {
        let kind = config.types.parse(name).map_err(|_| names::unknown_type(config, name))?;
        Ok(kind.as_str().to_owned())
    };
    let kinds: BTreeSet<_> = kinds.iter().map(kind).collect::<Result<_, Problem>>()?;
    Ok(Missed {
        webhook,
        kinds: (!kinds.is_empty()).then(|| Arc::new(kinds)),
        since: fields.parsed("since", time::parse)?,
        until: fields.parsed("until", time::parse)?,
    })
}

impl Shown {
    fn of(job: &Job) -> Self {
        let state = match job.state {
            JobState::Running => ReplayState::Running,
            JobState::Done => ReplayState::Done,
            JobState::Cancelled => ReplayState::Cancelled,
        };
        Self {
            id: job.id.to_string(),
            state,
            what: What::of(&job.what),
            created_at: job.created_at.to_string(),
            state_since: job.state_since.to_string(),
            progress: progress(job),
            replayed: job.replayed,
            passed_over: job.passed_over,
        }
    }
}

impl What {
    fn of(what: &JobFilter) -> Self {
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
        match what {
            JobFilter::Deliveries(filter) if *filter == Filter::default() => {
                Self::Everything(All { everything: true })
            }
            JobFilter::Deliveries(filter) => Self::Filter(ByFilter { filter: Wanted::of(filter) }),
            JobFilter::Missed(missed) => {
                let missed = MissedBy {
                    webhook: missed.webhook.to_string(),
                    event_type: missed.kinds.as_deref().cloned().unwrap_or_default(),
                    since: text(missed.since),
                    until: text(missed.until),
                };
                Self::Missed(ByMissed { missed })
            }
        }
    }
}

/// How much of the way from its first row to its last a job has come.
fn progress(job: &Job) -> f64 {
    if job.state == JobState::Done {
        return 1.0;
    }
    let start = job.start.0;
    let way = job.end.0.saturating_sub(start);
    let come = job.next.map_or(0, |next| next.0.saturating_sub(start)).min(way);
    if way == 0 { 0.0 } else { come as f64 / way as f64 }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use aquarium_config::{Memory, load};
    use aquarium_queue::Key;
    use serde_json::json;

    use super::*;

    fn config() -> Config {
        let toml =
            "version = 1\n[projects.urban.webhooks.ops]\nurl = \"https://example.com/\"\nevents = [\"*\"]\n";
        let source = Memory::new()
            .file("config/aquarium.toml", "version = 1")
            .file("config/organizations/acme.toml", toml);
        Config::clone(&load(Path::new("config"), &source).unwrap().config)
    }

    #[test]
    fn what_is_to_be_sent_again_reads_as_it_is_shown() {
        for body in [
            json!({ "everything": true }),
            json!({ "filter": { "state": ["exhausted", "skipped"], "webhook": "acme/urban/ops" } }),
            json!({ "missed": { "webhook": "acme/urban/ops", "event_type": ["test"] } }),
            json!({ "missed": { "webhook": "acme/urban/ops", "since": "2026-11-23T12:00:00.000Z" } }),
        ] {
            let what = read(body.clone(), &config()).unwrap();
            let shown = serde_json::to_value(What::of(&what)).unwrap();
            let mut expected = body;
            if let Some(states) = expected.pointer_mut("/filter/state") {
                *states = json!(["exhausted", "skipped"]);
            }
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn a_body_that_asks_for_nothing_or_for_too_much_is_refused() {
        for (body, status, field) in [
            (json!(null), 400, ""),
            (json!([]), 400, ""),
            (json!({}), 400, ""),
            (json!({ "filter": {} }), 422, "/filter"),
            (json!({ "filter": { "state": [] } }), 422, "/filter"),
            (json!({ "everything": false }), 422, "/everything"),
            (json!({ "filter": { "state": ["lost"] } }), 400, "/filter/state"),
            (json!({ "filter": { "states": ["pending"] } }), 400, "/filter/states"),
            (json!({ "filter": { "since": 7 } }), 400, "/filter/since"),
            (json!({ "filter": [] }), 400, "/filter"),
            (json!({ "filter": { "project": "p" }, "everything": true }), 400, ""),
            (json!({ "missed": {} }), 400, "/missed/webhook"),
            (json!({ "missed": { "webhook": "acme/urban/opps" } }), 404, "webhook"),
            (json!({ "missed": { "webhook": "acme/urban/ops", "event_type": ["tset"] } }), 404, "event_type"),
        ] {
            let problem = read(body.clone(), &config()).unwrap_err();
            let told: Value = serde_json::from_slice(&problem.body()).unwrap();
            assert_eq!(
                (told["status"].as_u64(), told["field"].as_str()),
                (Some(status), Some(field)),
                "{body}"
            );
        }
    }

    #[test]
    fn progress_is_how_much_of_the_way_is_behind() {
        let mut job = Job {
            id: ReplayId::new(Timestamp::default(), [0; 10]),
            what: JobFilter::Deliveries(Filter::default()),
            created_at: Timestamp::default(),
            state: JobState::Running,
            state_since: Timestamp::default(),
            next: None,
            end: Key(300),
            start: Key(100),
            replayed: 0,
            passed_over: 0,
        };
        assert_eq!(progress(&job), 0.0);
        job.next = Some(Key(150));
        assert_eq!(progress(&job), 0.25);
        job.next = Some(Key(900));
        assert_eq!(progress(&job), 1.0);
        (job.state, job.next) = (JobState::Done, None);
        assert_eq!(progress(&job), 1.0);
        (job.state, job.end) = (JobState::Running, Key(100));
        assert_eq!(progress(&job), 0.0);
    }
}
