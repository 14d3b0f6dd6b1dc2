//! The scenarios. Each begins with nothing, and ends with a check that all that was accepted was delivered once.

pub(crate) mod relay;

use anyhow::Result;

use crate::cli::Command;
use crate::report::{Report, Table};
use crate::run::{Run, millis};
use crate::stage::Bench;

/// The rows that most scenarios have in common.
pub(crate) fn rows(table: &mut Table, runs: &[Option<&Run>]) {
    let each = |figure: fn(&Run) -> f64| -> Vec<_> { runs.iter().map(|run| run.map(figure)).collect() };
    table.row("accepted/s", each(Run::accepted_rate));
    table.row("delivered/s", each(Run::delivered_rate));
    table.row("CPU µs/delivery", each(Run::cpu_per_delivery));
    table.row("accept p50 ms", each(|run| millis(&run.accept, 0.5)));
    table.row("accept p99 ms", each(|run| millis(&run.accept, 0.99)));
    table.row("accept p99.9 ms", each(|run| millis(&run.accept, 0.999)));
    table.row("accept → delivered p50 ms", each(|run| millis(&run.deliver, 0.5)));
    table.row("accept → delivered p99 ms", each(|run| millis(&run.deliver, 0.99)));
    table.row("accept → delivered p99.9 ms", each(|run| millis(&run.deliver, 0.999)));
    table.row("context switches/delivery", each(Run::switches_per_delivery));
    table.row("load and sink, CPU µs/delivery", each(Run::own_per_delivery));
    table.row("others on the machine, CPU %", each(Run::others_percent));
}

/// Runs what was asked for.
pub(crate) async fn run(command: Command, bench: &Bench, report: &mut Report) -> Result<()> {
    match command {
        Command::Relay => relay::run(bench, report).await.map(drop),
        Command::HyperRelay { .. } => Ok(()),
    }
}
