//! The reader thread: claims, bodies, and what is stored of a delivery.

use std::path::Path;
use std::time::Duration;

use aquarium_delivery::{
    DeliveryId, EventId, Failure, FailureKind, Outcome, Timestamp, TraceContext, WebhookName,
};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::mpsc;
use tracing::error;

use super::schema::{self, DELIVERY_BITS, code, event_of, optional_timestamp, stored, timestamp, unsigned};
use super::{Reply, phases};
use crate::{
    Attempt, Backlog, Claim, Delivery, Error, Key, PARKED, Page, Pause, Payload, Record, Suspension,
};

/// What the reader is asked.
#[derive(Debug)]
pub(super) enum Question {
    Claim(Claim, Reply<Page>),
    Payload(Key, Reply<Option<Payload>>),
    Backlog(Reply<Backlog>),
    Record(Key, Reply<Option<Record>>),
}

/// Answers until every handle has been dropped. A connection that failed is replaced before the next question.
pub(super) fn run(path: &Path, connection: Connection, mut questions: mpsc::Receiver<Question>) {
    let mut connection = Some(connection);
    while let Some(question) = questions.blocking_recv() {
        let usable = match connection.take() {
            Some(connection) => Ok(connection),
            None => {
                schema::open_for_reading(path).map_err(|error| Error::Unavailable(error.to_string().into()))
            }
        };
        connection = match usable {
            Ok(usable) => answer(&usable, question).then_some(usable),
            Err(error) => {
                refuse(question, error);
                None
            }
        };
    }
}

/// Answers one question. False if the connection failed.
fn answer(connection: &Connection, question: Question) -> bool {
    match question {
        Question::Claim(input, reply) => give(reply, claim(connection, &input)),
        Question::Payload(event, reply) => give(reply, payload(connection, event)),
        Question::Backlog(reply) => give(reply, backlog(connection)),
        Question::Record(delivery, reply) => give(reply, record(connection, delivery)),
    }
}

fn give<T>(reply: Reply<T>, result: rusqlite::Result<T>) -> bool {
    let fine = result.is_ok();
    let result = result.map_err(|error| {
        error!(%error, "queue: reading failed");
        Error::Unavailable(error.to_string().into())
    });
    // Whoever asked may have gone.
    let _ = reply.send(result);
    fine
}

fn refuse(question: Question, error: Error) {
    // Whoever asked may have gone.
    match question {
        Question::Claim(_, reply) => drop(reply.send(Err(error))),
        Question::Payload(_, reply) => drop(reply.send(Err(error))),
        Question::Backlog(reply) => drop(reply.send(Err(error))),
        Question::Record(_, reply) => drop(reply.send(Err(error))),
    }
}

fn claim(connection: &Connection, claim: &Claim) -> rusqlite::Result<Page> {
    let mut page = Page::default();
    let mut bytes = claim.bytes;
    // Bodies are read at the same state of the file as the deliveries.
    let transaction = connection.unchecked_transaction()?;
    let full = read(&transaction, claim, Timestamp::default(), &mut bytes, &mut page)?;
    if claim.parked && !full {
        read(&transaction, claim, PARKED, &mut bytes, &mut page)?;
    }
    transaction.commit()?;
    Ok(page)
}

/// Reads deliveries that are due at `from` or later; from [`PARKED`] on, the parked ones. True if there is no room for what
/// is due.
fn read(
    connection: &Connection,
    claim: &Claim,
    from: Timestamp,
    bytes: &mut usize,
    page: &mut Page,
) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT d.key, d.id, d.attempts, d.due_at, e.id, e.accepted_at, length(e.body), d.subjects IS NOT NULL,
                d.earlier_attempts, d.replayed_at, d.test
         FROM deliveries d JOIN events e ON e.key = d.key >> 20
         WHERE d.webhook = (SELECT id FROM webhooks WHERE name = ?) AND d.state = 0 AND d.due_at >= ?
         ORDER BY d.due_at, d.key",
    )?;
    let mut rows = statement.query(params![claim.webhook.as_str(), stored(from.as_millis())])?;
    while let Some(row) = rows.next()? {
        if claim.held.contains(&Key(unsigned(row, 0)?)) {
            continue;
        }
        let mut due_at = timestamp(row, 3)?;
        if due_at == PARKED {
            if from != PARKED {
                break;
            }
            due_at = timestamp(row, 5)?;
        }
        if page.deliveries.len() == claim.limit || due_at > claim.now {
            page.next_due = Some(page.next_due.map_or(due_at, |next| next.min(due_at)));
            return Ok(due_at <= claim.now);
        }
        let mut delivery = delivery(row, &claim.webhook, due_at)?;
        if delivery.size <= *bytes {
            *bytes -= delivery.size;
            if let Some(payload) = payload(connection, delivery.event_key)? {
                (delivery.body, delivery.trace) = (Some(payload.body), payload.trace);
            }
        }
        page.deliveries.push(delivery);
    }
    Ok(false)
}

fn delivery(row: &Row<'_>, webhook: &WebhookName, due_at: Timestamp) -> rusqlite::Result<Delivery> {
    let key = unsigned(row, 0)?;
    Ok(Delivery {
        key: Key(key),
        id: DeliveryId::from_bytes(row.get(1)?),
        webhook: webhook.clone(),
        event: EventId::from_bytes(row.get(4)?),
        event_key: Key(event_of(key)),
        accepted_at: timestamp(row, 5)?,
        due_at,
        attempts: unsigned(row, 2)?,
        earlier_attempts: row.get::<_, Option<u32>>(8)?.unwrap_or(0),
        replayed_at: optional_timestamp(row, 9)?,
        test: row.get::<_, Option<bool>>(10)?.unwrap_or(false),
        ordered: row.get(7)?,
        size: unsigned(row, 6)?,
        body: None,
        trace: None,
        watcher: None,
    })
}

fn payload(connection: &Connection, event: Key) -> rusqlite::Result<Option<Payload>> {
    connection
        .prepare_cached("SELECT body, trace FROM events WHERE key = ?")?
        .query_row([stored(event.0)], |row| {
            let body = Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?);
            let trace = row.get_ref(1)?.as_blob_or_null()?.and_then(TraceContext::from_bytes);
            Ok(Payload { body, trace })
        })
        .optional()
}

fn backlog(connection: &Connection) -> rusqlite::Result<Backlog> {
    let mut backlog = Backlog::default();
    // Two look-ups in the index for each webhook, however much waits.
    let mut statement = connection.prepare_cached(
        "SELECT name, suspended_at, suspended_url,
                (SELECT due_at FROM deliveries WHERE webhook = webhooks.id AND state = 0 ORDER BY due_at, key LIMIT 1),
                EXISTS (SELECT 1 FROM deliveries WHERE webhook = webhooks.id AND state = 0 AND due_at = ?),
                paused_until, paused_url
         FROM webhooks ORDER BY name",
    )?;
    let mut rows = statement.query([stored(PARKED.as_millis())])?;
    while let Some(row) = rows.next()? {
        let webhook = webhook_name(row, 0)?;
        if row.get_ref(3)? != rusqlite::types::ValueRef::Null {
            backlog.waiting.push((webhook.clone(), timestamp(row, 3)?));
        }
        if row.get(4)? {
            backlog.parked.push(webhook.clone());
        }
        if let Some(url) = row.get(6)? {
            backlog.paused.push((webhook.clone(), Pause { until: timestamp(row, 5)?, url }));
        }
        if let Some(url) = row.get(2)? {
            backlog.suspended.push(Suspension { webhook, since: timestamp(row, 1)?, url });
        }
    }
    Ok(backlog)
}

fn record(connection: &Connection, delivery: Key) -> rusqlite::Result<Option<Record>> {
    let state = connection
        .prepare_cached("SELECT state, due_at FROM deliveries WHERE key = ?")?
        .query_row([stored(delivery.0)], |row| schema::state(row.get(0)?, timestamp(row, 1)?))
        .optional()?;
    let Some(state) = state else { return Ok(None) };
    // The last attempt may be told by the delivery's row alone.
    let mut statement = connection.prepare_cached(
        "SELECT number, started_at, duration, status, failure, phases, detail, excerpt FROM attempts
         WHERE delivery = ?1
         UNION ALL
         SELECT attempts, started_at, duration, status, failure, phases, NULL, NULL FROM deliveries
         WHERE key = ?1 AND attempts > 0
         AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.delivery = ?1 AND a.number = deliveries.attempts)
         ORDER BY number",
    )?;
    let attempts =
        statement.query_map([stored(delivery.0)], |row| attempt(row, 0))?.collect::<Result<_, _>>()?;
    Ok(Some(Record { state, attempts }))
}

/// Reads an attempt from eight columns: its number, when it started, how long it took, the status or the failure, the
/// phases, the detail of the failure, and the excerpt.
pub(super) fn attempt(row: &Row<'_>, first: usize) -> rusqlite::Result<Attempt> {
    let outcome = match row.get(first + 3)? {
        Some(status) => Outcome::Answered { status, retry_after: None },
        None => {
            let kind = row.get_ref(first + 4)?.as_str()?;
            // A later version may know more kinds than this one.
            let kind = FailureKind::parse(kind).unwrap_or(FailureKind::Protocol);
            let detail = row.get::<_, Option<_>>(first + 6)?.unwrap_or_default();
            Outcome::Failed(Failure { kind, detail })
        }
    };
    let (phases, breaker_open) = phases::unpack(row.get(first + 5)?);
    Ok(Attempt {
        number: row.get(first)?,
        started_at: timestamp(row, first + 1)?,
        duration: Duration::from_micros(unsigned(row, first + 2)?),
        phases,
        breaker_open,
        outcome,
        excerpt: row.get::<_, Option<Vec<u8>>>(first + 7)?.unwrap_or_default().into(),
    })
}

/// Reads a webhook's name.
pub(super) fn webhook_name(row: &Row<'_>, column: usize) -> rusqlite::Result<WebhookName> {
    let name = row.get_ref(column)?.as_str()?;
    name.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

const _: () = assert!(code::PENDING == 0, "the index and the statements say `state = 0`");
const _: () = assert!(DELIVERY_BITS == 20, "the statements say `key >> 20`");
