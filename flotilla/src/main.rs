//! The program `flotilla`: reads the command line, runs one command, turns its outcome into an exit
//! code. What a command does lives in `commands`, `cluster` and `demo`.

mod cli;
mod cluster;
mod commands;
mod demo;
mod exit;
mod key_path;
mod logging;
mod output;
mod random;
mod removed;
mod signals;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::exit::{Exit, Failure};

/// How long tasks that a command left behind may take to end. A read of standard input cannot be
/// interrupted, so waiting for all of them could take for ever.
const LEFTOVERS: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return cli::report(&error).into(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::stopped(format!("cannot start the runtime: {error}"))
                .report()
                .into();
        }
    };
    // The command runs as a task, so that a panic in it is an outcome like any other.
    let outcome = runtime.block_on(async { tokio::spawn(commands::run(cli)).await });
    runtime.shutdown_timeout(LEFTOVERS);
    match outcome {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => failure.report().into(),
        Err(_panicked) => Exit::Stopped.into(),
    }
}
