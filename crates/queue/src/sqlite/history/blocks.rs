//! What may be found in a range of keys: a summary in the place of an index.
//!
//! A block is 4,096 consecutive event keys. Once it is complete, nothing is accepted into it any more, and its row tells
//! when its events were accepted (the earliest and the latest: the clock may have stepped back), which webhooks have
//! deliveries in it, and which types of event happened in which projects. So a list passes over most of what does not concern
//! it, and accepting and settling cost nothing.
//!
//! A row is made some time after its block is complete, and a block without one is looked at: the rows only save work. What
//! changes afterwards: a delivery may be added to an old event, which is then added to the row; and events are removed, which
//! leaves the row saying more than there is.
//!
//! The sets are compact, and at most [`LARGEST_SET`] bytes; NULL stands for any. `webhooks`: row numbers, ascending, each as
//! the difference from the one before, in groups of seven bits, the lowest first. `kinds`: in the same encoding the number of
//! types, at most [`MOST_KINDS`]; for each its length, and the type itself; then for each project the difference of its row
//! number from the one before, and a bit for each type that happened in it, the lowest for the first.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::super::schema::{deliveries_of, first_delivery_of, stored};
use super::wanted::Wanted;

/// The bits of an event's key within its block.
pub(super) const BITS: u32 = 12;
/// A set that would be larger is not stored.
const LARGEST_SET: usize = 8 * 1024;
/// Types of event that can be told apart in one block.
const MOST_KINDS: usize = 64;
/// Deliveries that are looked at for one block. If there are more, it is not known who they are for.
const MOST_DELIVERIES: usize = 200_000;
/// Blocks that one step of [`next`] passes over.
const STEP: usize = 2_000;

/// The block that an event is in.
pub(in super::super) fn of(event: u64) -> u64 {
    event >> BITS
}

/// The first event key of a block.
pub(in super::super) fn first_event(block: u64) -> u64 {
    block << BITS
}

/// The row of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Block {
    pub(in super::super) block: u64,
    /// When its earliest and its latest event was accepted, in milliseconds.
    pub(in super::super) first: i64,
    pub(in super::super) last: i64,
    pub(in super::super) webhooks: Option<Vec<u8>>,
    pub(in super::super) kinds: Option<Vec<u8>>,
}

/// What may be in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Something that is wanted.
    Possible,
    /// Nothing that is wanted.
    Nothing,
    /// It is not known.
    Unknown,
}

/// Tells whether a block may have something that is wanted.
pub(super) fn verdict(connection: &Connection, block: u64, wanted: &Wanted) -> rusqlite::Result<Verdict> {
    let found = connection
        .prepare_cached("SELECT first, last, webhooks, kinds FROM blocks WHERE block = ?")?
        .query_row([stored(block)], |row| {
            let (webhooks, kinds) = (row.get_ref(2)?.as_blob_or_null()?, row.get_ref(3)?.as_blob_or_null()?);
            let possible = wanted.overlaps(row.get(0)?, row.get(1)?)
                && wanted.webhook().is_none_or(|id| webhooks.is_none_or(|set| has(set, id)))
                && kinds.is_none_or(|set| {
                    any_pair(set, |kind| wanted.admits_kind(kind), |project| wanted.admits_project(project))
                });
            Ok(if possible { Verdict::Possible } else { Verdict::Nothing })
        });
    Ok(found.optional()?.unwrap_or(Verdict::Unknown))
}

/// The first event that is in a block that may have something.
pub(super) fn first_possible(connection: &Connection, wanted: &Wanted) -> rusqlite::Result<Option<u64>> {
    let mut next_event = connection.prepare_cached("SELECT min(key) FROM events WHERE key >= ?")?;
    let mut block = 0;
    loop {
        let event: Option<u64> =
            next_event.query_row([stored(first_event(block))], |row| super::optional(row, 0))?;
        let Some(event) = event else { return Ok(None) };
        if verdict(connection, of(event), wanted)? != Verdict::Nothing {
            return Ok(Some(event));
        }
        block = of(event) + 1;
    }
}

/// The next complete block that has no row, looked for from `from` on.
pub(super) enum Next {
    /// Its row, and whether there may be another.
    Block(Block),
    /// All before this one have rows, or no events. True if it is to be gone on from there at once.
    Looked(u64, bool),
}

/// Looks for a complete block without a row, and makes it.
pub(super) fn next(connection: &Connection, from: u64) -> rusqlite::Result<Next> {
    let newest: Option<u64> =
        connection.query_row("SELECT max(key) FROM events", [], |row| super::optional(row, 0))?;
    let Some(newest) = newest else { return Ok(Next::Looked(from, false)) };
    let mut next_event = connection.prepare_cached("SELECT min(key) FROM events WHERE key >= ?")?;
    let mut known = connection.prepare_cached("SELECT 1 FROM blocks WHERE block = ?")?;
    let mut block = from;
    for _ in 0..STEP {
        let event: Option<u64> =
            next_event.query_row([stored(first_event(block))], |row| super::optional(row, 0))?;
        let Some(event) = event else { return Ok(Next::Looked(block, false)) };
        block = of(event);
        // The last event of a block may be gone, but one beyond tells that it was there.
        if newest < first_event(block + 1) - 1 {
            return Ok(Next::Looked(block, false));
        }
        if !known.exists([stored(block)])? {
            return Ok(Next::Block(make(connection, block)?));
        }
        block += 1;
    }
    Ok(Next::Looked(block, true))
}

fn make(connection: &Connection, block: u64) -> rusqlite::Result<Block> {
    let (from, beyond) = (first_event(block), first_event(block + 1));
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    let mut kinds = BTreeSet::new();
    let mut events = connection
        .prepare_cached("SELECT project, kind, accepted_at FROM events WHERE key >= ? AND key < ?")?;
    let mut rows = events.query([stored(from), stored(beyond)])?;
    while let Some(row) = rows.next()? {
        let accepted_at = row.get(2)?;
        (first, last) = (first.min(accepted_at), last.max(accepted_at));
        let (project, kind) = (row.get::<_, i64>(0)?, row.get_ref(1)?.as_str()?);
        if !kinds.contains(&(project, kind.to_owned())) {
            kinds.insert((project, kind.to_owned()));
        }
    }
    let mut webhooks = BTreeSet::new();
    let mut looked_at = 0;
    let mut deliveries = connection
        .prepare_cached("SELECT webhook FROM deliveries WHERE key >= ? AND key < ? ORDER BY key LIMIT ?")?;
    let range = [first_delivery_of(from), first_delivery_of(beyond), MOST_DELIVERIES as u64].map(stored);
    let mut rows = deliveries.query(range)?;
    while let Some(row) = rows.next()? {
        webhooks.insert(row.get::<_, i64>(0)?);
        looked_at += 1;
    }
    let webhooks = (looked_at < MOST_DELIVERIES).then_some(webhooks).and_then(encode);
    Ok(Block { block, first, last, webhooks, kinds: encode_pairs(&kinds) })
}

/// Stores the row of a block.
pub(in super::super) fn store(connection: &Connection, block: &Block) -> rusqlite::Result<()> {
    let Block { block, first, last, webhooks, kinds } = block;
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO blocks (block, first, last, webhooks, kinds) VALUES (?, ?, ?, ?, ?)",
        )?
        .execute(params![stored(*block), first, last, webhooks, kinds])?;
    Ok(())
}

/// Adds a webhook to the row of the block that an event is in, if there is one.
pub(in super::super) fn add(connection: &Connection, event: u64, webhook: i64) -> rusqlite::Result<()> {
    let block = stored(of(event));
    let set: Option<Vec<u8>> = connection
        .prepare_cached("SELECT webhooks FROM blocks WHERE block = ? AND webhooks IS NOT NULL")?
        .query_row([block], |row| row.get(0))
        .optional()?;
    let Some(set) = set.filter(|set| !has(set, webhook)) else { return Ok(()) };
    let set = encode(numbers(&set).chain([webhook]).collect());
    connection
        .prepare_cached("UPDATE blocks SET webhooks = ? WHERE block = ?")?
        .execute(params![set, block])?;
    Ok(())
}

/// Removes the rows of those of these blocks that have no events any more, and of all that are older than every event.
pub(in super::super) fn forget(connection: &Connection, touched: &BTreeSet<u64>) -> rusqlite::Result<()> {
    for block in touched {
        connection
            .prepare_cached(
                "DELETE FROM blocks WHERE block = ?1
                 AND NOT EXISTS (SELECT 1 FROM events WHERE key >= ?2 AND key < ?3)",
            )?
            .execute([*block, first_event(*block), first_event(block + 1)].map(stored))?;
    }
    let oldest: Option<u64> =
        connection.query_row("SELECT min(key) FROM events", [], |row| super::optional(row, 0))?;
    connection
        .prepare_cached("DELETE FROM blocks WHERE block < ?")?
        .execute([oldest.map_or(i64::MAX, |oldest| stored(of(oldest)))])?;
    Ok(())
}

fn encode(numbers: BTreeSet<i64>) -> Option<Vec<u8>> {
    let (mut bytes, mut previous) = (Vec::new(), 0);
    for number in numbers {
        push(&mut bytes, number.abs_diff(previous));
        previous = number;
    }
    (bytes.len() <= LARGEST_SET).then_some(bytes)
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = i64> + '_ {
    let mut rest = bytes;
    let mut number = 0_i64;
    std::iter::from_fn(move || {
        number = number.saturating_add_unsigned(take(&mut rest)?);
        Some(number)
    })
}

fn has(bytes: &[u8], number: i64) -> bool {
    numbers(bytes).take_while(|other| *other <= number).any(|other| other == number)
}

fn encode_pairs(pairs: &BTreeSet<(i64, String)>) -> Option<Vec<u8>> {
    let kinds: BTreeSet<&str> = pairs.iter().map(|(_, kind)| kind.as_str()).collect();
    if kinds.len() > MOST_KINDS {
        return None;
    }
    let mut projects = BTreeMap::<i64, u64>::new();
    for (project, kind) in pairs {
        let place = kinds.range(..kind.as_str()).count();
        *projects.entry(*project).or_default() |= 1 << place;
    }
    let mut bytes = Vec::new();
    push(&mut bytes, kinds.len() as u64);
    for kind in kinds {
        push(&mut bytes, kind.len() as u64);
        bytes.extend(kind.as_bytes());
    }
    let mut previous = 0;
    for (project, happened) in projects {
        push(&mut bytes, project.abs_diff(previous));
        push(&mut bytes, happened);
        previous = project;
    }
    (bytes.len() <= LARGEST_SET).then_some(bytes)
}

/// Whether any of these pairs is `wanted`: a type on its own first, then a project.
fn any_pair(bytes: &[u8], kind_wanted: impl Fn(&[u8]) -> bool, project_wanted: impl Fn(i64) -> bool) -> bool {
    let mut rest = bytes;
    let mut wanted = 0_u64;
    for place in 0..take(&mut rest).unwrap_or(0) {
        let kind = take(&mut rest).and_then(|length| rest.split_at_checked(usize::try_from(length).ok()?));
        let Some((kind, after)) = kind else { return false };
        rest = after;
        if kind_wanted(kind) {
            wanted |= 1_u64.checked_shl(u32::try_from(place).unwrap_or(u32::MAX)).unwrap_or(0);
        }
    }
    let mut project = 0_i64;
    while wanted != 0
        && let (Some(difference), Some(happened)) = (take(&mut rest), take(&mut rest))
    {
        project = project.saturating_add_unsigned(difference);
        if happened & wanted != 0 && project_wanted(project) {
            return true;
        }
    }
    false
}

fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
    }
}

/// The blocks whose events were accepted around then, and those of which that is not known, the newest first; at last all
/// have been given.
pub(super) struct Around<'c> {
    connection: &'c Connection,
    /// Only blocks before this event are left.
    before: u64,
    at: i64,
}

impl<'c> Around<'c> {
    pub(super) fn new(connection: &'c Connection, at: i64) -> Self {
        Self { connection, before: u64::MAX, at }
    }

    /// The first and the last key that a delivery, and an event, of the next block may have.
    pub(super) fn next(&mut self) -> rusqlite::Result<Option<Range>> {
        let mut newest = self.connection.prepare_cached("SELECT max(key) FROM events WHERE key < ?")?;
        let mut times = self.connection.prepare_cached("SELECT first, last FROM blocks WHERE block = ?")?;
        loop {
            let event: Option<u64> =
                newest.query_row([stored(self.before)], |row| super::optional(row, 0))?;
            let Some(event) = event else { return Ok(None) };
            let block = of(event);
            self.before = first_event(block);
            let known: Option<(i64, i64)> =
                times.query_row([stored(block)], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            if known.is_none_or(|(first, last)| (first..=last).contains(&self.at)) {
                let [first, _] = deliveries_of(self.before);
                return Ok(Some(Range {
                    events: [stored(self.before), stored(first_event(block + 1))],
                    deliveries: [first, deliveries_of(first_event(block + 1))[0]],
                }));
            }
        }
    }
}

/// The keys in a block: the first, and the first beyond.
pub(super) struct Range {
    pub(super) events: [i64; 2],
    pub(super) deliveries: [i64; 2],
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_tells_exactly_what_is_in_it(
            webhooks in prop::collection::btree_set(0_i64..1 << 40, 0..50), other in 0_i64..1 << 40,
            kinds in prop::collection::btree_set((1_i64..1 << 40, "[a-z]{0,200}"), 0..9)
        ) {
            let set = encode(webhooks.clone()).unwrap();
            prop_assert!(webhooks.iter().all(|webhook| has(&set, *webhook)));
            prop_assert_eq!(has(&set, other), webhooks.contains(&other));
            let set = encode_pairs(&kinds).unwrap();
            for (_, kind) in &kinds {
                for (project, _) in &kinds {
                    let has = any_pair(&set, |other| other == kind.as_bytes(), |other| other == *project);
                    prop_assert_eq!(has, kinds.contains(&(*project, kind.clone())));
                }
            }
            prop_assert_eq!(any_pair(&set, |_| true, |_| true), !kinds.is_empty());
            prop_assert!(!any_pair(&set, |_| true, |project| project == other) || kinds.iter().any(|(p, _)| *p == other));
        }
    }

    #[test]
    fn a_set_that_would_be_too_large_stands_for_any() {
        assert!(encode((0..8_000).collect()).is_some());
        assert_eq!(encode((0..8_000).map(|number| number * 1_000).collect()), None);
        let many = (0..=MOST_KINDS).map(|number| (1, number.to_string())).collect();
        assert_eq!(encode_pairs(&many), None);
        assert!(!any_pair(&[1, 9, b'x'], |_| true, |_| true), "what is damaged ends");
    }
}
