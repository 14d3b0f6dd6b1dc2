//! What each command does to the tables, inside the writer's transaction.
//!
//! An `Err` of these functions is a failure of the storage, and undoes the whole transaction. A refusal, which concerns
//! one command alone, is an `Ok(Err(_))` that left the tables as they were.

use std::collections::HashMap;

use aquarium_delivery::{EventId, Exhaustion, Outcome, WebhookName};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::schema::{code, stored, unsigned};
use super::Purge;
use crate::{
    Accepted, Attempt, Delivery, Error, Idempotency, Key, NewEvent, Purged, Receipt, ReceiptEntry, Settled,
    Settlement, Submission,
};

/// Names whose row numbers are remembered; when there are more, all are looked up anew.
const REMEMBERED: usize = 65_536;

/// What the writer knows about the tables without asking them. It is thrown away with the connection.
pub(super) struct Tables {
    max_size: u64,
    size: u64,
    next_event: u64,
    next_delivery: u64,
    projects: HashMap<(String, String), i64>,
    webhooks: HashMap<WebhookName, i64>,
    /// Events up to this key were looked at by [`Tables::purge`] since it last came to the end.
    purged_up_to: i64,
}

impl Tables {
    pub(super) fn new(connection: &Connection, max_size: u64) -> rusqlite::Result<Self> {
        let next = |sql| connection.query_row(sql, [], |row| unsigned(row, 0));
        let mut tables = Self {
            max_size,
            size: 0,
            next_event: next(
                "SELECT max(event, (SELECT coalesce(max(key), 0) + 1 FROM events)) FROM next_keys",
            )?,
            next_delivery: next(
                "SELECT max(delivery, (SELECT coalesce(max(key), 0) + 1 FROM deliveries)) FROM next_keys",
            )?,
            projects: HashMap::new(),
            webhooks: HashMap::new(),
            purged_up_to: 0,
        };
        tables.measure(connection)?;
        Ok(tables)
    }

    /// Counts the bytes in use: the pages of the file less those that are free.
    pub(super) fn measure(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let pragma = |sql| connection.prepare_cached(sql)?.query_row([], |row| unsigned::<u64>(row, 0));
        let pages = pragma("PRAGMA page_count")?.saturating_sub(pragma("PRAGMA freelist_count")?);
        self.size = pages * pragma("PRAGMA page_size")?;
        Ok(())
    }

    pub(super) fn accept(
        &mut self,
        connection: &Connection,
        submission: &mut Submission,
        offers: &mut Vec<Delivery>,
    ) -> rusqlite::Result<Result<Accepted, Error>> {
        if let Some(idempotency) = &submission.idempotency
            && let Some(known) = self.known(connection, &submission.organization, idempotency)?
        {
            return Ok(known);
        }
        if self.size >= self.max_size {
            return Ok(Err(Error::Full { size: self.size, max_size: self.max_size }));
        }
        if let Some(Idempotency { key, fingerprint }) = &submission.idempotency {
            connection
                .prepare_cached(
                    "INSERT INTO idempotency (organization, key, fingerprint, first_event, events)
                     VALUES (?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    submission.organization,
                    key,
                    fingerprint,
                    stored(self.next_event),
                    stored(submission.events.len())
                ])?;
        }
        for event in submission.events.drain(..) {
            self.insert(connection, &submission.organization, event, offers)?;
        }
        Ok(Ok(Accepted::Stored))
    }

    fn insert(
        &mut self,
        connection: &Connection,
        organization: &str,
        event: NewEvent,
        offers: &mut Vec<Delivery>,
    ) -> rusqlite::Result<()> {
        let event_key = self.next_event;
        self.next_event += 1;
        let project = self.project(connection, organization, &event.project)?;
        let accepted_at = stored(event.accepted_at.as_millis());
        connection
            .prepare_cached(
                "INSERT INTO events (key, id, project, kind, accepted_at, body) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                stored(event_key),
                event.id.as_bytes(),
                project,
                event.kind,
                accepted_at,
                &event.body[..]
            ])?;
        for target in &event.targets {
            let key = self.next_delivery;
            self.next_delivery += 1;
            let webhook = self.webhook(connection, &target.webhook)?;
            let state = if target.skipped { code::SKIPPED } else { code::PENDING };
            connection
                .prepare_cached(
                    "INSERT INTO deliveries (key, id, event, webhook, state, attempts, due_at, settled_at)
                     VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
                )?
                .execute(params![
                    stored(key),
                    target.delivery.as_bytes(),
                    stored(event_key),
                    webhook,
                    state,
                    accepted_at,
                    accepted_at
                ])?;
            if !target.skipped {
                offers.push(Delivery::fresh(&event, Key(event_key), target, Key(key)));
            }
        }
        Ok(())
    }

    /// What a submission with the same key led to, if there was one.
    fn known(
        &self,
        connection: &Connection,
        organization: &str,
        idempotency: &Idempotency,
    ) -> rusqlite::Result<Option<Result<Accepted, Error>>> {
        let found = connection
            .prepare_cached(
                "SELECT fingerprint, first_event, events FROM idempotency WHERE organization = ? AND key = ?",
            )?
            .query_row(params![organization, idempotency.key], |row| {
                Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })
            .optional()?;
        let Some((fingerprint, first, events)) = found else { return Ok(None) };
        if fingerprint != idempotency.fingerprint {
            return Ok(Some(Err(Error::Conflict)));
        }
        let mut statement = connection
            .prepare_cached("SELECT key, id FROM events WHERE key >= ? AND key < ? ORDER BY key")?;
        let rows = statement.query_map([first, first.saturating_add(events)], |row| {
            Ok((row.get::<_, i64>(0)?, EventId::from_bytes(row.get(1)?)))
        })?;
        let receipts = rows.map(|row| row.and_then(|(key, event)| receipt(connection, key, event)));
        Ok(Some(Ok(Accepted::Repeated(receipts.collect::<Result<_, _>>()?))))
    }

    pub(super) fn settle(
        &mut self,
        connection: &Connection,
        settlement: &Settlement,
    ) -> rusqlite::Result<()> {
        let (at, delivery) = (stored(settlement.at.as_millis()), stored(settlement.delivery.0));
        let (state, due_at) = match &settlement.state {
            Settled::Delivered => (code::DELIVERED, at),
            Settled::Exhausted(Exhaustion::Attempts) => (code::EXHAUSTED_BY_ATTEMPTS, at),
            Settled::Exhausted(Exhaustion::Age) => (code::EXHAUSTED_BY_AGE, at),
            Settled::Retry(due_at) => (code::PENDING, stored(due_at.as_millis())),
            Settled::Suspended { .. } => (code::PENDING, at),
        };
        let made = settlement.attempt.as_ref().map(|attempt| attempt.number);
        connection
            .prepare_cached(
                "UPDATE deliveries SET state = ?, due_at = ?, settled_at = ?, attempts = coalesce(?, attempts)
                 WHERE key = ?",
            )?
            .execute(params![state, due_at, at, made, delivery])?;
        if let Some(attempt) = &settlement.attempt {
            record(connection, delivery, attempt)?;
        }
        if let Settled::Suspended { url } = &settlement.state {
            connection
                .prepare_cached(
                    "UPDATE webhooks SET suspended_at = ?, suspended_url = ?
                     WHERE id = (SELECT webhook FROM deliveries WHERE key = ?)",
                )?
                .execute(params![at, url, delivery])?;
        }
        Ok(())
    }

    pub(super) fn resume(&mut self, connection: &Connection, webhook: &WebhookName) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE webhooks SET suspended_at = NULL, suspended_url = NULL WHERE name = ?")?
            .execute([webhook.as_str()])?;
        Ok(())
    }

    pub(super) fn purge(&mut self, connection: &Connection, purge: &Purge) -> rusqlite::Result<Purged> {
        let before = stored(purge.before.as_millis());
        let limit = purge.limit.max(1);
        let events: Vec<i64> = connection
            .prepare_cached("SELECT key, accepted_at FROM events WHERE key > ? ORDER BY key LIMIT ?")?
            .query_map(params![self.purged_up_to, stored(limit)], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?))
            })?
            .take_while(|row| row.as_ref().map_or(true, |(_, accepted_at)| *accepted_at < before))
            .map(|row| row.map(|(key, _)| key))
            .collect::<Result<_, _>>()?;
        let mut purged = Purged { more: events.len() == limit, ..Purged::default() };
        for event in &events {
            if let Some(abandoned) = abandoned_with(connection, *event, before, purge)? {
                forget(connection, *event)?;
                purged.events += 1;
                purged.abandoned += abandoned;
            }
        }
        if purged.events > 0 {
            connection
                .prepare_cached("UPDATE next_keys SET event = ?, delivery = ?")?
                .execute([stored(self.next_event), stored(self.next_delivery)])?;
        }
        // At the end it starts over: what was still wanted may not be any more.
        self.purged_up_to = if purged.more { events.last().copied().unwrap_or(0) } else { 0 };
        Ok(purged)
    }

    fn project(&mut self, connection: &Connection, organization: &str, name: &str) -> rusqlite::Result<i64> {
        let key = (organization.to_owned(), name.to_owned());
        if let Some(id) = self.projects.get(&key) {
            return Ok(*id);
        }
        let id = intern(
            connection,
            "SELECT id FROM projects WHERE organization = ? AND name = ?",
            "INSERT INTO projects (organization, name) VALUES (?, ?)",
            params![organization, name],
        )?;
        remember(&mut self.projects, key, id);
        Ok(id)
    }

    fn webhook(&mut self, connection: &Connection, name: &WebhookName) -> rusqlite::Result<i64> {
        if let Some(id) = self.webhooks.get(name) {
            return Ok(*id);
        }
        let id = intern(
            connection,
            "SELECT id FROM webhooks WHERE name = ?",
            "INSERT INTO webhooks (name) VALUES (?)",
            params![name.as_str()],
        )?;
        remember(&mut self.webhooks, name.clone(), id);
        Ok(id)
    }
}

fn remember<K: std::hash::Hash + Eq>(names: &mut HashMap<K, i64>, name: K, id: i64) {
    if names.len() >= REMEMBERED {
        names.clear();
    }
    names.insert(name, id);
}

fn intern(
    connection: &Connection,
    select: &str,
    insert: &str,
    name: &[&dyn rusqlite::ToSql],
) -> rusqlite::Result<i64> {
    let known = connection.prepare_cached(select)?.query_row(name, |row| row.get(0)).optional()?;
    match known {
        Some(id) => Ok(id),
        None => connection.prepare_cached(insert)?.insert(name),
    }
}

fn receipt(connection: &Connection, key: i64, event: EventId) -> rusqlite::Result<Receipt> {
    let entry = |row: &Row<'_>| {
        Ok(ReceiptEntry {
            id: aquarium_delivery::DeliveryId::from_bytes(row.get(0)?),
            webhook: super::super::reader::webhook_name(row, 1)?,
            // A skipped delivery that was sent later all the same was skipped at first.
            skipped: row.get::<_, i64>(2)? == code::SKIPPED,
        })
    };
    let mut statement = connection.prepare_cached(
        "SELECT d.id, w.name, d.state FROM deliveries d JOIN webhooks w ON w.id = d.webhook
         WHERE d.event = ? ORDER BY d.key",
    )?;
    let deliveries = statement.query_map([key], entry)?.collect::<Result<_, _>>()?;
    Ok(Receipt { event, deliveries })
}

fn record(connection: &Connection, delivery: i64, attempt: &Attempt) -> rusqlite::Result<()> {
    let (status, failure, detail) = match &attempt.outcome {
        Outcome::Answered { status, .. } => (Some(*status), None, None),
        Outcome::Failed(failure) => (None, Some(failure.kind.as_str()), Some(failure.detail.as_str())),
    };
    let excerpt = (!attempt.excerpt.is_empty()).then_some(&attempt.excerpt[..]);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO attempts
             (delivery, number, started_at, duration, status, failure, detail, excerpt) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            delivery,
            attempt.number,
            stored(attempt.started_at.as_millis()),
            stored(attempt.duration.as_micros()),
            status,
            failure,
            detail,
            excerpt
        ])?;
    Ok(())
}

/// `None` if the event is still wanted, else the number of its pending deliveries that nobody will send any more.
fn abandoned_with(
    connection: &Connection,
    event: i64,
    before: i64,
    purge: &Purge,
) -> rusqlite::Result<Option<usize>> {
    let mut statement = connection.prepare_cached(
        "SELECT w.name, d.state, d.settled_at FROM deliveries d JOIN webhooks w ON w.id = d.webhook
         WHERE d.event = ?",
    )?;
    let mut rows = statement.query([event])?;
    let mut abandoned = 0;
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(1)? != code::PENDING {
            if row.get::<_, i64>(2)? >= before {
                return Ok(None);
            }
        } else if purge.configured.contains(&super::super::reader::webhook_name(row, 0)?) {
            return Ok(None);
        } else {
            abandoned += 1;
        }
    }
    Ok(Some(abandoned))
}

fn forget(connection: &Connection, event: i64) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM attempts WHERE delivery IN (SELECT key FROM deliveries WHERE event = ?)",
        "DELETE FROM deliveries WHERE event = ?",
        // A batch is forgotten with its first event: its receipt could not be given whole any more.
        "DELETE FROM idempotency WHERE first_event = ?",
        "DELETE FROM events WHERE key = ?",
    ] {
        connection.prepare_cached(sql)?.execute([event])?;
    }
    Ok(())
}
