//! Who may be sent, where order counts: deliveries stand in line, and the first of each line is free.
//!
//! A pending delivery that stays in order has a row in `lines` for each of its subjects. It is free if it is the first in
//! all of these lines, and parked otherwise. Keys grow with the commits, so that a line is in the order in which its
//! deliveries were accepted, and a new one only has to know whether its lines are empty. Who leaves can only free those
//! that are first now.
//!
//! Deliveries without order have no rows and cost nothing.

use std::collections::BTreeSet;

use aquarium_delivery::Subject;
use rusqlite::{Connection, OptionalExtension, params};

use super::super::schema::{code, stored};
use crate::PARKED;

/// Puts a new delivery at the end of its lines. True if it is the first in all of them.
pub(super) fn line_up(
    connection: &Connection,
    webhook: i64,
    delivery: i64,
    subjects: &[Subject],
) -> rusqlite::Result<bool> {
    let mut insert = connection
        .prepare_cached("INSERT OR IGNORE INTO lines (webhook, subject, delivery) VALUES (?, ?, ?)")?;
    let mut free = true;
    for subject in subjects {
        free &= first(connection, webhook, bits(*subject))?.is_none_or(|first| first == delivery);
        insert.execute(params![webhook, bits(*subject), delivery])?;
    }
    Ok(free)
}

/// Takes a delivery that is not pending any more out of its lines. Returns how many of those behind it are free now, and
/// were not.
pub(super) fn release(connection: &Connection, delivery: i64) -> rusqlite::Result<usize> {
    let Some((webhook, subjects)) = standing(connection, delivery)? else { return Ok(0) };
    let mut delete =
        connection.prepare_cached("DELETE FROM lines WHERE webhook = ? AND subject = ? AND delivery = ?")?;
    let mut candidates = BTreeSet::new();
    for subject in subjects {
        delete.execute(params![webhook, subject, delivery])?;
        candidates.extend(first(connection, webhook, subject)?);
    }
    let mut free = connection.prepare_cached(
        "UPDATE deliveries SET due_at = settled_at WHERE key = ? AND state = ? AND due_at = ?",
    )?;
    let mut freed = 0;
    for candidate in candidates {
        if is_first(connection, candidate)? {
            freed += free.execute(params![candidate, code::PENDING, stored(PARKED.as_millis())])?;
        }
    }
    Ok(freed)
}

/// Takes the pending deliveries of this range out of their lines, before they are removed.
pub(super) fn abandon(connection: &Connection, range: [i64; 2]) -> rusqlite::Result<()> {
    let pending: Vec<i64> = connection
        .prepare_cached(
            "SELECT key FROM deliveries WHERE key >= ? AND key < ? AND state = 0 AND subjects IS NOT NULL",
        )?
        .query_map(range, |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for delivery in pending {
        release(connection, delivery)?;
    }
    Ok(())
}

/// Makes all lines anew, from the deliveries alone.
pub(in super::super) fn rebuild(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM lines", [])?;
    let mut statement = connection.prepare(
        "SELECT key, webhook, subjects FROM deliveries WHERE state = 0 AND subjects IS NOT NULL ORDER BY key",
    )?;
    let mut park = connection.prepare("UPDATE deliveries SET due_at = ? WHERE key = ?")?;
    let mut free =
        connection.prepare("UPDATE deliveries SET due_at = settled_at WHERE key = ? AND due_at = ?")?;
    let parked = stored(PARKED.as_millis());
    let waiting: Vec<(i64, i64, Vec<i64>)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, decode(row.get_ref(2)?.as_blob()?))))?
        .collect::<Result<_, _>>()?;
    for (delivery, webhook, subjects) in waiting {
        let subjects: Vec<_> =
            subjects.into_iter().map(|bits| Subject::from_bits(bits.cast_unsigned())).collect();
        match line_up(connection, webhook, delivery, &subjects)? {
            true => free.execute([delivery, parked])?,
            false => park.execute([parked, delivery])?,
        };
    }
    // Those of which it is not known any more what they wait for.
    let sql = "UPDATE deliveries SET due_at = settled_at WHERE state = 0 AND subjects IS NULL AND due_at = ?";
    connection.execute(sql, [parked]).map(drop)
}

/// The webhook and the subjects of a delivery, if it stays in order.
fn standing(connection: &Connection, delivery: i64) -> rusqlite::Result<Option<(i64, Vec<i64>)>> {
    connection
        .prepare_cached("SELECT webhook, subjects FROM deliveries WHERE key = ? AND subjects IS NOT NULL")?
        .query_row([delivery], |row| Ok((row.get(0)?, decode(row.get_ref(1)?.as_blob()?))))
        .optional()
}

fn first(connection: &Connection, webhook: i64, subject: i64) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT delivery FROM lines WHERE webhook = ? AND subject = ? ORDER BY delivery LIMIT 1",
        )?
        .query_row([webhook, subject], |row| row.get(0))
        .optional()
}

fn is_first(connection: &Connection, delivery: i64) -> rusqlite::Result<bool> {
    let Some((webhook, subjects)) = standing(connection, delivery)? else { return Ok(false) };
    for subject in subjects {
        if first(connection, webhook, subject)? != Some(delivery) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn bits(subject: Subject) -> i64 {
    subject.to_bits().cast_signed()
}

/// Subjects as they are stored with their delivery; nothing if there are none.
pub(super) fn encode(subjects: &[Subject]) -> Option<Vec<u8>> {
    let bytes = || subjects.iter().flat_map(|subject| subject.to_bits().to_be_bytes()).collect();
    (!subjects.is_empty()).then(bytes)
}

fn decode(bytes: &[u8]) -> Vec<i64> {
    bytes.as_chunks().0.iter().map(|bits| i64::from_be_bytes(*bits)).collect()
}
