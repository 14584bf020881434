//! What happened to a node, in words and as JSON; and whether it is an error of whoever started the
//! cluster.

use serde_json::{Value, json};

use super::restart::{Decision, Ending};
use super::status_line::Screen;
use super::supervisor::{Event, What};
use crate::exit::{Exit, Failure};

/// Before the cluster was ever ready, a node that cannot be started is an error of whoever called.
pub(super) fn refuse_start(event: &Event) -> Result<(), Failure> {
    let id = event.id;
    match &event.what {
        What::Started(_) | What::Retired => Ok(()),
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

/// Tells people what happened.
pub(super) fn tell(event: &Event, screen: &mut Screen<'_>) {
    let id = event.id;
    screen.line(
        || event_object(event),
        || match &event.what {
            What::Started(pid) => format!("node {id} started, process {pid}"),
            What::NotStarted(why) => format!("node {id} could not be started: {why}"),
            What::Retired => format!("node {id} is not a member any more; it was stopped"),
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
        What::Retired => json!({ "retired": { "node": node } }),
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
