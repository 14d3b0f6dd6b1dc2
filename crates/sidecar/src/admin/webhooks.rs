//! The webhooks: what they are, what waits for them, and why.

use std::collections::BTreeSet;

use aquarium_config::{Subscription, Webhook};
use aquarium_delivery::{BreakerStatus, WebhookName};
use aquarium_dispatch::LaneStatus;
use aquarium_queue::history::{History, WebhookStats};
use http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::api::{Api, Call};
use super::fields::parameters;
use super::held::Status;
use super::paging::{PATIENCE, Paging, Question};
use super::router::Captured;
use super::shape::{Count, text};
use super::{body, names};
use crate::http::{Answer, Code, Problem, ProblemDetails, json};
use crate::ingest::unavailable;

/// How far the deliveries of one webhook are counted.
const COUNT: usize = 10_000;
/// How far those of each are counted in a list.
const COUNT_IN_LIST: usize = 1_000;
/// Webhooks that the queue is asked for at once.
const CHUNK: usize = 50;

/// A webhook, and what waits for it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub(super) struct Shown {
    /// Its name: `organization/project/webhook`.
    pub(super) webhook: String,
    /// Where its events go. Null if it is configured no more.
    #[schema(required = true)]
    url: Option<String>,
    /// The event types that it wants; `*` stands for all.
    events: Vec<String>,
    /// Whether its configuration says that it is active.
    active: bool,
    /// Whether anything is sent to it.
    pub(super) status: Status,
    /// Why nothing is, if that is so.
    #[schema(required = true)]
    pub(super) held_because: Option<String>,
    /// Set if its endpoint answered 410 Gone.
    #[schema(required = true)]
    suspended: Option<Suspended>,
    /// Whether its endpoint is given a rest.
    breaker: BreakerShown,
    /// Until when its endpoint asked to be left alone.
    #[schema(required = true, format = DateTime)]
    paused_until: Option<String>,
    /// Deliveries that are to be sent, or held.
    pending: Count,
    /// When the first of them is due.
    #[schema(required = true, format = DateTime)]
    next_due: Option<String>,
    /// When the event of the oldest of them was accepted.
    #[schema(required = true, format = DateTime)]
    oldest_pending: Option<String>,
    /// Deliveries that were given up.
    exhausted: Count,
    /// Deliveries that were not sent, because it was not active.
    skipped: Count,
}

/// That an endpoint answered 410 Gone.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Suspended {
    /// When.
    #[schema(format = DateTime)]
    since: String,
    /// The URL that did.
    url: String,
}

/// How a breaker stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Breaker)]
pub(super) struct BreakerShown {
    /// Whether deliveries flow.
    state: BreakerState,
    /// When the next probe may go out, if it is open.
    #[schema(required = true, format = DateTime)]
    probe_at: Option<String>,
}

/// How a breaker stands
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum BreakerState {
    /// Deliveries flow
    Closed,
    /// Nothing is sent before the next probe
    Open,
    /// A probe is under way
    Probing,
}

/// A page of webhooks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookPage {
    /// The webhooks, by name.
    items: Vec<Shown>,
    /// Where the next page starts; null if there is none.
    #[schema(required = true)]
    next: Option<String>,
}

/// Which webhooks are meant. What is absent admits all.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Choice {
    /// Of this organization
    organization: Option<String>,
    /// Of this project
    project: Option<String>,
    /// With this status
    status: Option<Status>,
}

/// The name of a webhook
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is what the document says of the path")]
pub(super) struct WebhookPath {
    /// The organization
    organization: String,
    /// The project
    project: String,
    /// The webhook's own name
    webhook: String,
}

/// Webhooks, by name
///
/// Those that are configured no more are among them as long as deliveries wait for them.
#[utoipa::path(get, path = "/v1/webhooks", operation_id = "listWebhooks", tag = "webhooks",
    params(Choice, Paging),
    responses(
        (status = 200, description = "A page of them", body = WebhookPage),
        (status = 400, description = "A parameter is not as it should be", body = ProblemDetails),
        (status = 404, description = "There is no such organization", body = ProblemDetails),
    ))]
pub(super) async fn list<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    let mut fields = call.query(&[parameters::<Choice>(), parameters::<Paging>()].concat())?;
    let question = Question::of("webhooks", &fields);
    let paging = Paging::read(&mut fields)?;
    let after = paging.place(&question, &fields)?;
    let after = after.map(|place| String::from_utf8_lossy(&place).into_owned());
    let choice = Choice {
        organization: fields.text("organization")?,
        project: fields.text("project")?,
        status: fields.one_of("status", &Status::ALL)?,
    };
    let config = api.config();
    let mut names: BTreeSet<_> = config.webhooks().map(|webhook| webhook.name.clone()).collect();
    names.extend(api.queue.waiting().await.map_err(unavailable)?);
    if let Some(name) = choice.organization.as_deref()
        && config.organization(name).is_none()
        && !names.iter().any(|known| known.organization() == name)
    {
        return Err(names::unknown_organization(&config, name));
    }
    names.retain(|name| {
        choice.organization.as_deref().is_none_or(|wanted| name.organization() == wanted)
            && choice.project.as_deref().is_none_or(|wanted| name.project() == wanted)
            && after.as_deref().is_none_or(|after| name.as_str() > after)
    });
    let (items, more) = choose(api, names, choice.status, paging.limit).await?;
    let next = more.map(|last| question.cursor(last.as_str().as_bytes()));
    Ok(json(StatusCode::OK, &WebhookPage { items, next }))
}

/// The first of these webhooks that have this status, and the last one looked at, if there are more.
async fn choose<Q: History>(
    api: &Api<Q>,
    names: BTreeSet<WebhookName>,
    status: Option<Status>,
    limit: usize,
) -> Result<(Vec<Shown>, Option<WebhookName>), Problem> {
    let started = Instant::now();
    let mut items = Vec::new();
    let mut names = names.into_iter().peekable();
    let mut last = None;
    while names.peek().is_some() && items.len() < limit && (items.is_empty() || started.elapsed() < PATIENCE)
    {
        let chunk: Vec<_> = names.by_ref().take(CHUNK.min(limit - items.len())).collect();
        last = chunk.last().cloned();
        let stats = api.queue.webhooks(chunk.clone(), COUNT_IN_LIST).await.map_err(unavailable)?;
        let shown = chunk.iter().map(|name| show_one(api, name, stats_of(name, &stats)));
        items.extend(shown.filter(|shown| status.is_none_or(|wanted| shown.status == wanted)));
    }
    Ok((items, last.filter(|_| names.peek().is_some())))
}

fn stats_of<'s>(name: &WebhookName, stats: &'s [WebhookStats]) -> Option<&'s WebhookStats> {
    stats.iter().find(|stats| stats.webhook == *name)
}

/// One webhook
#[utoipa::path(get, path = "/v1/webhooks/{organization}/{project}/{webhook}", operation_id = "getWebhook",
    tag = "webhooks", params(WebhookPath),
    responses(
        (status = 200, description = "The webhook", body = Shown),
        (status = 400, description = "There are parameters, and there should be none", body = ProblemDetails),
        (status = 404, description = "There is no such webhook", body = ProblemDetails),
    ))]
pub(super) async fn show<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    Ok(json(StatusCode::OK, &find(api, &name(api, &call.path)?).await?))
}

/// Send to a webhook again that answered 410 Gone
#[utoipa::path(post, path = "/v1/webhooks/{organization}/{project}/{webhook}/resume",
    operation_id = "resumeWebhook", tag = "webhooks", params(WebhookPath),
    responses(
        (status = 200, description = "What was held goes on", body = Shown),
        (status = 400, description = "There are parameters or fields, and there should be none", body = ProblemDetails),
        (status = 404, description = "There is no such webhook", body = ProblemDetails),
        (status = 409, description = "It was not suspended", body = ProblemDetails),
    ))]
pub(super) async fn resume<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let Call { head, path, body } = call;
    body::none(&head, body).await?;
    let name = name(api, &path)?;
    let before = find(api, &name).await?;
    if !api.control.resume(name.clone()).await.map_err(unavailable)? {
        let because = before.held_because.filter(|_| before.status != Status::Suspended);
        let because = because.map(|because| format!("; {because}")).unwrap_or_default();
        let detail = format!("{name} is not suspended{because}");
        return Err(Problem::new(StatusCode::CONFLICT, Code::NotSuspended, detail));
    }
    Ok(json(StatusCode::OK, &find(api, &name).await?))
}

/// The name that a path has.
pub(super) fn name<Q>(api: &Api<Q>, path: &Captured) -> Result<WebhookName, Problem> {
    let [organization, project, webhook] = ["organization", "project", "webhook"].map(|part| path.get(part));
    WebhookName::new(organization, project, webhook)
        .map_err(|_| names::unknown_webhook(&api.config(), &format!("{organization}/{project}/{webhook}")))
}

/// A webhook that is configured, or for which something is stored.
pub(super) async fn find<Q: History>(api: &Api<Q>, name: &WebhookName) -> Result<Shown, Problem> {
    let stats = api.queue.webhooks(vec![name.clone()], COUNT).await.map_err(unavailable)?;
    let stats = stats_of(name, &stats);
    let config = api.config();
    let stored = stats.is_some_and(|stats| {
        [stats.pending, stats.exhausted, stats.skipped].iter().any(|count| count.at_least > 0)
    });
    if config.webhook(name).is_none() && !stored {
        return Err(names::unknown_webhook(&config, name.as_str()));
    }
    Ok(show_one(api, name, stats))
}

fn show_one<Q>(api: &Api<Q>, name: &WebhookName, stats: Option<&WebhookStats>) -> Shown {
    let config = api.config();
    let configured = config.webhook(name).map(|webhook| &**webhook);
    Shown::of(name, configured, stats, api.control.status(name))
}

impl Shown {
    fn of(
        name: &WebhookName,
        configured: Option<&Webhook>,
        stats: Option<&WebhookStats>,
        lane: Option<LaneStatus>,
    ) -> Self {
        let suspension = stats.and_then(|stats| stats.suspension.as_ref());
        let status = Status::of(configured, suspension);
        let count = |of: fn(&WebhookStats) -> aquarium_queue::history::Count| {
            stats.map_or(Count { at_least: 0, exact: true }, |stats| of(stats).into())
        };
        let oldest = stats.and_then(|stats| stats.oldest_pending);
        // A test is due before everything else: since it was accepted.
        let next_due = stats.and_then(|stats| stats.next_due).map(|due| due.max(oldest.unwrap_or(due)));
        Self {
            webhook: name.to_string(),
            url: configured.map(|webhook| webhook.url.to_string()),
            events: configured.map(events).unwrap_or_default(),
            active: configured.is_some_and(|webhook| webhook.active),
            status,
            held_because: status.held_because(suspension),
            suspended: suspension
                .map(|found| Suspended { since: found.since.to_string(), url: found.url.clone() }),
            breaker: BreakerShown::of(lane.as_ref().map_or(BreakerStatus::Closed, |lane| lane.breaker)),
            paused_until: text(lane.and_then(|lane| lane.paused_until)),
            pending: count(|stats| stats.pending),
            next_due: text(next_due),
            oldest_pending: text(oldest),
            exhausted: count(|stats| stats.exhausted),
            skipped: count(|stats| stats.skipped),
        }
    }
}

impl BreakerShown {
    fn of(status: BreakerStatus) -> Self {
        match status {
            BreakerStatus::Closed => Self { state: BreakerState::Closed, probe_at: None },
            BreakerStatus::Open { probe_at } => {
                Self { state: BreakerState::Open, probe_at: Some(probe_at.to_string()) }
            }
            BreakerStatus::Probing => Self { state: BreakerState::Probing, probe_at: None },
        }
    }
}

fn events(webhook: &Webhook) -> Vec<String> {
    match &webhook.events {
        Subscription::All => vec!["*".to_owned()],
        Subscription::Only(types) => types.iter().map(ToString::to_string).collect(),
    }
}
