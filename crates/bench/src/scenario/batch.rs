//! NDJSON batches of 100 events of 1 KB; beside it the same events one by one.

use anyhow::Result;

use crate::load::Pace;
use crate::report::{Report, Table, Wanted, progress};
use crate::request::Door;
use crate::scenario::relay::{Measured, sidecar_run};
use crate::scenario::{footprint, rows};
use crate::stage::Bench;

/// Events of a batch.
const EVENTS: u64 = 100;
/// Connections that batches come over.
const CONNECTIONS: usize = 16;

/// How often each has its turn.
const ROUNDS: usize = 2;

/// Prints the table.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    // What is accepted faster than it is delivered is delivered afterwards, so it may not be too much.
    let pace = Pace::Closed(bench.time / 2);
    let (mut single, mut batch) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        progress(&format!("batch: events one by one, round {round} of {ROUNDS}"));
        single.push(sidecar_run(bench, pace, Door::Single, bench.connections).await?);
        progress(&format!("batch: round {round} of {ROUNDS}"));
        batch.push(sidecar_run(bench, pace, Door::Batch(EVENTS), CONNECTIONS).await?);
    }
    let (single, batch) = (Measured::merge(single)?, Measured::merge(batch)?);
    let title = format!("batch: 1 KB events, {} and {CONNECTIONS} connections", bench.connections);
    let mut table = Table::new(&title, &["one by one", "100 in a batch"]);
    rows(&mut table, &[Some(&single.run), Some(&batch.run)]);
    footprint(&mut table, &[Some(&single), Some(&batch)]);
    report.table(&table)?;
    let ratio = batch.run.accepted_rate() / single.run.accepted_rate();
    report.verdict("batch: accepted/s ÷ one by one", ratio, Wanted::AtLeast(3.0, 5.0));
    Ok(())
}
