//! A node that follows, or waits for somebody to follow: appends, heartbeats, the votes it gives
//! and the deadline after which it asks for votes itself.

use crate::entry::Entry;
use crate::message::{
    Append, AppendReply, Heartbeat, HeartbeatReply, Message, PreVote, PreVoteReply, Vote, VoteReply,
};
use crate::protocol::reads::Forwarding;
use crate::protocol::{Raft, RoleState};
use crate::types::{Incarnation, Index, LogId, NodeId, Term};

#[derive(Debug)]
pub(crate) struct Follower {
    /// Who leads this term, where it was heard.
    pub(crate) leader: Option<NodeId>,
    /// The life of the leader that was heard; our members may not know it yet.
    leader_incarnation: Incarnation,
    /// Reads that wait for the leader to say how far they have to see.
    pub(crate) reads: Forwarding,
    /// Everything is done, so the clock stands still.
    pub(crate) is_asleep: bool,
    /// Ticks since a leader was heard or a vote was given.
    elapsed: u32,
    /// When to campaign; drawn anew each time (paper 5.2).
    deadline: u32,
    /// Ticks since a leader of any term was heard, saturating: what leader stickiness goes by.
    silence: u32,
}

impl Follower {
    pub(crate) fn new(leader: Option<NodeId>, deadline: u32, silence: u32) -> Self {
        Self {
            leader,
            leader_incarnation: Incarnation::default(),
            reads: Forwarding::default(),
            is_asleep: false,
            elapsed: 0,
            deadline,
            silence,
        }
    }

    /// The clock goes on, from the beginning of a deadline.
    pub(crate) fn wake(&mut self) {
        if self.is_asleep {
            self.is_asleep = false;
            self.elapsed = 0;
        }
    }

    /// A leader was heard less than the shortest election deadline ago (thesis 4.2.3), of whatever
    /// term: an answer that raised our term meanwhile does not take back what a lease relies on.
    pub(crate) fn hears_leader(&self, election_ticks_min: u32) -> bool {
        self.silence < election_ticks_min
    }
}

impl Raft {
    pub(crate) fn follower_tick(&mut self) {
        let RoleState::Follower(follower) = &mut self.role else {
            return;
        };
        if follower.is_asleep {
            return;
        }
        follower.elapsed = follower.elapsed.saturating_add(1);
        follower.silence = follower.silence.saturating_add(1);
        if follower.elapsed < follower.deadline {
            return;
        }
        if self.may_campaign() {
            self.become_pre_candidate();
        } else {
            // All that it can do is to say that nobody leads, so that reads go elsewhere; and to
            // draw anew, else all that start together would ask together when they may.
            self.become_follower(None);
        }
    }

    /// The leader of this term spoke: nobody else needs to be elected for a while.
    pub(crate) fn heard_leader(&mut self, from: NodeId) {
        let deadline = self.draw_deadline();
        let mut heard = Follower::new(Some(from), deadline, 0);
        let asking = self.asking.filter(|(id, _)| *id == from);
        heard.leader_incarnation = asking.map_or_else(Incarnation::default, |(_, life)| life);
        match &mut self.role {
            RoleState::Follower(follower) => {
                heard.reads = std::mem::take(&mut follower.reads);
                *follower = heard;
            }
            // Somebody won the term in which we asked.
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => {
                self.role = RoleState::Follower(heard);
            }
            RoleState::Leader(_) => unreachable!("a second leader in a term is refused before"),
        }
    }

    /// Says something to the leader that is followed, whether our members know it or not.
    pub(crate) fn send_to_leader(&mut self, leader: NodeId, message: Message) {
        if let RoleState::Follower(follower) = &self.role {
            self.asking = Some((leader, follower.leader_incarnation));
            self.send(leader, message);
            self.asking = None;
        }
    }

    /// Entries, or a probe. What matches is kept, what conflicts is replaced, and the answer rides
    /// in the write that it promises.
    pub(crate) fn handle_append(&mut self, from: NodeId, append: Append) {
        self.heard_leader(from);
        let Append {
            mut base,
            commit,
            mut entries,
        } = append;
        if base.index < self.log.start().index {
            // It begins where our log was compacted: all of that is committed, and so the leader's.
            let start = self.log.start();
            let covered = entries.partition_point(|entry| entry.index() <= start.index);
            match entries.drain(..covered).next_back() {
                Some(entry) if entry.index() < start.index => {
                    self.accept_committed(from);
                    return;
                }
                Some(entry) if entry.id() != start => {
                    self.refuse_malformed(from, "append");
                    return;
                }
                Some(_) => base = start,
                None => {
                    self.accept_committed(from);
                    return;
                }
            }
        }
        if !self.log.contains(base) {
            if base.index <= self.commit {
                // A leader has what is committed (Leader Completeness), so this is none.
                self.refuse_malformed(from, "append");
                return;
            }
            // What the reply tells of our log may not be on the disk yet; in the write's order it
            // is.
            let conflict = self.log.conflict(base);
            let last = self.log.last();
            let reply = AppendReply::Rejected {
                base,
                conflict,
                last,
            };
            self.acknowledge(from, reply);
            return;
        }
        entries.truncate(self.room_for(&entries));
        let verified = base.index.plus(entries.len() as u64);
        if !self.merge(entries) {
            self.refuse_malformed(from, "append");
            return;
        }
        self.commit_to(commit.min(verified));
        let matched = verified.max(self.commit);
        let reply = if self.is_short_of_room {
            AppendReply::NoRoom { matched }
        } else {
            AppendReply::Accepted { matched }
        };
        self.acknowledge(from, reply);
    }

    /// Tells the leader that its log and ours agree up to our commit index.
    fn accept_committed(&mut self, from: NodeId) {
        let matched = self.commit;
        self.acknowledge(from, AppendReply::Accepted { matched });
    }

    /// Appends what is not in the log yet, cutting it only at a real conflict (paper 5.3, rules 3
    /// and 4 of figure 2): a late or repeated append never removes entries that came after it.
    /// Returns false, with nothing changed, where the entries contradict what is committed.
    fn merge(&mut self, entries: Vec<Entry>) -> bool {
        let known = entries
            .iter()
            .take_while(|entry| self.log.contains(entry.id()))
            .count();
        let Some(first_new) = entries.get(known).map(Entry::index) else {
            return true;
        };
        if first_new <= self.commit {
            return false;
        }
        if first_new <= self.log.last().index {
            self.truncate(first_new);
        }
        for entry in entries.into_iter().skip(known) {
            self.append_entry(entry);
        }
        true
    }

    fn truncate(&mut self, from: Index) {
        assert!(from > self.commit, "a committed entry is never removed");
        self.outbox.close_write(self.log.last());
        self.log.truncate(from, self.outbox.open_write());
        self.outbox.write_truncation(from);
        if self.configurations.truncate(from) {
            self.members_changed();
        }
    }

    pub(crate) fn handle_heartbeat(&mut self, from: NodeId, heartbeat: Heartbeat) {
        self.heard_leader(from);
        // The leader clamped its commit index to what it knows us to hold.
        self.commit_to(heartbeat.commit.min(self.log.last().index));
        if self.may_sleep(&heartbeat)
            && let RoleState::Follower(follower) = &mut self.role
        {
            follower.is_asleep = true;
        }
        let reply = HeartbeatReply {
            round: heartbeat.round,
            is_refilling: self.is_refilling(),
        };
        self.send(from, Message::HeartbeatReply(reply));
    }

    /// Would we vote for it? Nothing changes here, whatever the answer. Refused while a leader is
    /// heard, so that a node which was cut off disturbs nobody (thesis 9.6 and 4.2.3).
    pub(crate) fn handle_pre_vote(&mut self, from: NodeId, pre_vote: PreVote) {
        let PreVote { next_term, last } = pre_vote;
        let is_free = self.vote_embargo == 0 && !self.is_led() && !self.is_refilling();
        let granted = next_term > self.hard_state.term && last >= self.log.last() && is_free;
        let reply = PreVoteReply { next_term, granted };
        self.send(from, Message::PreVoteReply(reply));
    }

    /// One vote per term, never taken back, to a log that is at least as new as ours (paper 5.2 and
    /// 5.4.1), none while a leader is heard that did not ask for it (thesis 4.2.3), and none while
    /// entries are missing that may have been acknowledged. The term was adopted before, whatever
    /// the answer.
    pub(crate) fn handle_vote(&mut self, from: NodeId, vote: Vote) {
        let free = match self.hard_state.vote {
            None => self.leader().is_none(),
            Some(candidate) => candidate == from,
        };
        let last = self.log.last();
        let is_held_back =
            self.vote_embargo > 0 || self.is_refilling() || (self.is_led() && !vote.is_transfer);
        let granted = free && !is_held_back && vote.last >= last;
        if granted {
            if self.hard_state.vote.is_none() {
                self.set_vote(from);
            }
            // Whoever was asking by itself waits for the one it voted for. (A repeated request of
            // the one that has won by now changes nothing.)
            if self.leader().is_none() {
                self.become_follower(None);
            }
        }
        // A refusal promises nothing, but the hint in it names entries that may not be on the disk
        // yet: so both answers keep the order of writes.
        self.promise(from, Message::VoteReply(VoteReply { granted, last }));
    }

    /// Whether a leader is there, as far as this node can tell.
    pub(crate) fn is_led(&self) -> bool {
        match &self.role {
            RoleState::Leader(_) => true,
            RoleState::Follower(f) => f.hears_leader(self.config.timing.election_ticks_min),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => false,
        }
    }

    /// Goes back to following. `leader` is none when nobody is known to lead.
    pub(crate) fn become_follower(&mut self, leader: Option<NodeId>) {
        self.refuse_reads(leader);
        self.forget_change();
        self.forget_leaving();
        let deadline = self.draw_deadline();
        self.role = RoleState::Follower(Follower::new(leader, deadline, u32::MAX));
    }

    /// Adopts a newer term. The vote of the old one is over; nobody leads the new one yet.
    pub(crate) fn adopt_term(&mut self, term: Term) {
        assert!(term > self.hard_state.term, "terms only grow");
        self.outbox.close_write(self.log.last());
        self.hard_state.term = term;
        self.hard_state.vote = None;
        self.outbox.write_hard_state(self.hard_state);
        match &mut self.role {
            // The deadline is not touched: only a leader or a granted vote restarts it, else a node
            // with a high term and a short log could keep everybody from campaigning.
            RoleState::Follower(follower) => {
                follower.leader = None;
                follower.wake();
                self.refuse_reads(None);
            }
            _ => self.become_follower(None),
        }
    }

    /// Commits up to `index`, never backwards.
    pub(crate) fn commit_to(&mut self, index: Index) {
        assert!(
            index <= self.log.last().index,
            "what is committed is in the log"
        );
        self.commit = self.commit.max(index);
    }

    /// The last log id, for messages.
    pub(crate) fn last(&self) -> LogId {
        self.log.last()
    }
}
