//! How what happens is written in scripts: short, stable, one line each.

use std::fmt::Write as _;

use super::disk::Disk;
use crate::entry::{Entry, EntryKind};
use crate::membership::Membership;
use crate::message::{AppendReply, Envelope, Message};
use crate::protocol::{LogStart, RoleChange, Write};
use crate::types::NodeId;

pub(super) fn entry(entry: &Entry) -> String {
    match entry.kind() {
        EntryKind::Noop => format!("{} noop", entry.id()),
        EntryKind::Membership => format!("{} {}", entry.id(), membership(entry.payload())),
        EntryKind::Command => {
            format!(
                "{} {}",
                entry.id(),
                String::from_utf8_lossy(entry.payload())
            )
        }
    }
}

/// The voters, then the learners in brackets, then whom the group leaves.
fn membership(payload: &[u8]) -> String {
    let membership = Membership::decode(payload).expect("checked before");
    let ids = |ids: &mut dyn Iterator<Item = NodeId>| {
        let ids: Vec<_> = ids.map(|id| id.to_string()).collect();
        ids.join(" ")
    };
    let mut out = format!("members {}", ids(&mut membership.voters()));
    let is_learner = |id: &NodeId| !membership.voters().any(|voter| voter == *id);
    let learners = membership.members().keys().copied().filter(is_learner);
    let learners = ids(&mut learners.into_iter());
    if !learners.is_empty() {
        write!(out, " ({learners})").unwrap();
    }
    if membership.is_joint() {
        let old = ids(&mut membership.outgoing().keys().copied());
        write!(out, " leaving {old}").unwrap();
    }
    out
}

fn entries(list: &[Entry]) -> String {
    match list {
        [] => "[]".to_owned(),
        [one] => format!("[{}]", one.id()),
        [first, .., last] => format!("[{}..{}]", first.id(), last.id()),
    }
}

fn message(message: &Message) -> String {
    match message {
        Message::PreVote(m) => format!("pre-vote for {} last {}", m.next_term, m.last),
        Message::PreVoteReply(m) => {
            format!("pre-vote-reply for {} {}", m.next_term, yes(m.granted))
        }
        Message::Vote(m) if m.is_transfer => format!("vote last {} by transfer", m.last),
        Message::Vote(m) => format!("vote last {}", m.last),
        Message::VoteReply(m) => format!("vote-reply {} last {}", yes(m.granted), m.last),
        Message::Append(m) => {
            format!(
                "append base {} {} commit {}",
                m.base,
                entries(&m.entries),
                m.commit
            )
        }
        Message::AppendReply(reply) => append_reply(reply),
        Message::RefillReply(reply) => format!("{}, refilling", append_reply(reply)),
        Message::Heartbeat(m) => format!("heartbeat commit {} round {}", m.commit, m.round),
        Message::HeartbeatReply(m) if m.is_refilling => {
            format!("heartbeat-reply round {}, refilling", m.round)
        }
        Message::HeartbeatReply(m) => format!("heartbeat-reply round {}", m.round),
        Message::Snapshot(m) => format!("snapshot {}", m.meta.last),
        Message::TimeoutNow => "timeout-now".to_owned(),
        Message::ReadIndex(m) => format!("read-index {}", m.number),
        Message::ReadIndexReply(m) => format!("read-index-reply {} {:?}", m.number, m.index),
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
            "rejected base {base} conflict term {} {}..{} last {last}",
            conflict.term, conflict.first, conflict.last
        ),
    }
}

fn yes(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}

pub(super) fn envelope(e: &Envelope) -> String {
    format!(
        "n{} -> n{} t{} {}",
        e.from,
        e.to,
        e.term,
        message(&e.message)
    )
}

pub(super) fn role(change: RoleChange) -> String {
    let leader = change
        .leader
        .map_or_else(|| "none".to_owned(), |id| format!("n{id}"));
    format!(
        "is {} in term {}, leader {leader}",
        change.role.name(),
        change.term
    )
}

pub(super) fn write(id: NodeId, write: &Write) -> Vec<String> {
    let mut parts = Vec::new();
    match write.log_start {
        Some(LogStart::Compact(to)) => parts.push(format!("compact to {to}")),
        Some(LogStart::Reset(to)) => parts.push(format!("empty behind {to}")),
        None => {}
    }
    if let Some(hard_state) = write.batch.hard_state {
        let vote = hard_state
            .vote
            .map_or_else(|| "none".to_owned(), |vote| format!("n{vote}"));
        parts.push(format!("term {} vote {vote}", hard_state.term));
    }
    if let Some(from) = write.batch.truncate_from {
        parts.push(format!("truncate from {from}"));
    }
    if !write.batch.entries.is_empty() {
        parts.push(entries(&write.batch.entries));
        let members = write.batch.entries.iter();
        let members = members.filter(|entry| entry.kind() == EntryKind::Membership);
        parts.extend(members.map(|entry| membership(entry.payload())));
    }
    if parts.is_empty() {
        parts.push("nothing".to_owned());
    }
    let mut lines = vec![format!(
        "n{id} write {}: {}",
        write.number,
        parts.join(", ")
    )];
    lines.extend(
        write
            .promises
            .iter()
            .map(|p| format!("  promises {}", envelope(p))),
    );
    lines
}

pub(super) fn disk(disk: &Disk) -> String {
    let vote = disk
        .hard_state
        .vote
        .map_or_else(|| "none".to_owned(), |vote| format!("n{vote}"));
    format!(
        "term {} vote {vote} last {}",
        disk.hard_state.term,
        disk.last()
    )
}
