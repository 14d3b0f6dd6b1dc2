//! aquarium-bench: what the sidecar can do, beside what a relay that stores nothing can.

mod cli;
mod disk;
mod ledger;
mod load;
mod machine;
mod payload;
mod process;
mod relay;
mod report;
mod request;
mod run;
mod scenario;
mod sink;
mod stage;
mod wire;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What is measured has the cores: the bench itself needs more than one thread only as a relay.
    let runtime = match cli.command {
        Command::HyperRelay { .. } => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build(),
    };
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(cli::main(cli));
            // Whatever still runs has nothing to tell.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
