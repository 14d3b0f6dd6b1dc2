//! The scenarios. Each begins with nothing, and ends with a check that all that was accepted was delivered once.

mod backlog;
mod batch;
mod big;
mod fanout;
mod idle;
mod isolation;
mod many;
mod relay;
mod replay;
mod smoke;
mod tls;
mod traces;

use anyhow::Result;

use crate::cli::Command;
use crate::report::{Report, Table};
use crate::run::{Run, millis};
use crate::scenario::relay::Measured;
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
    // A relay has delivered before it answers.
    let after = |quantile: f64| -> Vec<_> {
        let runs = runs.iter().map(|run| run.filter(|run| run.deliver.max() > 0));
        runs.map(|run| run.map(|run| millis(&run.deliver, quantile))).collect()
    };
    table.row("accept → delivered p50 ms", after(0.5));
    table.row("accept → delivered p99 ms", after(0.99));
    table.row("accept → delivered p99.9 ms", after(0.999));
    table.row("context switches/delivery", each(Run::switches_per_delivery));
    table.row("load and sink, CPU µs/delivery", each(Run::own_per_delivery));
    table.row("others on the machine, CPU %", each(Run::others_percent));
}

/// The rows of what only a sidecar takes: storage and memory.
fn footprint(table: &mut Table, measured: &[Option<&Measured>]) {
    let each =
        |figure: fn(&Measured) -> f64| -> Vec<_> { measured.iter().map(|one| one.map(figure)).collect() };
    table.row("written, bytes/event", each(Measured::written_per_event));
    table.row("peak memory MiB", each(|measured| mebibytes(measured.peak)));
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Runs what was asked for.
///
/// # Errors
/// When a scenario comes to nothing. Of all of them, those that are left are run nevertheless.
pub(crate) async fn run(command: Command, bench: &Bench, report: &mut Report) -> Result<()> {
    match command {
        Command::All => all(bench, report).await,
        Command::Relay => relay::run(bench, report).await,
        Command::Batch => batch::run(bench, report).await,
        Command::Fanout => fanout::run(bench, report).await,
        Command::Many => many::run(bench, report).await,
        Command::Isolation => isolation::run(bench, report).await,
        Command::Replay => replay::run(bench, report).await,
        Command::Big => big::run(bench, report).await,
        Command::Tls => tls::run(bench, report).await,
        Command::Traces => traces::run(bench, report).await,
        Command::Idle => idle::run(bench, report).await,
        Command::Backlog => backlog::run(bench, report).await,
        Command::Smoke => smoke::run(bench, report).await,
        Command::HyperRelay { .. } => Ok(()),
    }
}

async fn all(bench: &Bench, report: &mut Report) -> Result<()> {
    let ended = [
        ("relay", relay::run(bench, report).await),
        ("batch", batch::run(bench, report).await),
        ("fanout", fanout::run(bench, report).await),
        ("many", many::run(bench, report).await),
        ("isolation", isolation::run(bench, report).await),
        ("replay", replay::run(bench, report).await),
        ("big", big::run(bench, report).await),
        ("tls", tls::run(bench, report).await),
        ("traces", traces::run(bench, report).await),
        ("idle", idle::run(bench, report).await),
        // The last one, because what it deletes in the end keeps the disk busy.
        ("backlog", backlog::run(bench, report).await),
    ];
    for (scenario, ended) in ended {
        if let Err(error) = ended {
            report.failure(format!("{scenario}: {error:#}"))?;
        }
    }
    Ok(())
}
