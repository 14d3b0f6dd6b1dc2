//! aquarium-sidecar: a durable webhook sender that sits next to an app.

mod admin;
mod check;
mod cli;
mod client;
mod demo;
mod files;
mod housekeeping;
mod http;
mod ingest;
mod listen;
mod log;
mod operate;
mod reload;
mod run;
mod secret;
mod send;
mod service;
mod storage;
mod telemetry;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // It changes the environment, which threads may read.
    let sockets = match cli.command {
        Command::Run(_) => service::Sockets::take(),
        _ => Ok(service::Sockets::default()),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return cli::failed(&anyhow::Error::from(error).context("the runtime cannot be started"));
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Run(arguments) => run::main(arguments, sockets?).await,
            Command::Check(arguments) => check::main(&arguments),
            Command::Secret(command) => secret::main(&command),
            Command::Healthcheck(arguments) => operate::healthcheck(arguments).await,
            Command::Send(arguments) => send::main(arguments).await,
            Command::Test(arguments) => operate::test(arguments).await,
            Command::Webhooks(command) => operate::webhooks(command).await,
            Command::Events(command) => operate::events(command).await,
            Command::Deliveries(command) => operate::deliveries(command).await,
            Command::Replay(command) => operate::replay(command).await,
            Command::Resume(arguments) => operate::resume(arguments).await,
            Command::Match(arguments) => operate::matching(arguments).await,
            Command::Config(command) => operate::configuration(command).await,
            Command::Log(arguments) => operate::log(arguments).await,
            Command::Queue(command) => storage::main(command),
            Command::Listen(arguments) => listen::main(arguments).await,
            Command::Demo(arguments) => demo::main(arguments).await,
            Command::Completions { shell } => operate::completions(shell),
            Command::Man => operate::man(),
        }
    });
    // A file system that hangs must not keep the process.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| cli::failed(&error))
}
