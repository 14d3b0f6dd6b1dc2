//! Two million deliveries that wait, because their endpoint is down.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

use crate::ledger::Spread;
use crate::load::{self, Load, Pace};
use crate::payload::Payload;
use crate::process;
use crate::report::{Report, Table, Wanted, progress};
use crate::request::Door;
use crate::run::drained;
use crate::scenario::mebibytes;
use crate::scenario::relay::EVENT;
use crate::stage::{Bench, Plan, Stage};

/// Events that wait.
const EVENTS: u64 = 2_000_000;
/// Events of a batch, and connections that batches come over.
const BATCH: u64 = 1_000;
const CONNECTIONS: usize = 4;
/// How long a sidecar may come to rest before its memory is read.
const REST: Duration = Duration::from_secs(1);
/// How long the first delivery may take once the endpoint is up.
const FIRST: Duration = Duration::from_secs(60);
/// All is drained if it takes no longer than this.
const WHOLE: Duration = Duration::from_secs(100);
/// What is retried is retried soon, so that nothing is left over for minutes.
const RETRY: &str =
    "jitter = 0\nretry = [\"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\", \"1s\"]";

/// What was measured.
#[derive(Debug)]
struct Figures {
    accepted_rate: f64,
    idle: u64,
    after: u64,
    peak: u64,
    restart: Duration,
    restarted: u64,
    written: u64,
    stop: Duration,
}

/// Prints the table.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (mut stage, figures) = waiting(bench, EVENTS).await?;
    progress("backlog: draining");
    let (rate, whole) = drain(&mut stage, bench.time).await?;
    let (drained, peak) = (stage.ledger.deliveries(), process::peak(stage.sidecar.pid())?);
    stage.stop().await?;
    stage.ledger.check(whole)?;

    let title = format!("backlog: {EVENTS} events of 1 KB wait");
    let mut table = Table::new(&title, &["sidecar"]);
    let millis = |time: Duration| Some(time.as_secs_f64() * 1_000.0);
    table.row("accepted/s, batches of 1,000", [Some(figures.accepted_rate)]);
    table.row("memory before (RSS) MiB", [Some(mebibytes(figures.idle))]);
    table.row("memory when all wait MiB", [Some(mebibytes(figures.after))]);
    table.row("peak memory while accepting MiB", [Some(mebibytes(figures.peak))]);
    table.row("written, bytes/event accepted", [Some(figures.written as f64 / EVENTS as f64)]);
    table.row("stop ms", [millis(figures.stop)]);
    table.row("start to ready ms", [millis(figures.restart)]);
    table.row("memory after the start MiB", [Some(mebibytes(figures.restarted))]);
    table.row("delivered/s, draining", [Some(rate)]);
    table.row("peak memory while draining MiB", [Some(mebibytes(peak))]);
    report.table(&table)?;
    report.note(match whole {
        true => "All of it was drained.".to_owned(),
        false => format!("{drained} of it were drained; all would have taken too long."),
    })?;
    let memory = figures.after.max(figures.restarted) as f64 / figures.idle as f64;
    report.verdict("backlog: memory ÷ idle", memory, Wanted::AtMost(4.0, 2.0));
    let start = figures.restart.as_secs_f64() * 1_000.0;
    report.verdict("backlog: start to ready, ms", start, Wanted::AtMost(500.0, 100.0));
    Ok(())
}

/// A sidecar that was started anew while so many events wait in it, and whose endpoint is still down.
async fn waiting(bench: &Bench, events: u64) -> Result<(Stage, Figures)> {
    let mut plan = Plan::new(bench, Payload::dataset(EVENT), Spread::one(1));
    plan.capacity = usize::try_from(events)?;
    plan.delivery = RETRY;
    let mut stage = Stage::start_without_sink(bench, plan).await?;
    sleep(REST).await;
    let pid = stage.sidecar.pid();
    let idle = process::resident(pid)?;
    progress(&format!("backlog: accepting {events} events"));
    let door = Door::Batch(BATCH);
    let load = Load { address: stage.ingest()?, door, connections: CONNECTIONS, pace: Pace::Count(events) };
    load::run(load, stage.ledger.clone()).await?;
    sleep(REST).await;
    let (after, peak) = (process::resident(pid)?, process::peak(pid)?);
    progress("backlog: restarting");
    let stopping = Instant::now();
    let written = stage.stop().await?;
    let stop = stopping.elapsed();
    let restart = stage.restart().await?;
    sleep(REST).await;
    let restarted = process::resident(stage.sidecar.pid())?;
    let accepted_rate = events as f64 / stage.ledger.spans().0.as_secs_f64();
    Ok((stage, Figures { accepted_rate, idle, after, peak, restart, restarted, written, stop }))
}

/// Brings the endpoint up, and measures how fast what waits is delivered: for `time`, or until the end if that does not
/// take too long. True if it was all.
async fn drain(stage: &mut Stage, time: Duration) -> Result<(f64, bool)> {
    stage.sink_up().await?;
    let ledger = stage.ledger.clone();
    let deadline = Instant::now() + FIRST;
    while ledger.deliveries() == 0 {
        if Instant::now() > deadline {
            bail!("nothing was delivered within {FIRST:?} after the endpoint was up");
        }
        sleep(Duration::from_millis(1)).await;
    }
    let (first, since) = (ledger.deliveries(), Instant::now());
    let rate = || (ledger.deliveries() - first) as f64 / since.elapsed().as_secs_f64();
    while since.elapsed() < time && ledger.deliveries() < ledger.expected() {
        sleep(Duration::from_millis(2)).await;
    }
    let left = ledger.expected().saturating_sub(ledger.deliveries());
    if left as f64 / rate() > WHOLE.as_secs_f64() {
        return Ok((rate(), false));
    }
    drained(&ledger).await?;
    Ok((rate(), true))
}

/// The same, small: all that waited over a restart has to arrive.
pub(crate) async fn small(bench: &Bench, events: u64) -> Result<()> {
    let (mut stage, _) = waiting(bench, events).await?;
    stage.sink_up().await?;
    drained(&stage.ledger).await?;
    stage.stop().await?;
    stage.ledger.check(true)
}
