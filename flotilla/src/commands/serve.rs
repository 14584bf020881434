//! `flotilla serve`: one node in the foreground, until somebody ends it or it stops itself.

use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, Instant};

use kv_service::compose::{Overrides, Server, stop_exit_code};
use kv_service::config::NodeConfig;
use serde_json::json;
use tokio::time::sleep;

use crate::cli::ServeArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::logging;
use crate::output::Output;
use crate::removed;
use crate::signals::{EndSignals, standard_input_closed};

/// Between two looks at whether the node is still a member.
const MEMBERSHIP_CHECK: Duration = Duration::from_millis(250);

/// How long a node hears no leader before it warns.
const ALONE_WARNED: Duration = Duration::from_secs(30);

/// How long a node must have been no member before it stops: others may need what it holds until
/// the change is committed everywhere.
const REMOVED_AFTER: Duration = Duration::from_secs(3);

/// Runs `flotilla serve`.
///
/// # Errors
/// When the node cannot be started, or stopped itself.
pub(crate) async fn run(args: &ServeArgs, output: &mut Output) -> Outcome {
    logging::for_nodes()?;
    let mut signals = EndSignals::register()?;
    let config = load(&args.config)?;
    if removed::is_marked(&config) {
        return Err(removed::failure(&config));
    }
    let own = config.clone();
    let id = config.id.0;
    let overrides = Overrides {
        storage: args.storage.map(Into::into),
        state: args.state.map(Into::into),
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
        never = warn_while_alone(&own, &server) => match never {},
        () = removed_from_cluster(&server) => {
            server.shutdown().await;
            return Err(retire(&own));
        }
        signal = signals.wait() => tracing::info!(node = id, signal, "stopping"),
        () = standard_input_closed(), if args.stop_with_parent => {
            tracing::info!(node = id, "stopping: the supervisor closed the pipe or has ended");
        }
    }
    server.shutdown().await;
    stopped(id, &server).await
}

/// Waits until the node, having been a member, is none any more. Its own log says so; one that was
/// cut off when it was removed does not hear of it, and waits without disturbing anybody.
async fn removed_from_cluster(server: &Server) {
    let is_member = || server.raft().status().is_member();
    // A node that joins is no member before its log has come to the entry that says so.
    while !is_member() {
        sleep(MEMBERSHIP_CHECK).await;
    }
    let mut seen = Instant::now();
    while seen.elapsed() < REMOVED_AFTER {
        sleep(MEMBERSHIP_CHECK).await;
        if is_member() {
            seen = Instant::now();
        }
    }
}

/// Tells now and then that no leader is heard. Nobody talks to a node that was removed as a
/// follower, so it cannot know more than that.
async fn warn_while_alone(own: &NodeConfig, server: &Server) -> Infallible {
    let mut heard = Instant::now();
    loop {
        sleep(MEMBERSHIP_CHECK).await;
        if server.raft().status().leader.is_some() {
            heard = Instant::now();
        } else if heard.elapsed() >= ALONE_WARNED {
            heard = Instant::now();
            tracing::warn!(
                node = %own.id,
                seconds = ALONE_WARNED.as_secs(),
                "no leader is heard: a majority is away, or this node was removed; \
                 `flotilla member list` tells"
            );
        }
    }
}

/// Sees to it that a removed node is not started again.
fn retire(own: &NodeConfig) -> Failure {
    if let Err(error) = removed::mark(own) {
        tracing::warn!(node = %own.id, %error, "the mark of a removed node was not written");
    }
    removed::failure(own)
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
