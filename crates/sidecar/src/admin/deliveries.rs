//! Where events went, and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use aquarium_queue::history::{DeliverySummary, History, Replay, Select};
use aquarium_queue::{State, Suspension};
use http::StatusCode;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::api::{Api, Call};
use super::fields::{self, Fields};
use super::filter::Wanted;
use super::held::Status;
use super::paging::{self, Ordering, Paging, Question, fill};
use super::shape::{Attempt, Count, Delivery};
use super::{body, names};
use crate::http::{Answer, Code, Problem, ProblemDetails, json};
use crate::ingest::unavailable;

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryPage {
    /// The deliveries.
    items: Vec<Delivery>,
    /// Where the next page starts; null if there is none.
    #[schema(required = true)]
    next: Option<String>,
    /// How many there are on all pages, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    count: Option<Count>,
}

/// A delivery with all its attempts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryDetails {
    #[serde(flatten)]
    delivery: Delivery,
    /// Every attempt, the first one first.
    history: Vec<Attempt>,
}

/// Whether to count.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Counting {
    /// Whether to say how many there are on all pages
    #[param(default = false, value_type = Option<bool>)]
    count: bool,
}

/// The identifier of a delivery
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is what the document says of the path")]
pub(super) struct DeliveryPath {
    /// The delivery: `dlv_…`
    id: String,
}

/// The names of what a list can be asked for by.
pub(super) fn parameters() -> Vec<String> {
    let known = [
        fields::parameters::<Wanted>(),
        fields::parameters::<Paging>(),
        fields::parameters::<Ordering>(),
        fields::parameters::<Counting>(),
    ];
    known.concat()
}

/// What these parameters ask for.
pub(super) fn question(fields: &Fields) -> Question {
    Question::of("deliveries", fields)
}

/// Deliveries, those of the newest events first
#[utoipa::path(get, path = "/v1/deliveries", operation_id = "listDeliveries", tag = "history",
    params(Wanted, Paging, Ordering, Counting),
    responses(
        (status = 200, description = "A page of them", body = DeliveryPage),
        (status = 400, description = "A parameter is not as it should be", body = ProblemDetails),
        (status = 404, description = "There is nothing of the name that a parameter has", body = ProblemDetails),
    ))]
pub(super) async fn list<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    let mut fields = call.query(&parameters())?;
    let question = question(&fields);
    let config = api.config();
    let paging = Paging::read(&mut fields)?;
    let from = paging.from(&question, &fields)?;
    let direction = Ordering::read(&mut fields)?;
    let counting = Counting { count: fields.flag("count")?.unwrap_or_default() };
    let filter = Wanted::read(&mut fields, &config)?;
    let page = fill(paging.limit, from, |from, limit| {
        api.queue.deliveries(Select { filter: filter.clone(), direction, from, limit })
    });
    let page = page.await?;
    if page.items.is_empty() && from.is_none() {
        names::check(&api.queue, &config, &filter).await?;
    }
    let count = match counting.count {
        true => Some(api.queue.count(filter).await.map_err(unavailable)?.into()),
        false => None,
    };
    let items = shown(api, &page.items).await?;
    Ok(json(StatusCode::OK, &DeliveryPage { items, next: paging::next(&question, page.next), count }))
}

/// A delivery with all its attempts
#[utoipa::path(get, path = "/v1/deliveries/{id}", operation_id = "getDelivery", tag = "history",
    params(DeliveryPath),
    responses(
        (status = 200, description = "The delivery", body = DeliveryDetails),
        (status = 400, description = "There are parameters, and there should be none", body = ProblemDetails),
        (status = 404, description = "There is no such delivery, or no longer", body = ProblemDetails),
    ))]
pub(super) async fn show<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let id = call.path.get("id");
    let found = find(api, id).await?;
    let record = api.queue.record(found.key).await.map_err(unavailable)?.ok_or_else(|| unknown(id))?;
    let history: Vec<_> = record.attempts.iter().map(Attempt::from).collect();
    let last_attempt = record.attempts.last().cloned().or(found.last_attempt.clone());
    let delivery = one(api, DeliverySummary { last_attempt, ..found }).await?;
    Ok(json(StatusCode::OK, &DeliveryDetails { delivery, history }))
}

/// Send a delivery again
///
/// Whatever became of it: it is due at once, with its `Webhook-Id` and a schedule that begins anew. It is held if its
/// webhook is.
#[utoipa::path(post, path = "/v1/deliveries/{id}/replay", operation_id = "replayDelivery", tag = "replay",
    params(DeliveryPath),
    responses(
        (status = 202, description = "It is to be sent again", body = Delivery),
        (status = 400, description = "There are parameters or fields, and there should be none", body = ProblemDetails),
        (status = 404, description = "There is no such delivery, or no longer", body = ProblemDetails),
    ))]
pub(super) async fn replay<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let Call { head, path, body } = call;
    body::none(&head, body).await?;
    let id = path.get("id");
    let found = find(api, id).await?;
    let again = Replay { at: api.clock.now(), deliveries: vec![found.key], ..Replay::default() };
    api.queue.replay(again).await.map_err(unavailable)?;
    let delivery = one(api, find(api, id).await?).await?;
    Ok(json(StatusCode::ACCEPTED, &delivery))
}

/// Deliveries as they are shown, with the reason for which each is held.
pub(super) async fn shown<Q: History>(
    api: &Api<Q>,
    deliveries: &[DeliverySummary],
) -> Result<Vec<Delivery>, Problem> {
    let config = api.config();
    let pending = deliveries.iter().filter(|delivery| matches!(delivery.state, State::Pending { .. }));
    let webhooks: BTreeSet<_> = pending.map(|delivery| delivery.webhook.clone()).collect();
    let mut suspended: BTreeMap<_, Suspension> = BTreeMap::new();
    if !webhooks.is_empty() {
        let found = api.queue.webhooks(webhooks.into_iter().collect(), 1).await.map_err(unavailable)?;
        let found = found.into_iter().filter_map(|stats| Some((stats.webhook, stats.suspension?)));
        suspended.extend(found);
    }
    let shown = deliveries.iter().map(|delivery| {
        let configured = config.webhook(&delivery.webhook).map(|webhook| &**webhook);
        let suspension = suspended.get(&delivery.webhook);
        Delivery::of(delivery, Status::of(configured, suspension).held_because(suspension))
    });
    Ok(shown.collect())
}

async fn one<Q: History>(api: &Api<Q>, delivery: DeliverySummary) -> Result<Delivery, Problem> {
    let id = delivery.id;
    let shown = shown(api, &[delivery]).await?;
    shown.into_iter().next().ok_or_else(|| unknown(&id.to_string()))
}

async fn find<Q: History>(api: &Api<Q>, id: &str) -> Result<DeliverySummary, Problem> {
    let parsed = id.parse().map_err(|_| unknown(id))?;
    api.queue.delivery(parsed).await.map_err(unavailable)?.ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> Problem {
    let detail = format!("there is no delivery {:?}, or no longer", super::word::clip(id));
    Problem::new(StatusCode::NOT_FOUND, Code::UnknownDelivery, detail).about("id")
}
