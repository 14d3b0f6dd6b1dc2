//! Sending again.

use aquarium_delivery::{DeliveryId, EventId, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::super::super::checksum;
use super::super::super::history::blocks;
use super::super::super::reader::webhook_name;
use super::super::super::schema::{
    MAX_DELIVERIES, NO_ATTEMPT, code, deliveries_of, event_of, first_delivery_of, stored, timestamp, unsigned,
};
use super::super::order;
use super::Tables;
use crate::history::{Added, Replay, Replayed};
use crate::{Delivery, Error, Key, PARKED};

impl Tables<'_> {
    pub(super) fn replay(
        &mut self,
        replay: &Replay,
        offers: &mut Vec<Delivery>,
    ) -> rusqlite::Result<Result<Replayed, Error>> {
        if let Some(step) = &replay.step
            && !self.is_running(&step.id)?
        {
            return Ok(Ok(Replayed::default()));
        }
        if !replay.added.is_empty() && self.size >= self.max_size {
            return Ok(Err(Error::Full { size: self.size, max_size: self.max_size }));
        }
        let mut replayed = Replayed::default();
        for delivery in &replay.deliveries {
            match self.revive(*delivery, replay.at)? {
                Revived::Ended(delivery) => {
                    replayed.revived += 1;
                    offers.push(Delivery { watcher: replay.watcher.clone(), ..*delivery });
                }
                Revived::Pending(delivery) => {
                    replayed.hastened += 1;
                    offers.push(*delivery);
                }
                Revived::Nothing => {}
            }
        }
        for added in &replay.added {
            if let Some(delivery) = self.add(added, replay.at)? {
                replayed.added += 1;
                offers.push(Delivery { watcher: replay.watcher.clone(), ..delivery });
            }
        }
        if let Some(step) = &replay.step {
            self.advance(step, replay.at, replayed.revived + replayed.added)?;
        }
        Ok(Ok(replayed))
    }

    fn revive(&mut self, key: Key, at: Timestamp) -> rusqlite::Result<Revived> {
        let delivery = stored(key.0);
        let found = self
            .connection
            .prepare_cached("SELECT state, due_at, subjects IS NOT NULL FROM deliveries WHERE key = ?")?
            .query_row([delivery], |row| {
                Ok((row.get::<_, i64>(0)?, timestamp(row, 1)?, row.get::<_, bool>(2)?))
            })
            .optional()?;
        let now = stored(at.as_millis());
        match found {
            None | Some((code::PENDING, PARKED, _)) => return Ok(Revived::Nothing),
            Some((code::PENDING, due_at, _)) => {
                if due_at > at {
                    self.connection
                        .prepare_cached("UPDATE deliveries SET due_at = ? WHERE key = ?")?
                        .execute([now, delivery])?;
                }
                // Its lane may not expect it before it was due.
                return Ok(Revived::Pending(Box::new(self.pending(key, at)?)));
            }
            // It has left its lines long ago, unless it was settled by somebody who did not know of them.
            Some((_, _, true)) => drop(order::release(self.connection, delivery)?),
            Some((_, _, false)) => {}
        }
        self.connection
            .prepare_cached(
                "UPDATE deliveries SET state = ?, due_at = ?2, settled_at = ?2, replayed_at = ?2,
                 earlier_attempts = attempts, subjects = NULL WHERE key = ?3",
            )?
            .execute(params![code::PENDING, now, delivery])?;
        Ok(Revived::Ended(Box::new(self.pending(key, at)?)))
    }

    /// Adds a delivery to an event that is stored, unless there is one for the webhook.
    fn add(&mut self, added: &Added, at: Timestamp) -> rusqlite::Result<Option<Delivery>> {
        let event = added.event.0;
        let connection = self.connection;
        if !connection.prepare_cached("SELECT 1 FROM events WHERE key = ?")?.exists([stored(event)])? {
            return Ok(None);
        }
        let webhook = self.webhook(&added.webhook)?;
        let [first, beyond] = deliveries_of(event);
        let known = connection
            .prepare_cached("SELECT 1 FROM deliveries WHERE key >= ? AND key < ? AND webhook = ?")?
            .exists([first, beyond, webhook])?;
        let key: u64 = connection
            .prepare_cached("SELECT coalesce(max(key) + 1, ?1) FROM deliveries WHERE key >= ?1 AND key < ?2")?
            .query_row([first, beyond], |row| unsigned(row, 0))?;
        if known || key >= first_delivery_of(event) + MAX_DELIVERIES as u64 {
            return Ok(None);
        }
        let (duration, status, phases) = NO_ATTEMPT;
        connection
            .prepare_cached(
                "INSERT INTO deliveries (key, id, webhook, state, attempts, due_at, settled_at, started_at, duration,
                 status, phases, replayed_at, checksum) VALUES (?1, ?2, ?3, ?4, 0, ?5, ?5, ?5, ?6, ?7, ?8, ?5, ?9)",
            )?
            .execute(params![
                stored(key),
                added.delivery.as_bytes(),
                webhook,
                code::PENDING,
                stored(at.as_millis()),
                duration,
                status,
                phases,
                checksum::of_delivery(stored(key), added.delivery.as_bytes(), added.webhook.as_str())
            ])?;
        blocks::add(connection, event, webhook)?;
        self.additions += 1;
        self.pending(Key(key), at).map(Some)
    }

    /// The offer of a delivery that is to be sent again.
    fn pending(&self, key: Key, at: Timestamp) -> rusqlite::Result<Delivery> {
        self.connection
            .prepare_cached(
                "SELECT d.id, w.name, e.id, e.accepted_at, d.attempts, d.test, length(e.body)
                 FROM deliveries d JOIN events e ON e.key = d.key >> 20 JOIN webhooks w ON w.id = d.webhook
                 WHERE d.key = ?",
            )?
            .query_row([stored(key.0)], |row| {
                let attempts = unsigned(row, 4)?;
                Ok(Delivery {
                    key,
                    id: DeliveryId::from_bytes(row.get(0)?),
                    webhook: webhook_name(row, 1)?,
                    event: EventId::from_bytes(row.get(2)?),
                    event_key: Key(event_of(key.0)),
                    accepted_at: timestamp(row, 3)?,
                    due_at: at,
                    attempts,
                    earlier_attempts: attempts,
                    replayed_at: Some(at),
                    test: row.get::<_, Option<bool>>(5)?.unwrap_or(false),
                    ordered: false,
                    size: unsigned(row, 6)?,
                    body: None,
                    trace: None,
                    hops: aquarium_delivery::Hops::FIRST,
                    damaged: false,
                    watcher: None,
                })
            })
    }
}

/// What became of a delivery.
enum Revived {
    /// It had ended, and is to be sent again.
    Ended(Box<Delivery>),
    /// It was pending, and is due now.
    Pending(Box<Delivery>),
    /// It is not stored, or waits behind another.
    Nothing,
}
