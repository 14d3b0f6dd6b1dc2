//! A filter in the words of the tables.

use std::collections::BTreeSet;
use std::sync::Arc;

use aquarium_delivery::WebhookName;
use rusqlite::{Connection, OptionalExtension, params};

use super::super::schema::{code, stored};
use super::find;
use crate::history::{Filter, Missed, StateKind};

/// What is wanted of events and deliveries.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    webhook: Option<i64>,
    /// None if any.
    states: Option<Vec<i64>>,
    /// Ascending.
    projects: Option<Vec<i64>>,
    kinds: Option<Kinds>,
    since: Option<i64>,
    /// The first time that is too late.
    until: Option<i64>,
    event: Option<u64>,
}

#[derive(Debug)]
enum Kinds {
    One(Arc<str>),
    Many(Arc<BTreeSet<String>>),
}

impl Wanted {
    /// `None` if nothing that is stored can be meant.
    pub(super) fn new(connection: &Connection, filter: &Filter) -> rusqlite::Result<Option<Self>> {
        let mut wanted = Self {
            states: (!filter.states.is_empty()).then(|| codes(&filter.states)),
            kinds: filter.kind.clone().map(Kinds::One),
            since: filter.since.map(|since| stored(since.as_millis())),
            until: filter.until.map(|until| stored(until.as_millis())),
            ..Self::default()
        };
        if let Some(name) = &filter.webhook {
            wanted.webhook = webhook(connection, name)?;
            if wanted.webhook.is_none() {
                return Ok(None);
            }
        }
        if filter.organization.is_some() || filter.project.is_some() {
            let mut statement = connection.prepare_cached(
                "SELECT id FROM projects WHERE organization = coalesce(?1, organization) AND name = coalesce(?2, name)
                 ORDER BY id",
            )?;
            let names = params![filter.organization, filter.project];
            let projects: Vec<i64> =
                statement.query_map(names, |row| row.get(0))?.collect::<Result<_, _>>()?;
            if projects.is_empty() {
                return Ok(None);
            }
            wanted.projects = Some(projects);
        }
        if let Some(id) = &filter.event {
            wanted.event = find::event(connection, id)?;
            if wanted.event.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(wanted))
    }

    /// The events that a webhook might have missed. `None` if there are none.
    pub(super) fn missed(connection: &Connection, missed: &Missed) -> rusqlite::Result<Option<Self>> {
        let filter = Filter {
            organization: Some(missed.webhook.organization().into()),
            project: Some(missed.webhook.project().into()),
            since: missed.since,
            until: missed.until,
            ..Filter::default()
        };
        let wanted = Self::new(connection, &filter)?;
        Ok(wanted.map(|wanted| Self { kinds: missed.kinds.clone().map(Kinds::Many), ..wanted }))
    }

    pub(super) fn webhook(&self) -> Option<i64> {
        self.webhook
    }

    /// The only event that is meant.
    pub(super) fn event(&self) -> Option<u64> {
        self.event
    }

    /// Whether anything but the delivery itself counts.
    pub(super) fn asks_for_event(&self) -> bool {
        self.projects.is_some() || self.kinds.is_some() || self.since.is_some() || self.until.is_some()
    }

    /// Whether deliveries count.
    pub(super) fn asks_for_delivery(&self) -> bool {
        self.webhook.is_some() || self.states.is_some()
    }

    /// Whether a block without these can be told from others.
    pub(super) fn asks_for_block(&self) -> bool {
        self.asks_for_event() || self.webhook.is_some()
    }

    pub(super) fn admits_delivery(&self, webhook: i64, state: i64) -> bool {
        self.webhook.is_none_or(|wanted| wanted == webhook)
            && self.states.as_ref().is_none_or(|states| states.contains(&state))
    }

    pub(super) fn admits_event(&self, project: i64, kind: &[u8], accepted_at: i64) -> bool {
        self.overlaps(accepted_at, accepted_at) && self.admits_project(project) && self.admits_kind(kind)
    }

    /// Whether some of this time is meant, the last millisecond included.
    pub(super) fn overlaps(&self, first: i64, last: i64) -> bool {
        self.since.is_none_or(|since| last >= since) && self.until.is_none_or(|until| first < until)
    }

    pub(super) fn admits_project(&self, project: i64) -> bool {
        self.projects.as_ref().is_none_or(|projects| projects.binary_search(&project).is_ok())
    }

    pub(super) fn admits_kind(&self, kind: &[u8]) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| match kinds {
            Kinds::One(wanted) => wanted.as_bytes() == kind,
            Kinds::Many(wanted) => str::from_utf8(kind).is_ok_and(|kind| wanted.contains(kind)),
        })
    }
}

/// The row number of a webhook, if it was ever a target.
pub(super) fn webhook(connection: &Connection, name: &WebhookName) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM webhooks WHERE name = ?")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()
}

/// The numbers that stand for these states.
pub(super) fn codes(states: &BTreeSet<StateKind>) -> Vec<i64> {
    let codes = |state: &StateKind| match state {
        StateKind::Pending => &[code::PENDING][..],
        StateKind::Delivered => &[code::DELIVERED],
        StateKind::Exhausted => {
            &[code::EXHAUSTED_BY_ATTEMPTS, code::EXHAUSTED_BY_AGE, code::EXHAUSTED_BY_DAMAGE]
        }
        StateKind::Skipped => &[code::SKIPPED],
    };
    states.iter().flat_map(codes).copied().collect()
}
