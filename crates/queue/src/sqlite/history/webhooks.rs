//! What is stored for a webhook.

use aquarium_delivery::WebhookName;
use rusqlite::{Connection, OptionalExtension, params};

use super::super::reader::webhook_name;
use super::super::schema::{code, event_of, optional_timestamp, stored, timestamp};
use super::{list, optional};
use crate::history::{Count, WebhookStats};
use crate::{PARKED, Suspension};

pub(super) fn stats(
    connection: &Connection,
    names: Vec<WebhookName>,
    bound: usize,
) -> rusqlite::Result<Vec<WebhookStats>> {
    names.into_iter().map(|name| one(connection, name, bound)).collect()
}

fn one(connection: &Connection, webhook: WebhookName, bound: usize) -> rusqlite::Result<WebhookStats> {
    let nothing = Count { at_least: 0, exact: true };
    let mut stats = WebhookStats {
        webhook,
        pending: nothing,
        next_due: None,
        oldest_pending: None,
        exhausted: nothing,
        skipped: nothing,
        suspension: None,
    };
    let found = connection
        .prepare_cached("SELECT id, suspended_at, suspended_url FROM webhooks WHERE name = ?")?
        .query_row([stats.webhook.as_str()], |row| {
            let id = row.get::<_, i64>(0)?;
            let url: Option<String> = row.get(2)?;
            Ok((id, optional_timestamp(row, 1)?.zip(url)))
        })
        .optional()?;
    let Some((id, suspended)) = found else { return Ok(stats) };
    stats.suspension =
        suspended.map(|(since, url)| Suspension { webhook: stats.webhook.clone(), since, url });
    let count = |pending, rare: &[i64]| list::by_indexes(connection, Some(id), pending, rare, bound);
    stats.pending = count(true, &[])?;
    stats.exhausted = count(false, &[code::EXHAUSTED_BY_ATTEMPTS, code::EXHAUSTED_BY_AGE])?;
    stats.skipped = count(false, &[code::SKIPPED])?;
    if stats.pending.at_least > 0 || !stats.pending.exact {
        let due = connection
            .prepare_cached("SELECT min(due_at) FROM deliveries WHERE webhook = ? AND state = 0")?
            .query_row([id], |row| optional_timestamp(row, 0))?;
        stats.next_due = due.filter(|due| *due != PARKED);
        stats.oldest_pending = connection
            .prepare_cached(
                "SELECT min(key) FROM (SELECT key FROM deliveries INDEXED BY deliveries_due
                 WHERE webhook = ? AND state = 0 ORDER BY due_at LIMIT ?)",
            )?
            .query_row(params![id, stored(bound.max(1))], |row| optional::<u64>(row, 0))?
            .map(|key| {
                connection
                    .prepare_cached("SELECT accepted_at FROM events WHERE key = ?")?
                    .query_row([stored(event_of(key))], |row| timestamp(row, 0))
            })
            .transpose()?;
    }
    Ok(stats)
}

pub(super) fn waiting(connection: &Connection) -> rusqlite::Result<Vec<WebhookName>> {
    // One look-up in the index for each webhook, however much waits.
    connection
        .prepare_cached(
            "SELECT name FROM webhooks
             WHERE EXISTS (SELECT 1 FROM deliveries WHERE webhook = webhooks.id AND state = 0) ORDER BY name",
        )?
        .query_map([], |row| webhook_name(row, 0))?
        .collect()
}
