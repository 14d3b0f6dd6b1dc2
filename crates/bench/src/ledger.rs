//! What is known of each event of a run: when it was sent, accepted and delivered, and to which webhooks.
//!
//! Load and sink both write to it while they run, each a few stores an event. What it comes to is reckoned afterwards.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::payload::{Mark, Payload};

/// How events spread over webhooks: each goes to one project, and to all webhooks of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    /// Projects there are.
    pub(crate) projects: u32,
    /// Projects that get events at the same time.
    pub(crate) active: u32,
    /// Events until it is the turn of the next ones.
    pub(crate) turn: u64,
    /// Webhooks of each project, at most 32.
    pub(crate) webhooks: u32,
}

impl Spread {
    /// One project with this many webhooks.
    pub(crate) fn one(webhooks: u32) -> Spread {
        Spread { projects: 1, active: 1, turn: u64::MAX, webhooks }
    }

    /// The project of an event: round robin over those whose turn it is.
    pub(crate) fn project(&self, sequence: u64) -> u32 {
        let first = sequence / self.turn * u64::from(self.active);
        let number = (first + sequence % u64::from(self.active)) % u64::from(self.projects);
        u32::try_from(number).unwrap_or(0)
    }
}

/// Times are in microseconds since the start, and one more, so that 0 means never.
#[derive(Debug, Default)]
struct Row {
    started: AtomicU32,
    accepted: AtomicU32,
    delivered: AtomicU32,
    /// A bit for each webhook that has it.
    webhooks: AtomicU32,
}

/// The record of one run.
#[derive(Debug)]
pub(crate) struct Ledger {
    epoch: Instant,
    payload: Payload,
    spread: Spread,
    rows: Vec<Row>,
    taken: AtomicU64,
    accepted: AtomicU64,
    delivered: AtomicU64,
    duplicates: AtomicU64,
    corrupt: AtomicU64,
    unknown: AtomicU64,
    /// Events below this number may come again.
    repeatable: AtomicU64,
    repeats: AtomicU64,
    last_delivery: AtomicU32,
}

impl Ledger {
    /// A record of up to `capacity` events.
    pub(crate) fn new(payload: Payload, spread: Spread, capacity: usize) -> Ledger {
        let rows = std::iter::repeat_with(Row::default).take(capacity).collect();
        Ledger {
            epoch: Instant::now(),
            payload,
            spread,
            rows,
            taken: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            corrupt: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            repeatable: AtomicU64::new(0),
            repeats: AtomicU64::new(0),
            last_delivery: AtomicU32::new(0),
        }
    }

    /// What its events look like.
    pub(crate) fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Where they go.
    pub(crate) fn spread(&self) -> &Spread {
        &self.spread
    }

    /// The number of the first of `count` events that nobody else sends; none, when there is no more room.
    pub(crate) fn take(&self, count: u64) -> Option<u64> {
        let first = self.taken.fetch_add(count, Relaxed);
        (first + count <= self.rows.len() as u64).then_some(first)
    }

    /// The number of the next event that nobody sends yet.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// The time, as it is recorded here.
    pub(crate) fn now(&self) -> u32 {
        self.time(Instant::now())
    }

    /// A moment, as it is recorded here.
    pub(crate) fn time(&self, moment: Instant) -> u32 {
        let micros = moment.saturating_duration_since(self.epoch).as_micros();
        u32::try_from(micros).unwrap_or(u32::MAX - 1) + 1
    }

    /// `count` events from `first` on are sent, or should be, at this time.
    pub(crate) fn started(&self, first: u64, count: u64, at: u32) {
        for row in self.range(first, count) {
            row.started.store(at, Relaxed);
        }
    }

    /// They were accepted.
    pub(crate) fn accepted(&self, first: u64, count: u64, at: u32) {
        for row in self.range(first, count) {
            row.accepted.store(at, Relaxed);
        }
        self.accepted.fetch_add(count, Relaxed);
    }

    fn range(&self, first: u64, count: u64) -> &[Row] {
        let from = usize::try_from(first).unwrap_or(usize::MAX);
        let to = from.saturating_add(usize::try_from(count).unwrap_or(usize::MAX));
        self.rows.get(from..to).unwrap_or_default()
    }

    /// This body came to the webhook of this number.
    pub(crate) fn arrived(&self, webhook: u64, body: &[u8]) {
        let at = self.now();
        let Some(Mark { project, sequence }) = self.payload.read(body) else {
            self.corrupt.fetch_add(1, Relaxed);
            return;
        };
        let row = usize::try_from(sequence).ok().and_then(|sequence| self.rows.get(sequence));
        let webhooks = u64::from(self.spread.webhooks);
        let right = project == self.spread.project(sequence) && webhook / webhooks == u64::from(project);
        let Some(row) = row.filter(|row| right && row.started.load(Relaxed) != 0) else {
            self.unknown.fetch_add(1, Relaxed);
            return;
        };
        let bit = 1 << (webhook % webhooks);
        if row.webhooks.fetch_or(bit, Relaxed) & bit != 0 {
            let again = sequence < self.repeatable.load(Relaxed);
            let count = if again { &self.repeats } else { &self.duplicates };
            count.fetch_add(1, Relaxed);
            return;
        }
        row.delivered.fetch_max(at, Relaxed);
        self.last_delivery.fetch_max(at, Relaxed);
        self.delivered.fetch_add(1, Relaxed);
    }

    /// From now on events below this number may come again.
    pub(crate) fn repeats_below(&self, sequence: u64) {
        self.repeatable.store(sequence, Relaxed);
    }

    /// How many deliveries came again that might.
    pub(crate) fn repeats(&self) -> u64 {
        self.repeats.load(Relaxed)
    }

    /// How many deliveries came, each counted once.
    pub(crate) fn deliveries(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    /// How many events were accepted.
    pub(crate) fn events(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// How many deliveries are to come of what was accepted.
    pub(crate) fn expected(&self) -> u64 {
        self.events() * u64::from(self.spread.webhooks)
    }

    /// What came must be what was sent; if `all` is set, then all that was accepted must have come.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&self, all: bool) -> Result<()> {
        let [duplicates, corrupt, unknown] =
            [&self.duplicates, &self.corrupt, &self.unknown].map(|count| count.load(Relaxed));
        if duplicates + corrupt + unknown > 0 {
            bail!(
                "of {} deliveries {duplicates} came twice, {corrupt} were damaged, {unknown} were not expected there",
                self.deliveries()
            );
        }
        let full = u32::MAX >> (32 - self.spread.webhooks);
        let is_missing = |row: &&Row| row.accepted.load(Relaxed) != 0 && row.webhooks.load(Relaxed) != full;
        let missing = self.rows.iter().filter(is_missing).count();
        if all && missing > 0 {
            bail!(
                "of {} events that were accepted {missing} were not delivered to all webhooks",
                self.events()
            );
        }
        Ok(())
    }

    /// From the first event sent until the last one accepted, and until the last delivery.
    pub(crate) fn spans(&self) -> (Duration, Duration) {
        let times = |field: fn(&Row) -> &AtomicU32| {
            self.rows.iter().map(move |row| field(row).load(Relaxed)).filter(|time| *time != 0)
        };
        let first = times(|row| &row.started).min().unwrap_or(0);
        let accepted = times(|row| &row.accepted).max().unwrap_or(0);
        let span = |last: u32| Duration::from_micros(u64::from(last.saturating_sub(first)));
        (span(accepted), span(self.last_delivery.load(Relaxed)))
    }

    /// How long events took until they were accepted, and from then until their last delivery, in microseconds.
    pub(crate) fn latencies(&self) -> Result<(Histogram<u64>, Histogram<u64>)> {
        self.latencies_of(0, self.rows.len() as u64)
    }

    /// The same for events of these numbers, the second not included.
    pub(crate) fn latencies_of(&self, from: u64, to: u64) -> Result<(Histogram<u64>, Histogram<u64>)> {
        let (mut accept, mut deliver) = (histogram()?, histogram()?);
        for row in self.range(from, to.saturating_sub(from)) {
            let [started, accepted, delivered] =
                [&row.started, &row.accepted, &row.delivered].map(|time| time.load(Relaxed));
            if accepted != 0 {
                accept.record(u64::from(accepted.saturating_sub(started)))?;
            }
            if accepted != 0 && delivered != 0 {
                deliver.record(u64::from(delivered.saturating_sub(accepted)))?;
            }
        }
        Ok((accept, deliver))
    }
}

/// An empty histogram of three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(ledger: &Ledger, sequence: u64) -> Vec<u8> {
        let mut body = ledger.payload().bytes().to_vec();
        ledger.payload().write(&mut body, Mark { project: ledger.spread().project(sequence), sequence });
        body
    }

    #[test]
    fn what_is_lost_repeated_damaged_or_led_astray_is_told() {
        let ledger = || {
            let ledger = Ledger::new(Payload::dataset(256), Spread::one(2), 2);
            assert_eq!(ledger.take(2), Some(0));
            ledger.started(0, 2, 1);
            ledger.accepted(0, 2, 2);
            for (webhook, sequence) in [(0, 0), (1, 0), (1, 1)] {
                ledger.arrived(webhook, &body(&ledger, sequence));
            }
            ledger
        };
        let lost = ledger();
        assert!(lost.check(true).unwrap_err().to_string().contains("1 were not delivered"));
        lost.check(false).unwrap();
        lost.arrived(0, &body(&lost, 1));
        lost.check(true).unwrap();
        assert_eq!((lost.deliveries(), lost.expected()), (4, 4));

        let twice = ledger();
        twice.arrived(1, &body(&twice, 1));
        assert!(twice.check(false).unwrap_err().to_string().contains("1 came twice"));
        let damaged = ledger();
        damaged.arrived(0, b"{}");
        assert!(damaged.check(false).unwrap_err().to_string().contains("1 were damaged"));
        for (webhook, sequence) in [(2, 1), (0, 2)] {
            let astray = ledger();
            astray.arrived(webhook, &body(&astray, sequence));
            assert!(astray.check(false).unwrap_err().to_string().contains("1 were not expected"));
        }
    }

    #[test]
    fn events_go_round_the_active_projects_and_the_active_ones_change() {
        let spread = Spread { projects: 10, active: 4, turn: 8, webhooks: 1 };
        let projects: Vec<_> = (0..28).map(|sequence| spread.project(sequence)).collect();
        assert_eq!(projects[..8], [0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!(projects[8..16], [4, 5, 6, 7, 4, 5, 6, 7]);
        assert_eq!(projects[16..24], [8, 9, 0, 1, 8, 9, 0, 1]);
        assert_eq!(Spread::one(20).project(12_345), 0);
    }

    #[test]
    fn latency_counts_from_when_an_event_should_have_been_sent() {
        let ledger = Ledger::new(Payload::dataset(256), Spread::one(1), 10);
        for sequence in 0..10 {
            // One a millisecond; the first answer comes after 10 ms, and the others at once after it.
            ledger.started(sequence, 1, 1 + 1_000 * u32::try_from(sequence).unwrap());
            ledger.accepted(sequence, 1, 1 + 10_000);
        }
        let (accept, _) = ledger.latencies().unwrap();
        assert_eq!(accept.len(), 10);
        assert!(accept.value_at_quantile(0.5).abs_diff(5_000) < 1_010, "{}", accept.value_at_quantile(0.5));
        assert!(accept.max().abs_diff(10_000) < 10);
    }
}
