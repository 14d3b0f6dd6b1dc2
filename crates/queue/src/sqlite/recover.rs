//! Saves what can be read of a damaged queue into a new file.
//!
//! Each table is read by its keys, around what cannot be read (`walk.rs`). What is stored twice is looked for in its second
//! place: names of webhooks and projects, and pending deliveries, stand in an index too. What is missing then is looked for in
//! the pages themselves (`pages.rs`), so that a lost root, or a lost first page, does not take a whole table along. What follows
//! from other rows (lines, blocks) is made anew.
//!
//! The damaged file and its log are only read. Rows that do not match their checksums are saved as they are: they end as
//! exhausted, and visibly.

mod pages;
pub(super) mod walk;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aquarium_delivery::{DeliveryId, Timestamp};
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params, params_from_iter};

use super::checksum;
use super::maintenance::{Closed, Error};
use super::schema::{self, NO_ATTEMPT, code, event_of, stored};
use super::writer::order;
use super::{OpenError, lock, private};
use crate::PARKED;
use pages::{Image, Row};
use walk::{Keys, readable, rows_of};

/// What was saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Events.
    pub events: u64,
    /// Deliveries.
    pub deliveries: u64,
    /// Of these, those that are still to be sent.
    pub pending: u64,
    /// Pending deliveries that were made anew from an index: they have new identifiers, and no attempts.
    pub rebuilt: u64,
    /// Deliveries that were found without their event or their webhook, and could not be saved.
    pub lost: u64,
    /// What is wrong with the new file, as `verify` tells.
    pub wrong: Vec<String>,
    /// How many ranges of keys, and single rows, could not be read of each table; none that was read whole.
    pub unreadable: Vec<(&'static str, u64)>,
}

/// A delivery that could not be saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Its identifier, if that could be read.
    pub id: Option<DeliveryId>,
    /// The name of its webhook, if that could be read.
    pub webhook: Option<String>,
    /// True if it was still to be sent.
    pub pending: bool,
}

/// Where rows are read from and written to.
pub struct Recovery<'r> {
    /// The damaged file.
    pub from: &'r Path,
    /// The new one, which must not exist.
    pub to: &'r Path,
    /// Gives random bytes, for identifiers of deliveries whose own are lost.
    pub random: &'r mut dyn FnMut() -> [u8; 10],
    /// Hears of each delivery that is lost.
    pub lost: &'r mut dyn FnMut(Lost) -> io::Result<()>,
}

/// Saves what can be read. If that fails, there is no new file.
///
/// # Errors
/// [`Error`]; what is damaged is none.
pub fn recover(recovery: Recovery<'_>) -> Result<Recovered, Error> {
    let Recovery { from, to, random, lost } = recovery;
    if !from.exists() {
        return Err(Error::Missing(from.to_owned()));
    }
    if let Some(there) = files(to).into_iter().find(|file| file.exists()) {
        return Err(Error::Exists(there));
    }
    let _lock = lock::acquire(from)?;
    // It outlives every connection to the file: see there.
    let image = Image::open(from, &beside(from, "-wal"))
        .map_err(|source| OpenError::Directory { path: from.to_owned(), source })?;
    let saved = save(from, to, &image, random, lost);
    if saved.is_err() {
        for file in files(to) {
            // It may not have come to that.
            let _ = fs::remove_file(file);
        }
    }
    saved
}

fn save(
    from: &Path,
    to: &Path,
    image: &Image,
    random: &mut dyn FnMut() -> [u8; 10],
    lost: &mut dyn FnMut(Lost) -> io::Result<()>,
) -> Result<Recovered, Error> {
    let old = open_damaged(from)?;
    private::make_file(to).map_err(|source| OpenError::Directory { path: to.to_owned(), source })?;
    let new = schema::open(to)?;
    // One transaction without a log: if it fails, the file goes.
    new.pragma_update(None, "journal_mode", "delete")?;
    new.pragma_update(None, "synchronous", "off")?;
    new.execute_batch("BEGIN IMMEDIATE")?;
    let mut saving = Saving { old, new, image, random, lost, found: Recovered::default() };
    saving.names()?;
    saving.events()?;
    saving.deliveries()?;
    saving.rest()?;
    let Saving { old, new, mut found, .. } = saving;
    drop(old);
    let number = |sql: &str| new.query_row(sql, [], |row| schema::unsigned::<u64>(row, 0));
    found.events = number("SELECT count(*) FROM events")?;
    found.deliveries = number("SELECT count(*) FROM deliveries")?;
    found.pending = number("SELECT count(*) FROM deliveries WHERE state = 0")?;
    new.execute_batch("COMMIT")?;
    new.pragma_update(None, "journal_mode", "wal")?;
    drop(new);
    let synced = File::open(to).and_then(|file| file.sync_all());
    let synced = synced.and_then(|()| File::open(super::directory_of(to))?.sync_all());
    synced.map_err(|source| OpenError::Directory { path: to.to_owned(), source })?;
    found.wrong = Closed::open(to)?.verify();
    Ok(found)
}

/// Opens a file without changing it.
fn open_damaged(path: &Path) -> Result<Connection, Error> {
    let connection = schema::open_plainly(path)?;
    // Its log stays as it is, too.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    schema::check_identity(&connection, path)?;
    Ok(connection)
}

struct Saving<'r> {
    old: Connection,
    new: Connection,
    image: &'r Image,
    random: &'r mut dyn FnMut() -> [u8; 10],
    lost: &'r mut dyn FnMut(Lost) -> io::Result<()>,
    found: Recovered,
}

/// A table that is read by its keys.
struct Table {
    name: &'static str,
    /// The names of the columns that both files have.
    columns: Vec<String>,
}

impl Table {
    fn insert(&self) -> String {
        let places = vec!["?"; self.columns.len()].join(", ");
        format!("INSERT OR IGNORE INTO {} ({}) VALUES ({places})", self.name, self.columns.join(", "))
    }
}

impl Saving<'_> {
    fn names(&mut self) -> Result<(), Error> {
        for (name, second) in [
            (
                "projects",
                "SELECT id, organization, name FROM projects INDEXED BY sqlite_autoindex_projects_1",
            ),
            ("webhooks", "SELECT id, name FROM webhooks INDEXED BY sqlite_autoindex_webhooks_1"),
        ] {
            if self.copy(name, "id", |_, _| Ok(true))? {
                continue;
            }
            let columns = if name == "projects" { "id, organization, name" } else { "id, name" };
            let places = if name == "projects" { "?, ?, ?" } else { "?, ?" };
            let insert = format!("INSERT OR IGNORE INTO {name} ({columns}) VALUES ({places})");
            let new = &self.new;
            rows_of(&self.old, second, |row| put(new, &insert, &row).map(drop))?;
            self.scan(name, is_row_of(name), |_, _| Ok(true))?;
        }
        Ok(())
    }

    fn events(&mut self) -> Result<(), Error> {
        if !self.copy("events", "key", |_, _| Ok(true))? {
            self.scan("events", is_row_of("events"), |_, _| Ok(true))?;
        }
        Ok(())
    }

    fn deliveries(&mut self) -> Result<(), Error> {
        if !self.copy("deliveries", "key", Self::is_whole)? {
            self.scan("deliveries", is_row_of("deliveries"), Self::is_whole)?;
            self.rebuild()?;
        }
        Ok(())
    }

    /// Whether what a delivery refers to was saved. If not, it is lost.
    fn is_whole(&mut self, columns: &[Value]) -> Result<bool, Error> {
        let (Some(Value::Integer(key)), id, webhook, state) =
            (columns.first(), columns.get(1), columns.get(2), columns.get(3))
        else {
            return Ok(false);
        };
        let event = stored(event_of(key.cast_unsigned()));
        let has_event = self.new.prepare_cached("SELECT 1 FROM events WHERE key = ?")?.exists([event])?;
        let mut statement = self.new.prepare_cached("SELECT name FROM webhooks WHERE id = ?")?;
        let name: Option<String> = match webhook {
            Some(Value::Integer(webhook)) => statement.query_row([webhook], |row| row.get(0)).optional()?,
            _ => None,
        };
        if has_event && name.is_some() {
            return Ok(true);
        }
        let id = match id {
            Some(Value::Blob(id)) => id.as_slice().try_into().ok().map(DeliveryId::from_bytes),
            _ => None,
        };
        let pending = matches!(state, Some(Value::Integer(code::PENDING)));
        self.found.lost += 1;
        (self.lost)(Lost { id, webhook: name, pending })?;
        Ok(false)
    }

    /// Makes pending deliveries anew whose rows are lost, from the index of what is due.
    fn rebuild(&mut self) -> Result<(), Error> {
        for direction in ["", " DESC"] {
            let sql = format!(
                "SELECT key, webhook, due_at FROM deliveries INDEXED BY deliveries_due WHERE state = 0
                 ORDER BY webhook{direction}, due_at{direction}, key{direction}"
            );
            let (new, random, mut rebuilt) = (&self.new, &mut *self.random, 0);
            let whole = rows_of(&self.old, &sql, |row| {
                if let [Value::Integer(key), Value::Integer(webhook), Value::Integer(due_at)] = row[..] {
                    rebuilt += u64::from(rebuild_delivery(new, (key, webhook, due_at), random)?);
                }
                Ok(())
            })?;
            self.found.rebuilt += rebuilt;
            if whole {
                break;
            }
        }
        Ok(())
    }

    fn rest(&mut self) -> Result<(), Error> {
        self.copy("jobs", "number", |_, _| Ok(true))?;
        for (name, key, condition) in [
            ("attempts", "delivery, number", "EXISTS (SELECT 1 FROM deliveries WHERE key = ?1)"),
            // One whose events are lost must not make a repetition look as if it had been accepted.
            (
                "idempotency",
                "organization, key",
                "(SELECT count(*) FROM events WHERE key >= ?4 AND key < ?4 + ?5) = ?5",
            ),
        ] {
            let table = self.table(name)?;
            let columns = table.columns.join(", ");
            let places: Vec<_> = (1..=table.columns.len()).map(|place| format!("?{place}")).collect();
            let insert = format!(
                "INSERT OR IGNORE INTO {name} ({columns}) SELECT {} WHERE {condition}",
                places.join(", ")
            );
            for direction in ["", " DESC"] {
                let order = key.replace(", ", &format!("{direction}, "));
                let sql = format!("SELECT {columns} FROM {name} ORDER BY {order}{direction}");
                let new = &self.new;
                if rows_of(&self.old, &sql, |row| put(new, &insert, &row).map(drop))? {
                    break;
                }
                if direction.is_empty() {
                    self.found.unreadable.push((name, 1));
                }
            }
        }
        order::rebuild(&self.new)?;
        let next = rows_of(&self.old, "SELECT event FROM next_key", |row| {
            put(&self.new, "UPDATE next_key SET event = max(event, ?)", &row).map(drop)
        })?;
        if !next {
            self.found.unreadable.push(("next_key", 1));
        }
        // No key comes twice, also none that is lost.
        self.new.execute(
            "UPDATE next_key SET event = max(event, (SELECT coalesce(max(key), 0) + 1 FROM events),
             (SELECT coalesce(max(key >> 20), 0) + 1 FROM deliveries))",
            [],
        )?;
        Ok(())
    }

    fn table(&self, name: &'static str) -> Result<Table, Error> {
        let mut common = columns(&self.new, name)?;
        // An older file has not all of them. If it does not tell, it is not read by its columns anyway.
        if let Some(known) = readable(columns(&self.old, name))?.filter(|known| !known.is_empty()) {
            common.retain(|column| known.contains(column));
        }
        Ok(Table { name, columns: common })
    }

    /// Copies rows that `admits` lets through. False if some could not be read.
    fn copy(
        &mut self,
        name: &'static str,
        key: &'static str,
        mut admits: impl FnMut(&mut Self, &[Value]) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let table = self.table(name)?;
        let insert = table.insert();
        let select = format!("SELECT {} FROM {name} NOT INDEXED WHERE {key} = ?", table.columns.join(", "));
        let (mut walk, mut unreadable) = (Keys::new(name, key), 0);
        loop {
            let keys = walk.portion(&self.old)?;
            if keys.is_empty() {
                break;
            }
            for key in keys {
                let read = || {
                    self.old.prepare_cached(&select)?.query_row([key], |row| {
                        let columns = (0..table.columns.len()).map(|column| row.get(column));
                        columns.collect::<Result<Vec<Value>, _>>()
                    })
                };
                match readable(read())? {
                    Some(row) => {
                        if admits(self, &row)? && !put(&self.new, &insert, &row)? {
                            unreadable += 1;
                        }
                    }
                    None => unreadable += 1,
                }
            }
        }
        unreadable += walk.gaps();
        if unreadable > 0 {
            self.found.unreadable.push((name, unreadable));
        }
        Ok(unreadable == 0)
    }

    /// Looks for rows in the pages themselves, and adds those that were not found yet.
    fn scan(
        &mut self,
        name: &'static str,
        is_row: impl Fn(&Row) -> bool,
        mut admits: impl FnMut(&mut Self, &[Value]) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let columns = columns(&self.new, name)?;
        let image = self.image;
        image.rows(|mut row| {
            if !is_row(&row) || row.columns.len() > columns.len() {
                return Ok(());
            }
            let key = self
                .new
                .prepare_cached(&format!("SELECT 1 FROM {name} WHERE {} = ?", columns[0]))?
                .exists([row.key])?;
            if key {
                return Ok(());
            }
            row.columns[0] = Value::Integer(row.key);
            let table = Table { name, columns: columns[..row.columns.len()].to_vec() };
            if admits(self, &row.columns)? {
                put(&self.new, &table.insert(), &row.columns)?;
            }
            Ok(())
        })
    }
}

/// Adds a row. False if it was not: it is there already, or its values cannot be.
fn put(new: &Connection, insert: &str, row: &[Value]) -> rusqlite::Result<bool> {
    match new.prepare_cached(insert)?.execute(params_from_iter(row)) {
        Ok(rows) => Ok(rows > 0),
        Err(failure) if failure.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// True if it was not there, and what it refers to is.
fn rebuild_delivery(
    new: &Connection,
    (key, webhook, due_at): (i64, i64, i64),
    random: &mut dyn FnMut() -> [u8; 10],
) -> rusqlite::Result<bool> {
    let found = new
        .prepare_cached(
            "SELECT e.accepted_at, w.name FROM events e JOIN webhooks w ON w.id = ?2 WHERE e.key = ?1 >> 20
             AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.key = ?1)",
        )?
        .query_row([key, webhook], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)));
    let Some((accepted_at, name)) = found.optional()? else { return Ok(false) };
    let id = DeliveryId::new(Timestamp::from_millis(accepted_at.cast_unsigned()), random());
    let (duration, status, phases) = NO_ATTEMPT;
    let due_at = if due_at == stored(PARKED.as_millis()) { accepted_at } else { due_at };
    new.prepare_cached(
        "INSERT INTO deliveries
         (key, id, webhook, state, attempts, due_at, settled_at, started_at, duration, status, phases, checksum)
         VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        key,
        id.as_bytes(),
        webhook,
        code::PENDING,
        due_at,
        accepted_at,
        duration,
        status,
        phases,
        checksum::of_delivery(key, id.as_bytes(), &name)
    ])?;
    Ok(true)
}

/// Whether a row that was found in a page is one of this table, by the types of its columns.
fn is_row_of(table: &'static str) -> impl Fn(&Row) -> bool {
    use Value::{Blob, Integer, Null, Text};
    move |row| match (table, row.columns.as_slice()) {
        ("projects", [Null, Text(_), Text(_)]) => true,
        ("webhooks", [Null, Text(name), Null | Integer(_), Null | Text(_), ..]) => {
            name.parse::<aquarium_delivery::WebhookName>().is_ok()
        }
        ("events", [Null, Blob(id), Integer(_), Text(_), Integer(_), Blob(_), ..]) => id.len() == 16,
        (
            "deliveries",
            [
                Null,
                Blob(id),
                Integer(_),
                Integer(_),
                Integer(_),
                Integer(_),
                Integer(_),
                Integer(_),
                Integer(_),
                ..,
            ],
        ) => id.len() == 16,
        _ => false,
    }
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?) ORDER BY cid")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// A database and what may stand beside it.
fn files(path: &Path) -> [PathBuf; 4] {
    ["", "-wal", "-shm", "-journal"].map(|suffix| beside(path, suffix))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
