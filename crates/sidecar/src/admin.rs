//! The admin door: health, the configuration in force, and the API that its OpenAPI document describes.

mod advice;
mod api;
mod body;
mod configuration;
mod cursor;
mod deliveries;
mod document;
mod events;
mod fields;
mod filter;
mod health;
mod held;
mod logging;
mod matching;
mod metrics;
mod names;
mod paging;
mod replays;
mod router;
mod shape;
mod test;
mod time;
mod webhooks;
mod word;

use aquarium_config::reload::Handle;
use aquarium_dispatch::{Budget, Chance, Clock, Control, Waker};
use aquarium_queue::history::History;
use http::Request;
use hyper::body::Incoming;
use tracing::Instrument;

use crate::http::{Answer, Handler, HeadCheck, Problem, RequestIds, Room};
use crate::ingest::{Bodies, check_token};
use crate::log::Filter;
use crate::telemetry::Metrics;
use api::{Answers, Api, Call};
use router::{Route, Router, get, post};

/// Answers operators and probes.
#[derive(Debug)]
pub(crate) struct Admin<Q> {
    api: Api<Q>,
    router: Router<Answers<Q>>,
    ids: RequestIds,
    head: HeadCheck,
}

/// What the door works with.
#[derive(Debug)]
pub(crate) struct Parts<Q> {
    pub(crate) configuration: Handle,
    pub(crate) queue: Q,
    pub(crate) control: Control,
    pub(crate) replays: Waker,
    pub(crate) clock: Clock,
    pub(crate) chance: Chance,
    pub(crate) metrics: Metrics,
    pub(crate) head: HeadCheck,
    /// Of the ingest.
    pub(crate) room: Room,
    /// Of the ingest.
    pub(crate) bodies: Bodies,
    /// Changes what is logged, if the process logs.
    pub(crate) log: Option<Filter>,
}

/// Bytes of payloads that are being answered with.
const PAYLOADS: usize = 64 * 1024 * 1024;

fn routes<Q: History>() -> Vec<Route<Answers<Q>>> {
    const WEBHOOK: &str = "/v1/webhooks/{organization}/{project}/{webhook}";
    const TEST: &str = "/v1/webhooks/{organization}/{project}/{webhook}/test";
    const RESUME: &str = "/v1/webhooks/{organization}/{project}/{webhook}/resume";
    vec![
        get("/livez", |api, call| Box::pin(health::livez(api, call))),
        get("/readyz", |api, call| Box::pin(health::readyz(api, call))),
        get("/metrics", |api, call| Box::pin(metrics::show(api, call))),
        get("/v1/openapi.json", |api, call| Box::pin(document::show(api, call))),
        get("/v1/webhooks", |api, call| Box::pin(webhooks::list(api, call))),
        get(WEBHOOK, |api, call| Box::pin(webhooks::show(api, call))),
        post(TEST, |api, call| Box::pin(test::test(api, call))),
        post(RESUME, |api, call| Box::pin(webhooks::resume(api, call))),
        get("/v1/match", |api, call| Box::pin(matching::show(api, call))),
        get("/v1/events", |api, call| Box::pin(events::list(api, call))),
        get("/v1/events/{id}", |api, call| Box::pin(events::show(api, call))),
        get("/v1/events/{id}/payload", |api, call| Box::pin(events::payload(api, call))),
        get("/v1/deliveries", |api, call| Box::pin(deliveries::list(api, call))),
        get("/v1/deliveries/{id}", |api, call| Box::pin(deliveries::show(api, call))),
        post("/v1/deliveries/{id}/replay", |api, call| Box::pin(deliveries::replay(api, call))),
        post("/v1/replays", |api, call| Box::pin(replays::create(api, call))),
        get("/v1/replays", |api, call| Box::pin(replays::list(api, call))),
        get("/v1/replays/{id}", |api, call| Box::pin(replays::show(api, call))),
        post("/v1/replays/{id}/cancel", |api, call| Box::pin(replays::cancel(api, call))),
        get("/v1/config", |api, call| Box::pin(configuration::show(api, call))),
        get("/v1/log", |api, call| Box::pin(logging::show(api, call))),
        post("/v1/log", |api, call| Box::pin(logging::set(api, call))),
        post("/v1/config/reload", |api, call| Box::pin(configuration::reload(api, call))),
    ]
}

impl<Q: History> Admin<Q> {
    /// The door, which is to be served.
    ///
    /// # Errors
    /// The API is not what it should be.
    pub(crate) fn new(parts: Parts<Q>) -> anyhow::Result<Self> {
        let Parts { configuration, queue, control, replays, clock, chance, metrics, head, room, bodies, log } =
            parts;
        let ids = RequestIds::new(&chance);
        let api = Api {
            configuration,
            queue,
            control,
            replays,
            clock,
            chance,
            metrics,
            room,
            bodies,
            log,
            payloads: Budget::new(PAYLOADS),
            tests: test::Tests::default(),
            document: document::document().to_json()?.into(),
        };
        Ok(Self { api, router: Router::new(routes())?, ids, head })
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Problem> {
        let admin = self.api.configuration.config().borrow().admin.clone();
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        self.head.check(&head, admin.token.as_ref())?;
        // Probes carry no token.
        if !matches!(path, "/livez" | "/readyz") {
            check_token(admin.token.as_ref(), &head.headers)?;
        }
        let (answers, path) = self.router.find(&head.method, path)?;
        answers(&self.api, Call { head, path, body }).await
    }
}

impl<Q: History> Handler for Admin<Q> {
    async fn handle(&self, request: Request<Incoming>) -> Answer {
        let identified = self.ids.identify(&request);
        let answer = self.route(request).instrument(identified.span()).await;
        identified.answer(answer)
    }

    fn refuse_head(&self, problem: Problem) -> Problem {
        self.ids.name(problem)
    }

    fn refuse(&self, request: &Request<Incoming>) -> Answer {
        self.ids.identify(request).answer(Err(Problem::too_many_connections()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_answered_is_described_and_what_is_described_is_answered() {
        let answered: BTreeSet<_> =
            routes::<aquarium_queue::memory::Memory>().iter().map(|route| route.name()).collect();
        let document = document::document();
        let described = document.paths.paths.iter().flat_map(|(path, item)| {
            let methods = [("GET", item.get.is_some()), ("POST", item.post.is_some())];
            methods.into_iter().filter(|(_, there)| *there).map(move |(method, _)| format!("{method} {path}"))
        });
        assert_eq!(described.collect::<BTreeSet<_>>(), answered);
    }
}
