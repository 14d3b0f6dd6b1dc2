//! A test: what an endpoint makes of an event, now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aquarium_config::{Config, Webhook};
use aquarium_delivery::{DeliveryId, EventId, Order, WebhookName};
use aquarium_event::{Type, check, minimal, sample};
use aquarium_queue::history::History;
use aquarium_queue::{NewEvent, Report, Submission, Target};
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::advice::{advice, phase};
use super::api::{Api, Call};
use super::fields::Fields;
use super::held::Status;
use super::shape::{PhasesMs, excerpt, milliseconds, told};
use super::webhooks::{self, WebhookPath};
use super::{body, names};
use crate::http::{Answer, Code, Problem, ProblemDetails, json};
use crate::ingest::{hops, refused, unavailable};
use crate::telemetry::incoming;

/// Tests under way at once.
const ALL: usize = 64;
/// Of these, to one webhook.
const EACH: usize = 4;
/// How long a report may take besides the attempt: until it is its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to test with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTest {
    /// The event type whose sample is sent; the least that an event can be, if it is absent
    #[schema(nullable = false)]
    event_type: Option<String>,
}

/// What a test came to.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TestResult {
    /// In one word.
    result: TestOutcome,
    /// The test event: `evt_…`.
    event: String,
    /// Its delivery: `dlv_…`.
    delivery: String,
    /// The webhook: `organization/project/webhook`.
    webhook: String,
    /// The status that the endpoint answered with.
    #[schema(required = true)]
    status: Option<u16>,
    /// The start of the answer's body, as text.
    #[schema(required = true)]
    body: Option<String>,
    /// Why there was no answer.
    #[schema(required = true)]
    error: Option<TestError>,
    /// How long it took, whole.
    #[schema(required = true)]
    duration_ms: Option<f64>,
    /// What it was spent on.
    phases: PhasesMs,
    /// What can be done about it.
    advice: String,
}

/// What a test came to
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum TestOutcome {
    /// The endpoint has it
    Delivered,
    /// The endpoint answered with a status that means no success
    AnsweredWithError,
    /// There was no answer
    Failed,
    /// There was no attempt in time; there will be one
    Pending,
}

/// Why a test got no answer.
#[derive(Debug, Serialize, ToSchema)]
struct TestError {
    /// The step that failed, such as `dns` or `connect-timeout`.
    kind: &'static str,
    /// What went wrong, in words.
    detail: String,
    /// In which phase.
    #[schema(required = true)]
    phase: Option<&'static str>,
}

/// Send a test event to a webhook, and wait for what comes of it
///
/// It goes the way of every other event, and is tried once. A test that failed is an answer, too: `200`.
#[utoipa::path(post, path = "/v1/webhooks/{organization}/{project}/{webhook}/test",
    operation_id = "testWebhook", tag = "webhooks", params(WebhookPath), request_body = Option<NewTest>,
    responses(
        (status = 200, description = "What came of the attempt", body = TestResult),
        (status = 400, description = "A field is not as it should be", body = ProblemDetails),
        (status = 404, description = "There is no such webhook, or no such event type", body = ProblemDetails),
        (status = 409, description = "Nothing is sent to this webhook; `detail` says why", body = ProblemDetails),
        (status = 422, description = "The test event would be refused, since its project has a name that no event can have",
            body = ProblemDetails),
        (status = 429, description = "Too many tests are under way", body = ProblemDetails),
        (status = 508, description = "The request has come through 8 sidecars (`Aquarium-Hops`)", body = ProblemDetails),
    ))]
pub(super) async fn test<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let Call { head, path, body } = call;
    let fields = body::json(&head, body).await?;
    let mut fields = fields.map(|value| Fields::of_object::<NewTest>(value, "")).transpose()?;
    let asked = fields.as_mut().map(|fields| fields.text("event_type")).transpose()?;
    let asked = NewTest { event_type: asked.flatten() };
    let name = webhooks::name(api, &path)?;
    let found = webhooks::find(api, &name).await?;
    let config = api.config();
    let webhook = config.webhook(&name).filter(|_| found.status == Status::Active);
    let Some(webhook) = webhook else {
        let code = match found.status {
            Status::Inactive => Code::WebhookInactive,
            Status::Suspended => Code::WebhookSuspended,
            Status::Active | Status::Removed => Code::WebhookRemoved,
        };
        let because = found.held_because.unwrap_or_else(|| "it was removed just now".to_owned());
        return Err(Problem::new(
            StatusCode::CONFLICT,
            code,
            format!("nothing is sent to {name}: {because}"),
        ));
    };
    let kind = match &asked.event_type {
        None => Type::Test,
        Some(name) => config.types.parse(name).map_err(|_| names::unknown_type(&config, name))?,
    };
    let _under_way = api.tests.begin(&name)?;
    let (mut submission, mut reports) = draft(api, &config, webhook, &kind)?;
    (submission.events[0].trace, submission.events[0].hops) = (incoming(&head.headers), hops(&head.headers)?);
    let event = &submission.events[0];
    let (event, delivery) = (event.id, event.targets[0].delivery);
    api.queue.accept(submission).await.map_err(unavailable)?;
    let report = timeout(webhook.timeout + PATIENCE, reports.recv()).await.ok().flatten();
    Ok(json(StatusCode::OK, &TestResult::of(event, delivery, &name, report)))
}

/// An event of this type for one webhook alone, and where its attempt is reported.
fn draft<Q>(
    api: &Api<Q>,
    config: &Config,
    webhook: &Webhook,
    kind: &Type,
) -> Result<(Submission, mpsc::Receiver<Report>), Problem> {
    let project = webhook.name.project();
    let body: Bytes = payload(kind, project).into();
    let envelope = check(&body, &config.types)
        .map_err(|refusal| refused(refusal).with_status(StatusCode::UNPROCESSABLE_ENTITY))?;
    let now = api.clock.now();
    let target = Target {
        delivery: DeliveryId::new(now, api.chance.bytes()),
        webhook: webhook.name.clone(),
        skipped: false,
        order: Order::None,
        test: true,
    };
    let (watcher, reports) = mpsc::channel(1);
    let event = NewEvent {
        id: EventId::new(now, api.chance.bytes()),
        project: envelope.project.to_string(),
        kind: envelope.kind.to_name(),
        accepted_at: now,
        body: body.clone(),
        trace: None,
        hops: aquarium_delivery::Hops::FIRST,
        subjects: Vec::new(),
        targets: vec![target],
        watcher: Some(watcher),
    };
    let organization = webhook.name.organization().into();
    Ok((Submission { organization, events: vec![event], idempotency: None }, reports))
}

/// The sample of a type, as if it had happened in `project`; the least that an event can be, if there is none.
fn payload(kind: &Type, project: &str) -> String {
    let sampled = sample(kind).and_then(|sample| serde_json::from_str(sample).ok());
    let sampled = sampled.map(|mut event: serde_json::Value| {
        event["project"] = project.into();
        event.to_string()
    });
    match (kind, sampled) {
        (Type::Test, _) | (_, None) => minimal(kind, project),
        (_, Some(sampled)) => sampled,
    }
}

impl TestResult {
    fn of(event: EventId, delivery: DeliveryId, webhook: &WebhookName, report: Option<Report>) -> Self {
        let mut result = Self {
            result: TestOutcome::Pending,
            event: event.to_string(),
            delivery: delivery.to_string(),
            webhook: webhook.to_string(),
            status: None,
            body: None,
            error: None,
            duration_ms: None,
            phases: PhasesMs::default(),
            advice:
                "There was no attempt in time, since all are taken or the webhook just changed; look at the \
                     delivery in a moment."
                    .to_owned(),
        };
        let Some(report) = report else { return result };
        let (status, failure) = told(&report.outcome);
        result.result = match status {
            Some(_) if report.outcome.is_delivered() => TestOutcome::Delivered,
            Some(_) => TestOutcome::AnsweredWithError,
            None => TestOutcome::Failed,
        };
        result.status = status;
        result.body = excerpt(&report.excerpt);
        result.error = failure.map(|failure| TestError {
            kind: failure.kind.as_str(),
            detail: failure.detail.to_string(),
            phase: phase(failure.kind, &report.phases),
        });
        result.duration_ms = Some(milliseconds(report.duration));
        result.phases = report.phases.into();
        result.advice = advice(&report.outcome, &report.phases);
        result
    }
}

/// The tests under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Tests(Arc<Mutex<HashMap<WebhookName, usize>>>);

/// A test under way, until this is dropped.
#[derive(Debug)]
struct UnderWay {
    tests: Tests,
    webhook: WebhookName,
}

impl Tests {
    fn begin(&self, webhook: &WebhookName) -> Result<UnderWay, Problem> {
        let mut tests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_webhook = tests.get(webhook).copied().unwrap_or(0);
        if of_webhook >= EACH || tests.values().sum::<usize>() >= ALL {
            let detail =
                format!("too many tests are under way: at most {EACH} to one webhook, and {ALL} in all");
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyTests, detail);
            return Err(problem.retry_after(Duration::from_secs(1)));
        }
        tests.insert(webhook.clone(), of_webhook + 1);
        Ok(UnderWay { tests: self.clone(), webhook: webhook.clone() })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut tests = self.tests.0.lock().unwrap_or_else(PoisonError::into_inner);
        match tests.get_mut(&self.webhook) {
            Some(number) if *number > 1 => *number -= 1,
            _ => drop(tests.remove(&self.webhook)),
        }
    }
}

#[cfg(test)]
mod tests {
    use aquarium_event::Types;

    use super::*;

    #[test]
    fn every_test_event_passes_the_door_and_is_of_the_project() {
        let types = Types::with_custom(["model-trained"]).unwrap();
        for name in types.names() {
            let kind = types.parse(name).unwrap();
            let body = payload(&kind, "night \"drives\"");
            let envelope = check(body.as_bytes(), &types).unwrap();
            assert_eq!((envelope.kind, &*envelope.project), (kind, "night \"drives\""));
        }
        assert_eq!(payload(&Type::Test, "urban"), r#"{"event":"test","project":"urban"}"#);
        assert!(payload(&Type::IssueExported, "urban").contains("label_data"));
    }

    #[test]
    fn tests_are_bounded_for_each_webhook_and_for_all() {
        let tests = Tests::default();
        let name = |number: usize| format!("acme/urban/w{number}").parse::<WebhookName>().unwrap();
        let mut under_way: Vec<_> = (0..EACH).map(|_| tests.begin(&name(0)).unwrap()).collect();
        let refused = tests.begin(&name(0)).unwrap_err().answer();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (429, &"1".parse().unwrap())
        );
        under_way.extend((EACH..ALL).map(|number| tests.begin(&name(number)).unwrap()));
        assert!(tests.begin(&name(1)).is_err());
        under_way.remove(0);
        assert!(tests.begin(&name(0)).is_ok());
        drop(under_way);
        assert!(tests.0.lock().unwrap().is_empty());
    }
}
