//! The stored format, and how an older one becomes it.
//!
//! The format is frozen: a change is a further entry of [`MIGRATIONS`], never an edit of an earlier one. The version is
//! in `PRAGMA user_version`, and `PRAGMA application_id` tells a queue from any other database.
//!
//! | table | one row for each | |
//! |---|---|---|
//! | `projects` | project of an organization that ever sent an event | so that events need not repeat the names |
//! | `webhooks` | webhook that ever was a target | with its suspension, and the last pause that its endpoint asked for |
//! | `events` | event | the body, once, whatever the number of deliveries; `trace`: see [`TraceContext::to_bytes`], NULL if it belongs to none; `hops`: see [`Hops`], NULL for 1; `checksum`: see `checksum.rs` |
//! | `deliveries` | event and webhook | `key`: see [`first_delivery_of`]; `state`: see [`code`]; `due_at` counts for pending ones, and is [`PARKED`] for those that wait behind another; `settled_at` for others, and is when it was accepted for those that never were attempted; `subjects`: what it stays in order about, eight bytes each (big-endian), NULL if it does not; `phases`: see `phases.rs`; `replayed_at`, `earlier_attempts` and `test` are NULL in nearly all; `checksum`: see `checksum.rs` |
//! | `lines` | pending delivery and each of its subjects | who is first in line may be sent: see `writer/order.rs` |
//! | `attempts` | request made | `status` or `failure`, never both. The last one of a delivery is missing if its row in `deliveries` tells all of it; `phases` as there |
//! | `idempotency` | submission with a key | the events that it led to, which have consecutive keys |
//! | `blocks` | complete block of 4,096 event keys, once it was looked at | what may be in it, so that a list can pass it over: see `history/blocks.rs` |
//! | `jobs` | replay in bulk | see `history/jobs.rs` |
//! | `next_key` | (one row) | the key to go on with when the last events were removed: a key never comes twice |
//!
//! Times are milliseconds since the Unix epoch, durations microseconds, identifiers the sixteen bytes of a UUID.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use aquarium_delivery::{Exhaustion, Timestamp};
use rusqlite::{Connection, OpenFlags, Row};

use super::{OpenError, phases};
#[cfg(doc)]
use crate::PARKED;
use crate::State;
#[cfg(doc)]
use aquarium_delivery::TraceContext;

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
", "
    ALTER TABLE deliveries ADD COLUMN phases INTEGER;
    ALTER TABLE deliveries ADD COLUMN replayed_at INTEGER;
    ALTER TABLE deliveries ADD COLUMN earlier_attempts INTEGER;
    ALTER TABLE deliveries ADD COLUMN test INTEGER;
    ALTER TABLE attempts ADD COLUMN phases INTEGER;
    CREATE INDEX deliveries_rare ON deliveries (state) WHERE state >= 2;
    CREATE INDEX deliveries_rare_of_webhook ON deliveries (webhook, state) WHERE state >= 2;
    CREATE TABLE blocks (
        block INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, webhooks BLOB, kinds BLOB
    ) STRICT;
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, what TEXT NOT NULL,
        organization TEXT, project TEXT, webhook TEXT, kinds TEXT, states TEXT, since INTEGER, until INTEGER, event BLOB,
        created_at INTEGER NOT NULL, state TEXT NOT NULL, state_since INTEGER NOT NULL,
        start INTEGER NOT NULL, next INTEGER, beyond INTEGER NOT NULL,
        replayed INTEGER NOT NULL, passed_over INTEGER NOT NULL
    ) STRICT;
", "
    ALTER TABLE events ADD COLUMN trace BLOB;
    ALTER TABLE webhooks ADD COLUMN paused_until INTEGER;
    ALTER TABLE webhooks ADD COLUMN paused_url TEXT;
", "
    ALTER TABLE events ADD COLUMN checksum INTEGER;
    ALTER TABLE deliveries ADD COLUMN checksum INTEGER;
", "
    ALTER TABLE events ADD COLUMN hops INTEGER;
"];

/// The duration, the status and the phases of a delivery's last attempt, as long as there is none. They are as wide as what
/// will take their place, so that the row does not grow: it would not fit on its page any more.
pub(super) const NO_ATTEMPT: (i64, i64, i64) = (1 << 16, 999, phases::NONE);

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

/// The first key that a delivery of the event may have, and the first one that is beyond.
pub(super) fn deliveries_of(event: u64) -> [i64; 2] {
    [stored(first_delivery_of(event)), stored(first_delivery_of(event + 1))]
}

/// The numbers that stand for a delivery's state.
pub(super) mod code {
    pub(in super::super) const PENDING: i64 = 0;
    pub(in super::super) const DELIVERED: i64 = 1;
    pub(in super::super) const EXHAUSTED_BY_ATTEMPTS: i64 = 2;
    pub(in super::super) const EXHAUSTED_BY_AGE: i64 = 3;
    pub(in super::super) const SKIPPED: i64 = 4;
    pub(in super::super) const EXHAUSTED_BY_DAMAGE: i64 = 5;
}

/// The state that `code` stands for.
pub(super) fn state(state: i64, due_at: Timestamp) -> rusqlite::Result<State> {
    Ok(match state {
        code::PENDING => State::Pending { due_at },
        code::DELIVERED => State::Delivered,
        code::EXHAUSTED_BY_ATTEMPTS => State::Exhausted(Exhaustion::Attempts),
        code::EXHAUSTED_BY_AGE => State::Exhausted(Exhaustion::Age),
        code::EXHAUSTED_BY_DAMAGE => State::Exhausted(Exhaustion::Damaged),
        code::SKIPPED => State::Skipped,
        other => return Err(rusqlite::Error::IntegralValueOutOfRange(0, other)),
    })
}

/// Opens the database for writing, makes or migrates it, and makes sure that its directory entry is durable.
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    let failed = |source| OpenError::of(path, source);
    let connection = Connection::open(path).map_err(failed)?;
    let version = identify(&connection, path, MIGRATIONS)?;
    configure(&connection).map_err(failed)?;
    prepare(&connection, path, version)?;
    Ok(connection)
}

/// Migrates the database, and makes sure that its directory entry and that of its log are durable.
fn prepare(connection: &Connection, path: &Path, version: usize) -> Result<(), OpenError> {
    migrate(connection, version, MIGRATIONS).map_err(|source| OpenError::of(path, source))?;
    let directory = super::directory_of(path);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| OpenError::Directory { path: directory.to_owned(), source })
}

/// Opens a queue anew that was open before: no file and no table is made, and what is no queue any more is damaged.
pub(super) fn open_again(path: &Path) -> Result<Connection, OpenError> {
    let failed = |source| OpenError::of(path, source);
    let connection = open_plainly(path)?;
    // Before it is configured: that would write to an empty file.
    let version = identify(&connection, path, MIGRATIONS)?;
    if version != MIGRATIONS.len() {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    configure(&connection).map_err(failed)?;
    prepare(&connection, path, version)?;
    Ok(connection)
}

/// Opens a further connection, which cannot write.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection, OpenError> {
    let connection = open_beside(path)?;
    connection.pragma_update(None, "query_only", true).map_err(|source| OpenError::of(path, source))?;
    Ok(connection)
}

/// Opens a file as it is: it is neither configured nor migrated.
pub(super) fn open_plainly(path: &Path) -> Result<Connection, OpenError> {
    Connection::open_with_flags(path, BESIDE).map_err(|source| OpenError::of(path, source))
}

/// Makes sure that a file is a queue of this or of an older version, unless it is too damaged to tell.
pub(super) fn check_identity(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    match identify(connection, path, MIGRATIONS) {
        Ok(_) | Err(OpenError::Damaged { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// No file is made.
const BESIDE: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Opens a further connection to a queue that is open.
pub(super) fn open_beside(path: &Path) -> Result<Connection, OpenError> {
    let failed = |source| OpenError::of(path, source);
    let connection = Connection::open_with_flags(path, BESIDE).map_err(failed)?;
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
    let failed = |source| OpenError::of(path, source);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0)).map_err(failed);
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: u32 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    // An empty file has one page at the most: a back-up that was broken off has more, and no tables yet.
    let pages = pragma("page_count")?;
    if application != APPLICATION_ID && (tables > 0 || version > 0 || pages > 1) {
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

/// Reads a time that may be missing.
pub(super) fn optional_timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    row.get_ref(column)?.as_i64_or_null()?.map(|_| timestamp(row, column)).transpose()
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
        migrate(&connection, version, migrations).map_err(|source| OpenError::of(path, source))?;
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
    fn rows_of_the_third_version_are_read_as_they_were_and_rare_ones_are_indexed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        let third = upgrade(&path, &MIGRATIONS[..3]).unwrap();
        third
            .execute_batch(
                "INSERT INTO projects VALUES (1, 'acme', 'urban');
                 INSERT INTO webhooks VALUES (1, 'acme/urban/ops', NULL, NULL);
                 INSERT INTO events VALUES (7, zeroblob(16), 1, 'test', 1, x'00');
                 INSERT INTO deliveries VALUES
                     (7 << 20, zeroblob(16), 1, 3, 2, 9, 9, 8, 5, 503, NULL, NULL),
                     ((7 << 20) + 1, zeroblob(16), 1, 0, 0, 1, 1, 1, 65536, 999, NULL, x'0000000000000007');
                 INSERT INTO attempts VALUES (7 << 20, 1, 4, 3, NULL, 'timeout', 'slow', NULL);
                 INSERT INTO lines VALUES (1, 7, (7 << 20) + 1);
                 UPDATE next_key SET event = 8;",
            )
            .unwrap();
        drop(third);
        let migrated = upgrade(&path, MIGRATIONS).unwrap();
        let told = |sql: &str| -> String { migrated.query_row(sql, [], |row| row.get(0)).unwrap() };
        assert_eq!(
            told(
                "SELECT group_concat(format('%d %d %d', key & 1, state, due_at) || quote(subjects), '; ') FROM deliveries"
            ),
            "0 3 9NULL; 1 0 1X'0000000000000007'"
        );
        assert_eq!(
            told(
                "SELECT count(*) || ' new' FROM deliveries WHERE phases IS NULL AND replayed_at IS NULL
                 AND earlier_attempts IS NULL AND test IS NULL"
            ),
            "2 new"
        );
        assert_eq!(told("SELECT detail || ifnull(phases, '?') FROM attempts"), "slow?");
        for index in ["deliveries_rare WHERE", "deliveries_rare_of_webhook WHERE webhook = 1 AND"] {
            let sql = format!(
                "SELECT 'at ' || (key >> 20) FROM deliveries INDEXED BY {index} state = 3 AND state >= 2"
            );
            assert_eq!(told(&sql), "at 7");
        }
        assert_eq!(told("SELECT (SELECT count(*) FROM blocks) || (SELECT count(*) FROM jobs)"), "00");
    }

    #[test]
    fn a_back_up_that_was_broken_off_is_not_taken_for_an_empty_queue() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        // What a copy looks like whose first page would have come last.
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("CREATE TABLE a (x); INSERT INTO a VALUES (zeroblob(9000)); DROP TABLE a")
            .unwrap();
        drop(connection);
        assert!(matches!(open(&path).unwrap_err(), OpenError::Foreign { .. }));
    }

    #[test]
    fn a_queue_is_opened_again_only_if_it_is_still_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("queue.db");
        drop(open(&path).unwrap());
        drop(open_again(&path).unwrap());
        std::fs::write(&path, "").unwrap();
        let refused = open_again(&path).unwrap_err();
        assert!(matches!(refused, OpenError::Foreign { .. }), "{refused}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0, "nothing is made");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(open_again(&path).unwrap_err(), OpenError::Sqlite { .. }));
        assert!(!path.exists(), "nothing is made");
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
