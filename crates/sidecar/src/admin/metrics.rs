//! `/metrics`.

use aquarium_queue::Error;
use aquarium_queue::history::{History, WebhookStats};
use http::header::ACCEPT;
use http::{HeaderValue, StatusCode};

use super::api::{Api, Call};
use crate::http::{Answer, Problem, ProblemDetails, with_body};
use crate::telemetry::{Format, Read, expose};

/// What waits for one webhook is counted up to this.
const MOST_COUNTED: usize = 10_000;
/// Webhooks that are looked up in one question to the queue.
const WEBHOOKS: usize = 500;

/// Metrics, in the text format of Prometheus, or as OpenMetrics to who asks for it
#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "health",
    responses(
        (status = 200, description = "Metrics", content(
            (String = "text/plain"), (String = "application/openmetrics-text"))),
        (status = 400, description = "There are parameters, and there should be none", body = ProblemDetails),
        (status = 401, description = "The token is missing or wrong", body = ProblemDetails),
    ))]
pub(super) async fn show<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let format = Format::accepted(call.head.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    let config = api.config();
    // What the queue does not tell is left out: the other series say why.
    let waiting = waiting(api).await.ok();
    let read = Read {
        now: api.clock.now(),
        config: &config,
        status: &api.configuration.status(),
        load: api.control.load(),
        unusual: &api.control.unusual(),
        waiting: waiting.as_deref(),
    };
    // Formatting into a string does not fail.
    let text = expose(&api.metrics, &read, format).unwrap_or_default();
    let content_type = HeaderValue::from_static(format.content_type());
    Ok(with_body(StatusCode::OK, content_type, text.into()))
}

/// What waits for each webhook that has something waiting, or is suspended.
async fn waiting<Q: History>(api: &Api<Q>) -> Result<Vec<WebhookStats>, Error> {
    let mut names = api.queue.waiting().await?;
    let suspended = api.queue.backlog().await?.suspended;
    names.extend(suspended.into_iter().map(|suspension| suspension.webhook));
    names.sort();
    names.dedup();
    let mut waiting = Vec::with_capacity(names.len());
    for names in names.chunks(WEBHOOKS) {
        waiting.extend(api.queue.webhooks(names.to_vec(), MOST_COUNTED).await?);
    }
    Ok(waiting)
}
