//! `flotilla version`.

use serde_json::json;

use crate::exit::{Exit, Outcome};
use crate::output::Output;

/// The version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints the version.
///
/// # Errors
/// When standard output is gone.
pub(crate) fn run(output: &mut Output) -> Outcome {
    output.line(
        || json!({ "version": VERSION }),
        || format!("flotilla {VERSION}"),
    )?;
    output.flush()?;
    Ok(Exit::Done)
}
