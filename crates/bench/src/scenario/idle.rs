//! A sidecar with nothing to do.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::ledger::Spread;
use crate::payload::Payload;
use crate::process;
use crate::report::{Report, Table, Wanted, progress};
use crate::scenario::mebibytes;
use crate::scenario::relay::EVENT;
use crate::stage::{Bench, Plan, Stage};

/// How often it is started.
const STARTS: usize = 5;
/// How long it may come to rest.
const REST: Duration = Duration::from_secs(2);
/// How long it is watched.
const WATCH: Duration = Duration::from_secs(3);

/// Prints the table.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    progress("idle");
    let mut starts = Vec::new();
    let mut stage = start(bench).await?;
    for _ in 1..STARTS {
        starts.push(stage.started_in);
        stage.stop().await?;
        stage = start(bench).await?;
    }
    starts.push(stage.started_in);
    starts.sort_unstable();
    let start = starts.get(STARTS / 2).copied().unwrap_or_default();
    sleep(REST).await;
    let pid = stage.sidecar.pid();
    let before = process::exact_cpu(pid)?;
    sleep(WATCH).await;
    let cpu = process::exact_cpu(pid)?.saturating_sub(before);
    let (resident, proportional) = (process::resident(pid)?, process::proportional(pid)?);
    let binary = std::fs::metadata(&bench.sidecar).context("the sidecar's binary")?.len();
    stage.stop().await?;

    let mut table = Table::new("idle: one webhook, no events", &["sidecar"]);
    table.row("memory (RSS) MiB", [Some(mebibytes(resident))]);
    table.row("memory (PSS) MiB", [Some(mebibytes(proportional))]);
    table.row("CPU ms/s", [Some(cpu.as_secs_f64() * 1_000.0 / WATCH.as_secs_f64())]);
    table.row("start to ready ms, median of 5", [Some(start.as_secs_f64() * 1_000.0)]);
    table.row("binary MiB", [Some(mebibytes(binary))]);
    report.table(&table)?;
    report.verdict("idle: memory (RSS), MiB", mebibytes(resident), Wanted::AtMost(16.0, 10.0));
    Ok(())
}

async fn start(bench: &Bench) -> Result<Stage> {
    let mut plan = Plan::new(bench, Payload::dataset(EVENT), Spread::one(1));
    plan.capacity = 0;
    Stage::start(bench, plan).await
}
