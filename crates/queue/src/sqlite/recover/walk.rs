//! Reads a table in the order of its keys, around what cannot be read.

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::super::damage::is_damage;
use super::super::reader::is_undecodable;

/// Keys that are read at a time.
const PORTION: i64 = 512;

/// Whether to go on behind what failed to be read: damage, or a sector that the disk does not give.
pub(super) fn is_passable(failure: &rusqlite::Error) -> bool {
    let unreadable = failure.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
    unreadable || is_damage(failure) || is_undecodable(failure)
}

/// What could be read, or `None` if it could not.
pub(in super::super) fn readable<T>(read: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(failure) if is_passable(&failure) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The keys of a table that can be read, in order.
#[derive(Debug)]
pub(in super::super) struct Keys {
    table: &'static str,
    /// The column that is the row number.
    key: &'static str,
    next: Option<i64>,
    gaps: u64,
}

impl Keys {
    /// All of them: none is negative.
    pub(in super::super) fn new(table: &'static str, key: &'static str) -> Self {
        Self { table, key, next: Some(0), gaps: 0 }
    }

    /// How many ranges of keys could not be read so far.
    pub(in super::super) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// The next keys. Empty at the end.
    pub(in super::super) fn portion(&mut self, connection: &Connection) -> rusqlite::Result<Vec<i64>> {
        while let Some(from) = self.next {
            let (keys, whole) = self.read(connection, from)?;
            let behind = keys.last().map_or(Some(from), |last| last.checked_add(1));
            self.next = match (whole, behind) {
                (_, None) => None,
                (true, behind) => behind.filter(|_| !keys.is_empty()),
                (false, Some(failed)) => {
                    self.gaps += 1;
                    self.beyond(connection, failed)?
                }
            };
            if !keys.is_empty() {
                return Ok(keys);
            }
        }
        Ok(Vec::new())
    }

    /// The first keys from this one on, and whether reading them worked.
    fn read(&self, connection: &Connection, from: i64) -> rusqlite::Result<(Vec<i64>, bool)> {
        let Self { table, key, .. } = self;
        let sql = format!("SELECT {key} FROM {table} NOT INDEXED WHERE {key} >= ? ORDER BY {key} LIMIT ?");
        let mut keys = Vec::new();
        let Some(mut statement) = readable(connection.prepare_cached(&sql))? else {
            return Ok((keys, false));
        };
        let mut rows = statement.query([from, PORTION])?;
        loop {
            match readable(rows.next().and_then(|row| row.map(|row| row.get(0)).transpose()))? {
                Some(Some(key)) => keys.push(key),
                Some(None) => return Ok((keys, true)),
                None => return Ok((keys, false)),
            }
        }
    }

    /// The first place behind `failed` from which on keys can be read, found in about 120 looks.
    fn beyond(&self, connection: &Connection, failed: i64) -> rusqlite::Result<Option<i64>> {
        let (mut bad, mut step) = (failed, 1_i64);
        let mut good = loop {
            let at = failed.saturating_add(step);
            if self.is_readable(connection, at)? {
                break at;
            }
            if at == i64::MAX {
                return Ok(None);
            }
            (bad, step) = (at, step.saturating_mul(2));
        };
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            if self.is_readable(connection, middle)? { good = middle } else { bad = middle }
        }
        Ok(Some(good))
    }

    fn is_readable(&self, connection: &Connection, from: i64) -> rusqlite::Result<bool> {
        let Self { table, key, .. } = self;
        let sql = format!("SELECT {key} FROM {table} NOT INDEXED WHERE {key} >= ? ORDER BY {key} LIMIT 1");
        let look =
            || connection.prepare_cached(&sql)?.query_row([from], |row| row.get::<_, i64>(0)).optional();
        Ok(readable(look())?.is_some())
    }
}

/// Rows that a statement without parameters gives: up to the first that cannot be read. False if that is not all of them.
pub(super) fn rows_of(
    connection: &Connection,
    sql: &str,
    mut each: impl FnMut(Vec<Value>) -> rusqlite::Result<()>,
) -> rusqlite::Result<bool> {
    let Some(mut statement) = readable(connection.prepare(sql))? else { return Ok(false) };
    let columns = statement.column_count();
    let Some(mut rows) = readable(statement.query([]))? else { return Ok(false) };
    loop {
        let row = rows.next().and_then(|row| {
            row.map(|row| (0..columns).map(|column| row.get(column)).collect::<Result<Vec<Value>, _>>())
                .transpose()
        });
        match readable(row)? {
            Some(Some(row)) => each(row)?,
            Some(None) => return Ok(true),
            None => return Ok(false),
        }
    }
}
