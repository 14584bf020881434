//! `flotilla completions`: a script for a shell, made from the definitions of the command line.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs};
use crate::exit::{Exit, Outcome};
use crate::output::Output;

/// Prints the script. It is the same with `--json`: a shell reads it, and nothing else.
///
/// # Errors
/// When standard output is gone.
pub(crate) fn run(args: &CompletionsArgs, output: &mut Output) -> Outcome {
    let mut script = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(args.shell, &mut command, "flotilla", &mut script);
    output.bytes(&script)?;
    output.flush()?;
    Ok(Exit::Done)
}
