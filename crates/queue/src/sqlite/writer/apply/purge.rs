//! Forgetting what is old.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};

use super::super::super::history::blocks;
use super::super::super::reader;
use super::super::super::schema::{code, deliveries_of, stored, unsigned};
use super::super::{Purge, order};
use super::Tables;
use crate::Purged;

impl Tables<'_> {
    pub(super) fn purge(&mut self, purge: &Purge) -> rusqlite::Result<Purged> {
        let connection = self.connection;
        let before = stored(purge.before.as_millis());
        let limit = purge.limit.max(1);
        let events: Vec<u64> = connection
            .prepare_cached("SELECT key, accepted_at FROM events WHERE key > ? ORDER BY key LIMIT ?")?
            .query_map(params![stored(self.purged_up_to), stored(limit)], |row| {
                Ok((unsigned(row, 0)?, row.get::<_, i64>(1)?))
            })?
            .take_while(|row| row.as_ref().map_or(true, |(_, accepted_at)| *accepted_at < before))
            .map(|row| row.map(|(key, _)| key))
            .collect::<Result<_, _>>()?;
        let mut purged = Purged { more: events.len() == limit, ..Purged::default() };
        let mut touched = BTreeSet::new();
        for event in &events {
            if let Some(abandoned) = abandoned_with(connection, *event, before, purge)? {
                if abandoned > 0 {
                    order::abandon(connection, deliveries_of(*event))?;
                }
                forget(connection, *event)?;
                touched.insert(blocks::of(*event));
                purged.events += 1;
                purged.abandoned += abandoned;
            }
        }
        if purged.events > 0 {
            blocks::forget(connection, &touched)?;
            connection.prepare_cached("UPDATE next_key SET event = ?")?.execute([stored(self.next_event)])?;
        }
        if !purged.more {
            self.forget_jobs(purge.before)?;
        }
        // At the end it starts over: what was still wanted may not be any more.
        self.purged_up_to = if purged.more { events.last().copied().unwrap_or(0) } else { 0 };
        Ok(purged)
    }
}

/// `None` if the event is still wanted, else the number of its pending deliveries that nobody will send any more.
fn abandoned_with(
    connection: &Connection,
    event: u64,
    before: i64,
    purge: &Purge,
) -> rusqlite::Result<Option<usize>> {
    let mut statement = connection.prepare_cached(
        "SELECT w.name, d.state, d.settled_at FROM deliveries d JOIN webhooks w ON w.id = d.webhook
         WHERE d.key >= ? AND d.key < ?",
    )?;
    let mut rows = statement.query(deliveries_of(event))?;
    let mut abandoned = 0;
    while let Some(row) = rows.next()? {
        if row.get::<_, i64>(1)? != code::PENDING {
            if row.get::<_, i64>(2)? >= before {
                return Ok(None);
            }
        } else if purge.configured.contains(&reader::webhook_name(row, 0)?) {
            return Ok(None);
        } else {
            abandoned += 1;
        }
    }
    Ok(Some(abandoned))
}

fn forget(connection: &Connection, event: u64) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM attempts WHERE delivery >= ? AND delivery < ?",
        "DELETE FROM deliveries WHERE key >= ? AND key < ?",
    ] {
        connection.prepare_cached(sql)?.execute(deliveries_of(event))?;
    }
    for sql in [
        // A batch is forgotten with its first event: its receipt could not be given whole any more.
        "DELETE FROM idempotency WHERE first_event = ?",
        "DELETE FROM events WHERE key = ?",
    ] {
        connection.prepare_cached(sql)?.execute([stored(event)])?;
    }
    Ok(())
}
