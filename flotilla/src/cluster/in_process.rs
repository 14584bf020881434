//! All nodes inside this process: peers by channels, clients by QUIC as ever. What the nodes log
//! goes to one file, because standard error belongs to the person in front of it.

use std::path::PathBuf;

use futures_util::future::{join_all, select_all};
use kv_client::KvClient;
use kv_service::compose::{Overrides, Server};
use tokio::time::sleep;

use super::announce::announce;
use super::child::{PidFile, open_log};
use super::plan::Prepared;
use super::ready;
use super::status_line::Screen;
use crate::commands::serve::stopped;
use crate::exit::{Exit, Failure, Outcome};
use crate::logging;
use crate::signals::EndSignals;

/// Runs all nodes until a signal ends them, or one stops itself.
///
/// # Errors
/// When a node cannot be started, or stopped itself.
pub(super) async fn run(
    prepared: &Prepared,
    signals: &mut EndSignals,
    screen: &mut Screen<'_>,
) -> Outcome {
    let layout = &prepared.layout;
    let local = |what: &str, error| Failure::usage(format!("cannot write {what}: {error}"));
    let log = open_log(&layout.dir.join("log")).map_err(|error| local("the log", error))?;
    logging::for_nodes_into(log)?;
    let servers = Server::start_memory_cluster(layout.nodes.clone(), Overrides::default()).await?;
    let mut pids = Vec::new();
    for node in &layout.nodes {
        let path: PathBuf = node.path.with_file_name("pid");
        let written = PidFile::write(path, std::process::id());
        pids.push(written.map_err(|error| local("a pid file", error))?);
    }
    let ends = servers.iter().zip(&layout.nodes).map(|(server, node)| {
        let id = node.id.0;
        Box::pin(stopped(id, server))
    });
    let outcome = tokio::select! {
        (outcome, ..) = select_all(ends) => outcome,
        outcome = attend(prepared, screen) => outcome,
        _ = signals.wait() => Ok(Exit::Done),
    };
    join_all(servers.iter().map(Server::shutdown)).await;
    outcome
}

async fn attend(prepared: &Prepared, screen: &mut Screen<'_>) -> Outcome {
    let ready = ready::wait_until_ready(&prepared.layout.client_config).await?;
    announce(&ready, prepared, screen);
    tell_status(&ready.client, screen).await
}

async fn tell_status(client: &KvClient, screen: &mut Screen<'_>) -> Outcome {
    loop {
        sleep(screen.every()).await;
        screen.status(&client.status().await?);
    }
}
