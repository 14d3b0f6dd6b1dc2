//! The door for the app: events come in, and a 202 means that they are durable.

mod bodies;
mod hops;
mod pace;
mod receipt;
mod submit;
mod token;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use aquarium_config::reload::Handle;
use aquarium_config::{Config, Organization};
use aquarium_delivery::Hops;
use aquarium_dispatch::{Chance, Clock};
use aquarium_queue::Queue;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;

use crate::http::{Answer, BodyError, Code, Handler, HeadCheck, Problem, RequestIds, check_content_type};
use crate::telemetry::{Accepting, Metrics, Tracer};
pub(crate) use bodies::Bodies;
use bytes::Bytes;
pub(crate) use hops::hops;
use submit::{Drafted, Waiting};
pub(crate) use submit::{refused, unavailable};
pub(crate) use token::check_token;
use waiting::Waits;

/// The most that a batch may hold.
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;
/// When to ask again for an organization of which it is uncertain whether it exists: the files are looked at that often.
const UNCERTAIN: Duration = aquarium_config::reload::POLL;
/// The longest that `?wait=` may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Accepts events.
#[derive(Debug)]
pub(crate) struct Ingest<Q> {
    queue: Q,
    config: watch::Receiver<Arc<Config>>,
    /// Asked for what the files may say when an organization is not in force.
    configuration: Handle,
    clock: Clock,
    chance: Chance,
    ids: RequestIds,
    head: HeadCheck,
    bodies: Bodies,
    waits: Waits,
    metrics: Metrics,
    tracer: Tracer,
}

/// What a request's path and query ask for.
struct Target<'a> {
    organization: &'a str,
    batch: bool,
    wait: Option<Duration>,
}

/// What the ingest works with.
#[derive(Debug)]
pub(crate) struct Parts<Q> {
    pub(crate) queue: Q,
    pub(crate) configuration: Handle,
    pub(crate) clock: Clock,
    pub(crate) chance: Chance,
    pub(crate) metrics: Metrics,
    pub(crate) tracer: Tracer,
    pub(crate) head: HeadCheck,
    pub(crate) bodies: Bodies,
    /// Connections that its listener serves.
    pub(crate) connections: usize,
}

impl<Q: Queue> Ingest<Q> {
    pub(crate) fn new(parts: Parts<Q>) -> Self {
        let Parts { queue, configuration, clock, chance, metrics, tracer, head, bodies, connections } = parts;
        let config = configuration.config();
        let (ids, waits) = (RequestIds::new(&chance), Waits::new(connections));
        Self { queue, config, configuration, clock, chance, ids, head, bodies, waits, metrics, tracer }
    }

    async fn route(&self, request: Request<Incoming>, accepting: &mut Accepting) -> Result<Answer, Problem> {
        let (parts, body) = request.into_parts();
        let (target, limit) = self.admit(&parts)?;
        let (key, hops) = (idempotency_key(&parts.headers)?, hops(&parts.headers)?);
        let announced = announced_length(&parts.headers, limit)?;
        let (body, mut held) = self.bodies.receive(body, announced, limit).await?;
        let drafted = self.draft(&target, key, hops, &body, accepting)?;
        // The events of a batch are copies.
        drop(body);
        self.bodies.add_deliveries(&mut held, drafted.recorded()).await?;
        let waiting = target.wait.map(|time| match self.waits.enter(drafted.deliveries()) {
            Some(wait) => Waiting::Until(Instant::now() + time, wait),
            None => Waiting::NoRoom,
        });
        drafted.accept(&self.queue, held, waiting, &self.metrics, accepting).await
    }

    /// Judges a request by its head: where it goes, and how large its body may be.
    fn admit<'a>(&self, parts: &'a http::request::Parts) -> Result<(Target<'a>, usize), Problem> {
        let config = self.config.borrow();
        self.head.check(parts, config.ingest.token.as_ref())?;
        check_token(config.ingest.token.as_ref(), &parts.headers)?;
        let target = target(parts.uri.path(), parts.uri.query())?;
        if parts.method != Method::POST {
            return Err(Problem::method("POST"));
        }
        check_content_type(&parts.headers, content_types(target.batch))?;
        self.organization(&config, &target)?;
        let limit = match target.batch {
            true => MAX_BATCH_BYTES,
            false => usize::try_from(config.ingest.max_event_size).unwrap_or(usize::MAX),
        };
        Ok((target, limit))
    }

    /// Finds the webhooks that want what came, by the configuration that is in force now that all of it is here.
    fn draft(
        &self,
        target: &Target<'_>,
        key: Option<String>,
        hops: Hops,
        body: &Bytes,
        accepting: &Accepting,
    ) -> Result<Drafted, Problem> {
        let config = self.config.borrow().clone();
        let organization = self.organization(&config, target)?;
        let draft = submit::Draft {
            config: &config,
            organization,
            clock: &self.clock,
            chance: &self.chance,
            trace: accepting.trace,
            hops,
        };
        if target.batch { draft.batch(body, key) } else { draft.single(body, key) }
    }

    /// The organization that the path names. One that may be in files that cannot be used yet is not said to be unknown: a 404 tells
    /// apps to give up.
    fn organization<'c>(&self, config: &'c Config, target: &Target<'_>) -> Result<&'c Organization, Problem> {
        let name = target.organization;
        if let Some(organization) = config.organization(name) {
            return Ok(organization);
        }
        if self.configuration.status().uncertain.contains(name) {
            let detail = format!(
                "organization {name:?} is not in the configuration in force, and the files as they are now cannot be used, or not yet"
            );
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::OrganizationUncertain, detail);
            return Err(problem.retry_after(UNCERTAIN));
        }
        let detail = format!("organization {name:?} is not configured");
        Err(Problem::new(StatusCode::NOT_FOUND, Code::UnknownOrganization, detail))
    }
}

impl<Q: Queue> Handler for Ingest<Q> {
    async fn handle(&self, request: Request<Incoming>) -> Answer {
        let started = Instant::now();
        let identified = self.ids.identify(&request);
        let mut accepting = self.tracer.accepting(&request, &self.config.borrow().traces);
        let answer = self.route(request, &mut accepting).instrument(identified.span()).await;
        let refusal = answer.as_ref().err().map(Problem::code);
        if let Some(code) = refusal {
            self.metrics.refused(code);
        }
        let (took, answer) = (started.elapsed(), identified.answer(answer));
        self.metrics.answered(took);
        self.tracer.accepted(accepting, answer.status(), refusal, took);
        answer
    }

    fn turned_away(&self) {
        self.metrics.refused(Problem::too_many_connections().code());
    }

    fn refuse_head(&self, problem: Problem) -> Problem {
        self.metrics.refused(problem.code());
        self.ids.name(problem)
    }

    fn refuse(&self, request: &Request<Incoming>) -> Answer {
        self.ids.identify(request).answer(Err(Problem::too_many_connections()))
    }
}

fn target<'a>(path: &'a str, query: Option<&str>) -> Result<Target<'a>, Problem> {
    let unknown = || {
        let known = "POST /v1/organizations/{organization}/events, and …/events/batch";
        Problem::no_such_path(path, known)
    };
    let rest = path.strip_prefix("/v1/organizations/").ok_or_else(unknown)?;
    let (organization, rest) = rest.split_once('/').ok_or_else(unknown)?;
    let batch = match rest {
        "events" => false,
        "events/batch" => true,
        _ => return Err(unknown()),
    };
    Ok(Target { organization, batch, wait: wait(query.unwrap_or_default())? })
}

fn wait(query: &str) -> Result<Option<Duration>, Problem> {
    let mut wait = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, Code::InvalidQuery, detail);
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != "wait" {
            return Err(bad(format!("unknown parameter {name:?}; accepted: wait")));
        }
        let time = humantime::parse_duration(value)
            .map_err(|error| bad(format!("wait={value}: {error}; write a time such as wait=10s")))?;
        if time > LONGEST_WAIT {
            return Err(bad(format!("wait={value}: at most {}s", LONGEST_WAIT.as_secs())));
        }
        wait = Some(time);
    }
    Ok(wait)
}

/// What a request's body may be.
fn content_types(batch: bool) -> &'static [&'static str] {
    if batch {
        &["application/x-ndjson", "application/ndjson", "application/jsonl"]
    } else {
        &["application/json"]
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bad = |detail| Problem::new(StatusCode::BAD_REQUEST, Code::InvalidIdempotencyKey, detail);
    if values.next().is_some() {
        return Err(bad("there are several Idempotency-Key headers"));
    }
    match value.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(bad("an Idempotency-Key has 1 to 255 visible ASCII characters")),
    }
}

/// The length that the request announces; `None` if it comes in chunks.
fn announced_length(headers: &HeaderMap, limit: usize) -> Result<Option<usize>, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    match announced {
        Some(length) if length > limit => Err(BodyError::TooLarge { limit }.into()),
        announced => Ok(announced),
    }
}
