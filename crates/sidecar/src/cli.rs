//! The command line.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 ok, 1 failed, 2 usage, 78 bad configuration (`EX_CONFIG`).

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use aquarium_config::Diagnostic;
use clap::{Args, Parser, Subcommand};

use crate::log::Directives;
use crate::operate::arguments as operate;
use crate::terminal::visible_lines;

/// A durable webhook sender that sits next to an app.
#[derive(Debug, Parser)]
#[command(name = "aquarium-sidecar", version, about, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Accept events and deliver them
    Run(Run),
    /// Ask a running sidecar whether it is ready: for probes in images without a shell
    Healthcheck(operate::Healthcheck),
    /// Check a configuration, and print what it says
    Check(Check),
    /// Make the secret or the signing key of an organization
    #[command(subcommand)]
    Secret(Secret),
    /// Post an event to a running sidecar
    Send(Send),
    /// Test an endpoint: send it a test, and say what came of it
    Test(operate::Test),
    /// See the webhooks of a running sidecar
    #[command(subcommand)]
    Webhooks(operate::Webhooks),
    /// See what was accepted
    #[command(subcommand)]
    Events(operate::Events),
    /// See where it went, and what came of it
    #[command(subcommand)]
    Deliveries(operate::Deliveries),
    /// Send again
    #[command(subcommand)]
    Replay(operate::Replay),
    /// Send again to a webhook whose endpoint answered 410 Gone
    Resume(operate::Resume),
    /// Say which webhooks would get an event, and why not the others
    Match(operate::Match),
    /// See, or reload, the configuration of a running sidecar
    #[command(subcommand)]
    Config(operate::Configuration),
    /// See what a running sidecar logs, or have it log something else
    Log(operate::Log),
    /// Look after the file that the queue is
    #[command(subcommand)]
    Queue(Queue),
    /// Receive events and check their secret, for trying things out
    Listen(Listen),
    /// Show the whole way of an event on this machine: a receiver, a sidecar, one event of every type
    Demo(Demo),
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Up to 4,288 files are open at once. The soft limit is raised to the hard one (ulimit -Hn); where that is \
lower, fewer connections are served and fewer attempts are under way, and the log says so."
)]
pub(crate) struct Run {
    /// The directory that holds aquarium.toml
    #[arg(long, value_name = "DIR", default_value = "config", env = "AQUARIUM_CONFIG")]
    pub(crate) config: PathBuf,
    /// What to log: a level, or a filter such as "info,aquarium_dispatch=debug"
    #[arg(
        long,
        value_name = "FILTER",
        default_value = Directives::DEFAULT,
        env = "AQUARIUM_LOG",
        value_parser = Directives::or_default
    )]
    pub(crate) log: Directives,
    /// How to log: auto is text on a terminal, and JSON, an object each line, elsewhere
    #[arg(long, value_name = "FORMAT", default_value = "auto", env = "AQUARIUM_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    Auto,
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The directory that holds aquarium.toml
    #[arg(long, value_name = "DIR", default_value = "config", env = "AQUARIUM_CONFIG")]
    pub(crate) config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Write a new random secret, or signing key, to the file that the organization's configuration names, and print it once
    Generate(Generate),
}

#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// The organization whose secret it is
    pub(crate) organization: String,
    /// Make the key that its requests are signed with (Standard Webhooks) instead of its secret
    #[arg(long)]
    pub(crate) signing_key: bool,
    /// Replace the one that there is: it stops being valid
    #[arg(long)]
    pub(crate) replace: bool,
    /// The directory that holds aquarium.toml
    #[arg(long, value_name = "DIR", default_value = "config", env = "AQUARIUM_CONFIG")]
    pub(crate) config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    /// The file that holds the event; "-" is stdin
    #[arg(value_name = "FILE", required_unless_present = "sample")]
    pub(crate) file: Option<PathBuf>,
    /// The organization that the event belongs to
    #[arg(long, value_name = "NAME")]
    pub(crate) organization: String,
    /// Send the sample payload of this event type instead of a file
    #[arg(long, value_name = "TYPE", conflicts_with = "file")]
    pub(crate) sample: Option<String>,
    /// Where the sidecar takes events
    #[arg(long, default_value = "http://127.0.0.1:7878")]
    pub(crate) url: String,
    /// Wait so long for the first attempt of each delivery
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) wait: Option<Duration>,
    /// The file that holds the ingest token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Sent again with the same key, the event is accepted once
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
}

/// Which queue.
#[derive(Debug, Args)]
pub(crate) struct At {
    /// The directory that holds aquarium.toml, which names the queue
    #[arg(long, value_name = "DIR", default_value = "config", env = "AQUARIUM_CONFIG")]
    pub(crate) config: PathBuf,
    /// The queue's file, whatever a configuration says
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Queue {
    /// Count what is stored, also while a sidecar runs
    Stats {
        #[command(flatten)]
        at: At,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Check the file, and all that should hold in it, while no sidecar runs
    Verify {
        #[command(flatten)]
        at: At,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give free space back to the file system, while no sidecar runs
    Compact {
        #[command(flatten)]
        at: At,
    },
    /// Print events and their deliveries as JSON, an object each line, also while a sidecar runs
    Export {
        #[command(flatten)]
        at: At,
        /// Only events that are still to be delivered to somebody
        #[arg(long)]
        pending: bool,
    },
    /// Save what can be read of a damaged queue into a new file, while no sidecar runs
    ///
    /// The damaged file stays as it is. What could not be saved is counted on stderr; deliveries that are lost are printed as JSON,
    /// an object each line.
    Recover {
        #[command(flatten)]
        at: At,
        /// The new file, which must not exist
        #[arg(value_name = "NEW")]
        new: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub(crate) address: SocketAddr,
    /// The file that holds the organization's secret; without it nothing is verified
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// The status to answer a genuine event with
    #[arg(long, default_value_t = 204, value_parser = clap::value_parser!(u16).range(200..=599))]
    pub(crate) status: u16,
    /// How long to wait before answering
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) delay: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// End when every event has arrived, instead of at Ctrl-C
    #[arg(long)]
    pub(crate) once: bool,
}

/// The exit code for a configuration that cannot be used.
pub(crate) const BAD_CONFIG: u8 = 78;

/// Says what went wrong, cause after cause. A reader that has gone is nothing wrong.
pub(crate) fn failed(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_broken_pipe)) {
        return ExitCode::SUCCESS;
    }
    // If stderr is gone too, there is nobody to tell.
    let _ = writeln!(anstream::stderr(), "error: {}", visible_lines(&format!("{error:#}")));
    ExitCode::FAILURE
}

fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Prints findings the way a compiler does.
pub(crate) fn report<'a>(diagnostics: impl IntoIterator<Item = &'a Diagnostic>) -> io::Result<()> {
    let mut stderr = anstream::stderr();
    for diagnostic in diagnostics {
        writeln!(stderr, "{}\n", diagnostic.render(true))?;
    }
    Ok(())
}

/// `1 error`, `2 errors`.
pub(crate) fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Reads a secret or a token from a file, as the configuration does.
pub(crate) fn secret_from(path: &Path) -> anyhow::Result<aquarium_config::Secret> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    aquarium_config::Secret::new(text.trim_end_matches(['\r', '\n']))
        .with_context(|| format!("{} does not hold a usable secret", path.display()))
}
