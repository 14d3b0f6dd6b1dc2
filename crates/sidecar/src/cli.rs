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
    /// Check a configuration, and print what it says
    Check(Check),
    /// Make the secret or the signing key of an organization
    #[command(subcommand)]
    Secret(Secret),
    /// Post an event to a running sidecar
    Send(Send),
    /// Receive events and check their secret, for trying things out
    Listen(Listen),
    /// Show the whole way of an event on this machine: a receiver, a sidecar, one event of every type
    Demo(Demo),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The directory that holds aquarium.toml
    #[arg(long, value_name = "DIR", default_value = "config", env = "AQUARIUM_CONFIG")]
    pub(crate) config: PathBuf,
    /// What to log: a level, or a filter such as "info,aquarium_dispatch=debug"
    #[arg(long, value_name = "FILTER", default_value = "info", env = "AQUARIUM_LOG")]
    pub(crate) log: String,
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
    let _ = writeln!(anstream::stderr(), "error: {error:#}");
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

/// Reads a secret or a token from a file, as the configuration does.
pub(crate) fn secret_from(path: &Path) -> anyhow::Result<aquarium_config::Secret> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    aquarium_config::Secret::new(text.trim_end_matches(['\r', '\n']))
        .with_context(|| format!("{} does not hold a usable secret", path.display()))
}
