//! A little of everything, in seconds. Nothing is measured: what is accepted has to arrive, once, every byte of it.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::ledger::Spread;
use crate::load::Pace;
use crate::payload::Payload;
use crate::report::{Report, progress};
use crate::request::Door;
use crate::scenario::relay::{EVENT, Kind, relayed, sidecar_run, sidecar_with};
use crate::scenario::{backlog, big, tls};
use crate::sink::Protocol;
use crate::stage::{Bench, Plan};

/// Events of most parts.
const EVENTS: u64 = 2_000;
/// Few of 200 webhooks at a time.
const MANY: Spread = Spread { projects: 200, active: 20, turn: 200, webhooks: 1 };

/// Runs all parts.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (count, connections) = (Pace::Count(EVENTS), bench.connections);
    part("relay", async { sidecar_run(bench, count, Door::Single, connections).await.map(drop) }).await?;
    let open = Pace::Open(2_000.0, Duration::from_millis(500));
    part("fixed rate", async { sidecar_run(bench, open, Door::Single, connections).await.map(drop) }).await?;
    part("batch", async { sidecar_run(bench, count, Door::Batch(100), 4).await.map(drop) }).await?;
    part("fanout", spread(bench, Payload::dataset(EVENT), Spread::one(20), 200)).await?;
    part("many", spread(bench, Payload::dataset(EVENT), MANY, EVENTS)).await?;
    part("big", spread(bench, Payload::issue(big::EVENT), Spread::one(1), 3)).await?;
    for protocol in [Protocol::Tls1, Protocol::Tls2] {
        part("tls", async { tls::over(bench, protocol, Pace::Count(500)).await.map(drop) }).await?;
    }
    part("backlog", backlog::small(bench, 5_000)).await?;
    for kind in [Kind::Hyper, Kind::Nginx] {
        part("beside it", async { relayed(bench, count, kind).await.map(drop) }).await?;
    }
    report.note("smoke: all that was accepted arrived, once, every byte of it.")
}

async fn part(name: &str, doing: impl Future<Output = Result<()>>) -> Result<()> {
    progress(&format!("smoke: {name}"));
    doing.await.with_context(|| format!("smoke, {name}"))
}

async fn spread(bench: &Bench, payload: Payload, spread: Spread, events: u64) -> Result<()> {
    let plan = Plan::new(bench, payload, spread);
    let connections = bench.connections.min(usize::try_from(events)?);
    sidecar_with(bench, plan, Pace::Count(events), Door::Single, connections).await.map(drop)
}
