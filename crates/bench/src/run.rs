//! One measured run: load, drain, and what it took.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep};

use crate::ledger::Ledger;
use crate::load::{self, Load};
use crate::machine;
use crate::process::Usage;

/// How long deliveries may fail to come before a run is given up.
const STANDSTILL: Duration = Duration::from_secs(30);
/// How long all that was accepted may take to be delivered.
const DRAIN: Duration = Duration::from_secs(150);

/// What was measured of one subject, in one run or in several together.
#[derive(Debug)]
pub(crate) struct Run {
    /// Events accepted.
    pub(crate) events: u64,
    /// Deliveries that came.
    pub(crate) deliveries: u64,
    /// From the first event sent until the last one accepted.
    pub(crate) accepting: Duration,
    /// From the first event sent until the last delivery.
    pub(crate) delivering: Duration,
    /// What the subject's processes used.
    pub(crate) usage: Usage,
    /// What load and sink used.
    pub(crate) own: Duration,
    /// What all other processes of the machine used, and the kernel where it is not known for whom.
    pub(crate) others: Duration,
    /// The time of all cores.
    pub(crate) capacity: Duration,
    /// Until accepted, in microseconds.
    pub(crate) accept: Histogram<u64>,
    /// From accepted until delivered.
    pub(crate) deliver: Histogram<u64>,
}

/// Runs the load until all is delivered.
///
/// # Errors
/// When an event is lost, repeated or damaged, or anything stands still.
pub(crate) async fn measure(load: Load, ledger: Arc<Ledger>, pids: &[u32]) -> Result<Run> {
    let own = [std::process::id()];
    let (busy, all) = machine::busy()?;
    let (before, own_before) = (Usage::of(pids)?, Usage::of(&own)?);
    load::run(load, ledger.clone()).await?;
    drained(&ledger).await?;
    let usage = Usage::of(pids)?.since(before);
    let own = Usage::of(&own)?.since(own_before).cpu;
    let (busy_now, all_now) = machine::busy()?;
    let ticks =
        |ticks: u64| Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second());
    ledger.check(true)?;
    let (accepting, delivering) = ledger.spans();
    let (accept, deliver) = ledger.latencies()?;
    Ok(Run {
        events: ledger.events(),
        deliveries: ledger.deliveries(),
        accepting,
        delivering,
        usage,
        own,
        others: ticks(busy_now.saturating_sub(busy)).saturating_sub(usage.cpu + own),
        capacity: ticks(all_now.saturating_sub(all)),
        accept,
        deliver,
    })
}

/// Waits until all that was accepted was delivered.
pub(crate) async fn drained(ledger: &Ledger) -> Result<()> {
    let (mut seen, mut since) = (ledger.deliveries(), Instant::now());
    let deadline = since + DRAIN;
    while ledger.deliveries() < ledger.expected() {
        sleep(Duration::from_millis(2)).await;
        let (deliveries, now) = (ledger.deliveries(), Instant::now());
        if deliveries != seen {
            (seen, since) = (deliveries, now);
        }
        if now > deadline || now > since + STANDSTILL {
            ledger.check(false)?;
            bail!("of {} deliveries {deliveries} came, and no more", ledger.expected());
        }
    }
    Ok(())
}

impl Run {
    /// Several runs as one: rates are those of all their time.
    pub(crate) fn merge(runs: Vec<Run>) -> Result<Run> {
        let mut runs = runs.into_iter();
        let Some(mut sum) = runs.next() else { bail!("there was no run") };
        for run in runs {
            sum.events += run.events;
            sum.deliveries += run.deliveries;
            sum.accepting += run.accepting;
            sum.delivering += run.delivering;
            sum.usage.cpu += run.usage.cpu;
            sum.usage.switches += run.usage.switches;
            sum.own += run.own;
            sum.others += run.others;
            sum.capacity += run.capacity;
            sum.accept.add(run.accept)?;
            sum.deliver.add(run.deliver)?;
        }
        Ok(sum)
    }

    /// Events accepted per second.
    pub(crate) fn accepted_rate(&self) -> f64 {
        self.events as f64 / self.accepting.as_secs_f64()
    }

    /// Deliveries per second.
    pub(crate) fn delivered_rate(&self) -> f64 {
        self.deliveries as f64 / self.delivering.as_secs_f64()
    }

    /// Microseconds computed for each delivery.
    pub(crate) fn cpu_per_delivery(&self) -> f64 {
        self.usage.cpu.as_micros() as f64 / self.deliveries as f64
    }

    /// Context switches for each delivery.
    pub(crate) fn switches_per_delivery(&self) -> f64 {
        self.usage.switches as f64 / self.deliveries as f64
    }

    /// Microseconds that load and sink computed for each delivery.
    pub(crate) fn own_per_delivery(&self) -> f64 {
        self.own.as_micros() as f64 / self.deliveries as f64
    }

    /// The part of the machine that others used, in percent.
    pub(crate) fn others_percent(&self) -> f64 {
        100.0 * self.others.as_secs_f64() / self.capacity.as_secs_f64()
    }
}

/// A quantile of a histogram of microseconds, in milliseconds.
pub(crate) fn millis(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1_000.0
}
