//! What must hold across nodes, looked at after every step. Only what changed is compared: each
//! check keeps a table of what is known so far.

mod commits;
mod elections;
mod logs;
mod machines;
mod reads;

pub(crate) use commits::Commits;
pub(crate) use elections::Elections;
pub(crate) use logs::Logs;
pub(crate) use machines::{Machines, is_refused};
pub(crate) use reads::Reads;

use raft_core::message::AppendReply;
use raft_core::protocol::{LogStart, State, Write};
use raft_core::{EntryKind, Envelope, LogId, Membership, Message, Role};

use crate::node::{Node, Standing};
use crate::violation::{Violation, require};

/// All checks.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// Leaders and votes.
    pub elections: Elections,
    /// Log Matching.
    pub logs: Logs,
    /// What is committed.
    pub commits: Commits,
    /// What is applied.
    pub machines: Machines,
    /// What reads have to see.
    pub reads: Reads,
}

impl Checks {
    /// Checks for a group that begins with these members.
    #[must_use]
    pub(crate) fn new(members: Membership) -> Self {
        Self {
            commits: Commits::new(members),
            ..Self::default()
        }
    }

    /// A node wants something written; `before` is what it was before the turn. Takes the write
    /// into the mirror of its log.
    ///
    /// # Errors
    /// When an invariant does not hold, here and below.
    pub(crate) fn write(
        &mut self,
        node: &mut Node,
        write: &Write,
        before: &State,
    ) -> Result<(), Violation> {
        match write.log_start {
            None => {}
            Some(LogStart::Compact(to)) => {
                require(
                    to.index <= node.state.applied && node.log.has(to),
                    42,
                    || {
                        format!(
                            "n{} applied {} and compacts {to}",
                            node.id, node.state.applied
                        )
                    },
                )?;
                node.log.compact(to);
            }
            Some(LogStart::Reset(to)) => {
                require(to.index > before.commit, 42, || {
                    format!(
                        "n{} committed {} and begins behind {to}",
                        node.id, before.commit
                    )
                })?;
                self.commits.is_committed(node.id, to)?;
                node.log.reset(to);
            }
        }
        if let Some(from) = write.batch.truncate_from {
            let led = before.role == Role::Leader && node.state.role == Role::Leader;
            let same = before.hard_state.term == node.state.hard_state.term;
            require(!(led && same), 37, || {
                format!("n{} leads and truncates from {from}", node.id)
            })?;
            require(from > before.commit, 26, || {
                format!("n{} committed {} and cuts {from}", node.id, before.commit)
            })?;
            node.log.truncate(from);
        }
        for entry in &write.batch.entries {
            let last = node.log.last();
            require(entry.index() == last.index.next(), 36, || {
                format!("n{} writes {} behind {last}", node.id, entry.id())
            })?;
            require(entry.term() >= last.term, 24, || {
                format!("n{} writes {} behind {last}", node.id, entry.id())
            })?;
            if entry.kind() == EntryKind::Membership {
                self.commits.change(entry)?;
            }
            self.logs.written(node.id, entry, last.term)?;
            node.log.push(entry.term());
        }
        Ok(())
    }

    /// A node has stepped; its writes are in the mirror of its log. Returns whether more is
    /// committed than was known.
    ///
    /// # Errors
    /// See [`Checks::write`].
    pub(crate) fn turn(
        &mut self,
        position: usize,
        before: &State,
        nodes: &[Node],
    ) -> Result<bool, Violation> {
        let node = &nodes[position];
        let state = &node.state;
        let id = node.id;
        require(
            state.hard_state.term >= before.hard_state.term
                && state.commit >= before.commit
                && state.applied >= before.applied,
            23,
            || format!("n{id} was {before:?} and is {state:?}"),
        )?;
        require(state.last == node.log.last(), 36, || {
            format!("n{id} ends at {} and wrote {}", state.last, node.log.last())
        })?;
        require(state.applied <= state.commit, 31, || {
            format!("n{id} applied {} of {}", state.applied, state.commit)
        })?;
        self.durable(node)?;
        require(
            state.role == Role::Follower || !node.disk.is_refilling(),
            45,
            || format!("n{id} is {}, its disk lost entries", state.role.name()),
        )?;
        let grown = self.commits.turn(node, before)?;
        let leads = state.role == Role::Leader;
        if leads {
            let is_new =
                before.role != Role::Leader || before.hard_state.term != state.hard_state.term;
            if is_new {
                self.elections.leads(node)?;
                self.commits.held_by_leader(node)?;
            }
            if state.matched != before.matched {
                self.matched(node, before, nodes)?;
            }
        }
        if grown {
            self.commits.committed_by(node, before, nodes)?;
            for leader in nodes.iter().filter(|node| node.leads()) {
                self.commits.held_by_leader(leader)?;
            }
        }
        Ok(grown)
    }

    /// What a node believes to be durable is.
    fn durable(&self, node: &Node) -> Result<(), Violation> {
        let durable = node.state.durable;
        if durable < node.log.start().index {
            // The new beginning of the log is not on the disk yet.
            return Ok(());
        }
        let term = node.log.term_at(durable);
        let on_disk = node.disk.term_at(durable);
        require(term.is_some() && term == on_disk, 36, || {
            format!(
                "n{} believes {durable} durable, of {term:?}; its disk has {on_disk:?}",
                node.id
            )
        })
    }

    /// What the newest leader counts is on the disks. A deposed one may count entries that its
    /// successor has removed by now.
    fn matched(&self, node: &Node, before: &State, nodes: &[Node]) -> Result<(), Violation> {
        if self.elections.newest_term() != node.state.hard_state.term {
            return Ok(());
        }
        for (follower, matched) in &node.state.matched {
            if before.matched.contains(&(*follower, *matched)) {
                continue;
            }
            let member = node.state.membership.get(*follower);
            let of_member = |other: &&Node| {
                let known = member.map(|member| member.incarnation);
                other.id == *follower && Some(other.incarnation) == known
            };
            let disk = nodes.iter().filter(|node| node.standing != Standing::Lost);
            let Some(other) = disk.clone().find(of_member) else {
                continue;
            };
            let holds = match node.log.term_at(*matched) {
                Some(term) => {
                    let id = LogId::new(term, *matched);
                    other.disk.has(id) || other.disk.vouches_for(id)
                }
                // It was compacted, so it is committed.
                None => {
                    let holds = other.disk.last().index >= *matched;
                    *matched < node.log.start().index && (holds || other.disk.vouches_at(*matched))
                }
            };
            require(holds, 32, || {
                let last = other.disk.last();
                format!(
                    "n{} matches n{follower} at {matched}, its disk ends at {last}",
                    node.id
                )
            })?;
        }
        Ok(())
    }

    /// A promise leaves: it has to be true on the disk of its sender.
    ///
    /// # Errors
    /// See [`Checks::write`].
    pub(crate) fn promise(&mut self, envelope: &Envelope, sender: &Node) -> Result<(), Violation> {
        let disk = &sender.disk;
        let (id, term) = (sender.id, envelope.term);
        let wants_to_count = match &envelope.message {
            Message::Vote(_) | Message::AppendReply(_) => true,
            Message::VoteReply(reply) => reply.granted,
            _ => false,
        };
        require(!(wants_to_count && disk.is_refilling()), 45, || {
            format!("n{id} lost entries and says {}", envelope.message.name())
        })?;
        let last = match &envelope.message {
            Message::Vote(vote) => {
                self.elections.claimed(envelope, vote.last);
                self.elections.promised(envelope, envelope.from, disk)?;
                vote.last
            }
            Message::VoteReply(reply) => {
                if reply.granted {
                    self.elections.granted_to_newer(envelope, reply.last)?;
                    self.elections.promised(envelope, envelope.to, disk)?;
                }
                reply.last
            }
            Message::AppendReply(
                AppendReply::Accepted { matched } | AppendReply::NoRoom { matched },
            )
            | Message::RefillReply(
                AppendReply::Accepted { matched } | AppendReply::NoRoom { matched },
            ) => {
                return require(
                    disk.last().index >= *matched && disk.hard_state().term == term,
                    33,
                    || {
                        format!(
                            "n{id} accepts {matched} in term {term}, its disk ends at {}",
                            disk.last()
                        )
                    },
                );
            }
            Message::AppendReply(AppendReply::Rejected { last, .. })
            | Message::RefillReply(AppendReply::Rejected { last, .. }) => *last,
            _ => return Ok(()),
        };
        require(disk.hard_state().term == term, 33, || {
            format!(
                "n{id} speaks in term {term}, its disk has {:?}",
                disk.hard_state()
            )
        })?;
        require(disk.has(last), 33, || {
            format!("n{id} says it has {last}, its disk ends at {}", disk.last())
        })
    }
}
