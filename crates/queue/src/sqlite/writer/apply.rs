//! What each command does to the tables, inside the writer's transaction.
//!
//! An `Err` of these functions is a failure of the storage, and undoes the whole transaction. A refusal, which concerns
//! one command alone, is an `Ok(Err(_))` that left the tables as they were.

mod blocks;
mod jobs;
mod purge;
mod replay;

use std::collections::HashMap;

use aquarium_delivery::{EventId, Exhaustion, Hops, Outcome, WebhookName};
use rusqlite::{Connection, OptionalExtension, Row, Statement, params};

use super::super::checksum::{self, EventRow};
use super::super::phases;
use super::super::schema::{
    MAX_DELIVERIES, NO_ATTEMPT, code, deliveries_of, first_delivery_of, stored, unsigned,
};
use super::{Command, order};
use crate::model::first_due_at;
use crate::{
    Accepted, Attempt, Delivery, Error, Idempotency, Key, NewEvent, Pause, Receipt, ReceiptEntry, Settled,
    Settlement, Submission,
};

/// Names whose row numbers are remembered; when there are more, all are looked up anew.
const REMEMBERED: usize = 65_536;

/// The tables behind one connection, and what the writer knows about them without asking them.
pub(super) struct Tables<'c> {
    connection: &'c Connection,
    statements: Statements<'c>,
    max_size: u64,
    page_size: u64,
    size: u64,
    next_event: u64,
    /// By organization, then by name.
    projects: HashMap<String, HashMap<String, i64>>,
    webhooks: HashMap<WebhookName, i64>,
    /// Events up to this key were looked at by [`Tables::purge`] since it last came to the end.
    purged_up_to: u64,
    /// How often deliveries were added to events that were stored before: see `blocks.rs`.
    additions: u64,
}

/// What is executed for each commit, event or delivery. Other statements are prepared when they are needed.
struct Statements<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    page_count: Statement<'c>,
    freelist_count: Statement<'c>,
    insert_event: Statement<'c>,
    insert_delivery: Statement<'c>,
    settle_attempted: Statement<'c>,
}

impl<'c> Statements<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            page_count: connection.prepare("PRAGMA page_count")?,
            freelist_count: connection.prepare("PRAGMA freelist_count")?,
            insert_event: connection.prepare(
                "INSERT INTO events (key, id, project, kind, accepted_at, body, trace, hops, checksum)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?,
            insert_delivery: connection.prepare(
                "INSERT INTO deliveries
                 (key, id, webhook, state, attempts, due_at, settled_at, started_at, duration, status, subjects,
                  phases, test, checksum)
                 VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?,
            settle_attempted: connection.prepare(
                "UPDATE deliveries SET state = ?2, due_at = ?3, settled_at = ?4,
                 attempts = ?5, started_at = ?6, duration = ?7, status = ?8, failure = ?9, phases = ?10
                 WHERE key = ?1",
            )?,
        })
    }
}

impl<'c> Tables<'c> {
    /// `additions`: as many deliveries as were added by the tables before these.
    pub(super) fn new(connection: &'c Connection, max_size: u64, additions: u64) -> rusqlite::Result<Self> {
        let number = |sql| connection.query_row(sql, [], |row| unsigned(row, 0));
        let mut tables = Self {
            connection,
            statements: Statements::new(connection)?,
            max_size,
            page_size: number("PRAGMA page_size")?,
            size: 0,
            next_event: number(
                "SELECT max(event, (SELECT coalesce(max(key), 0) + 1 FROM events)) FROM next_key",
            )?,
            projects: HashMap::new(),
            webhooks: HashMap::new(),
            purged_up_to: 0,
            additions,
        };
        tables.measure()?;
        Ok(tables)
    }

    /// How often deliveries were added to events that were stored before.
    pub(super) fn additions(&self) -> u64 {
        self.additions
    }

    /// Applies commands in one transaction, commits it, and returns the deliveries that are pending now and were not
    /// before.
    pub(super) fn commit(&mut self, batch: &mut [Command]) -> rusqlite::Result<Vec<Delivery>> {
        self.statements.begin.execute([])?;
        let mut offers = Vec::with_capacity(batch.len());
        for command in batch {
            match command {
                Command::Accept(job) => job.answer = Some(self.accept(&mut job.input, &mut offers)?),
                Command::Settle(job) => {
                    let mut released = 0;
                    for settlement in &job.input {
                        released += self.settle(settlement)?;
                    }
                    job.answer = Some(Ok(released));
                }
                Command::Resume(job) => job.answer = Some(self.resume(&job.input).map(Ok)?),
                Command::Purge(job) => job.answer = Some(self.purge(&job.input).map(Ok)?),
                Command::Replay(job) => job.answer = Some(self.replay(&job.input, &mut offers)?),
                Command::CreateJob(job) => job.answer = Some(self.create_job(&job.input)?),
                Command::CancelJob(job) => job.answer = Some(self.cancel_job(&job.input).map(Ok)?),
                Command::StoreBlock(job) => job.answer = Some(self.store_block(&job.input).map(Ok)?),
            }
        }
        self.measure()?;
        self.statements.commit.execute([])?;
        Ok(offers)
    }

    /// The bytes in use after the last commit.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Counts the bytes in use: the pages of the file less those that are free.
    fn measure(&mut self) -> rusqlite::Result<()> {
        let Statements { page_count, freelist_count, .. } = &mut self.statements;
        let pages = page_count.query_row([], |row| unsigned::<u64>(row, 0))?;
        let free = freelist_count.query_row([], |row| unsigned::<u64>(row, 0))?;
        self.size = pages.saturating_sub(free) * self.page_size;
        Ok(())
    }

    fn accept(
        &mut self,
        submission: &mut Submission,
        offers: &mut Vec<Delivery>,
    ) -> rusqlite::Result<Result<Accepted, Error>> {
        if let Some(idempotency) = &submission.idempotency
            && let Some(known) = self.known(&submission.organization, idempotency)?
        {
            return Ok(known);
        }
        if self.size >= self.max_size {
            return Ok(Err(Error::Full { size: self.size, max_size: self.max_size }));
        }
        if submission.events.iter().any(|event| event.targets.len() > MAX_DELIVERIES) {
            let reason = format!("an event for more than {MAX_DELIVERIES} webhooks cannot be stored");
            return Ok(Err(Error::Unavailable(reason.into())));
        }
        if let Some(Idempotency { key, fingerprint }) = &submission.idempotency {
            self.connection
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
            self.insert(&submission.organization, event, offers)?;
        }
        Ok(Ok(Accepted::Stored))
    }

    fn insert(
        &mut self,
        organization: &str,
        event: NewEvent,
        offers: &mut Vec<Delivery>,
    ) -> rusqlite::Result<()> {
        let event_key = self.next_event;
        self.next_event += 1;
        let project = self.project(organization, &event.project)?;
        let accepted_at = stored(event.accepted_at.as_millis());
        let trace = event.trace.map(|trace| trace.to_bytes());
        let checksum = checksum::of_event(EventRow {
            key: stored(event_key),
            id: event.id.as_bytes(),
            organization,
            project: &event.project,
            kind: &event.kind,
            accepted_at,
            trace: trace.as_ref().map(|trace| &trace[..]),
            hops: event.hops.get().into(),
            body: &event.body,
        });
        self.statements.insert_event.execute(params![
            stored(event_key),
            event.id.as_bytes(),
            project,
            event.kind,
            accepted_at,
            &event.body[..],
            trace,
            (event.hops != Hops::FIRST).then(|| event.hops.get()),
            checksum
        ])?;
        let (duration, status, phases) = NO_ATTEMPT;
        for (key, target) in (first_delivery_of(event_key)..).zip(&event.targets) {
            let webhook = self.webhook(&target.webhook)?;
            let state = if target.skipped { code::SKIPPED } else { code::PENDING };
            let subjects = event.subjects_of(target);
            let parked =
                !subjects.is_empty() && !order::line_up(self.connection, webhook, stored(key), subjects)?;
            self.statements.insert_delivery.execute(params![
                stored(key),
                target.delivery.as_bytes(),
                webhook,
                state,
                stored(first_due_at(&event, target, parked).as_millis()),
                accepted_at,
                duration,
                status,
                order::encode(subjects),
                phases,
                target.test.then_some(1),
                checksum::of_delivery(stored(key), target.delivery.as_bytes(), target.webhook.as_str())
            ])?;
            // Nobody need know of what cannot be sent yet, but somebody may be waiting to hear of it.
            if !target.skipped && (!parked || event.watcher.is_some()) {
                offers.push(Delivery::fresh(&event, Key(event_key), target, Key(key), parked));
            }
        }
        Ok(())
    }

    /// What a submission with the same key led to, if there was one.
    fn known(
        &self,
        organization: &str,
        idempotency: &Idempotency,
    ) -> rusqlite::Result<Option<Result<Accepted, Error>>> {
        let found = self
            .connection
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
        let mut statement = self
            .connection
            .prepare_cached("SELECT key, id FROM events WHERE key >= ? AND key < ? ORDER BY key")?;
        let rows = statement.query_map([first, first.saturating_add(events)], |row| {
            Ok((unsigned(row, 0)?, EventId::from_bytes(row.get(1)?)))
        })?;
        let receipts = rows.map(|row| row.and_then(|(key, event)| receipt(self.connection, key, event)));
        Ok(Some(Ok(Accepted::Repeated(receipts.collect::<Result<_, _>>()?))))
    }

    /// Returns how many parked deliveries are due now.
    fn settle(&mut self, settlement: &Settlement) -> rusqlite::Result<usize> {
        let (at, delivery) = (stored(settlement.at.as_millis()), stored(settlement.delivery.0));
        let (state, due_at) = match &settlement.state {
            Settled::Delivered => (code::DELIVERED, at),
            Settled::Exhausted(Exhaustion::Attempts) => (code::EXHAUSTED_BY_ATTEMPTS, at),
            Settled::Exhausted(Exhaustion::Age) => (code::EXHAUSTED_BY_AGE, at),
            Settled::Exhausted(Exhaustion::Damaged) => (code::EXHAUSTED_BY_DAMAGE, at),
            Settled::Retry(due_at) => (code::PENDING, stored(due_at.as_millis())),
            Settled::Suspended { .. } => (code::PENDING, at),
        };
        match &settlement.attempt {
            Some(attempt) => self.settle_attempted(delivery, (state, due_at, at), attempt)?,
            None => {
                let sql = "UPDATE deliveries SET state = ?, due_at = ?, settled_at = ? WHERE key = ?";
                self.connection.prepare_cached(sql)?.execute(params![state, due_at, at, delivery])?;
            }
        }
        if let Settled::Suspended { url } = &settlement.state {
            self.connection
                .prepare_cached(
                    "UPDATE webhooks SET suspended_at = ?, suspended_url = ?
                     WHERE id = (SELECT webhook FROM deliveries WHERE key = ?)",
                )?
                .execute(params![at, url, delivery])?;
        }
        if let Some(Pause { until, url }) = &settlement.pause {
            self.connection
                .prepare_cached(
                    "UPDATE webhooks SET paused_until = ?, paused_url = ?
                     WHERE id = (SELECT webhook FROM deliveries d WHERE d.key = ?)",
                )?
                .execute(params![stored(until.as_millis()), url, delivery])?;
        }
        if settlement.releases() { order::release(self.connection, delivery) } else { Ok(0) }
    }

    /// Records the state that a delivery's last attempt led to, and the attempt. Most are told whole by the delivery's
    /// own row: there was one attempt, and its answer had no body.
    fn settle_attempted(
        &mut self,
        delivery: i64,
        (state, due_at, at): (i64, i64, i64),
        attempt: &Attempt,
    ) -> rusqlite::Result<()> {
        if attempt.number > 1 {
            // Else the one before would be forgotten. If this one was recorded already, then so was that one.
            self.connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO attempts (delivery, number, started_at, duration, status, failure, phases)
                     SELECT key, attempts, started_at, duration, status, failure, phases FROM deliveries
                     WHERE key = ? AND attempts > 0",
                )?
                .execute([delivery])?;
        }
        let (status, failure, detail) = match &attempt.outcome {
            Outcome::Answered { status, .. } => (Some(*status), None, None),
            Outcome::Failed(failure) => (None, Some(failure.kind.as_str()), Some(&*failure.detail)),
        };
        let (started_at, duration) =
            (stored(attempt.started_at.as_millis()), stored(attempt.duration.as_micros()));
        let phases = phases::pack(&attempt.phases, attempt.breaker_open);
        self.statements.settle_attempted.execute(params![
            delivery,
            state,
            due_at,
            at,
            attempt.number,
            started_at,
            duration,
            status,
            failure,
            phases
        ])?;
        if detail.is_some() || !attempt.excerpt.is_empty() {
            let excerpt = (!attempt.excerpt.is_empty()).then_some(&attempt.excerpt[..]);
            self.connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO attempts
                     (delivery, number, started_at, duration, status, failure, detail, excerpt, phases)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    delivery,
                    attempt.number,
                    started_at,
                    duration,
                    status,
                    failure,
                    detail,
                    excerpt,
                    phases
                ])?;
        }
        Ok(())
    }

    fn resume(&mut self, webhook: &WebhookName) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("UPDATE webhooks SET suspended_at = NULL, suspended_url = NULL WHERE name = ?")?
            .execute([webhook.as_str()])?;
        Ok(())
    }

    fn project(&mut self, organization: &str, name: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.projects.get(organization).and_then(|projects| projects.get(name)) {
            return Ok(*id);
        }
        let id = intern(
            self.connection,
            "SELECT id FROM projects WHERE organization = ? AND name = ?",
            "INSERT INTO projects (organization, name) VALUES (?, ?)",
            params![organization, name],
        )?;
        if self.projects.values().map(HashMap::len).sum::<usize>() >= REMEMBERED {
            self.projects.clear();
        }
        self.projects.entry(organization.to_owned()).or_default().insert(name.to_owned(), id);
        Ok(id)
    }

    fn webhook(&mut self, name: &WebhookName) -> rusqlite::Result<i64> {
        if let Some(id) = self.webhooks.get(name) {
            return Ok(*id);
        }
        let id = intern(
            self.connection,
            "SELECT id FROM webhooks WHERE name = ?",
            "INSERT INTO webhooks (name) VALUES (?)",
            params![name.as_str()],
        )?;
        if self.webhooks.len() >= REMEMBERED {
            self.webhooks.clear();
        }
        self.webhooks.insert(name.clone(), id);
        Ok(id)
    }
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

fn receipt(connection: &Connection, key: u64, event: EventId) -> rusqlite::Result<Receipt> {
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
         WHERE d.key >= ? AND d.key < ? ORDER BY d.key",
    )?;
    let deliveries = statement.query_map(deliveries_of(key), entry)?.collect::<Result<_, _>>()?;
    Ok(Receipt { event, deliveries })
}
