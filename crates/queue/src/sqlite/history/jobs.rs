//! Replays in bulk, as they are stored: how far each has come, and what it is to do.
//!
//! All of a job is text and numbers in columns of their own, so that a later version can read it. `what` is `deliveries` or
//! `missed`, and tells which of the other columns count; the names of `kinds` and of `states` are one on each line, NULL for
//! all. `start`, `next` and `beyond` are keys of deliveries, or of events for what was missed.

use std::sync::Arc;

use aquarium_delivery::{EventId, ReplayId};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::reader::webhook_name;
use super::super::schema::{first_delivery_of, optional_timestamp, stored, timestamp, unsigned};
use super::wanted::Wanted;
use super::{blocks, optional};
use crate::Key;
use crate::history::{Filter, Job, JobFilter, JobState, Missed, StateKind};

const COLUMNS: &str = "id, what, organization, project, webhook, kinds, states, since, until, event,
    created_at, state, state_since, start, next, beyond, replayed, passed_over";

/// The latest first.
pub(super) fn all(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Job>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM jobs ORDER BY number DESC LIMIT ?"))?
        .query_map([stored(limit)], job)?
        .collect()
}

pub(in super::super) fn one(connection: &Connection, id: &ReplayId) -> rusqlite::Result<Option<Job>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?"))?
        .query_row([id.as_bytes()], job)
        .optional()
}

/// Stores a new job.
pub(in super::super) fn insert(connection: &Connection, new: &Job) -> rusqlite::Result<()> {
    let millis = |time: Option<aquarium_delivery::Timestamp>| time.map(|time| stored(time.as_millis()));
    let lines = |names: &mut dyn Iterator<Item = &str>| names.collect::<Vec<_>>().join("\n");
    let filter = match &new.what {
        JobFilter::Deliveries(filter) => filter.clone(),
        JobFilter::Missed(missed) => Filter {
            webhook: Some(missed.webhook.clone()),
            since: missed.since,
            until: missed.until,
            ..Filter::default()
        },
    };
    let (what, kinds) = match &new.what {
        JobFilter::Deliveries(filter) => ("deliveries", filter.kind.as_ref().map(ToString::to_string)),
        JobFilter::Missed(missed) => {
            ("missed", missed.kinds.as_ref().map(|kinds| lines(&mut kinds.iter().map(String::as_str))))
        }
    };
    let states =
        (!filter.states.is_empty()).then(|| lines(&mut filter.states.iter().map(|state| state.as_str())));
    connection
        .prepare_cached(&format!(
            "INSERT INTO jobs ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        ))?
        .execute(params![
            new.id.as_bytes(),
            what,
            filter.organization,
            filter.project,
            filter.webhook.as_ref().map(|webhook| webhook.as_str()),
            kinds,
            states,
            millis(filter.since),
            millis(filter.until),
            filter.event.as_ref().map(|event| event.as_bytes().to_vec()),
            millis(Some(new.created_at)),
            new.state.as_str(),
            millis(Some(new.state_since)),
            stored(new.start.0),
            new.next.map(|next| stored(next.0)),
            stored(new.end.0),
            stored(new.replayed),
            stored(new.passed_over),
        ])?;
    Ok(())
}

/// The first key that a job has to look at.
pub(super) fn start(connection: &Connection, what: &JobFilter) -> rusqlite::Result<Option<u64>> {
    let wanted = match what {
        JobFilter::Deliveries(filter) => Wanted::new(connection, filter)?,
        JobFilter::Missed(missed) => Wanted::missed(connection, missed)?,
    };
    let Some(wanted) = wanted else { return Ok(None) };
    let event = match wanted.event() {
        Some(event) => Some(event),
        None => blocks::first_possible(connection, &wanted)?,
    };
    Ok(event.map(|event| place(what, event)))
}

/// The place of an event in what a job goes over.
pub(in super::super) fn place(what: &JobFilter, event: u64) -> u64 {
    match what {
        JobFilter::Deliveries(_) => first_delivery_of(event),
        JobFilter::Missed(_) => event,
    }
}

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let what = row.get_ref(1)?.as_str()?;
    let kinds: Option<String> = row.get(5)?;
    let (since, until) = (optional_timestamp(row, 7)?, optional_timestamp(row, 8)?);
    let what = if what == "missed" {
        let split = |kinds: String| Arc::new(kinds.lines().map(ToOwned::to_owned).collect());
        JobFilter::Missed(Missed { webhook: webhook_name(row, 4)?, kinds: kinds.map(split), since, until })
    } else {
        let states: Option<String> = row.get(6)?;
        JobFilter::Deliveries(Filter {
            organization: row.get(2)?,
            project: row.get(3)?,
            webhook: row.get::<_, Option<String>>(4)?.map(|_| webhook_name(row, 4)).transpose()?,
            kind: kinds.map(Into::into),
            states: states
                .as_deref()
                .unwrap_or_default()
                .lines()
                .map(|name| one_of(StateKind::ALL, StateKind::as_str, name, 6))
                .collect::<Result<_, _>>()?,
            since,
            until,
            event: row.get::<_, Option<[u8; 16]>>(9)?.map(EventId::from_bytes),
        })
    };
    Ok(Job {
        id: ReplayId::from_bytes(row.get(0)?),
        what,
        created_at: timestamp(row, 10)?,
        state: one_of(JobState::ALL, JobState::as_str, row.get_ref(11)?.as_str()?, 11)?,
        state_since: timestamp(row, 12)?,
        start: Key(unsigned(row, 13)?),
        next: optional(row, 14)?.map(Key),
        end: Key(unsigned(row, 15)?),
        replayed: unsigned(row, 16)?,
        passed_over: unsigned(row, 17)?,
    })
}

/// Finds what has this stable name.
fn one_of<T: Copy>(
    all: &[T],
    name_of: fn(T) -> &'static str,
    name: &str,
    column: usize,
) -> rusqlite::Result<T> {
    let known = all.iter().copied().find(|one| name_of(*one) == name);
    known.ok_or_else(|| rusqlite::Error::InvalidColumnType(column, name.to_owned(), Type::Text))
}
