//! As `relay`, with spans that are exported to a collector in the benchmark's process.

use anyhow::{Result, ensure};
use aquarium_testkit::receiver::{Behaviour, Receiver};

use crate::ledger::Spread;
use crate::load::Pace;
use crate::payload::Payload;
use crate::report::{Report, Table, progress};
use crate::request::Door;
use crate::scenario::relay::{EVENT, Measured, sidecar_with};
use crate::scenario::{footprint, rows};
use crate::stage::{Bench, Plan};

/// Prints the table.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    progress("traces: of no event, to compare with");
    let none = traced(bench, None).await?;
    progress("traces: of one event in a hundred");
    let few = traced(bench, Some(0.01)).await?;
    progress("traces: of every event");
    let all = traced(bench, Some(1.0)).await?;
    let title = format!("traces: 1 KB events, {} connections", bench.connections);
    let mut table = Table::new(&title, &["no spans", "1 % traced", "all traced"]);
    rows(&mut table, &[Some(&none.run), Some(&few.run), Some(&all.run)]);
    footprint(&mut table, &[Some(&none), Some(&few), Some(&all)]);
    report.table(&table)
}

/// A run with one webhook, in which this part of the events is traced.
async fn traced(bench: &Bench, sample: Option<f64>) -> Result<Measured> {
    let collector = Receiver::builder().script(|_| Behaviour::status(200)).record_bodies(false).start().await;
    let mut plan = Plan::new(bench, Payload::dataset(EVENT), Spread::one(1));
    if let Some(sample) = sample {
        plan.traces = format!("otlp = \"{}\"\nsample = {sample:?}", collector.url(""));
    }
    let measured =
        sidecar_with(bench, plan, Pace::Closed(bench.time), Door::Single, bench.connections).await?;
    ensure!(sample.is_none() == (collector.count() == 0), "the collector got {} batches", collector.count());
    Ok(measured)
}
