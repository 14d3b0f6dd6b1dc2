//! Which events and deliveries are meant: the parameters of lists, and the filter of a replay.

use std::collections::BTreeSet;

use aquarium_config::Config;
use aquarium_delivery::{EventId, Timestamp, WebhookName};
use aquarium_event::Type;
use aquarium_queue::history::{Filter, StateKind};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::fields::Fields;
use super::{names, time};
use crate::http::Problem;

/// Which deliveries are meant. What is absent admits all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
pub(super) struct Wanted {
    /// Of this organization
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) organization: Option<String>,
    /// Of this project
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) project: Option<String>,
    /// To this webhook: `organization/project/webhook`
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) webhook: Option<String>,
    /// Of this event type
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) event_type: Option<String>,
    /// In one of these states
    #[param(style = Form, explode = false, min_items = 1, value_type = Option<Vec<StateName>>)]
    #[schema(value_type = Option<Vec<StateName>>, min_items = 1, nullable = false)]
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) state: BTreeSet<StateName>,
    /// Accepted then or later
    #[param(format = DateTime)]
    #[schema(format = DateTime, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<String>,
    /// Accepted before
    #[param(format = DateTime)]
    #[schema(format = DateTime, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<String>,
    /// Of this event
    #[param(pattern = "^evt_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
    #[schema(
        nullable = false,
        pattern = "^evt_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<String>,
}

/// A delivery's state
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = State)]
pub(super) enum StateName {
    /// To be sent, or held
    Pending,
    /// The endpoint has it
    Delivered,
    /// Given up
    Exhausted,
    /// Not sent, because the webhook was not active
    Skipped,
}

impl From<StateKind> for StateName {
    fn from(kind: StateKind) -> Self {
        match kind {
            StateKind::Pending => Self::Pending,
            StateKind::Delivered => Self::Delivered,
            StateKind::Exhausted => Self::Exhausted,
            StateKind::Skipped => Self::Skipped,
        }
    }
}

impl From<StateName> for StateKind {
    fn from(name: StateName) -> Self {
        match name {
            StateName::Pending => Self::Pending,
            StateName::Delivered => Self::Delivered,
            StateName::Exhausted => Self::Exhausted,
            StateName::Skipped => Self::Skipped,
        }
    }
}

impl Wanted {
    /// Takes what of it is among `fields`, and what the queue is to look for.
    pub(super) fn read(fields: &mut Fields, config: &Config) -> Result<Filter, Problem> {
        let states = StateKind::ALL.iter().map(|kind| (kind.as_str(), *kind));
        let webhook = fields.text("webhook")?;
        Ok(Filter {
            organization: fields.text("organization")?.map(Into::into),
            project: fields.text("project")?.map(Into::into),
            webhook: webhook.map(|name| names::webhook(config, &name)).transpose()?,
            kind: fields.text("event_type")?.map(|name| canonical(&name).into()),
            states: fields.words("state", &states.collect::<Vec<_>>())?,
            since: fields.parsed("since", time::parse)?,
            until: fields.parsed("until", time::parse)?,
            event: fields.parsed("event", str::parse::<EventId>)?,
        })
    }

    /// What a filter says.
    pub(super) fn of(filter: &Filter) -> Self {
        let text = |time: &Option<Timestamp>| time.map(|time| time.to_string());
        let name = |name: &Option<std::sync::Arc<str>>| name.as_deref().map(str::to_owned);
        Self {
            organization: name(&filter.organization),
            project: name(&filter.project),
            webhook: filter.webhook.as_ref().map(WebhookName::to_string),
            event_type: name(&filter.kind),
            state: filter.states.iter().map(|kind| StateName::from(*kind)).collect(),
            since: text(&filter.since),
            until: text(&filter.until),
            event: filter.event.map(|event| event.to_string()),
        }
    }
}

/// The name under which events of a type are stored. A type that is declared no more may be stored still.
pub(super) fn canonical(name: &str) -> String {
    Type::built_in(name).map_or_else(|| name.to_owned(), |kind| kind.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use aquarium_config::{Memory, load};

    use super::*;
    use crate::admin::fields::parameters;

    #[test]
    fn a_filter_reads_as_it_is_written() {
        let source = Memory::new()
            .file("config/aquarium.toml", "version = 1")
            .file("config/organizations/acme.toml", "version = 1");
        let loaded = load(std::path::Path::new("config"), &source).unwrap();
        let query = "organization=acme&project=urban&webhook=acme/urban/ops&event_type=issue-update\
                     &state=pending,skipped&since=2026-11-23T12:00:00Z&until=2026-11-24T00:00:00%2B01:00\
                     &event=evt_0199a1b2-0000-7000-8000-000000000000";
        let mut fields = Fields::of_query(Some(query), &parameters::<Wanted>()).unwrap();
        let filter = Wanted::read(&mut fields, &loaded.config).unwrap();
        assert!(fields.is_empty(), "{fields:?}");
        let written = serde_json::to_value(Wanted::of(&filter)).unwrap();
        assert_eq!(written["event_type"], "issue-updated");
        assert_eq!(written["until"], "2026-11-23T23:00:00.000Z");
        let mut fields = Fields::of_object::<Wanted>(written, "/filter").unwrap();
        assert_eq!(Wanted::read(&mut fields, &loaded.config).unwrap(), filter);
    }
}
