//! The stored format, and how an older one becomes it.
//!
//! The format is frozen: a change is a further entry of [`MIGRATIONS`], never an edit of an earlier one. The version is
//! in `PRAGMA user_version`, and `PRAGMA application_id` tells a queue from any other database.
//!
//! | table | one row for each | |
//! |---|---|---|
//! | `projects` | project of an organization that ever sent an event | so that events need not repeat the names |
//! | `webhooks` | webhook that ever was a target | with its suspension |
//! | `events` | event | the body, once, whatever the number of deliveries |
//! | `deliveries` | event and webhook | `key`: see [`first_delivery_of`]; `state`: see [`code`]; `due_at` counts for pending ones, and is [`PARKED`] for those that wait behind another; `settled_at` for others, and is when it was accepted for those that never were attempted; `subjects`: what it stays in order about, eight bytes each (big-endian), NULL if it does not |
//! | `lines` | pending delivery and each of its subjects | who is first in line may be sent: see `writer/order.rs` |
//! | `attempts` | request made | `status` or `failure`, never both. The last one of a delivery is missing if its row in `deliveries` tells all of it |
//! | `idempotency` | submission with a key | the events that it led to, which have consecutive keys |
//! | `next_key` | (one row) | the key to go on with when the last events were removed: a key never comes twice |
//!
//! Times are milliseconds since the Unix epoch, durations microseconds, identifiers the sixteen bytes of a UUID.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use aquarium_delivery::{Exhaustion, Timestamp};
use rusqlite::{Connection, OpenFlags, Row};

use super::OpenError;
#[cfg(doc)]
use crate::PARKED;
use crate::State;

/// "aqua", read as a big-endian number.
const APPLICATION_ID: u32 = 0x6171_7561;

/// Each entry takes the schema from its index to the next version.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE projects (
        id INTEGER PRIMARY KEY, organization TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (organization, name)
    ) STRICT;
    CREATE TABLE webhooks (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, suspended_at INTEGER, suspended_url TEXT
    ) STRICT;
    CREATE TABLE events (
        key INTEGER PRIMARY KEY, id BLOB NOT NULL, project INTEGER NOT NULL, kind TEXT NOT NULL,
        accepted_at INTEGER NOT NULL, body BLOB NOT NULL
    ) STRICT;
    CREATE TABLE deliveries (
        key INTEGER PRIMARY KEY, id BLOB NOT NULL, event INTEGER NOT NULL, webhook INTEGER NOT NULL,
        state INTEGER NOT NULL, attempts INTEGER NOT NULL, due_at INTEGER NOT NULL, settled_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX deliveries_due ON deliveries (webhook, due_at, key) WHERE state = 0;
    CREATE INDEX deliveries_of_event ON deliveries (event);
    CREATE TABLE attempts (
        delivery INTEGER NOT NULL, number INTEGER NOT NULL, started_at INTEGER NOT NULL, duration INTEGER NOT NULL,
        status INTEGER, failure TEXT, detail TEXT, excerpt BLOB, PRIMARY KEY (delivery, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE idempotency (
        organization TEXT NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL,
        first_event INTEGER NOT NULL, events INTEGER NOT NULL, PRIMARY KEY (organization, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX idempotency_of_event ON idempotency (first_event);
    CREATE TABLE next_keys (event INTEGER NOT NULL, delivery INTEGER NOT NULL) STRICT;
    INSERT INTO next_keys VALUES (1, 1);
", "
    CREATE TABLE deliveries_of_events (
        key INTEGER PRIMARY KEY, id BLOB NOT NULL, webhook INTEGER NOT NULL,
        state INTEGER NOT NULL, attempts INTEGER NOT NULL, due_at INTEGER NOT NULL, settled_at INTEGER NOT NULL,
        started_at INTEGER NOT NULL, duration INTEGER NOT NULL, status INTEGER, failure TEXT
    ) STRICT;
    INSERT INTO deliveries_of_events
        SELECT (event << 20) + row_number() OVER (PARTITION BY event ORDER BY key) - 1,
               id, webhook, state, d.attempts, due_at, settled_at,
               coalesce(started_at, 0), coalesce(duration, 0), status, failure
        FROM deliveries d LEFT JOIN attempts a ON a.delivery = d.key AND a.number = d.attempts;
    ALTER TABLE attempts RENAME TO previous_attempts;
    CREATE TABLE attempts (
        delivery INTEGER NOT NULL, number INTEGER NOT NULL, started_at INTEGER NOT NULL, duration INTEGER NOT NULL,
        status INTEGER, failure TEXT, detail TEXT, excerpt BLOB, PRIMARY KEY (delivery, number)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO attempts
        SELECT (d.event << 20) + d.key - (SELECT min(key) FROM deliveries o WHERE o.event = d.event),
               number, started_at, duration, status, failure, detail, excerpt
        FROM previous_attempts a JOIN deliveries d ON d.key = a.delivery;
    DROP TABLE previous_attempts;
    DROP TABLE deliveries;
    ALTER TABLE deliveries_of_events RENAME TO deliveries;
    CREATE INDEX deliveries_due ON deliveries (webhook, due_at, key) WHERE state = 0;
    ALTER TABLE next_keys RENAME TO next_key;
    ALTER TABLE next_key DROP COLUMN delivery;
", "
    ALTER TABLE deliveries ADD COLUMN subjects BLOB;
    CREATE TABLE lines (
        webhook INTEGER NOT NULL, subject INTEGER NOT NULL, delivery INTEGER NOT NULL,
        PRIMARY KEY (webhook, subject, delivery)
    ) STRICT, WITHOUT ROWID;
"];

/// The duration and the status of a delivery's last attempt, as long as there is none. They are as wide as what will
/// take their place, so that the row does not grow: it would not fit on its page any more.
pub(super) const NO_ATTEMPT: (i64, i64) = (1 << 16, 999);

/// The bits of a delivery's key that count the deliveries of one event; the others are the event's key. So the
/// deliveries of an event lie side by side, and are found without an index.
pub(super) const DELIVERY_BITS: u32 = 20;
/// The deliveries that one event may have.
pub(super) const MAX_DELIVERIES: usize = 1 << DELIVERY_BITS;

/// The key of the first delivery of an event. Those of the others follow.
pub(super) fn first_delivery_of(event: u64) -> u64 {
    event << DELIVERY_BITS
}

/// The key of the event that a delivery is of.
pub(super) fn event_of(delivery: u64) -> u64 {
    delivery >> DELIVERY_BITS
}

/// The numbers that stand for a delivery's state.
pub(super) mod code {
    pub(in super::super) const PENDING: i64 = 0;
    pub(in super::super) const DELIVERED: i64 = 1;
    pub(in super::super) const EXHAUSTED_BY_ATTEMPTS: i64 = 2;
    pub(in super::super) const EXHAUSTED_BY_AGE: i64 = 3;
    pub(in super::super) const SKIPPED: i64 = 4;
}

/// The state that `code` stands for.
pub(super) fn state(state: i64, due_at: Timestamp) -> rusqlite::Result<State> {
    Ok(match state {
        code::PENDING => State::Pending { due_at },
        code::DELIVERED => State::Delivered,
        code::EXHAUSTED_BY_ATTEMPTS => State::Exhausted(Exhaustion::Attempts),
        code::EXHAUSTED_BY_AGE => State::Exhausted(Exhaustion::Age),
        code::SKIPPED => State::Skipped,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(0, other)),
    })
}

/// Opens the database for writing, makes or migrates it, and makes sure that its directory entry is durable.
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let connection = Connection::open(path).map_err(failed)?;
    let version = identify(&connection, path, MIGRATIONS)?;
    configure(&connection).map_err(failed)?;
    migrate(&connection, version, MIGRATIONS).map_err(failed)?;
    let directory = super::directory_of(path);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| OpenError::Directory { path: directory.to_owned(), source })?;
    Ok(connection)
}

/// Opens a further connection, which cannot write.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, OpenError> {
    let connection = open_beside(path)?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(|source| OpenError::Sqlite { path: path.to_owned(), source })?;
    Ok(connection)
}

/// Opens a further connection to a queue that is open.
pub(super) fn open_beside(path: &Path) -> Result<Connection, OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    configure(&connection).map_err(failed)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "temp_store", "memory")?;
    // What is left of the log after a burst is given back.
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    Ok(())
}

/// The schema version of the database, zero if it is empty. Touches nothing.
fn identify(connection: &Connection, path: &Path, migrations: &[&str]) -> Result<usize, OpenError> {
    let failed = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0)).map_err(failed);
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: u32 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if application != APPLICATION_ID && (tables > 0 || version > 0) {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    if version as usize > migrations.len() {
        let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
        return Err(OpenError::TooNew { path: path.to_owned(), found: version, known });
    }
    Ok(version as usize)
}

fn migrate(connection: &Connection, version: usize, migrations: &[&str]) -> rusqlite::Result<()> {
    let pending = migrations.get(version..).unwrap_or_default().concat();
    // Written even when nothing is pending: the log then exists before its directory is synced.
    let script = format!(
        "BEGIN IMMEDIATE; {pending}
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {}; COMMIT;",
        migrations.len()
    );
    connection.execute_batch(&script).inspect_err(|_| {
        // What counts is the error that led here: an unfinished transaction ends with the connection anyway.
        let _ = connection.execute_batch("ROLLBACK");
    })
}

/// Reads a time.
pub(super) fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_millis(unsigned(row, column)?))
}

/// Reads a number that is never negative.
pub(super) fn unsigned<T: TryFrom<i64>>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let value: i64 = row.get(column)?;
    T::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// A number as SQLite stores it. What does not fit becomes the largest that does.
pub(super) fn stored(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upgrade(path: &Path, migrations: &[&str]) -> Result<Connection, OpenError> {
        let connection = Connection::open(path).unwrap();
        let version = identify(&connection, path, migrations)?;
        migrate(&connection, version, migrations)
            .map_err(|source| OpenError::Sqlite { path: path.to_owned(), source })?;
        Ok(connection)
    }

    fn tables(path: &Path) -> Vec<String> {
        let connection = Connection::open(path).unwrap();
        let mut statement = connection.prepare("SELECT name FROM sqlite_schema ORDER BY name").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn an_old_schema_is_migrated_with_its_rows_and_a_newer_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        let old = ["CREATE TABLE events (key INTEGER PRIMARY KEY) STRICT; INSERT INTO events VALUES (7);"];
        let new = [old[0], "ALTER TABLE events ADD COLUMN kind TEXT NOT NULL DEFAULT 'test';"];

        upgrade(&path, &old).unwrap();
        for _ in 0..2 {
            let connection = upgrade(&path, &new).unwrap();
            let row: (i64, String) = connection
                .query_row("SELECT key, kind FROM events", [], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap();
            assert_eq!(row, (7, "test".to_owned()));
        }
        let refused = upgrade(&path, &old).unwrap_err();
        assert!(matches!(refused, OpenError::TooNew { found: 2, known: 1, .. }), "{refused}");
    }

    #[test]
    fn a_migration_that_fails_half_way_leaves_the_old_version() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        let first = "CREATE TABLE a (x);";
        upgrade(&path, &[first]).unwrap();
        upgrade(&path, &[first, "CREATE TABLE b (x); CREATE TABLE a (x);"]).unwrap_err();
        assert_eq!(tables(&path), ["a"]);
        upgrade(&path, &[first, "CREATE TABLE b (x);"]).unwrap();
        assert_eq!(tables(&path), ["a", "b"]);
    }

    #[test]
    fn deliveries_and_attempts_of_the_first_version_keep_their_event_and_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        let first = upgrade(&path, &MIGRATIONS[..1]).unwrap();
        first
            .execute_batch(
                "INSERT INTO events VALUES (7, x'07', 1, 'test', 1, x''), (8, x'08', 1, 'test', 1, x'');
                 INSERT INTO deliveries VALUES
                     (40, x'a0', 7, 1, 1, 2, 5, 5), (41, x'a1', 7, 2, 0, 1, 9, 5), (42, x'a2', 8, 1, 0, 0, 1, 1);
                 INSERT INTO attempts VALUES
                     (40, 1, 2, 3, 500, NULL, NULL, NULL), (40, 2, 4, 3, 204, NULL, NULL, NULL),
                     (41, 1, 2, 3, NULL, 'timeout', 'slow', NULL);
                 UPDATE next_keys SET event = 9, delivery = 43;",
            )
            .unwrap();
        drop(first);

        let migrated = upgrade(&path, MIGRATIONS).unwrap();
        let rows = |sql: &str| -> Vec<(i64, i64, i64)> {
            let mut statement = migrated.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let (seven, eight) = (7 << DELIVERY_BITS, 8 << DELIVERY_BITS);
        assert_eq!(
            rows("SELECT key, webhook, due_at FROM deliveries ORDER BY key"),
            [(seven, 1, 5), (seven + 1, 2, 9), (eight, 1, 1)]
        );
        assert_eq!(
            rows("SELECT delivery, number, started_at FROM attempts ORDER BY delivery, number"),
            [(seven, 1, 2), (seven, 2, 4), (seven + 1, 1, 2)]
        );
        assert_eq!(
            rows(
                "SELECT started_at, duration, coalesce(status, length(failure), 0) FROM deliveries ORDER BY key"
            ),
            [(4, 3, 204), (2, 3, 7), (0, 0, 0)]
        );
        assert_eq!(rows("SELECT event, 0, 0 FROM next_key"), [(9, 0, 0)]);
        assert_eq!(event_of(first_delivery_of(7) + 5), 7);
    }

    #[test]
    fn a_database_of_another_program_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
        let before = std::fs::read(&path).unwrap();
        let refused = open(&path).unwrap_err();
        assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
