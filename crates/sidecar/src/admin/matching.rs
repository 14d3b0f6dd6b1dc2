//! Which webhooks would get an event, and why each of the others would not.

use std::collections::BTreeSet;

use aquarium_config::{Organization, Webhook};
use aquarium_delivery::WebhookName;
use aquarium_event::Type;
use aquarium_queue::Suspension;
use aquarium_queue::history::History;
use http::StatusCode;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::api::{Api, Call};
use super::fields::parameters;
use super::held::Status;
use super::names;
use crate::http::{Answer, Problem, ProblemDetails, json};
use crate::ingest::unavailable;

/// The most webhooks of other projects that are listed.
const OTHERS: usize = 100;

/// An event that is thought of.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
struct Thought {
    /// The organization that it would belong to
    organization: String,
    /// The project in which it would happen
    project: String,
    /// What would happen
    event_type: String,
}

/// What would become of an event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Matched {
    /// The webhooks of its project, and those of the organization's other projects if they are at most 100.
    items: Vec<Verdict>,
    /// How many of other projects are not listed.
    not_listed: usize,
}

/// What would become of an event at one webhook.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Verdict {
    /// The webhook: `organization/project/webhook`.
    webhook: String,
    /// Whether it is of the project, and wants the type.
    matches: bool,
    /// Whether the event would be sent to it.
    sends: bool,
    /// Why, or why not.
    reason: String,
}

/// Which webhooks would get an event, and why each of the others would not
#[utoipa::path(get, path = "/v1/match", operation_id = "match", tag = "webhooks", params(Thought),
    responses(
        (status = 200, description = "A verdict for each webhook", body = Matched),
        (status = 400, description = "A parameter is missing, or not as it should be", body = ProblemDetails),
        (status = 404, description = "There is no such organization, or no such event type", body = ProblemDetails),
    ))]
pub(super) async fn show<Q: History>(api: &Api<Q>, call: Call) -> Result<Answer, Problem> {
    let mut fields = call.query(&parameters::<Thought>())?;
    let thought = Thought {
        organization: fields.required("organization")?,
        project: fields.required("project")?,
        event_type: fields.required("event_type")?,
    };
    let config = api.config();
    let organization = config
        .organization(&thought.organization)
        .ok_or_else(|| names::unknown_organization(&config, &thought.organization))?;
    let kind = config
        .types
        .parse(&thought.event_type)
        .map_err(|_| names::unknown_type(&config, &thought.event_type))?;
    let wanting: BTreeSet<WebhookName> =
        organization.matching(&thought.project, &kind).map(|webhook| webhook.name.clone()).collect();
    let stats = api.queue.webhooks(wanting.into_iter().collect(), 1).await.map_err(unavailable)?;
    let suspensions: Vec<_> = stats.into_iter().filter_map(|stats| stats.suspension).collect();
    Ok(json(StatusCode::OK, &matched(organization, &thought.project, &kind, &suspensions)))
}

/// What would become of an event of this type in this project.
fn matched(organization: &Organization, project: &str, kind: &Type, suspensions: &[Suspension]) -> Matched {
    let (own, others): (Vec<_>, Vec<_>) =
        organization.webhooks().partition(|webhook| webhook.name.project() == project);
    let not_listed = if others.len() > OTHERS { others.len() } else { 0 };
    let listed = own.into_iter().chain(others.into_iter().filter(|_| not_listed == 0));
    let verdict = |webhook: &std::sync::Arc<Webhook>| {
        let suspension = suspensions.iter().find(|suspension| suspension.webhook == webhook.name);
        verdict(webhook, project, kind, suspension)
    };
    Matched { items: listed.map(verdict).collect(), not_listed }
}

fn verdict(webhook: &Webhook, project: &str, kind: &Type, suspension: Option<&Suspension>) -> Verdict {
    let named = |matches, sends, reason: String| Verdict {
        webhook: webhook.name.to_string(),
        matches,
        sends,
        reason,
    };
    if webhook.name.project() != project {
        return named(false, false, format!("it is of another project: {}", webhook.name.project()));
    }
    if !webhook.events.wants(kind) {
        return named(false, false, format!("it does not want {kind}"));
    }
    match Status::of(Some(webhook), suspension) {
        Status::Active => named(true, true, format!("it wants {kind}")),
        Status::Inactive => {
            named(true, false, "it is not active: the event is recorded as skipped".to_owned())
        }
        Status::Suspended | Status::Removed => {
            let why = "it is suspended, since its endpoint answered 410 Gone: the delivery is held";
            named(true, false, why.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use aquarium_config::{Memory, load};
    use aquarium_delivery::Timestamp;

    use super::*;

    fn organization(others: usize) -> Organization {
        let hook = |project: &str, name: &str, events: &str, active: bool| {
            format!(
                "[projects.{project}.webhooks.{name}]\nurl = \"https://example.com/{name}\"\nevents = [{events}]\n\
                 active = {active}\n"
            )
        };
        let mut toml = "version = 1\n".to_owned();
        toml += &hook("urban", "all", "\"*\"", true);
        toml += &hook("urban", "gone", "\"test\"", true);
        toml += &hook("urban", "issues", "\"issues-created\"", true);
        toml += &hook("urban", "off", "\"test\"", false);
        (0..others).for_each(|number| toml += &hook("rural", &format!("w{number}"), "\"*\"", true));
        let source = Memory::new()
            .file("config/aquarium.toml", "version = 1")
            .file("config/organizations/acme.toml", toml.as_str());
        let config = load(Path::new("config"), &source).unwrap().config;
        Organization::clone(config.organization("acme").unwrap())
    }

    #[test]
    fn each_webhook_gets_its_verdict() {
        let suspended = |name: &str, url: &str| Suspension {
            webhook: name.parse().unwrap(),
            since: Timestamp::default(),
            url: url.to_owned(),
        };
        let suspensions = [
            suspended("acme/urban/gone", "https://example.com/gone"),
            suspended("acme/urban/all", "https://example.com/a-url-that-it-had-before"),
        ];
        let matched = matched(&organization(1), "urban", &Type::Test, &suspensions);
        let told: Vec<_> = matched
            .items
            .iter()
            .map(|verdict| {
                (verdict.webhook.as_str(), verdict.matches, verdict.sends, verdict.reason.as_str())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("acme/urban/all", true, true, "it wants test"),
                (
                    "acme/urban/gone",
                    true,
                    false,
                    "it is suspended, since its endpoint answered 410 Gone: the delivery is held"
                ),
                ("acme/urban/issues", false, false, "it does not want test"),
                ("acme/urban/off", true, false, "it is not active: the event is recorded as skipped"),
                ("acme/rural/w0", false, false, "it is of another project: rural"),
            ]
        );
    }

    #[test]
    fn other_projects_are_listed_only_if_they_are_few() {
        let few = matched(&organization(OTHERS), "urban", &Type::Test, &[]);
        assert_eq!((few.items.len(), few.not_listed), (4 + OTHERS, 0));
        let many = matched(&organization(OTHERS + 1), "urban", &Type::Test, &[]);
        assert_eq!((many.items.len(), many.not_listed), (4, OTHERS + 1));
    }
}
