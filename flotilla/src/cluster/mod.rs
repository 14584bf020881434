//! `flotilla cluster`: a whole cluster on this machine, as one process per node (`supervisor`,
//! `child`, `restart`) or inside this one (`in_process`). `plan` finds or makes its directory,
//! `ready` waits until it takes writes, `status_line` tells how it is.

mod announce;
pub(crate) mod child;
mod in_process;
pub(crate) mod plan;
pub(crate) mod ready;
pub(crate) mod restart;
mod status_line;
pub(crate) mod supervisor;

use kv_client::KvClient;
use kv_service::init::ClusterLayout;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;

use self::announce::announce;
use self::child::NodeCommand;
use self::plan::{Prepared, prepare};
use self::ready::wait_until_ready;
use self::restart::{Decision, Ending};
use self::status_line::Screen;
use self::supervisor::{Event, Supervisor, What};
use crate::cli::{ClusterArgs, Transport};
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
    let (supervisor, mut events) = Supervisor::start(node_commands(&prepared.layout)?, restart);
    let outcome = tokio::select! {
        outcome = attend(&prepared, &mut events, &mut screen) => outcome,
        _ = signals.wait() => Ok(Exit::Done),
    };
    // Nobody takes them any more, so nobody may wait for it.
    drop(events);
    supervisor.stop().await;
    if outcome.is_ok() {
        screen.line(|| json!({ "stopped": true }), || "stopped".to_owned());
    }
    outcome
}

/// How every node of a cluster is started.
///
/// # Errors
/// When the system does not tell which program this is.
pub(crate) fn node_commands(layout: &ClusterLayout) -> Result<Vec<NodeCommand>, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::stopped(format!("cannot find this program: {error}")))?;
    let command = |node: &kv_service::config::NodeConfig| NodeCommand {
        id: node.id.0,
        program: program.clone(),
        config: node.path.clone(),
    };
    Ok(layout.nodes.iter().map(command).collect())
}

/// Waits until the cluster takes writes, then tells how it is, until no node is left.
async fn attend(
    prepared: &Prepared,
    events: &mut mpsc::Receiver<Event>,
    screen: &mut Screen<'_>,
) -> Outcome {
    let ready = wait_until_ready(&prepared.layout.client_config);
    tokio::pin!(ready);
    let ready = loop {
        tokio::select! {
            ready = &mut ready => break ready?,
            event = events.recv() => match event {
                Some(event) => {
                    refuse_start(&event)?;
                    tell(&event, screen);
                }
                None => return Err(nobody_left()),
            },
        }
    };
    announce(&ready, prepared, screen);
    watch_over(&ready.client, events, screen).await
}

/// Tells how the cluster is, until no node is left.
async fn watch_over(
    client: &KvClient,
    events: &mut mpsc::Receiver<Event>,
    screen: &mut Screen<'_>,
) -> Outcome {
    let every = screen.every();
    loop {
        let look = async {
            sleep(every).await;
            client.status().await
        };
        tokio::select! {
            reports = look => screen.status(&reports?),
            event = events.recv() => match event {
                Some(event) => tell(&event, screen),
                None => return Err(nobody_left()),
            },
        }
    }
}

/// Before the cluster was ever ready, a node that cannot be started is an error of whoever called.
fn refuse_start(event: &Event) -> Result<(), Failure> {
    let id = event.id;
    match &event.what {
        What::Started(_) => Ok(()),
        What::NotStarted(why) => Err(Failure::usage(format!("cannot start node {id}: {why}"))),
        What::Ended {
            ending,
            last_words,
            decision,
        } => {
            if matches!(decision, Decision::After(_)) {
                return Ok(());
            }
            let exit = match ending {
                Ending::Code(code) if *code != 0 => Exit::from_code(*code),
                Ending::Code(_) | Ending::Signal(_) => Exit::Stopped,
            };
            let why = last_words.as_deref().unwrap_or("see its log");
            Err(Failure::new(exit, format!("node {id} {ending}: {why}")))
        }
    }
}

fn nobody_left() -> Failure {
    Failure::stopped("all nodes have ended; their logs in node-<i>/log say why")
}

fn tell(event: &Event, screen: &mut Screen<'_>) {
    let id = event.id;
    screen.line(
        || event_object(event),
        || match &event.what {
            What::Started(pid) => format!("node {id} started, process {pid}"),
            What::NotStarted(why) => format!("node {id} could not be started: {why}"),
            What::Ended {
                ending,
                last_words,
                decision,
            } => {
                let why = match last_words {
                    Some(words) if matches!(ending, Ending::Code(code) if *code != 0) => {
                        format!(": {words}")
                    }
                    _ => String::new(),
                };
                let then = match decision {
                    Decision::After(pause) => {
                        format!("it is started again in {:.1} s", pause.as_secs_f64())
                    }
                    Decision::Leave => "it is not started again".to_owned(),
                    Decision::GiveUp => "given up: it was started again too often".to_owned(),
                };
                format!("node {id} {ending}{why}; {then}")
            }
        },
    );
}

fn event_object(event: &Event) -> Value {
    let node = event.id;
    match &event.what {
        What::Started(pid) => json!({ "started": { "node": node, "pid": pid } }),
        What::NotStarted(why) => json!({ "not_started": { "node": node, "why": why } }),
        What::Ended {
            ending,
            last_words,
            decision,
        } => {
            let (code, signal) = match ending {
                Ending::Code(code) => (Some(code), None),
                Ending::Signal(signal) => (None, Some(signal)),
            };
            let again = matches!(decision, Decision::After(_));
            json!({
                "ended": {
                    "node": node, "code": code, "signal": signal, "why": last_words,
                    "restart": again,
                },
            })
        }
    }
}
