//! The reader thread: claims, bodies, and what is stored of a delivery.

use std::path::Path;
use std::time::Duration;

use aquarium_delivery::{
    DeliveryId, EventId, Failure, FailureKind, Hops, Outcome, Timestamp, TraceContext, WebhookName,
};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::mpsc;
use tracing::error;

use super::checksum::{self, EventRow};
use super::damage::Damage;
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
pub(super) fn run(
    path: &Path,
    connection: Connection,
    mut questions: mpsc::Receiver<Question>,
    damage: &Damage,
) {
    let mut connection = Some(connection);
    while let Some(question) = questions.blocking_recv() {
        let usable = match (damage.found(), connection.take()) {
            (Some(damaged), _) => Err(damaged),
            (None, Some(connection)) => Ok(connection),
            (None, None) => schema::open_for_reading(path).map_err(|error| {
                let damaged = damage.judge_opening(&error);
                damaged.unwrap_or_else(|| Error::Unavailable(error.to_string().into()))
            }),
        };
        connection = match usable {
            Ok(usable) => answer(&usable, question, damage).then_some(usable),
            Err(error) => {
                refuse(question, error);
                None
            }
        };
    }
}

/// Answers one question. False if the connection failed.
fn answer(connection: &Connection, question: Question, damage: &Damage) -> bool {
    match question {
        Question::Claim(input, reply) => give(reply, claim(connection, &input), damage),
        Question::Payload(event, reply) => match payload(connection, event) {
            Ok(Some(Err(Damaged))) => {
                // The caller may have gone.
                let _ = reply.send(Err(Error::DamagedEvent));
                true
            }
            Ok(Some(Ok(payload))) => give(reply, Ok(Some(payload)), damage),
            Ok(None) => give(reply, Ok(None), damage),
            Err(error) => give(reply, Err(error), damage),
        },
        Question::Backlog(reply) => give(reply, backlog(connection), damage),
        Question::Record(delivery, reply) => give(reply, record(connection, delivery), damage),
    }
}

fn give<T>(reply: Reply<T>, result: rusqlite::Result<T>, damage: &Damage) -> bool {
    let fine = result.is_ok();
    let result = result.map_err(|error| {
        damage.judge(&error).unwrap_or_else(|| {
            error!(%error, "queue: reading failed");
            Error::Unavailable(error.to_string().into())
        })
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
                d.earlier_attempts, d.replayed_at, d.test, d.checksum
         FROM deliveries d LEFT JOIN events e ON e.key = d.key >> 20
         WHERE d.webhook = (SELECT id FROM webhooks WHERE name = ?) AND d.state = 0 AND d.due_at >= ?
         ORDER BY d.due_at, d.key",
    )?;
    let mut rows = statement.query(params![claim.webhook.as_str(), stored(from.as_millis())])?;
    while let Some(row) = rows.next()? {
        if claim.held.contains(&Key(unsigned(row, 0)?)) {
            continue;
        }
        let mut due_at = timestamp(row, 3).unwrap_or_default();
        if due_at == PARKED {
            if from != PARKED {
                break;
            }
            due_at = timestamp(row, 5).unwrap_or_default();
        }
        if page.deliveries.len() == claim.limit || due_at > claim.now {
            page.next_due = Some(page.next_due.map_or(due_at, |next| next.min(due_at)));
            return Ok(due_at <= claim.now);
        }
        let mut delivery = delivery(row, &claim.webhook, due_at)?;
        if !delivery.damaged && delivery.size <= *bytes {
            *bytes -= delivery.size;
            match payload(connection, delivery.event_key)? {
                Some(Ok(Payload { body, trace, hops })) => {
                    (delivery.body, delivery.trace, delivery.hops) = (Some(body), trace, hops);
                }
                Some(Err(Damaged)) | None => delivery.damaged = true,
            }
        }
        page.deliveries.push(delivery);
    }
    Ok(false)
}

/// What is stored of an event does not match its checksum.
#[derive(Debug)]
struct Damaged;

/// A row that cannot be decoded, or that does not match its checksum, is a delivery too: one that must not be sent, and that
/// ends visibly.
fn delivery(row: &Row<'_>, webhook: &WebhookName, due_at: Timestamp) -> rusqlite::Result<Delivery> {
    let key = unsigned(row, 0)?;
    match intact_delivery(row, key, webhook, due_at) {
        Ok(Some(delivery)) => Ok(delivery),
        Err(error) if !is_undecodable(&error) => Err(error),
        Ok(None) | Err(_) => Ok(Delivery {
            key: Key(key),
            id: DeliveryId::from_bytes(row.get(1).unwrap_or_default()),
            webhook: webhook.clone(),
            event: EventId::from_bytes(row.get(4).unwrap_or_default()),
            event_key: Key(event_of(key)),
            accepted_at: timestamp(row, 5).unwrap_or(due_at),
            due_at,
            attempts: unsigned(row, 2).unwrap_or_default(),
            earlier_attempts: 0,
            replayed_at: None,
            test: false,
            ordered: row.get(7)?,
            size: 0,
            body: None,
            trace: None,
            hops: Hops::FIRST,
            damaged: true,
            watcher: None,
        }),
    }
}

/// `None` if it does not match its checksum.
fn intact_delivery(
    row: &Row<'_>,
    key: u64,
    webhook: &WebhookName,
    due_at: Timestamp,
) -> rusqlite::Result<Option<Delivery>> {
    let id: [u8; 16] = row.get(1)?;
    if !checksum::matches(row.get(11)?, || checksum::of_delivery(stored(key), &id, webhook.as_str())) {
        return Ok(None);
    }
    Ok(Some(Delivery {
        key: Key(key),
        id: DeliveryId::from_bytes(id),
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
        hops: Hops::FIRST,
        damaged: false,
        watcher: None,
    }))
}

/// Whether an event has the checksum that was stored with it.
///
/// The columns: `e.key, e.id, p.organization, p.name, e.kind, e.accepted_at, e.trace, e.hops, e.body, e.checksum`.
pub(super) fn is_intact(row: &Row<'_>) -> rusqlite::Result<bool> {
    let checked = || -> rusqlite::Result<bool> {
        let event = EventRow {
            key: row.get(0)?,
            id: row.get_ref(1)?.as_blob()?,
            // Without its project it is damaged: no name is empty.
            organization: row.get_ref(2)?.as_str_or_null()?.unwrap_or_default(),
            project: row.get_ref(3)?.as_str_or_null()?.unwrap_or_default(),
            kind: row.get_ref(4)?.as_str()?,
            accepted_at: row.get(5)?,
            trace: row.get_ref(6)?.as_blob_or_null()?,
            hops: row.get::<_, Option<i64>>(7)?.unwrap_or(1),
            body: row.get_ref(8)?.as_blob()?,
        };
        Ok(checksum::matches(row.get(9)?, || checksum::of_event(event)))
    };
    match checked() {
        Err(error) if is_undecodable(&error) => Ok(false),
        checked => checked,
    }
}

/// Whether a value was read that this program cannot have stored.
pub(super) fn is_undecodable(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    matches!(
        error,
        E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::Utf8Error(..)
    )
}

fn payload(connection: &Connection, event: Key) -> rusqlite::Result<Option<Result<Payload, Damaged>>> {
    connection
        .prepare_cached(
            "SELECT e.key, e.id, p.organization, p.name, e.kind, e.accepted_at, e.trace, e.hops, e.body, e.checksum
             FROM events e LEFT JOIN projects p ON p.id = e.project WHERE e.key = ?",
        )?
        .query_row([stored(event.0)], |row| {
            if !is_intact(row)? {
                return Ok(Err(Damaged));
            }
            let body = Bytes::copy_from_slice(row.get_ref(8)?.as_blob()?);
            let trace = row.get_ref(6)?.as_blob_or_null()?.and_then(TraceContext::from_bytes);
            let hops = Hops::new(row.get::<_, Option<u8>>(7)?.unwrap_or_default());
            Ok(Ok(Payload { body, trace, hops }))
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
            let detail = row.get_ref(first + 6)?.as_str_or_null()?.unwrap_or_default();
            Outcome::Failed(Failure::new(kind, detail))
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
