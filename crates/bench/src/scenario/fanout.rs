//! One event, 20 webhooks.

use anyhow::Result;

use crate::ledger::Spread;
use crate::load::Pace;
use crate::payload::Payload;
use crate::report::{Report, Table, progress};
use crate::request::Door;
use crate::scenario::relay::{EVENT, sidecar_with};
use crate::scenario::{footprint, rows};
use crate::stage::{Bench, Plan};

/// Webhooks that each event goes to.
const WEBHOOKS: u32 = 20;

/// Prints the table.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    progress("fanout");
    let mut plan = Plan::new(bench, Payload::dataset(EVENT), Spread::one(WEBHOOKS));
    plan.concurrency = 16;
    // What is accepted faster than it is delivered is delivered afterwards, so it may not be too much.
    let measured =
        sidecar_with(bench, plan, Pace::Closed(bench.time / 2), Door::Single, bench.connections).await?;
    let title = format!("fanout: 1 event of 1 KB → {WEBHOOKS} webhooks, {} connections", bench.connections);
    let mut table = Table::new(&title, &["sidecar"]);
    rows(&mut table, &[Some(&measured.run)]);
    footprint(&mut table, &[Some(&measured)]);
    report.table(&table)
}
