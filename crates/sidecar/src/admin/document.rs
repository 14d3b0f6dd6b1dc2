//! The OpenAPI document, generated from the code.

use http::{HeaderValue, StatusCode};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, ContentBuilder, OpenApi as Document, PathItem, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::api::{Api, Call};
use super::{configuration, deliveries, events, health, logging, matching, metrics, replays, test, webhooks};
use crate::http::{Answer, Problem, ProblemDetails, with_body};

/// What all of it is.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "aquarium-sidecar",
        description = "Health, configuration, history and control of a sidecar, at the address of `[admin]`. Every answer has an `X-Request-Id`: that of the request, if it has up to 128 letters, digits and `-_.~:+/=@`, else a new one.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT"),
    ),
    servers((url = "/", description = "The address of [admin] in aquarium.toml")),
    tags(
        (name = "health", description = "Probes; they need no token"),
        (name = "webhooks", description = "The webhooks: what waits for them, and testing them"),
        (name = "history", description = "What was accepted, where it went, and what came of it"),
        (name = "replay", description = "Sending again"),
        (name = "config", description = "The configuration in force, and this document"),
    ),
    paths(
        health::livez, health::readyz, metrics::show, webhooks::list, webhooks::show, test::test, webhooks::resume, matching::show,
        events::list, events::show, events::payload, deliveries::list, deliveries::show, deliveries::replay,
        replays::create, replays::list, replays::show, replays::cancel, configuration::show, configuration::reload,
        logging::show, logging::set, show,
    ),
    components(schemas(ProblemDetails)),
    security((), ("token" = [])),
    modifiers(&Shared),
)]
struct Described;

/// The document as it is served.
pub(super) fn document() -> Document {
    Described::openapi()
}

/// This document
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "getOpenApi", tag = "config",
    responses(
        (status = 200, description = "An OpenAPI 3.1 document", body = Object),
        (status = 400, description = "There are parameters, and there should be none", body = ProblemDetails),
    ))]
pub(super) async fn show<Q>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    call.no_query()?;
    let json = HeaderValue::from_static("application/json");
    Ok(with_body(StatusCode::OK, json, api.document.clone()))
}

/// What every operation has in common: the token, and the refusals that come before it is looked at.
#[derive(Debug)]
struct Shared;

const PROBLEM: &str = "application/problem+json";

impl Modify for Shared {
    fn modify(&self, document: &mut Document) {
        let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_default().add_security_scheme("token", token);
        for item in document.paths.paths.values_mut() {
            let PathItem { get, post, .. } = item;
            get.iter_mut().for_each(|operation| describe(operation, false));
            post.iter_mut().for_each(|operation| describe(operation, true));
        }
    }
}

fn describe(operation: &mut Operation, changes: bool) {
    let probe = operation.tags.as_ref().is_some_and(|tags| tags.iter().any(|tag| tag == "health"));
    let mut problems = vec![
        (405, "The path takes another method; `Allow` says which"),
        (421, "A local listener without a token was asked under a name that is not this machine's"),
    ];
    if !probe {
        problems.push((401, "The token is missing or wrong"));
    }
    let stored = operation
        .tags
        .as_ref()
        .is_some_and(|tags| !tags.iter().any(|tag| tag == "health" || tag == "config"));
    if stored {
        problems.push((503, "The queue is full or not available; `Retry-After` says when to come back"));
    }
    if changes {
        problems.push((403, "The request comes from a page of another site"));
    }
    if changes && stored {
        problems.push((408, "The body came too slowly"));
        problems.push((413, "The body has more than 64 KiB"));
        problems.push((415, "The body is not `application/json`"));
    }
    if !stored {
        problems.push((503, "All connections are in use; `Retry-After` says when to come back"));
    }
    let responses = &mut operation.responses.responses;
    for (status, description) in problems {
        responses.entry(status.to_string()).or_insert_with(|| problem(description).into());
    }
    for response in responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        let id = ObjectBuilder::new().schema_type(Type::String);
        let header =
            HeaderBuilder::new().schema(Some(id)).description(Some("What the request is called")).build();
        response.headers.insert("X-Request-Id".to_owned(), header.into());
    }
    // Those that an operation has of its own are written there as JSON.
    for (_, response) in responses.iter_mut().filter(|(status, _)| status.as_str() >= "400") {
        let RefOr::T(response) = response else { continue };
        let Some(content) = response.content.shift_remove("application/json") else { continue };
        // A probe tells what it found, which is no problem in itself.
        if content != problem_content().into() {
            response.content.insert("application/json".to_owned(), content);
        }
        response.content.insert(PROBLEM.to_owned(), problem_content().into());
    }
}

fn problem(description: &str) -> Response {
    ResponseBuilder::new().description(description).content(PROBLEM, problem_content()).build()
}

fn problem_content() -> Content {
    ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build()
}
