//! 1 KB events to one webhook; beside it relays that store nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tempfile::TempDir;

use crate::ledger::{Ledger, Spread};
use crate::load::{Load, Pace};
use crate::payload::Payload;
use crate::process;
use crate::relay::{Relay, nginx_version};
use crate::report::{Report, Table, Wanted, progress};
use crate::request::Door;
use crate::run::{Run, measure, millis};
use crate::scenario::{footprint, rows};
use crate::sink::{Down, Protocol};
use crate::stage::{Bench, Plan, Stage};

/// Bytes of an event.
pub(crate) const EVENT: usize = 1_024;
/// How often each subject has its turn.
const ROUNDS: usize = 2;

/// What a sidecar did, and what it took besides.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) run: Run,
    /// Bytes written, from its start to its end.
    pub(crate) written: u64,
    /// The most memory.
    pub(crate) peak: u64,
}

impl Measured {
    /// Several runs as one.
    pub(crate) fn merge(all: Vec<Measured>) -> Result<Measured> {
        let written = all.iter().map(|one| one.written).sum();
        let peak = all.iter().map(|one| one.peak).max().unwrap_or(0);
        let run = Run::merge(all.into_iter().map(|one| one.run).collect())?;
        Ok(Measured { run, written, peak })
    }

    /// Bytes written for each event.
    pub(crate) fn written_per_event(&self) -> f64 {
        self.written as f64 / self.run.events as f64
    }
}

/// Prints the table.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (mut hyper, mut nginx, mut sidecar) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        progress(&format!("relay: hyper, round {round} of {ROUNDS}"));
        hyper.push(relayed(bench, Pace::Closed(bench.time), Kind::Hyper).await?);
        progress(&format!("relay: nginx, round {round} of {ROUNDS}"));
        nginx.push(relayed(bench, Pace::Closed(bench.time), Kind::Nginx).await?);
        progress(&format!("relay: sidecar, round {round} of {ROUNDS}"));
        sidecar.push(sidecar_run(bench, Pace::Closed(bench.time), Door::Single, bench.connections).await?);
    }
    let hyper = Run::merge(hyper.into_iter().flatten().collect())?;
    let nginx: Vec<_> = nginx.into_iter().flatten().collect();
    let nginx = if nginx.is_empty() { None } else { Some(Run::merge(nginx)?) };
    let sidecar = Measured::merge(sidecar)?;

    let rate = sidecar.run.delivered_rate().min(sidecar.run.accepted_rate()) / 2.0;
    progress(&format!("relay: sidecar at {rate:.0} events/s"));
    let pace = Pace::Open(rate, bench.time);
    let half = sidecar_run(bench, pace, Door::Single, bench.connections).await?;
    progress(&format!("relay: hyper at {rate:.0} events/s"));
    let floor = relayed(bench, pace, Kind::Hyper).await?;

    let mut table = Table::new(
        &format!("relay: 1 KB events, {} connections", bench.connections),
        &["hyper", "nginx", "sidecar", "sidecar at half", "hyper at that"],
    );
    rows(&mut table, &[Some(&hyper), nginx.as_ref(), Some(&sidecar.run), Some(&half.run), floor.as_ref()]);
    footprint(&mut table, &[None, None, Some(&sidecar), Some(&half), None]);
    report.table(&table)?;

    if let Some(nginx) = &nginx {
        let ratio = sidecar.run.delivered_rate() / nginx.delivered_rate();
        report.verdict("relay: delivered/s ÷ nginx", ratio, Wanted::AtLeast(0.5, 0.8));
        report.note(format!("Beside it {}, with 2 workers.", nginx_version().unwrap_or_default()))?;
    } else {
        report.note("nginx is not installed: no comparison with it.")?;
    }
    let ratio = sidecar.run.cpu_per_delivery() / hyper.cpu_per_delivery();
    report.verdict("relay: CPU per delivery ÷ hyper", ratio, Wanted::AtMost(2.0, 1.4));
    let p99 = millis(&half.run.accept, 0.99);
    report.verdict("relay: accept p99 at half rate, ms", p99, Wanted::AtMost(5.0, 2.0));
    let written = sidecar.written_per_event() / 1_000.0;
    report.verdict("relay: written per event, KB", written, Wanted::AtMost(4.0, 2.5));
    Ok(())
}

/// A run of a sidecar with one webhook.
pub(crate) async fn sidecar_run(
    bench: &Bench,
    pace: Pace,
    door: Door,
    connections: usize,
) -> Result<Measured> {
    let plan = Plan::new(bench, Payload::dataset(EVENT), Spread::one(1));
    sidecar_with(bench, plan, pace, door, connections).await
}

/// A run of a sidecar that is set up like this.
pub(crate) async fn sidecar_with(
    bench: &Bench,
    plan: Plan,
    pace: Pace,
    door: Door,
    connections: usize,
) -> Result<Measured> {
    let mut stage = Stage::start(bench, plan).await?;
    let load = Load { address: stage.ingest()?, door, connections, pace };
    let pid = stage.sidecar.pid();
    let run = measure(load, stage.ledger.clone(), &[pid]).await?;
    let peak = process::peak(pid)?;
    let written = stage.stop().await?;
    // What came while it stopped would be too much.
    stage.ledger.check(true)?;
    Ok(Measured { run, written, peak })
}

/// Which relay.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Hyper,
    Nginx,
}

/// A run of a relay; none, if it is not installed.
pub(crate) async fn relayed(bench: &Bench, pace: Pace, kind: Kind) -> Result<Option<Run>> {
    let down = Down::new(Protocol::Plain)?;
    let to: SocketAddr = down.address();
    let plan = Plan::new(bench, Payload::dataset(EVENT), Spread::one(1));
    let ledger = Arc::new(Ledger::new(plan.payload, plan.spread, plan.capacity));
    let sink = down.up(ledger.clone()).await?;
    let directory = TempDir::new()?;
    let relay = match kind {
        Kind::Hyper => Relay::hyper(to).await?,
        Kind::Nginx => match Relay::nginx(to, directory.path()).await? {
            Some(relay) => relay,
            None => return Ok(None),
        },
    };
    let load = Load { address: relay.address, door: Door::Relay, connections: bench.connections, pace };
    let run = measure(load, ledger, &relay.pids()?).await?;
    drop((relay, sink));
    Ok(Some(run))
}
