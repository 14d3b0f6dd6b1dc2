//! `/metrics`.

use aquarium_queue::history::History;
use http::header::ACCEPT;
use http::{HeaderValue, StatusCode};

use super::api::{Api, Call};
use crate::http::{Answer, Problem, ProblemDetails, with_body};
use crate::ingest::unavailable;
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
        (status = 503, description = "The queue is not available", body = ProblemDetails),
    ))]
pub(super) async fn show<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let format = Format::accepted(call.head.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
    let config = api.config();
    let mut names = api.queue.waiting().await.map_err(unavailable)?;
    let suspended = api.queue.backlog().await.map_err(unavailable)?.suspended;
    names.extend(suspended.into_iter().map(|suspension| suspension.webhook));
    names.sort();
    names.dedup();
    let mut waiting = Vec::with_capacity(names.len());
    for names in names.chunks(WEBHOOKS) {
        let stats = api.queue.webhooks(names.to_vec(), MOST_COUNTED).await;
        waiting.extend(stats.map_err(unavailable)?);
    }
    let read = Read {
        now: api.clock.now(),
        config: &config,
        status: &api.configuration.status(),
        load: api.control.load(),
        unusual: &api.control.unusual(),
        waiting: &waiting,
    };
    // Formatting into a string does not fail.
    let text = expose(&api.metrics, &read, format).unwrap_or_default();
    let content_type = HeaderValue::from_static(format.content_type());
    Ok(with_body(StatusCode::OK, content_type, text.into()))
}
