//! Pages and counts.

use aquarium_delivery::{DeliveryId, EventId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::reader::{attempt, webhook_name};
use super::super::schema::{
    DELIVERY_BITS, deliveries_of, event_of, first_delivery_of, optional_timestamp, state, stored, timestamp,
    unsigned,
};
use super::plan::{Plan, plan};
use super::walk::{COUNT, PAGE, Step, Walk};
use super::wanted::{Wanted, webhook};
use crate::Key;
use crate::history::{
    Count, DeliverySummary, Direction, EventSummary, Filter, LONGEST_PAGE, Listed, Missed, Select,
};

/// What it costs to see whether an event has a delivery to a webhook, in deliveries that are looked at.
const DELIVERIES_OF_EVENT: usize = 6;

pub(super) fn deliveries(
    connection: &Connection,
    select: &Select,
) -> rusqlite::Result<Listed<DeliverySummary>> {
    let Some(wanted) = Wanted::new(connection, &select.filter)? else { return Ok(nothing()) };
    let mut walk = Walk::deliveries(connection, &wanted, &select.filter, select.direction, PAGE)?;
    if let Some(from) = select.from {
        walk.start_at(from.0);
    }
    let limit = limit(select.limit);
    let mut keys = Vec::new();
    let next = loop {
        match walk.next()? {
            Step::Found(key) if keys.len() == limit => break Some(key),
            Step::Found(key) => keys.push(key),
            Step::Spent(key) => break Some(key),
            Step::End => break None,
        }
    };
    let items = keys.into_iter().filter_map(|key| delivery(connection, key).transpose());
    Ok(Listed { items: items.collect::<Result<_, _>>()?, next: next.map(Key) })
}

pub(super) fn events(connection: &Connection, select: &Select) -> rusqlite::Result<Listed<EventSummary>> {
    let Some(wanted) = Wanted::new(connection, &select.filter)? else { return Ok(nothing()) };
    let limit = limit(select.limit);
    let mut keys = Vec::new();
    let next = if wanted.asks_for_delivery() {
        let mut walk = Walk::deliveries(connection, &wanted, &select.filter, select.direction, PAGE)?;
        walk.by_whole_events();
        match (select.from, select.direction) {
            (Some(Key(event)), Direction::OldestFirst) => walk.start_at(first_delivery_of(event)),
            (Some(Key(event)), Direction::NewestFirst) => walk.start_at(first_delivery_of(event + 1) - 1),
            (None, _) => {}
        }
        loop {
            match walk.next()? {
                Step::Found(key) if keys.len() == limit => break Some(event_of(key)),
                Step::Found(key) => {
                    keys.push(event_of(key));
                    walk.pass_event(event_of(key));
                }
                Step::Spent(key) => break Some(event_of(key)),
                Step::End => break None,
            }
        }
    } else {
        let mut walk = Walk::events(connection, &wanted, select.direction, PAGE)?;
        if let Some(from) = select.from {
            walk.start_at(from.0);
        }
        loop {
            match walk.next()? {
                Step::Found(key) if keys.len() == limit => break Some(key),
                Step::Found(key) => keys.push(key),
                Step::Spent(key) => break Some(key),
                Step::End => break None,
            }
        }
    };
    listed(connection, keys, next)
}

pub(super) fn missed(
    connection: &Connection,
    missed: &Missed,
    from: Option<Key>,
    most: usize,
) -> rusqlite::Result<Listed<EventSummary>> {
    let Some(wanted) = Wanted::missed(connection, missed)? else { return Ok(nothing()) };
    let webhook = webhook(connection, &missed.webhook)?;
    let mut has_delivery =
        connection.prepare_cached("SELECT 1 FROM deliveries WHERE key >= ? AND key < ? AND webhook = ?")?;
    let mut walk = Walk::events(connection, &wanted, Direction::OldestFirst, PAGE)?;
    if let Some(from) = from {
        walk.start_at(from.0);
    }
    let limit = limit(most);
    let mut keys = Vec::new();
    let next = loop {
        match walk.next()? {
            Step::Found(key) => {
                let [first, beyond] = deliveries_of(key);
                walk.spend(DELIVERIES_OF_EVENT);
                // Who was never a target has missed everything.
                if webhook.is_some() && has_delivery.exists(params![first, beyond, webhook])? {
                    continue;
                }
                if keys.len() == limit {
                    break Some(key);
                }
                keys.push(key);
            }
            Step::Spent(key) => break Some(key),
            Step::End => break None,
        }
    };
    listed(connection, keys, next)
}

pub(super) fn count(connection: &Connection, filter: &Filter) -> rusqlite::Result<Count> {
    let Some(wanted) = Wanted::new(connection, filter)? else {
        return Ok(Count { at_least: 0, exact: true });
    };
    if let Plan::Indexes { pending, rare } = plan(filter)
        && !wanted.asks_for_event()
    {
        return by_indexes(connection, wanted.webhook(), pending, &rare, COUNT);
    }
    let mut walk = Walk::deliveries(connection, &wanted, filter, Direction::NewestFirst, COUNT)?;
    let mut at_least = 0;
    loop {
        match walk.next()? {
            Step::Found(_) => at_least += 1,
            Step::Spent(_) => return Ok(Count { at_least, exact: false }),
            Step::End => return Ok(Count { at_least, exact: true }),
        }
    }
}

/// Counts deliveries that are pending, and those in these states, up to a bound for all of them together.
pub(super) fn by_indexes(
    connection: &Connection,
    webhook: Option<i64>,
    pending: bool,
    rare: &[i64],
    bound: usize,
) -> rusqlite::Result<Count> {
    let sql = |of_one: &'static str, of_all: &'static str| if webhook.is_some() { of_one } else { of_all };
    let pending_sql = sql(
        "SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_due
         WHERE state = 0 AND webhook = ?1 LIMIT ?2)",
        "SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_due
         WHERE state = 0 AND ?1 IS NULL LIMIT ?2)",
    );
    let rare_sql = sql(
        "SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_rare_of_webhook
         WHERE webhook = ?1 AND state = ?3 AND state >= 2 LIMIT ?2)",
        "SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_rare
         WHERE ?1 IS NULL AND state = ?3 AND state >= 2 LIMIT ?2)",
    );
    let mut counted = 0_usize;
    // One more than the bound tells that there are more.
    let left = |counted: usize| stored((bound + 1).saturating_sub(counted));
    if pending {
        let mut statement = connection.prepare_cached(pending_sql)?;
        counted += statement.query_row(params![webhook, left(counted)], |row| unsigned::<usize>(row, 0))?;
    }
    for state in rare {
        let mut statement = connection.prepare_cached(rare_sql)?;
        counted +=
            statement.query_row(params![webhook, left(counted), state], |row| unsigned::<usize>(row, 0))?;
    }
    Ok(Count { at_least: counted.min(bound) as u64, exact: counted <= bound })
}

pub(super) fn event(connection: &Connection, key: u64) -> rusqlite::Result<Option<EventSummary>> {
    connection
        .prepare_cached(
            "SELECT e.key, e.id, p.organization, p.name, e.kind, e.accepted_at, length(e.body)
             FROM events e JOIN projects p ON p.id = e.project WHERE e.key = ?",
        )?
        .query_row([stored(key)], |row| summary(row, 0))
        .optional()
}

pub(super) fn delivery(connection: &Connection, key: u64) -> rusqlite::Result<Option<DeliverySummary>> {
    connection
        .prepare_cached(
            "SELECT e.key, e.id, p.organization, p.name, e.kind, e.accepted_at, length(e.body),
                    d.attempts, d.started_at, d.duration, d.status, d.failure, d.phases, NULL, NULL,
                    d.id, w.name, d.state, d.due_at, d.settled_at, d.replayed_at, d.test
             FROM deliveries d JOIN events e ON e.key = d.key >> 20 JOIN projects p ON p.id = e.project
             JOIN webhooks w ON w.id = d.webhook WHERE d.key = ?",
        )?
        .query_row([stored(key)], |row| {
            let attempts = unsigned(row, 7)?;
            Ok(DeliverySummary {
                key: Key(key),
                id: DeliveryId::from_bytes(row.get(15)?),
                event: summary(row, 0)?,
                webhook: webhook_name(row, 16)?,
                state: state(row.get(17)?, timestamp(row, 18)?)?,
                attempts,
                last_attempt: (attempts > 0).then(|| attempt(row, 7)).transpose()?,
                settled_at: timestamp(row, 19)?,
                replayed_at: optional_timestamp(row, 20)?,
                test: row.get::<_, Option<bool>>(21)?.unwrap_or(false),
            })
        })
        .optional()
}

/// Reads an event from seven columns.
fn summary(row: &Row<'_>, first: usize) -> rusqlite::Result<EventSummary> {
    Ok(EventSummary {
        key: Key(unsigned(row, first)?),
        id: EventId::from_bytes(row.get(first + 1)?),
        organization: row.get(first + 2)?,
        project: row.get(first + 3)?,
        kind: row.get(first + 4)?,
        accepted_at: timestamp(row, first + 5)?,
        size: unsigned(row, first + 6)?,
    })
}

fn listed(
    connection: &Connection,
    keys: Vec<u64>,
    next: Option<u64>,
) -> rusqlite::Result<Listed<EventSummary>> {
    let items = keys.into_iter().filter_map(|key| event(connection, key).transpose());
    Ok(Listed { items: items.collect::<Result<_, _>>()?, next: next.map(Key) })
}

fn nothing<T>() -> Listed<T> {
    Listed { items: Vec::new(), next: None }
}

fn limit(asked: usize) -> usize {
    asked.clamp(1, LONGEST_PAGE)
}

const _: () = assert!(DELIVERY_BITS == 20, "the statements say `key >> 20`");
