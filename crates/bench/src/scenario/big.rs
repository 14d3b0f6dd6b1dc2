//! Events of 1 MB.

use anyhow::Result;

use crate::ledger::Spread;
use crate::load::Pace;
use crate::payload::Payload;
use crate::report::{Report, Table, progress};
use crate::request::Door;
use crate::scenario::relay::sidecar_with;
use crate::scenario::{footprint, rows};
use crate::stage::{Bench, Plan};

/// Bytes of an event.
pub(crate) const EVENT: usize = 1_000_000;
/// Connections that they come over.
const CONNECTIONS: usize = 8;

/// Prints the table.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    progress("big");
    let plan = Plan::new(bench, Payload::issue(EVENT), Spread::one(1));
    let measured = sidecar_with(bench, plan, Pace::Closed(bench.time), Door::Single, CONNECTIONS).await?;
    let title = format!("big: 1 MB events, {CONNECTIONS} connections");
    let mut table = Table::new(&title, &["sidecar"]);
    // An event is a megabyte: what counts for each counts for a megabyte.
    rows(&mut table, &[Some(&measured.run)]);
    footprint(&mut table, &[Some(&measured)]);
    report.table(&table)?;
    report.note("An event is 1 MB here: accepted/s is MB/s, CPU µs/delivery is CPU µs/MB.")
}
