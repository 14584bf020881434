//! `flotilla serve`: one node in the foreground, until somebody ends it or it stops itself.

use std::path::Path;

use kv_service::compose::{Overrides, Server, stop_exit_code};
use kv_service::config::NodeConfig;
use serde_json::json;

use crate::cli::ServeArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::logging;
use crate::output::Output;
use crate::signals::{EndSignals, standard_input_closed};

/// Runs `flotilla serve`.
///
/// # Errors
/// When the node cannot be started, or stopped itself.
pub(crate) async fn run(args: &ServeArgs, output: &mut Output) -> Outcome {
    logging::for_nodes()?;
    let mut signals = EndSignals::register()?;
    let config = load(&args.config)?;
    let id = config.id.0;
    let overrides = Overrides {
        storage: args.storage.map(Into::into),
        transport: args.transport.map(Into::into),
    };
    let storage = overrides.storage.unwrap_or(config.storage).name();
    let server = Server::start(config, overrides).await?;
    let address = server.local_addr();
    if output.is_json() {
        let object = json!({ "id": id, "addr": address.to_string(), "storage": storage });
        output.line(|| object, String::new)?;
        output.flush()?;
    }
    tokio::select! {
        outcome = stopped(id, &server) => return outcome,
        signal = signals.wait() => tracing::info!(node = id, signal, "stopping"),
        () = standard_input_closed(), if args.stop_with_parent => {
            tracing::info!(node = id, "stopping: the supervisor closed the pipe or has ended");
        }
    }
    server.shutdown().await;
    stopped(id, &server).await
}

/// Reads the configuration of a node.
///
/// # Errors
/// When it cannot be read or used.
pub(crate) fn load(path: &Path) -> Result<NodeConfig, Failure> {
    NodeConfig::load(path).map_err(|error| Failure::usage(error.to_string()))
}

/// What a node's end comes to.
///
/// # Errors
/// When it did not end because it was asked to.
pub(crate) async fn stopped(id: u64, server: &Server) -> Outcome {
    let reason = server.stopped().await;
    match Exit::from_code(stop_exit_code(&reason)) {
        Exit::Done => Ok(Exit::Done),
        exit => Err(Failure::new(
            exit,
            format!("node {id} stopped itself: {reason}"),
        )),
    }
}
