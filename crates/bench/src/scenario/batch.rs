//! NDJSON batches of 100 events of 1 KB.

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

/// Prints the table. `one_by_one` is the rate of events that come by themselves, if it was measured before.
pub(crate) async fn run(bench: &Bench, report: &mut Report, one_by_one: Option<f64>) -> Result<()> {
    // What is accepted faster than it is delivered is delivered afterwards, so it may not be too much.
    let pace = Pace::Closed(bench.time / 2);
    let one_by_one = match one_by_one {
        Some(rate) => rate,
        None => {
            progress("batch: events one by one, to compare with");
            sidecar_run(bench, pace, Door::Single, bench.connections).await?.run.accepted_rate()
        }
    };
    progress("batch");
    let measured: Measured = sidecar_run(bench, pace, Door::Batch(EVENTS), CONNECTIONS).await?;
    let title = format!("batch: {EVENTS} events of 1 KB, {CONNECTIONS} connections");
    let mut table = Table::new(&title, &["sidecar"]);
    rows(&mut table, &[Some(&measured.run)]);
    footprint(&mut table, &[Some(&measured)]);
    report.table(&table)?;
    let ratio = measured.run.accepted_rate() / one_by_one;
    report.verdict("batch: accepted/s ÷ relay", ratio, Wanted::AtLeast(3.0, 5.0));
    Ok(())
}
