//! What was accepted.

use std::time::Duration;

use aquarium_queue::history::{Direction, EventSummary, History, Select};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tokio::time::timeout;
use url::form_urlencoded::Serializer;
use utoipa::{IntoParams, ToSchema};

use super::api::{Api, Call};
use super::deliveries::{self, shown};
use super::fields::{Fields, parameters};
use super::filter::Wanted;
use super::names;
use super::paging::{self, Ordering, Paging, Question, fill};
use super::shape::{Delivery, Event};
use crate::http::{Answer, Code, Problem, ProblemDetails, json, with_body};
use crate::ingest::unavailable;

/// The longest that a request waits for room for a payload.
const ROOM: Duration = Duration::from_secs(5);

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventPage {
    /// The events.
    items: Vec<Event>,
    /// Where the next page starts; null if there is none.
    #[schema(required = true)]
    next: Option<String>,
}

/// An event with its deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventDetails {
    /// `evt_…`: what receivers see as `Webhook-Id`.
    id: String,
    /// What happened.
    event_type: String,
    /// The organization that owns it.
    organization: String,
    /// The project in which it happened.
    project: String,
    /// When it was accepted.
    #[schema(format = DateTime)]
    accepted_at: String,
    /// The size of its payload in bytes.
    size: usize,
    /// Its deliveries, at most 1,000.
    deliveries: Vec<Delivery>,
    /// Where there are more of them, if there are.
    #[schema(required = true)]
    more: Option<String>,
}

/// The identifier of an event
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is what the document says of the path")]
pub(super) struct EventPath {
    /// The event: `evt_…`
    id: String,
}

/// Events, the newest first
///
/// Those that have a delivery to the webhook, and in one of the states, if these are given.
#[utoipa::path(get, path = "/v1/events", operation_id = "listEvents", tag = "history",
    params(Wanted, Paging, Ordering),
    responses(
        (status = 200, description = "A page of them", body = EventPage),
        (status = 400, description = "A parameter is not as it should be", body = ProblemDetails),
        (status = 404, description = "There is nothing of the name that a parameter has", body = ProblemDetails),
    ))]
pub(super) async fn list<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    let known = [parameters::<Wanted>(), parameters::<Paging>(), parameters::<Ordering>()].concat();
    let mut fields = call.query(&known)?;
    let question = Question::of("events", &fields);
    let config = api.config();
    let paging = Paging::read(&mut fields)?;
    let from = paging.from(&question, &fields)?;
    let direction = Ordering::read(&mut fields)?;
    let filter = Wanted::read(&mut fields, &config)?;
    let page = fill(paging.limit, from, |from, limit| {
        api.queue.events(Select { filter: filter.clone(), direction, from, limit })
    });
    let page = page.await?;
    if page.items.is_empty() && from.is_none() {
        names::check(&api.queue, &config, &filter).await?;
    }
    let items = page.items.iter().map(Event::from).collect();
    Ok(json(StatusCode::OK, &EventPage { items, next: paging::next(&question, page.next) }))
}

/// An event with its deliveries
#[utoipa::path(get, path = "/v1/events/{id}", operation_id = "getEvent", tag = "history", params(EventPath),
    responses(
        (status = 200, description = "The event", body = EventDetails),
        (status = 400, description = "There are parameters, and there should be none", body = ProblemDetails),
        (status = 404, description = "There is no such event, or no longer", body = ProblemDetails),
    ))]
pub(super) async fn show<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let event = find(api, call.path.get("id")).await?;
    let query = format!("event={}&order=oldest", event.id);
    let mut fields = Fields::of_query(Some(&query), &deliveries::parameters())?;
    let question = deliveries::question(&fields);
    let filter = Wanted::read(&mut fields, &api.config())?;
    let direction = Direction::OldestFirst;
    let page = fill(paging::MAX, None, |from, limit| {
        api.queue.deliveries(Select { filter: filter.clone(), direction, from, limit })
    });
    let page = page.await?;
    let more = paging::next(&question, page.next).map(|cursor| {
        let query = Serializer::new(query).append_pair("cursor", &cursor).finish();
        format!("/v1/deliveries?{query}")
    });
    let summary = &event;
    let details = EventDetails {
        id: summary.id.to_string(),
        event_type: summary.kind.to_string(),
        organization: summary.organization.to_string(),
        project: summary.project.to_string(),
        accepted_at: summary.accepted_at.to_string(),
        size: summary.size,
        deliveries: shown(api, &page.items).await?,
        more,
    };
    Ok(json(StatusCode::OK, &details))
}

/// The payload of an event, byte for byte
#[utoipa::path(get, path = "/v1/events/{id}/payload", operation_id = "getPayload", tag = "history",
    params(EventPath),
    responses(
        (status = 200, description = "What the app posted, and the endpoints get", body = Object),
        (status = 400, description = "There are parameters, and there should be none", body = ProblemDetails),
        (status = 404, description = "There is no such event, or no longer", body = ProblemDetails),
        (status = 500, description = "What is stored of it is damaged", body = ProblemDetails),
    ))]
pub(super) async fn payload<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let event = find(api, call.path.get("id")).await?;
    let Ok(room) = timeout(ROOM, api.payloads.reserve(event.size)).await else {
        let detail = "too many payloads are being read at once";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::Busy, detail);
        return Err(problem.retry_after(Duration::from_secs(1)));
    };
    let payload = api.queue.payload(event.key).await.map_err(unavailable)?;
    let body = payload.ok_or_else(|| unknown(call.path.get("id")))?.body;
    // The room is given back when the answer has been written.
    let body = Bytes::from_owner(Held { body, _room: room });
    Ok(with_body(StatusCode::OK, HeaderValue::from_static("application/json"), body))
}

struct Held {
    body: Bytes,
    _room: aquarium_dispatch::Reserved,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

async fn find<Q: History>(api: &Api<Q>, id: &str) -> Result<EventSummary, Problem> {
    let parsed = id.parse().map_err(|_| unknown(id))?;
    api.queue.event(parsed).await.map_err(unavailable)?.ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> Problem {
    let detail = format!("there is no event {:?}, or no longer", super::word::clip(id));
    Problem::new(StatusCode::NOT_FOUND, Code::UnknownEvent, detail).about("id")
}
