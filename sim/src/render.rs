//! How what happens is written in a trace: one line, short, nothing that says nothing.

use raft_core::message::AppendReply;
use raft_core::protocol::Input;
use raft_core::{Entry, Envelope, Message};

/// What a node is told.
pub(crate) fn input(input: &Input) -> String {
    match input {
        Input::Tick => "tick".to_owned(),
        Input::Message(envelope) => envelope_line(envelope),
        Input::Propose(proposals) => format!("{} proposals", proposals.len()),
        Input::Read(tickets) => format!("{} reads", tickets.len()),
        Input::Persisted(done) => format!("write {} is durable, up to {}", done.number, done.last),
        Input::Loaded(loaded) => {
            let entries = entries(&loaded.entries);
            format!(
                "old entries {entries} for n{} in term {}",
                loaded.peer, loaded.term
            )
        }
        Input::Applied(index) => format!("applied up to {index}"),
        Input::Unreachable(peer) => format!("n{peer} could not be reached"),
        Input::ChangeMembership(_, change) => format!("change the members: {change:?}"),
        Input::Transfer(_, target) => format!("hand leadership to n{target}"),
        Input::SnapshotTaken(None) => "the snapshot could not be written".to_owned(),
        Input::SnapshotTaken(Some(descriptor)) => format!("{descriptor} is written"),
        Input::SnapshotSent { to, is_delivered } => {
            let end = if *is_delivered {
                "is there"
            } else {
                "broke off"
            };
            format!("the snapshot for n{to} {end}")
        }
        Input::Clock(nanoseconds) => format!("clock {nanoseconds}"),
        Input::Room { is_short: true } => "the disk is short of room".to_owned(),
        Input::Room { is_short: false } => "the disk has room again".to_owned(),
    }
}

fn envelope_line(envelope: &Envelope) -> String {
    let (from, term) = (envelope.from, envelope.term);
    format!("n{from} t{term} {}", message(&envelope.message))
}

fn message(message: &Message) -> String {
    match message {
        Message::Append(append) => {
            let entries = entries(&append.entries);
            format!(
                "append {entries} behind {}, commit {}",
                append.base, append.commit
            )
        }
        Message::AppendReply(reply) => append_reply(reply),
        Message::RefillReply(reply) => format!("{}, refilling", append_reply(reply)),
        Message::Snapshot(descriptor) => descriptor.to_string(),
        other => format!("{other:?}"),
    }
}

fn append_reply(reply: &AppendReply) -> String {
    match reply {
        AppendReply::Accepted { matched } => format!("accepted {matched}"),
        AppendReply::NoRoom { matched } => format!("no room behind {matched}"),
        AppendReply::Rejected {
            base,
            conflict,
            last,
        } => format!(
            "rejected base {base}, conflict {}@{}..{}, last {last}",
            conflict.first, conflict.term, conflict.last
        ),
    }
}

fn entries(list: &[Entry]) -> String {
    match list {
        [] => "nothing".to_owned(),
        [one] => one.id().to_string(),
        [first, .., last] => format!("{}..{}", first.id(), last.id()),
    }
}
