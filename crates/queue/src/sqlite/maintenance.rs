//! Looking after the file of a queue, from outside the process that uses it.
//!
//! [`stats`] reads, and may be asked for while a sidecar runs. What [`Closed`] does needs the queue for itself.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use aquarium_delivery::{DeliveryId, EventId, Timestamp, WebhookName};
use rusqlite::{Connection, OptionalExtension, Row};

use super::OpenError;
use super::checksum;
use super::lock::{self, Lock};
use super::reader::{is_intact, is_undecodable, webhook_name};
use super::recover::walk::{Keys, readable};
use super::schema::{self, code, deliveries_of, timestamp, unsigned};
use crate::PARKED;
use crate::history::StateKind;

/// Damaged rows of a kind that [`Closed::verify`] names.
const EXAMPLES: usize = 3;

/// What a queue holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// The version of the format.
    pub schema: u32,
    /// The size of the file in bytes, and of its log.
    pub file: u64,
    /// The size of the log beside it in bytes.
    pub log: u64,
    /// Of the file, what is free to be used again, in bytes.
    pub free: u64,
    /// Events.
    pub events: u64,
    /// Deliveries that are to be sent, or held.
    pub pending: u64,
    /// Deliveries that their endpoint has.
    pub delivered: u64,
    /// Deliveries that were given up.
    pub exhausted: u64,
    /// Deliveries that were not sent, because the webhook was not active.
    pub skipped: u64,
    /// Webhooks that are suspended.
    pub suspended: u64,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no such file.
    #[error("{path} is not there", path = .0.display())]
    Missing(PathBuf),
    /// There is something where a new file should be made.
    #[error("{path} is there already; name a file that is not", path = .0.display())]
    Exists(PathBuf),
    /// SQLite could not read or write it.
    #[error("the queue cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// What was exported could not be written.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Counts what a queue holds. It reads all of it, which takes a moment for a large one.
///
/// # Errors
/// [`Error`].
pub fn stats(path: &Path) -> Result<Stats, Error> {
    let connection = reading(path)?;
    let number = |sql: &str| connection.query_row(sql, [], |row| unsigned::<u64>(row, 0));
    let of_state = |from: i64, to: i64| {
        let sql = "SELECT count(*) FROM deliveries WHERE state BETWEEN ? AND ?";
        connection.query_row(sql, [from, to], |row| unsigned::<u64>(row, 0))
    };
    let size = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(name).map_or(0, |metadata| metadata.len())
    };
    // At one state of the file.
    let transaction = connection.unchecked_transaction()?;
    let stats = Stats {
        schema: connection.pragma_query_value(None, "user_version", |row| row.get(0))?,
        file: size(""),
        log: size("-wal"),
        free: number("PRAGMA freelist_count")? * number("PRAGMA page_size")?,
        events: number("SELECT count(*) FROM events")?,
        pending: of_state(code::PENDING, code::PENDING)?,
        delivered: of_state(code::DELIVERED, code::DELIVERED)?,
        exhausted: of_state(code::EXHAUSTED_BY_ATTEMPTS, code::EXHAUSTED_BY_AGE)?
            + of_state(code::EXHAUSTED_BY_DAMAGE, code::EXHAUSTED_BY_DAMAGE)?,
        skipped: of_state(code::SKIPPED, code::SKIPPED)?,
        suspended: number("SELECT count(*) FROM webhooks WHERE suspended_at IS NOT NULL")?,
    };
    transaction.commit()?;
    Ok(stats)
}

fn reading(path: &Path) -> Result<Connection, Error> {
    if !path.exists() {
        return Err(Error::Missing(path.to_owned()));
    }
    Ok(schema::open_for_reading(path)?)
}

/// A queue that no sidecar has open, and that none can open as long as this lives.
#[derive(Debug)]
pub struct Closed {
    path: PathBuf,
    connection: Connection,
    _lock: Lock,
}

/// What is wrong with a queue, each promise of the format with a query that finds what breaks it.
const PROMISES: &[(&str, &str)] = &[
    (
        "deliveries without their event",
        "SELECT count(*) FROM deliveries d WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.key = d.key >> 20)",
    ),
    (
        "events without their project",
        "SELECT count(*) FROM events e WHERE NOT EXISTS (SELECT 1 FROM projects p WHERE p.id = e.project)",
    ),
    (
        "deliveries without their webhook",
        "SELECT count(*) FROM deliveries d WHERE NOT EXISTS (SELECT 1 FROM webhooks w WHERE w.id = d.webhook)",
    ),
    (
        "deliveries in a state that there is not",
        "SELECT count(*) FROM deliveries WHERE state NOT BETWEEN 0 AND 5",
    ),
    (
        "deliveries with numbers that cannot be",
        "SELECT count(*) FROM deliveries
         WHERE attempts NOT BETWEEN 0 AND 4294967295 OR due_at < 0 OR settled_at < 0",
    ),
    (
        "attempts without their delivery",
        "SELECT count(*) FROM attempts a WHERE NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.key = a.delivery)",
    ),
    (
        "places in line of deliveries that do not wait",
        "SELECT count(*) FROM lines l
         WHERE NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.key = l.delivery AND d.state = 0)",
    ),
    ("keys that would come twice", "SELECT count(*) FROM next_key WHERE event < 1"),
];

/// Rows that do not match their checksum.
#[derive(Default)]
struct Damaged {
    number: u64,
    /// A few of them.
    examples: Vec<String>,
}

impl Damaged {
    fn add(&mut self, id: impl Display) {
        self.number += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(id.to_string());
        }
    }

    fn described(self, what: &str) -> Option<String> {
        (self.number > 0).then(|| format!("{} {what}, such as {}", self.number, self.examples.join(", ")))
    }
}

/// What to say of a promise that so many rows break.
fn breaches(what: &str, found: rusqlite::Result<u64>) -> Option<String> {
    match found {
        Ok(0) => None,
        Ok(number) => Some(format!("{number} {what}")),
        Err(error) => Some(format!("{what}: it cannot be told whether there are any: {error}")),
    }
}

impl Closed {
    /// Takes the queue, and migrates it if it is old.
    ///
    /// # Errors
    /// [`Error`]; [`OpenError::InUse`] if a sidecar has it open.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if !path.exists() {
            return Err(Error::Missing(path.to_owned()));
        }
        let lock = lock::acquire(path)?;
        Ok(Self { path: path.to_owned(), connection: schema::open(path)?, _lock: lock })
    }

    /// What is wrong with it, a line each; nothing if all is well. Reads every page, so it takes a while.
    pub fn verify(&self) -> Vec<String> {
        // The file itself: pages, indexes, and whether they agree.
        let mut wrong = self.damage().unwrap_or_else(|error| vec![error.to_string()]);
        for (what, sql) in PROMISES {
            wrong.extend(breaches(what, self.connection.query_row(sql, [], |row| unsigned(row, 0))));
        }
        let parked = "SELECT count(*) FROM deliveries d WHERE state = 0 AND due_at = ?1
             AND NOT EXISTS (SELECT 1 FROM lines l JOIN lines before
                 ON before.webhook = l.webhook AND before.subject = l.subject AND before.delivery < l.delivery
                 WHERE l.webhook = d.webhook AND l.delivery = d.key)";
        let stuck =
            self.connection.query_row(parked, [schema::stored(PARKED.as_millis())], |row| unsigned(row, 0));
        wrong.extend(breaches("deliveries that wait behind nothing", stuck));
        for (what, found) in [
            ("events that do not match their checksum", self.damaged_events()),
            ("deliveries that do not match their checksum", self.damaged_deliveries()),
        ] {
            match found {
                Ok(damaged) => wrong.extend(damaged.described(what)),
                Err(error) => wrong.push(format!("{what}: it cannot be told whether there are any: {error}")),
            }
        }
        wrong
    }

    fn damaged_events(&self) -> rusqlite::Result<Damaged> {
        let mut statement = self.connection.prepare(
            "SELECT e.key, e.id, p.organization, p.name, e.kind, e.accepted_at, e.trace, e.hops, e.body, e.checksum
             FROM events e LEFT JOIN projects p ON p.id = e.project ORDER BY e.key",
        )?;
        let (mut rows, mut damaged) = (statement.query([])?, Damaged::default());
        while let Some(row) = rows.next()? {
            if !is_intact(row)? {
                damaged.add(EventId::from_bytes(row.get(1).unwrap_or_default()));
            }
        }
        Ok(damaged)
    }

    fn damaged_deliveries(&self) -> rusqlite::Result<Damaged> {
        let mut statement = self.connection.prepare(
            "SELECT d.key, d.id, w.name, d.checksum FROM deliveries d LEFT JOIN webhooks w ON w.id = d.webhook
             ORDER BY d.key",
        )?;
        let (mut rows, mut damaged) = (statement.query([])?, Damaged::default());
        while let Some(row) = rows.next()? {
            let intact = || -> rusqlite::Result<bool> {
                let (key, id) = (row.get(0)?, row.get_ref(1)?.as_blob()?);
                let webhook = row.get_ref(2)?.as_str_or_null()?.unwrap_or_default();
                Ok(checksum::matches(row.get(3)?, || checksum::of_delivery(key, id, webhook)))
            };
            if !intact().or_else(|error| if is_undecodable(&error) { Ok(false) } else { Err(error) })? {
                damaged.add(DeliveryId::from_bytes(row.get(1).unwrap_or_default()));
            }
        }
        Ok(damaged)
    }

    fn damage(&self) -> rusqlite::Result<Vec<String>> {
        let mut check = self.connection.prepare("PRAGMA integrity_check(100)")?;
        let lines: Vec<String> = check.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }

    /// Gives free space back to the file system. Needs as much room as what is stored, beside the file. Returns its size in
    /// bytes before and after.
    ///
    /// # Errors
    /// [`Error::Sqlite`]: the file is as it was.
    pub fn compact(&self) -> Result<(u64, u64), Error> {
        let size = || std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        let checkpoint = || self.connection.pragma_update(None, "wal_checkpoint", "truncate");
        checkpoint()?;
        let before = size();
        self.connection.execute_batch("VACUUM")?;
        checkpoint()?;
        Ok((before, size()))
    }
}

/// An event with its deliveries, as it is exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// Its identifier.
    pub id: EventId,
    /// The organization that owns it.
    pub organization: String,
    /// The project in which it happened.
    pub project: String,
    /// The canonical name of its type.
    pub kind: String,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// The payload, byte for byte.
    pub body: Vec<u8>,
    /// True if it does not match its checksum.
    pub damaged: bool,
    /// Where it goes.
    pub deliveries: Vec<ExportedDelivery>,
}

/// One delivery of an [`Exported`] event.
#[derive(Debug, Clone, PartialEq)]
pub struct ExportedDelivery {
    /// Its identifier.
    pub id: DeliveryId,
    /// The webhook that it goes to.
    pub webhook: WebhookName,
    /// Its state.
    pub state: StateKind,
    /// How many attempts were made.
    pub attempts: u32,
}

/// What [`export`] came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exports {
    /// Events that were given.
    pub events: u64,
    /// Of these, those that do not match their checksum.
    pub damaged: u64,
    /// Rows, and ranges of rows, that could not be read.
    pub unreadable: u64,
}

/// Gives events to `each`, the oldest first; with `pending`, only those that are still to be delivered to somebody. It may be
/// asked for while a sidecar runs, and shows one state of the file. What is damaged is passed over, and counted.
///
/// # Errors
/// [`Error`].
pub fn export(
    path: &Path,
    pending: bool,
    mut each: impl FnMut(Exported) -> io::Result<()>,
) -> Result<Exports, Error> {
    let connection = reading(path)?;
    let transaction = connection.unchecked_transaction()?;
    let (mut keys, mut exports) = (Keys::new("events", "key"), Exports::default());
    loop {
        let portion = keys.portion(&connection)?;
        if portion.is_empty() {
            break;
        }
        for key in portion {
            match readable(exported(&connection, key))? {
                Some(Some(event)) if !pending || event.is_pending() => {
                    exports.events += 1;
                    exports.damaged += u64::from(event.damaged);
                    each(event)?;
                }
                Some(_) => {}
                None => exports.unreadable += 1,
            }
        }
    }
    exports.unreadable += keys.gaps();
    // Nothing was written; and after damage a commit would fail.
    drop(transaction);
    Ok(exports)
}

fn exported(connection: &Connection, key: i64) -> rusqlite::Result<Option<Exported>> {
    let mut of_event = connection.prepare_cached(
        "SELECT d.id, w.name, d.state, d.attempts FROM deliveries d JOIN webhooks w ON w.id = d.webhook
         WHERE d.key >= ? AND d.key < ? ORDER BY d.key",
    )?;
    let delivery = |row: &Row<'_>| {
        Ok(ExportedDelivery {
            id: DeliveryId::from_bytes(row.get(0)?),
            webhook: webhook_name(row, 1)?,
            state: schema::state(row.get(2)?, PARKED)?.kind(),
            attempts: row.get(3)?,
        })
    };
    connection
        .prepare_cached(
            "SELECT e.key, e.id, p.organization, p.name, e.kind, e.accepted_at, e.trace, e.hops, e.body, e.checksum
             FROM events e LEFT JOIN projects p ON p.id = e.project WHERE e.key = ?",
        )?
        .query_row([key], |row| {
            let deliveries = of_event.query_map(deliveries_of(unsigned(row, 0)?), delivery)?;
            Ok(Exported {
                id: EventId::from_bytes(row.get(1)?),
                organization: row.get::<_, Option<_>>(2)?.unwrap_or_default(),
                project: row.get::<_, Option<_>>(3)?.unwrap_or_default(),
                kind: row.get(4)?,
                accepted_at: timestamp(row, 5)?,
                body: row.get(8)?,
                damaged: !is_intact(row)?,
                deliveries: deliveries.collect::<Result<_, _>>()?,
            })
        })
        .optional()
}

impl Exported {
    fn is_pending(&self) -> bool {
        self.deliveries.iter().any(|delivery| delivery.state == StateKind::Pending)
    }
}
