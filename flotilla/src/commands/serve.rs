//! `flotilla serve`: one node in the foreground, until somebody ends it or it stops itself.

use std::path::Path;

use kv_service::compose::StopReason;
use kv_service::compose::{Overrides, Server};
use kv_service::config::NodeConfig;
use serde_json::json;

use crate::cli::{ServeArgs, Transport};
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
    if args.transport == Some(Transport::Memory) {
        return Err(Failure::usage(
            "transport memory joins the nodes of one process, and serve runs one node; \
             use `flotilla cluster --transport memory`",
        ));
    }
    let mut signals = EndSignals::register()?;
    let config = load(&args.config)?;
    let (id, storage) = (config.id.0, args.storage.map(Into::into));
    let name = storage.unwrap_or(config.storage).name();
    let server = Server::start(config, Overrides { storage }).await?;
    let address = server.local_addr();
    if output.is_json() {
        let object = json!({ "id": id, "addr": address.to_string(), "storage": name });
        output.line(|| object, String::new)?;
        output.flush()?;
    }
    tracing::info!(node = id, %address, storage = name, "serving");
    tokio::select! {
        reason = server.stopped() => return stopped(id, &reason),
        signal = signals.wait() => tracing::info!(node = id, signal, "stopping"),
        () = standard_input_closed(), if args.stop_with_parent => {
            tracing::info!(node = id, "stopping: the supervisor closed the pipe or has ended");
        }
    }
    stopped(id, &server.shutdown().await)
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
pub(crate) fn stopped(id: u64, reason: &StopReason) -> Outcome {
    match reason {
        StopReason::Shutdown => Ok(Exit::Done),
        reason => Err(Failure::stopped(format!(
            "node {id} stopped itself: {reason}"
        ))),
    }
}
