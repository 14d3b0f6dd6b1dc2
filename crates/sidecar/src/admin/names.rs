//! Names that somebody wrote: whether there is such a thing, and what was probably meant.

use std::sync::Arc;

use aquarium_config::Config;
use aquarium_delivery::WebhookName;
use aquarium_queue::history::{Filter, History, Select};
use http::StatusCode;

use super::word::{clip, suggestion};
use crate::http::{Code, Problem};
use crate::ingest::unavailable;

/// The most names that are compared for a suggestion.
const CANDIDATES: usize = 5_000;

/// The name of a webhook, configured or not.
///
/// # Errors
/// 404: nothing can have this name.
pub(super) fn webhook(config: &Config, name: &str) -> Result<WebhookName, Problem> {
    name.parse().map_err(|_| unknown_webhook(config, name))
}

/// There is no webhook of this name.
pub(super) fn unknown_webhook(config: &Config, name: &str) -> Problem {
    let names = config.webhooks().map(|webhook| webhook.name.as_str()).take(CANDIDATES);
    unknown("webhook", Code::UnknownWebhook, "webhook", name, names)
}

/// There is no organization of this name.
pub(super) fn unknown_organization(config: &Config, name: &str) -> Problem {
    let names = config.organizations.keys().map(|name| &**name).take(CANDIDATES);
    unknown("organization", Code::UnknownOrganization, "organization", name, names)
}

/// There is no event type of this name.
pub(super) fn unknown_type(config: &Config, name: &str) -> Problem {
    unknown("event type", Code::UnknownEventType, "event_type", name, config.types.names())
}

fn unknown<'a>(
    what: &str,
    code: Code,
    field: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Problem {
    let meant = suggestion(name, known);
    let detail = format!("there is no {what} {:?}{meant}", clip(name));
    Problem::new(StatusCode::NOT_FOUND, code, detail).about(field)
}

/// Refuses names in a filter under which nothing is configured and nothing is stored: a slip of the pen would look as if
/// there were no deliveries.
pub(super) async fn check<Q: History>(queue: &Q, config: &Config, filter: &Filter) -> Result<(), Problem> {
    if let Some(name) = &filter.organization
        && config.organization(name).is_none()
        && nothing(queue, Filter { organization: Some(name.clone()), ..Filter::default() }).await?
    {
        return Err(unknown_organization(config, name));
    }
    if let Some(name) = &filter.webhook
        && config.webhook(name).is_none()
        && nothing(queue, Filter { webhook: Some(name.clone()), ..Filter::default() }).await?
    {
        return Err(unknown_webhook(config, name.as_str()));
    }
    if let Some(name) = &filter.project {
        let organization = filter.organization.clone();
        let projects = projects(config, organization.as_deref());
        if !projects.contains(&&**name)
            && nothing(queue, Filter { organization, project: Some(name.clone()), ..Filter::default() })
                .await?
        {
            let names = projects.into_iter().take(CANDIDATES);
            return Err(unknown("project", Code::UnknownProject, "project", name, names));
        }
    }
    if let Some(name) = &filter.kind
        && config.types.parse(name).is_err()
        && nothing(queue, Filter { kind: Some(name.clone()), ..Filter::default() }).await?
    {
        return Err(unknown_type(config, name));
    }
    Ok(())
}

/// The projects of an organization, or of all.
fn projects<'c>(config: &'c Config, organization: Option<&str>) -> Vec<&'c str> {
    let organizations = config.organizations.values();
    let of = organizations.filter(|known| organization.is_none_or(|name| *known.name == *name));
    of.flat_map(|organization| organization.projects.keys().map(Arc::as_ref)).collect()
}

/// Whether no event is stored that passes the filter. What cannot be told at once counts as stored.
async fn nothing<Q: History>(queue: &Q, filter: Filter) -> Result<bool, Problem> {
    let select = Select { filter, limit: 1, ..Select::default() };
    let found = queue.events(select).await.map_err(unavailable)?;
    Ok(found.items.is_empty() && found.next.is_none())
}
