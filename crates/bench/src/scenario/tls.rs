//! As `relay`, to an endpoint behind HTTPS.

use anyhow::Result;

use crate::ledger::Spread;
use crate::load::Pace;
use crate::payload::Payload;
use crate::report::{Report, Table, progress};
use crate::request::Door;
use crate::scenario::relay::{EVENT, Measured, sidecar_with};
use crate::scenario::{footprint, rows};
use crate::sink::Protocol;
use crate::stage::{Bench, Plan};

/// Prints the table.
pub(crate) async fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let pace = Pace::Closed(bench.time);
    progress("tls: in the clear, to compare with");
    let plain = over(bench, Protocol::Plain, pace).await?;
    progress("tls: HTTP/1.1");
    let first = over(bench, Protocol::Tls1, pace).await?;
    progress("tls: HTTP/2");
    let second = over(bench, Protocol::Tls2, pace).await?;
    let title = format!("tls: 1 KB events, {} connections", bench.connections);
    let mut table = Table::new(&title, &["http, HTTP/1.1", "https, HTTP/1.1", "https, HTTP/2"]);
    rows(&mut table, &[Some(&plain.run), Some(&first.run), Some(&second.run)]);
    footprint(&mut table, &[Some(&plain), Some(&first), Some(&second)]);
    report.table(&table)
}

/// A run with one webhook whose endpoint speaks this.
pub(crate) async fn over(bench: &Bench, protocol: Protocol, pace: Pace) -> Result<Measured> {
    let mut plan = Plan::new(bench, Payload::dataset(EVENT), Spread::one(1));
    plan.protocol = protocol;
    sidecar_with(bench, plan, pace, Door::Single, bench.connections).await
}
