//! One event, or one delivery, by its identifier.
//!
//! There is no index of identifiers: each accept would write to a random page of it. But an identifier bears the time at
//! which its event was accepted, and blocks tell when theirs were.

use aquarium_delivery::{DeliveryId, EventId};
use rusqlite::{Connection, OptionalExtension, params};

use super::super::schema::{stored, unsigned};
use super::blocks::Around;

/// The key of an event.
pub(super) fn event(connection: &Connection, id: &EventId) -> rusqlite::Result<Option<u64>> {
    let mut statement =
        connection.prepare_cached("SELECT key FROM events WHERE key >= ? AND key < ? AND id = ?")?;
    let mut around = Around::new(connection, stored(id.made_at().as_millis()));
    while let Some(range) = around.next()? {
        let [first, beyond] = range.events;
        let found = statement.query_row(params![first, beyond, id.as_bytes()], |row| unsigned(row, 0));
        if let Some(key) = found.optional()? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// The key of a delivery.
pub(super) fn delivery(connection: &Connection, id: &DeliveryId) -> rusqlite::Result<Option<u64>> {
    let mut statement =
        connection.prepare_cached("SELECT key FROM deliveries WHERE key >= ? AND key < ? AND id = ?")?;
    let mut around = Around::new(connection, stored(id.made_at().as_millis()));
    while let Some(range) = around.next()? {
        let [first, beyond] = range.deliveries;
        let found = statement.query_row(params![first, beyond, id.as_bytes()], |row| unsigned(row, 0));
        if let Some(key) = found.optional()? {
            return Ok(Some(key));
        }
    }
    Ok(None)
}
