//! Where log lines go: standard error, or a file where standard error belongs to a status line.
//! What is logged is set by the environment variable `FLOTILLA_LOG`.

use std::fs::File;
use std::io::IsTerminal;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

/// The environment variable that sets what is logged, for example `debug` or `raft_core=trace`.
const VARIABLE: &str = "FLOTILLA_LOG";

/// For commands that talk to a cluster: nothing, unless it is asked for.
pub(crate) fn for_clients() {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new("off"));
    to_standard_error(filter);
}

/// For a node: everything from `info` on, unless something else is asked for.
///
/// # Errors
/// When what is asked for makes no sense.
pub(crate) fn for_nodes() -> Result<(), Failure> {
    to_standard_error(node_filter()?);
    Ok(())
}

/// For nodes in a process whose standard error belongs to something else.
///
/// # Errors
/// When what is asked for makes no sense.
pub(crate) fn for_nodes_into(file: File) -> Result<(), Failure> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(node_filter()?)
        .with_ansi(false)
        .with_writer(Mutex::new(file));
    // Fails only where a subscriber is set already, and then that one is as good.
    let _ = subscriber.try_init();
    Ok(())
}

fn node_filter() -> Result<EnvFilter, Failure> {
    let wanted = std::env::var(VARIABLE).unwrap_or_else(|_| "info".to_owned());
    EnvFilter::try_new(&wanted)
        .map_err(|error| Failure::usage(format!("{VARIABLE} is {wanted:?}: {error}")))
}

fn to_standard_error(filter: EnvFilter) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let _ = subscriber.try_init();
}
