//! The command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::machine::{self, WORKSPACE};
use crate::report::Report;
use crate::stage::Bench;
use crate::{relay, scenario};

/// The longest that anything may take.
const LIMIT: Duration = Duration::from_secs(590);

/// Measures the sidecar on this machine.
#[derive(Debug, Parser)]
#[command(name = "aquarium-bench", version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// All scenarios, in less than ten minutes
    All,
    /// 1 KB events to one webhook, beside relays that store nothing
    Relay,
    /// Batches of 100 events
    Batch,
    /// Each event to 20 webhooks
    Fanout,
    /// 10,000 webhooks, 1,000 of them active at a time
    Many,
    /// 1,000 webhooks, three of them bad: what the others notice of it
    Isolation,
    /// 100,000 deliveries sent again beside fresh events
    Replay,
    /// Events of 1 MB
    Big,
    /// Two million deliveries that wait
    Backlog,
    /// A sidecar with nothing to do
    Idle,
    /// 1 KB events to an endpoint behind HTTPS
    Tls,
    /// As `relay`, with spans exported to a collector: of every event, of one in a hundred, of none
    Traces,
    /// A little of everything, to see that nothing is lost: measures nothing
    Smoke,
    /// A relay that stores nothing
    #[command(hide = true)]
    HyperRelay {
        /// Where it sends everything
        #[arg(long)]
        to: SocketAddr,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// The sidecar to measure; without it, it is built
    #[arg(long, global = true, value_name = "PATH")]
    sidecar: Option<PathBuf>,
    /// The time of one measured run
    #[arg(long, global = true, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Connections of the load
    #[arg(long, global = true, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1000))]
    connections: u64,
    /// Where queues are put; the default is beside the binary
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print JSON to stdout, and the tables to stderr
    #[arg(long, global = true)]
    json: bool,
}

/// Does what was asked for. True if it all went well.
pub(crate) async fn main(cli: Cli) -> Result<bool> {
    if let Command::HyperRelay { to } = cli.command {
        relay::hyper::run(to).await?;
        return Ok(true);
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    // Whatever was started ends when this is dropped.
    tokio::select! {
        ended = timeout(LIMIT, measure(cli)) => ended.unwrap_or_else(|_| bail!("not done within {LIMIT:?}")),
        _ = terminate.recv() => bail!("terminated"),
        _ = interrupt.recv() => bail!("interrupted"),
        _ = hangup.recv() => bail!("hung up"),
    }
}

async fn measure(cli: Cli) -> Result<bool> {
    let options = cli.options;
    let target = target()?;
    let sidecar = match options.sidecar {
        Some(path) if path.is_file() => path,
        Some(path) => bail!("there is no sidecar at {}", path.display()),
        None => build(&target).await?,
    };
    let parent = options.dir.unwrap_or(target);
    let directory = TempDir::with_prefix_in("bench-", &parent)
        .with_context(|| format!("no directory can be made in {}", parent.display()))?;
    let bench = Bench {
        sidecar,
        directory: directory.path().to_owned(),
        time: Duration::from_secs(options.seconds),
        connections: usize::try_from(options.connections)?,
    };
    let mut report = Report::new(options.json, &machine::describe(&bench.directory))?;
    scenario::run(cli.command, &bench, &mut report).await?;
    report.end()
}

/// The target directory that this binary is in: `<target>/release/aquarium-bench`.
fn target() -> Result<PathBuf> {
    let binary = std::env::current_exe()?;
    let target = binary.parent().and_then(Path::parent);
    Ok(target.context("this binary is in no target directory")?.to_owned())
}

/// Builds the sidecar, and tells where it is.
async fn build(target: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = tokio::process::Command::new(&cargo)
        .args(["build", "--release", "-p", "aquarium-sidecar", "--locked", "--target-dir"])
        .arg(target)
        .current_dir(WORKSPACE)
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("{} cannot be run", cargo.display()))?;
    if !status.success() {
        bail!("the sidecar could not be built: {status}");
    }
    Ok(target.join("release/aquarium-sidecar"))
}
