//! What time does: what restarts the deadline and what does not, and that a cluster which is left
//! alone, or loses a little, or gets a lost node back, keeps its leader.

use std::collections::BTreeMap;

use super::Cluster;
use super::disk::Disk;
use crate::message::{
    Append, AppendReply, Heartbeat, HeartbeatReply, Message, PreVote, PreVoteReply, Vote, VoteReply,
};
use crate::protocol::random::Random;
use crate::protocol::{Input, Role};
use crate::types::{Index, LogId, NodeId, Term};

const NODE: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

/// Whether this message restarts the deadline of a follower in term 2 with the log 1 2, which
/// nobody leads.
fn restarts(term: u64, message: &Message) -> bool {
    let disks: BTreeMap<_, _> = (1..=3)
        .map(|id| (NodeId(id), Disk::with_terms(&[1, 2])))
        .collect();
    let mut cluster = Cluster::new(disks, 5);
    cluster.timing.election_ticks_min = 20;
    cluster.timing.election_ticks_max = 21;
    cluster.restart_all();
    for _ in 0..19 {
        cluster.step(NODE, Input::Tick);
    }
    assert_eq!(cluster.raft(NODE).role(), Role::Follower);
    let envelope = cluster.envelope(PEER, NODE, Term(term), message.clone());
    cluster.receive(envelope);
    for _ in 0..2 {
        cluster.step(NODE, Input::Tick);
    }
    cluster.raft(NODE).role() == Role::Follower
}

#[test]
fn only_a_leader_and_a_vote_restart_the_deadline() {
    let heartbeat = Message::Heartbeat(Heartbeat {
        commit: Index(0),
        round: 0,
        is_last: false,
    });
    let append = |base| {
        Message::Append(Append {
            base,
            commit: Index(0),
            entries: Vec::new(),
        })
    };
    let vote = |last| {
        Message::Vote(Vote {
            last,
            is_transfer: false,
        })
    };
    let pre_vote = |next_term| {
        Message::PreVote(PreVote {
            next_term: Term(next_term),
            last: id(2, 9),
        })
    };
    let rejected = AppendReply::Rejected {
        base: id(1, 1),
        conflict: crate::message::Conflict::default(),
        last: LogId::ZERO,
    };
    let replies = [
        Message::PreVoteReply(PreVoteReply {
            next_term: Term(3),
            granted: true,
        }),
        Message::VoteReply(VoteReply {
            granted: true,
            last: id(2, 2),
        }),
        Message::AppendReply(AppendReply::Accepted { matched: Index(1) }),
        Message::AppendReply(rejected),
        Message::HeartbeatReply(HeartbeatReply {
            round: 0,
            is_refilling: false,
        }),
    ];
    // The message, and whether it restarts the deadline when its term is older, the same, newer.
    let mut table = vec![
        (heartbeat, [false, true, true]),
        (append(id(1, 1)), [false, true, true]),
        // The answer is a rejection, but a leader spoke.
        (append(id(1, 7)), [false, true, true]),
        (vote(id(2, 2)), [false, true, true]),
        (vote(id(1, 9)), [false, false, false]),
        (pre_vote(9), [false, false, false]),
    ];
    table.extend(replies.map(|reply| (reply, [false, false, false])));
    for (message, expected) in table {
        for (term, expected) in (1..).zip(expected) {
            assert_eq!(
                restarts(term, &message),
                expected,
                "term {term}, {message:?}"
            );
        }
    }
}

fn lan(size: u64) -> Cluster {
    let disks: BTreeMap<_, _> = (1..=size).map(|id| (NodeId(id), Disk::default())).collect();
    let mut cluster = Cluster::new(disks, 9);
    cluster.is_traced = false;
    cluster
}

/// Ticks of every node, between which messages arrive; so many of 1,000 are lost.
fn pass(cluster: &mut Cluster, ticks: u32, loss: u32) {
    let mut random = Random::new(1);
    for _ in 0..ticks {
        for id in cluster.ids() {
            cluster.step(id, Input::Tick);
        }
        loop {
            for id in cluster.ids() {
                while cluster.persist(id) || cluster.load(id) {}
            }
            if cluster.network.is_empty() {
                break;
            }
            if random.between(1, 1000) <= loss {
                cluster.network.remove(0);
            } else {
                cluster.deliver(0);
            }
        }
    }
}

fn seconds(cluster: &Cluster, seconds: u64) -> u32 {
    u32::try_from(seconds * 1000 / cluster.timing.tick_ms).expect("short")
}

#[test]
fn a_cluster_that_is_left_alone_keeps_its_leader_for_ten_minutes() {
    for (size, loss, changes) in [(3, 0, 0), (5, 0, 0), (3, 100, 1)] {
        let mut cluster = lan(size);
        let (start, run) = (seconds(&cluster, 5), seconds(&cluster, 600));
        pass(&mut cluster, start, 0);
        let leader = cluster.leader().expect("somebody leads");
        let before = cluster.raft(leader).state().hard_state.term;
        pass(&mut cluster, run, loss);
        let leader = cluster.leader().expect("somebody leads");
        let after = cluster.raft(leader).state().hard_state.term;
        let changed = after.0 - before.0;
        assert!(
            changed <= changes,
            "{changed} changes with {loss} of 1,000 lost"
        );
    }
}

/// Which of its links a node loses.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lost {
    All,
    Incoming,
    Outgoing,
    /// The leader's, in both directions; the others still hear it.
    ToLeader,
}

#[test]
fn a_node_that_was_cut_off_for_a_minute_disturbs_nobody() {
    for lost in [Lost::All, Lost::Incoming, Lost::Outgoing, Lost::ToLeader] {
        let mut cluster = lan(5);
        let (start, minute) = (seconds(&cluster, 5), seconds(&cluster, 60));
        pass(&mut cluster, start, 0);
        let leader = cluster.leader().expect("somebody leads");
        let node = NodeId(if leader == NodeId(5) { 4 } else { 5 });
        let term = cluster.raft(leader).state().hard_state.term;
        for other in cluster.ids() {
            if lost == Lost::ToLeader && other != leader {
                continue;
            }
            if lost != Lost::Outgoing {
                cluster.cut.insert((other, node));
            }
            if lost != Lost::Incoming {
                cluster.cut.insert((node, other));
            }
        }
        pass(&mut cluster, minute, 0);
        assert_eq!(cluster.raft(node).state().hard_state.term, term, "{lost:?}");
        cluster.propose(leader, "meanwhile");
        cluster.cut.clear();
        pass(&mut cluster, start, 0);
        let last = cluster.raft(leader).state().last.index;
        for id in cluster.ids() {
            let state = cluster.raft(id).state();
            let stands = (state.hard_state.term, state.leader, state.applied);
            assert_eq!(stands, (term, Some(leader), last), "{lost:?}, n{id}");
        }
    }
}

#[test]
fn a_leader_that_hears_nobody_gives_way() {
    // It is still heard, so nobody else would ever campaign.
    let mut cluster = lan(3);
    let start = seconds(&cluster, 5);
    pass(&mut cluster, start, 0);
    let deaf = cluster.leader().expect("somebody leads");
    for other in cluster.ids() {
        cluster.cut.insert((other, deaf));
    }
    let limit = cluster.timing.election_ticks_min + cluster.timing.election_ticks_max * 5;
    pass(&mut cluster, limit, 0);
    let leader = cluster.leader().expect("somebody leads");
    assert_ne!(leader, deaf);
    assert_ne!(cluster.raft(deaf).role(), Role::Leader);
}
