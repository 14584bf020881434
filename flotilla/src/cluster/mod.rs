//! `flotilla cluster`: a whole cluster on this machine, as one process per node (`supervisor`,
//! `child`, `restart`) or inside this one (`in_process`). `plan` finds or makes its directory,
//! `ready` waits until it takes writes, `roster` follows who joins and who goes, `status_line` and
//! `events` tell how it is.

mod announce;
pub(crate) mod child;
mod events;
mod in_process;
pub(crate) mod plan;
pub(crate) mod ready;
pub(crate) mod restart;
mod roster;
mod status_line;
pub(crate) mod supervisor;

use kv_client::KvClient;
use kv_service::config::NodeConfig;
use kv_service::init::load;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::sleep;

use self::announce::announce;
use self::child::NodeCommand;
use self::events::{refuse_start, tell};
use self::plan::{Prepared, is_local, prepare};
use self::ready::wait_until_ready;
use self::roster::{Incarnate, Members, Step, steps};
use self::status_line::Screen;
use self::supervisor::{Event, Supervisor, What};
use crate::cli::{ClusterArgs, Transport};
use crate::commands::status::of_cluster;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::signals::EndSignals;

/// Runs `flotilla cluster` until a signal ends it, or no node is left.
///
/// # Errors
/// When the directory cannot be used, a node cannot be started, or all nodes have ended.
pub(crate) async fn run(args: &ClusterArgs, output: &mut Output) -> Outcome {
    let mut signals = EndSignals::register()?;
    let prepared = prepare(args)?;
    let mut screen = Screen::new(output);
    if args.transport == Transport::Memory {
        return in_process::run(&prepared, &mut signals, &mut screen).await;
    }
    // Memory is gone with the process: a node started again would have forgotten its promises.
    let restart = prepared.is_durable && !args.no_restart;
    let commands = node_commands(&prepared.layout.nodes)?;
    let (supervisor, events) = Supervisor::start(commands, restart);
    let mut attendant = Attendant {
        prepared: &prepared,
        supervisor,
        events,
    };
    let outcome = tokio::select! {
        outcome = attendant.attend(&mut screen) => outcome,
        _ = signals.wait() => Ok(Exit::Done),
    };
    // Nobody takes the events any more, so nobody may wait for it.
    drop(attendant.events);
    attendant.supervisor.stop().await;
    if outcome.is_ok() {
        screen.line(|| json!({ "stopped": true }), || "stopped".to_owned());
    }
    outcome
}

/// How nodes are started.
///
/// # Errors
/// When the system does not tell which program this is.
pub(crate) fn node_commands(nodes: &[NodeConfig]) -> Result<Vec<NodeCommand>, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::stopped(format!("cannot find this program: {error}")))?;
    let command = |node: &NodeConfig| NodeCommand {
        id: node.id.0,
        incarnation: node.incarnation().0,
        program: program.clone(),
        config: node.path.clone(),
    };
    Ok(nodes.iter().map(command).collect())
}

/// Looks after the nodes of a cluster.
struct Attendant<'a> {
    prepared: &'a Prepared,
    supervisor: Supervisor,
    events: mpsc::Receiver<Event>,
}

impl Attendant<'_> {
    /// Waits until the cluster takes writes, then tells how it is, until no node is left.
    async fn attend(&mut self, screen: &mut Screen<'_>) -> Outcome {
        let ready = wait_until_ready(&self.prepared.layout.client_config);
        tokio::pin!(ready);
        let ready = loop {
            tokio::select! {
                ready = &mut ready => break ready?,
                event = self.events.recv() => match event {
                    Some(event) => {
                        refuse_start(&event)?;
                        self.take_note(&event, screen);
                    }
                    None => return Err(nobody_left()),
                },
            }
        };
        announce(&ready, self.prepared, screen);
        self.watch_over(&ready.client, screen).await
    }

    /// Tells how the cluster is, and runs who belongs to it, until no node is left.
    async fn watch_over(&mut self, client: &KvClient, screen: &mut Screen<'_>) -> Outcome {
        let mut members = roster::follow(&self.prepared.layout.dir).await?;
        let every = screen.every();
        let look = || async {
            sleep(every).await;
            client.status().await
        };
        // Kept while other things happen: with a new one each time its pause would never end.
        let mut next_look = Box::pin(look());
        loop {
            tokio::select! {
                reports = &mut next_look => {
                    screen.status(&of_cluster(reports?));
                    next_look.set(look());
                }
                Ok(()) = members.changed() => {
                    let members = members.borrow_and_update().clone();
                    self.follow(&members)?;
                }
                event = self.events.recv() => match event {
                    Some(event) => self.take_note(&event, screen),
                    None => return Err(nobody_left()),
                },
            }
        }
    }

    /// Starts who has joined and stops who was removed.
    fn follow(&mut self, members: &Members) -> Result<(), Failure> {
        // A directory that is being changed is looked at again a little later.
        let found = load(&self.prepared.layout.dir).ok().flatten();
        let (Some(layout), false) = (found, members.nodes.is_empty()) else {
            return Ok(());
        };
        let here: Vec<_> = layout
            .nodes
            .iter()
            .filter(|node| is_local(node))
            .map(Incarnate::of)
            .collect();
        for step in steps(&here, &self.supervisor.known(), members) {
            match step {
                Step::Retire(id) => self.supervisor.retire(id),
                Step::Start(node) => {
                    let commands = node_commands(&layout.nodes)?;
                    for command in commands.into_iter().filter(|it| it.id == node.id) {
                        self.supervisor.adopt(command);
                    }
                }
            }
        }
        Ok(())
    }

    fn take_note(&mut self, event: &Event, screen: &mut Screen<'_>) {
        if matches!(event.what, What::Retired) {
            self.supervisor.forget(event.id);
        }
        tell(event, screen);
    }
}

fn nobody_left() -> Failure {
    Failure::stopped("all nodes have ended; their logs in node-<i>/log say why")
}
