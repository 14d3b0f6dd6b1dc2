//! 10,000 webhooks, of which 1,000 get events at the same time; beside it the same events to one.

use anyhow::Result;

use crate::ledger::Spread;
use crate::load::Pace;
use crate::payload::Payload;
use crate::report::{Report, Table, Wanted, progress};
use crate::request::Door;
use crate::scenario::relay::{EVENT, Measured, sidecar_with};
use crate::scenario::{footprint, rows};
use crate::stage::{Bench, Plan};

/// The webhooks, each of a project of its own. Every 10,000 events it is the turn of others.
const MANY: Spread = Spread { projects: 10_000, active: 1_000, turn: 10_000, webhooks: 1 };
/// How often each has its turn.
const ROUNDS: usize = 2;

/// Prints the table.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        progress(&format!("many: one webhook, round {round} of {ROUNDS}"));
        one.push(spread(bench, Spread::one(1)).await?);
        progress(&format!("many: 10,000 webhooks, round {round} of {ROUNDS}"));
        many.push(spread(bench, MANY).await?);
    }
    let (one, many) = (Measured::merge(one)?, Measured::merge(many)?);
    let title = format!("many: 1 KB events, {} connections", bench.connections);
    let mut table = Table::new(&title, &["1 webhook", "1,000 of 10,000"]);
    rows(&mut table, &[Some(&one.run), Some(&many.run)]);
    footprint(&mut table, &[Some(&one), Some(&many)]);
    report.table(&table)?;
    let ratio = many.run.cpu_per_delivery() / one.run.cpu_per_delivery();
    report.verdict("many: CPU per delivery ÷ 1 webhook", ratio, Wanted::AtMost(1.3, 1.1));
    Ok(())
}

async fn spread(bench: &Bench, spread: Spread) -> Result<Measured> {
    let plan = Plan::new(bench, Payload::dataset(EVENT), spread);
    sidecar_with(bench, plan, Pace::Closed(bench.time / 2), Door::Single, bench.connections).await
}
