//! Looks through what is stored, in the order of the keys, for as long as it may.
//!
//! A walk is over deliveries or over events. It reads keys in small portions, passes over blocks that have nothing of what is
//! wanted, and ends when its budget is spent, wherever it is: so a question is a bounded amount of work, however little is
//! found.

use std::collections::VecDeque;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::super::schema::{DELIVERY_BITS, code, event_of, first_delivery_of, stored, unsigned};
use super::blocks::{self, Verdict};
use super::plan::{Plan, plan};
use super::wanted::Wanted;
use crate::history::{Direction, Filter};

/// What a page may cost, in deliveries that are looked at.
pub(super) const PAGE: usize = 20_000;
/// What a count may cost.
pub(super) const COUNT: usize = 100_000;
/// What other things cost, in the same unit. They were measured.
const BLOCK: usize = 8;
const EVENT: usize = 4;
const EVENT_IN_A_ROW: usize = 2;
const SEEK: usize = 8;

/// Pending deliveries that are put in order for one page. If there are more of them, then so many that they are met soon.
const MOST_PENDING: usize = 20_000;
/// Keys that are read at a time: few at first, for a page is often full at once.
const FEWEST: usize = 64;
const MOST: usize = 1_024;

/// What a walk comes to next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This is wanted.
    Found(u64),
    /// The budget is spent: this is where to go on.
    Spent(u64),
    /// There is nothing more.
    End,
}

/// What a walk goes over.
enum Source {
    /// Deliveries, by key.
    Deliveries,
    /// Deliveries, by what is pending (in order) and by what is in these states.
    Indexes { pending: Vec<u64>, rare: Vec<i64> },
    /// Events, by key.
    Events,
}

/// A key that was read.
struct Candidate {
    key: u64,
    /// Whether it is wanted, as far as was seen when it was read.
    wanted: bool,
}

pub(super) struct Walk<'w> {
    connection: &'w Connection,
    wanted: &'w Wanted,
    source: Source,
    direction: Direction,
    /// The first and the last key that is looked at.
    bounds: (u64, u64),
    /// Where it goes on; `None` if it has come to the end.
    at: Option<u64>,
    portion: VecDeque<Candidate>,
    size: usize,
    budget: usize,
    /// The block that was asked about last, and whether it may have something.
    block: Option<(u64, bool)>,
    /// The event that was asked about last, and whether it is wanted.
    event: Option<(u64, bool)>,
    event_statement: CachedStatement<'w>,
    /// Set if a walk over deliveries ends only where an event does: the event whose deliveries are being looked at.
    whole_events: Option<Option<u64>>,
}

impl<'w> Walk<'w> {
    /// Over deliveries that are wanted by this filter.
    pub(super) fn deliveries(
        connection: &'w Connection,
        wanted: &'w Wanted,
        filter: &Filter,
        direction: Direction,
        budget: usize,
    ) -> rusqlite::Result<Self> {
        let source = match plan(filter) {
            Plan::Scan => Source::Deliveries,
            Plan::Indexes { pending, rare } => match gather(connection, wanted, pending)? {
                Some(pending) => Source::Indexes { pending, rare },
                None => Source::Deliveries,
            },
        };
        let bounds = match wanted.event() {
            Some(event) => (first_delivery_of(event), first_delivery_of(event + 1) - 1),
            None => (0, stored(u64::MAX).cast_unsigned()),
        };
        Self::new(connection, wanted, source, bounds, direction, budget)
    }

    /// Over events, whatever their deliveries.
    pub(super) fn events(
        connection: &'w Connection,
        wanted: &'w Wanted,
        direction: Direction,
        budget: usize,
    ) -> rusqlite::Result<Self> {
        let bounds =
            wanted.event().map_or((0, event_of(stored(u64::MAX).cast_unsigned())), |event| (event, event));
        Self::new(connection, wanted, Source::Events, bounds, direction, budget)
    }

    fn new(
        connection: &'w Connection,
        wanted: &'w Wanted,
        source: Source,
        bounds: (u64, u64),
        direction: Direction,
        budget: usize,
    ) -> rusqlite::Result<Self> {
        let at = Some(match direction {
            Direction::OldestFirst => bounds.0,
            Direction::NewestFirst => bounds.1,
        });
        let event_statement =
            connection.prepare_cached("SELECT project, kind, accepted_at FROM events WHERE key = ?")?;
        Ok(Self {
            connection,
            wanted,
            source,
            direction,
            bounds,
            at,
            portion: VecDeque::new(),
            size: FEWEST,
            budget,
            block: None,
            event: None,
            event_statement,
            whole_events: None,
        })
    }

    /// Goes on only at the end of an event when the budget is spent. To be called first.
    pub(super) fn by_whole_events(&mut self) {
        self.whole_events = Some(None);
    }

    /// Goes on from there.
    pub(super) fn start_at(&mut self, key: u64) {
        self.portion.clear();
        let (first, last) = self.bounds;
        self.at = match self.direction {
            Direction::OldestFirst => Some(key.max(first)).filter(|key| *key <= last),
            Direction::NewestFirst => Some(key.min(last)).filter(|key| *key >= first),
        };
    }

    /// Goes on behind this event, in the direction of the walk over deliveries.
    pub(super) fn pass_event(&mut self, event: u64) {
        while self.portion.front().is_some_and(|candidate| event_of(candidate.key) == event) {
            self.portion.pop_front();
        }
        if self.portion.is_empty() {
            match self.behind(event, DELIVERY_BITS) {
                Some(key) => self.start_at(key),
                None => self.at = None,
            }
        }
    }

    /// Has something else that was done count.
    pub(super) fn spend(&mut self, cost: usize) {
        self.budget = self.budget.saturating_sub(cost);
    }

    pub(super) fn next(&mut self) -> rusqlite::Result<Step> {
        loop {
            let Some(candidate) = self.portion.pop_front() else {
                let Some(at) = self.at else { return Ok(Step::End) };
                self.read(at)?;
                if self.portion.is_empty() {
                    self.at = None;
                }
                continue;
            };
            let key = candidate.key;
            if self.is_spent(key) {
                return Ok(Step::Spent(key));
            }
            if !self.block_admits(key)? {
                continue;
            }
            self.at = self.after(key);
            self.spend(if matches!(self.source, Source::Events) { EVENT_IN_A_ROW } else { 1 });
            if candidate.wanted && self.event_admits(key)? {
                return Ok(Step::Found(key));
            }
        }
    }

    fn is_spent(&mut self, key: u64) -> bool {
        match &mut self.whole_events {
            Some(current) => current.replace(event_of(key)) != Some(event_of(key)) && self.budget == 0,
            None => self.budget == 0,
        }
    }

    /// The next key in this direction.
    fn after(&self, key: u64) -> Option<u64> {
        let (first, last) = self.bounds;
        match self.direction {
            Direction::OldestFirst => key.checked_add(1).filter(|key| *key <= last),
            Direction::NewestFirst => key.checked_sub(1).filter(|key| *key >= first),
        }
    }

    /// The first key in this direction that is not of this event or block, of which keys have so many bits more.
    fn behind(&self, group: u64, bits: u32) -> Option<u64> {
        match self.direction {
            Direction::OldestFirst => Some((group + 1) << bits),
            Direction::NewestFirst => (group << bits).checked_sub(1),
        }
    }

    /// Whether the block of a key may have something. If not, the walk goes on behind it, and behind those that follow and
    /// have nothing either.
    fn block_admits(&mut self, key: u64) -> rusqlite::Result<bool> {
        if !self.wanted.asks_for_block() || self.wanted.event().is_some() {
            return Ok(true);
        }
        let events = matches!(self.source, Source::Events);
        let mut block = blocks::of(if events { key } else { event_of(key) });
        if self.block.is_none_or(|(known, _)| known != block) {
            self.block = Some((block, self.ask(block)? != Verdict::Nothing));
        }
        if self.block.is_some_and(|(_, possible)| possible) {
            return Ok(true);
        }
        // What follows is asked about before it is looked for: that may be far to go.
        let direction = self.direction;
        let next = |block: u64| match direction {
            Direction::OldestFirst => Some(block + 1),
            Direction::NewestFirst => block.checked_sub(1),
        };
        while self.budget > 0
            && let Some(following) = next(block)
        {
            match self.ask(following)? {
                Verdict::Nothing => block = following,
                verdict => {
                    self.block = (verdict == Verdict::Possible).then_some((following, true));
                    break;
                }
            }
        }
        let bits = blocks::BITS + if events { 0 } else { DELIVERY_BITS };
        self.spend(SEEK);
        match self.behind(block, bits) {
            Some(key) => self.start_at(key),
            None => (self.at, self.portion) = (None, VecDeque::new()),
        }
        Ok(false)
    }

    fn ask(&mut self, block: u64) -> rusqlite::Result<Verdict> {
        self.budget = self.budget.saturating_sub(BLOCK);
        blocks::verdict(self.connection, block, self.wanted)
    }

    fn event_admits(&mut self, key: u64) -> rusqlite::Result<bool> {
        if matches!(self.source, Source::Events) || !self.wanted.asks_for_event() {
            return Ok(true);
        }
        let event = event_of(key);
        if let Some((known, admitted)) = self.event
            && known == event
        {
            return Ok(admitted);
        }
        self.spend(EVENT);
        let wanted = self.wanted;
        let admitted = self.event_statement.query_row([stored(event)], |row| {
            Ok(wanted.admits_event(row.get(0)?, row.get_ref(1)?.as_bytes()?, row.get(2)?))
        });
        let admitted = admitted.optional()?.unwrap_or(false);
        self.event = Some((event, admitted));
        Ok(admitted)
    }

    /// Reads the next portion, from this key on.
    fn read(&mut self, at: u64) -> rusqlite::Result<()> {
        let (first, last) = match self.direction {
            Direction::OldestFirst => (at, self.bounds.1),
            Direction::NewestFirst => (self.bounds.0, at),
        };
        let limit = self.size;
        self.size = (limit * 2).min(MOST);
        let (wanted, connection, newest_first) =
            (self.wanted, self.connection, self.direction == Direction::NewestFirst);
        let range = params![stored(first), stored(last), stored(limit)];
        self.portion = match &self.source {
            Source::Deliveries => connection
                .prepare_cached(if newest_first {
                    "SELECT key, webhook, state FROM deliveries WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT ?"
                } else {
                    "SELECT key, webhook, state FROM deliveries WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?"
                })?
                .query_map(range, |row| {
                    let wanted = wanted.admits_delivery(row.get(1)?, row.get(2)?);
                    Ok(Candidate { key: unsigned(row, 0)?, wanted })
                })?
                .collect::<Result<_, _>>()?,
            Source::Events => connection
                .prepare_cached(if newest_first {
                    "SELECT key, project, kind, accepted_at FROM events WHERE key BETWEEN ? AND ? ORDER BY key DESC LIMIT ?"
                } else {
                    "SELECT key, project, kind, accepted_at FROM events WHERE key BETWEEN ? AND ? ORDER BY key LIMIT ?"
                })?
                .query_map(range, |row| {
                    let wanted = wanted.admits_event(row.get(1)?, row.get_ref(2)?.as_bytes()?, row.get(3)?);
                    Ok(Candidate { key: unsigned(row, 0)?, wanted })
                })?
                .collect::<Result<_, _>>()?,
            Source::Indexes { pending, rare } => {
                let from = pending.partition_point(|key| *key < first);
                let to = pending.partition_point(|key| *key <= last);
                let pending = pending.get(from..to).unwrap_or_default();
                let mut keys: Vec<u64> = match newest_first {
                    true => pending.iter().rev().take(limit).copied().collect(),
                    false => pending.iter().take(limit).copied().collect(),
                };
                for state in rare {
                    read_rare(connection, wanted.webhook(), *state, (first, last), newest_first, limit, &mut keys)?;
                }
                keys.sort_unstable();
                if newest_first {
                    keys.reverse();
                }
                keys.truncate(limit);
                keys.into_iter().map(|key| Candidate { key, wanted: true }).collect()
            }
        };
        Ok(())
    }
}

/// Reads keys of one state from the index of rare states.
fn read_rare(
    connection: &Connection,
    webhook: Option<i64>,
    state: i64,
    (first, last): (u64, u64),
    newest_first: bool,
    limit: usize,
    into: &mut Vec<u64>,
) -> rusqlite::Result<()> {
    let sql = match (webhook.is_some(), newest_first) {
        (true, true) => {
            "SELECT key FROM deliveries INDEXED BY deliveries_rare_of_webhook
             WHERE webhook = ?5 AND state = ?1 AND state >= 2 AND key BETWEEN ?2 AND ?3 ORDER BY key DESC LIMIT ?4"
        }
        (true, false) => {
            "SELECT key FROM deliveries INDEXED BY deliveries_rare_of_webhook
             WHERE webhook = ?5 AND state = ?1 AND state >= 2 AND key BETWEEN ?2 AND ?3 ORDER BY key LIMIT ?4"
        }
        (false, true) => {
            "SELECT key FROM deliveries INDEXED BY deliveries_rare
             WHERE state = ?1 AND state >= 2 AND key BETWEEN ?2 AND ?3 AND ?5 IS NULL ORDER BY key DESC LIMIT ?4"
        }
        (false, false) => {
            "SELECT key FROM deliveries INDEXED BY deliveries_rare
             WHERE state = ?1 AND state >= 2 AND key BETWEEN ?2 AND ?3 AND ?5 IS NULL ORDER BY key LIMIT ?4"
        }
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![state, stored(first), stored(last), stored(limit), webhook])?;
    while let Some(row) = rows.next()? {
        into.push(unsigned(row, 0)?);
    }
    Ok(())
}

/// The keys of what is pending, in order, if that is asked for. `None` if there are too many.
fn gather(connection: &Connection, wanted: &Wanted, pending: bool) -> rusqlite::Result<Option<Vec<u64>>> {
    if !pending {
        return Ok(Some(Vec::new()));
    }
    let limit = stored(MOST_PENDING + 1);
    let mut keys: Vec<u64> = match wanted.webhook() {
        Some(webhook) => connection
            .prepare_cached(
                "SELECT key FROM deliveries INDEXED BY deliveries_due WHERE state = 0 AND webhook = ? LIMIT ?",
            )?
            .query_map([webhook, limit], |row| unsigned(row, 0))?
            .collect::<Result<_, _>>()?,
        None => connection
            .prepare_cached("SELECT key FROM deliveries INDEXED BY deliveries_due WHERE state = 0 LIMIT ?")?
            .query_map([limit], |row| unsigned(row, 0))?
            .collect::<Result<_, _>>()?,
    };
    keys.sort_unstable();
    Ok((keys.len() <= MOST_PENDING).then_some(keys))
}

const _: () = assert!(
    code::EXHAUSTED_BY_ATTEMPTS == 2
        && code::EXHAUSTED_BY_AGE > 2
        && code::EXHAUSTED_BY_DAMAGE > 2
        && code::SKIPPED > 2,
    "the indexes say `state >= 2`"
);
