//! aquarium-sidecar: a durable webhook sender that sits next to an app.

mod admin;
mod check;
mod cli;
mod client;
mod demo;
mod housekeeping;
mod http;
mod ingest;
mod listen;
mod log;
mod reload;
mod run;
mod secret;
mod send;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return cli::failed(&anyhow::Error::from(error).context("the runtime cannot be started"));
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Run(arguments) => run::main(arguments).await,
            Command::Check(arguments) => check::main(&arguments),
            Command::Secret(command) => secret::main(&command),
            Command::Send(arguments) => send::main(arguments).await,
            Command::Listen(arguments) => listen::main(arguments).await,
            Command::Demo(arguments) => demo::main(arguments).await,
        }
    });
    // A file system that hangs must not keep the process.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| cli::failed(&error))
}
