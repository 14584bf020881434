//! Section 15, the rules: one scripted test for each mistake that implementers of the labs made and
//! the course's tests do not find.

use std::collections::BTreeSet;

use raft_core::message::{
    Append, AppendReply, Conflict, Heartbeat, HeartbeatReply, PreVote, PreVoteReply, Vote,
    VoteReply,
};
use raft_core::protocol::{Input, Tally, held_by_majority, majority, tally};
use raft_core::{Envelope, Index, Limits, LogId, Message, NodeId, Role, Term};

use crate::harness::{Bench, Disk, entries, entry, id};

fn append(base: LogId, commit: u64, entries: Vec<raft_core::Entry>) -> Message {
    Message::Append(Append {
        base,
        commit: Index(commit),
        entries,
    })
}

fn vote(last: LogId) -> Message {
    Message::Vote(Vote {
        last,
        is_transfer: false,
    })
}

fn heartbeat(commit: u64) -> Message {
    Message::Heartbeat(Heartbeat {
        commit: Index(commit),
        round: 0,
        is_last: false,
    })
}

/// Whether some of these grants a vote.
fn granted(said: &[Envelope]) -> bool {
    said.iter().any(|envelope| match &envelope.message {
        Message::VoteReply(reply) => reply.granted,
        _ => false,
    })
}

/// NEW-double-vote (W6: none of the course's tests finds a node that forgets its vote). C votes for
/// A in a term and loses power: before the vote is on the disk, behind that but before the answer
/// left, or behind that. Then B asks in the same term: C refuses, unless nothing was ever said.
#[test]
fn double_vote() {
    for count in [3, 5] {
        let c = NodeId(count);
        for moment in ["before persist", "before reply", "after reply"] {
            let mut bench = Bench::running(count, &[1, 1]);
            let from_a = bench.envelope(1, c.0, 2, vote(id(1, 2)));
            let from_b = bench.envelope(2, c.0, 2, vote(id(1, 2)));
            bench.say(from_a.clone());
            assert!(bench.wire.is_empty(), "a vote leaves after it is durable");
            let said = match moment {
                "before persist" => Vec::new(),
                "before reply" => {
                    while bench.persist_silently(c).is_some() {}
                    Vec::new()
                }
                _ => {
                    bench.persist_all(c);
                    std::mem::take(&mut bench.wire)
                }
            };
            assert_eq!(granted(&said), moment == "after reply");
            bench.reboot(c);
            bench.say(from_b);
            bench.persist_all(c);
            let answers = std::mem::take(&mut bench.wire);
            let is_free = moment == "before persist";
            assert_eq!(
                granted(&answers),
                is_free,
                "{count} nodes, power lost {moment}"
            );
            // A repetition of the first question gets the same answer as ever.
            bench.say(from_a);
            bench.persist_all(c);
            assert_eq!(granted(&bench.wire), !is_free);
        }
    }
}

/// NEW-double-vote, the candidate's side: it has voted for itself, so that it refuses whoever else
/// asks in its own term, also after a loss of power. And its question leaves only after that vote
/// is on the disk.
#[test]
fn double_vote_of_a_candidate() {
    for count in [3, 5] {
        let mut bench = Bench::running(count, &[1, 1]);
        let own = NodeId(1);
        while bench.state(own).role != Role::PreCandidate {
            bench.tick(own, 1);
        }
        let next_term = bench.state(own).hard_state.term.next();
        bench.wire.clear();
        for voter in 2..=count {
            let message = Message::PreVoteReply(PreVoteReply {
                next_term,
                granted: true,
            });
            let reply = bench.envelope(voter, 1, 1, message);
            bench.say(reply);
        }
        assert_eq!(bench.state(own).role, Role::Candidate);
        let asks = |envelope: &Envelope| matches!(envelope.message, Message::Vote(_));
        assert!(
            !bench.wire.iter().any(asks),
            "it asks before its own vote is durable"
        );
        while let Some(persisted) = bench.persist_silently(own) {
            bench.wire.extend(persisted.said);
        }
        assert!(bench.wire.iter().any(asks));
        for _ in 0..2 {
            let question = bench.envelope(2, 1, next_term.0, vote(id(1, 9)));
            bench.say(question);
            bench.wire.clear();
            bench.persist_all(own);
            assert!(!granted(&bench.wire), "{count} nodes");
            bench.reboot(own);
        }
    }
}

/// All orders of these messages, each up to so many times.
fn orders(counts: &[usize]) -> Vec<Vec<usize>> {
    let total: usize = counts.iter().sum();
    let mut all = vec![Vec::new()];
    for _ in 0..total {
        let longer = all.iter().flat_map(|order: &Vec<usize>| {
            let left = |kind: usize| counts[kind] > order.iter().filter(|k| **k == kind).count();
            let kinds = (0..counts.len()).filter(move |kind| left(*kind));
            kinds.map(|kind| {
                let mut order = order.clone();
                order.push(kind);
                order
            })
        });
        all = longer.collect();
    }
    all
}

/// NEW-stale-append (S2-09): {1, 2} is sent, then {1, 2, 3}; the followers take the second first
/// and 3 commits; the leader dies; the late {1, 2} arrives. Here in all orders, with each message
/// up to twice and heartbeats between them, for both followers independently: the committed 3 is
/// there when a follower leads.
#[test]
fn stale_append() {
    let log = entries(&[1, 1, 1]);
    let messages = [
        append(LogId::ZERO, 0, log[..2].to_vec()),
        append(LogId::ZERO, 0, log.clone()),
        heartbeat(0),
        // Said once 3 was acknowledged.
        heartbeat(3),
    ];
    let is_honest = |order: &Vec<usize>| {
        let long = order.iter().position(|kind| *kind == 1);
        let commits = order.iter().position(|kind| *kind == 3);
        commits.is_none() || long < commits
    };
    let orders: Vec<_> = orders(&[2, 2, 1, 1])
        .into_iter()
        .filter(is_honest)
        .collect();
    let boot = |bench: &mut Bench| {
        for follower in [2, 3] {
            let disk = Disk::with_log(Vec::new(), 1);
            bench.boot(NodeId(follower), disk);
        }
    };
    let run = |bench: &mut Bench, follower: u64, order: &[usize]| {
        for kind in order {
            let envelope = bench.envelope(1, follower, 1, messages[*kind].clone());
            bench.say(envelope);
            bench.persist_all(NodeId(follower));
        }
        assert_eq!(bench.state(NodeId(follower)).last, id(1, 3), "{order:?}");
    };
    for (number, order) in orders.iter().enumerate() {
        let mut bench = Bench::new(3);
        boot(&mut bench);
        run(&mut bench, 2, order);
        // The other one in another order; over all of them every order comes up with some other.
        run(&mut bench, 3, &orders[(number * 7 + 3) % orders.len()]);
        bench.wire.clear();
        bench.elect(2, &[2, 3]);
        bench.settle(&[2, 3]);
        for node in [2, 3] {
            assert_eq!(bench.on_disk(node, 3), Some(id(1, 3)), "{order:?}");
        }
    }
    assert!(orders.len() > 100);
}

/// NEW-commit-clamp: a follower has a suffix that diverged. An append that matches before it, with
/// a high commit index, commits no further than what it verified (figure 2, rule 5 for receivers);
/// and a leader's heartbeat, which verifies nothing, claims no more than is known to match.
#[test]
fn commit_clamp() {
    for (sent, expected) in [(0, 2), (1, 3)] {
        let mut bench = Bench::new(3);
        let follower = NodeId(2);
        bench.boot(follower, Disk::with_log(entries(&[1, 1, 2, 2, 2]), 3));
        let new: Vec<_> = (3..3 + sent).map(|index| entry(3, index)).collect();
        let envelope = bench.envelope(1, 2, 3, append(id(1, 2), 5, new));
        bench.say(envelope);
        bench.persist_all(follower);
        assert_eq!(bench.state(follower).commit, Index(expected));
    }
    let mut bench = Bench::new(3);
    for node in [1, 2] {
        bench.boot(NodeId(node), Disk::with_log(entries(&[1, 1, 3]), 3));
    }
    bench.boot(NodeId(3), Disk::with_log(entries(&[1, 1, 2, 2, 2]), 3));
    bench.elect(1, &[1, 2]);
    bench.settle(&[1, 2]);
    assert!(bench.state(NodeId(1)).commit >= Index(4));
    bench.tick(NodeId(1), 10);
    for envelope in bench.take(|envelope| envelope.to == NodeId(3)) {
        if let Message::Heartbeat(heartbeat) = &envelope.message {
            assert_eq!(heartbeat.commit, Index(0), "nothing is known to match");
        }
        bench.say(envelope);
    }
    assert_eq!(bench.state(NodeId(3)).commit, Index(0));
}

/// What n1 knows n3 to hold.
fn matched(bench: &Bench) -> Index {
    let state = bench.state(NodeId(1));
    let found = state.matched.iter().find(|(id, _)| *id == NodeId(3));
    found.expect("it leads").1
}

/// NEW-match: acknowledgements in the wrong order, and again. What is known to match never falls,
/// and comes from what was acknowledged, not from how long the log is by now.
#[test]
fn match_never_falls() {
    let limits = Limits {
        append_entries_max: 1,
        ..Limits::default()
    };
    let mut bench = Bench::with_limits(3, limits);
    for node in bench.ids() {
        bench.boot(node, Disk::default());
    }
    bench.elect(1, &[1, 2, 3]);
    bench.settle(&[1, 2, 3]);
    let begun = matched(&bench);
    for value in ["a", "b", "c", "d"] {
        bench.propose(NodeId(1), value);
    }
    bench.persist_all(NodeId(1));
    for envelope in bench.take(|envelope| envelope.to == NodeId(3)) {
        bench.say(envelope);
        bench.persist_all(NodeId(3));
    }
    let mut replies = bench.take(|envelope| envelope.from == NodeId(3));
    replies.retain(|envelope| matches!(envelope.message, Message::AppendReply(_)));
    assert_eq!(replies.len(), 4, "one entry each");
    for (reply, expected) in [(1, 2), (0, 2), (3, 4), (2, 4), (0, 4), (3, 4)] {
        let envelope = replies[reply].clone();
        bench.say(envelope);
        assert_eq!(matched(&bench), begun.plus(expected));
    }
}

/// NEW-old-term-reply: a node leads, another one takes its place and its entries, and it leads
/// again. An acknowledgement of its first time counts nothing, although the entry at that index is
/// another one by now.
#[test]
fn old_term_reply() {
    let everybody = [1, 2, 3, 4, 5];
    let mut bench = Bench::running(5, &[1]);
    bench.elect(1, &everybody);
    bench.settle(&everybody);
    bench.propose(NodeId(1), "old");
    bench.persist_all(NodeId(1));
    // Only n3 gets it, and what it says is late.
    for envelope in bench.take(|envelope| envelope.to == NodeId(3)) {
        bench.say(envelope);
        bench.persist_all(NodeId(3));
    }
    let accepted = |envelope: &Envelope| match envelope.message {
        Message::AppendReply(AppendReply::Accepted { matched }) => Some(matched),
        _ => None,
    };
    let late = bench.take(|envelope| accepted(envelope).is_some());
    let claimed = late.iter().filter_map(accepted).max();
    let claimed = claimed.expect("it was acknowledged");
    bench.elect(2, &[2, 4, 5]);
    for _ in 0..3 {
        bench.tick(NodeId(2), 10);
        bench.settle(&everybody);
    }
    assert_ne!(
        bench.on_disk(3, claimed.0).expect("overwritten").term,
        late[0].term
    );
    bench.elect(1, &[1, 4, 5]);
    bench.settle(&[1, 4, 5]);
    let before = bench.state(NodeId(1));
    assert!(before.hard_state.term > late[0].term && before.last.index >= claimed);
    assert!(
        matched(&bench) < claimed,
        "n3 has not been heard in this term"
    );
    for envelope in late {
        bench.say(envelope);
        assert_eq!(bench.state(NodeId(1)), before);
    }
}

/// NEW-quorum (W5, S0-12): the commit rule and the counting of votes, for 1 to 9 voters, against
/// counting by hand. Joint majorities are checked against brute force beside their arithmetic, in
/// `raft-core/src/protocol/quorum.rs`.
#[test]
fn quorum() {
    for voters in 1..=9_usize {
        let values: u64 = if voters <= 5 { 5 } else { 3 };
        for number in 0..values.pow(u32::try_from(voters).expect("small")) {
            let digit = |place: usize| number / values.pow(place as u32) % values;
            let held: Vec<_> = (0..voters).map(digit).map(Index).collect();
            let by_hand = (0..values).rev().map(Index).find(|index| {
                let holders = held.iter().filter(|has| *has >= index).count();
                holders * 2 > voters
            });
            let found = held_by_majority(&mut held.clone());
            assert_eq!(Some(found), by_hand, "{held:?}");
        }
        for number in 0..3_usize.pow(u32::try_from(voters).expect("small")) {
            let answer = |voter: usize| match number / 3_usize.pow(voter as u32) % 3 {
                0 => None,
                1 => Some(false),
                _ => Some(true),
            };
            let all: Vec<_> = (0..voters).collect();
            let count = |wanted| all.iter().filter(|v| answer(**v) == wanted).count();
            let (yes, no) = (count(Some(true)), count(Some(false)));
            let by_hand = if yes * 2 > voters {
                Tally::Won
            } else if (voters - no) * 2 <= voters {
                Tally::Lost
            } else {
                Tally::Pending
            };
            assert_eq!(tally(&all, answer), by_hand);
        }
        assert!(majority(voters) * 2 > voters && (majority(voters) - 1) * 2 <= voters);
    }
}

/// The logs of paper figure 8, state (b): n1 and n2 have an entry of term 2 that n1 led, n5 has one
/// of term 3 at the same index.
fn figure_8_b() -> Bench {
    let limits = Limits {
        append_entries_max: 1,
        ..Limits::default()
    };
    let mut bench = Bench::with_limits(5, limits);
    for node in [1, 2] {
        bench.boot(NodeId(node), Disk::with_log(entries(&[1, 2]), 2));
    }
    for node in [3, 4] {
        bench.boot(NodeId(node), Disk::with_log(entries(&[1]), 3));
    }
    bench.boot(NodeId(5), Disk::with_log(entries(&[1, 3]), 3));
    bench
}

/// Whether an append carries this index.
fn carries(envelope: &Envelope, index: u64) -> bool {
    match &envelope.message {
        Message::Append(append) => append.entries.iter().any(|e| e.index() == Index(index)),
        _ => false,
    }
}

/// NEW-fig8: paper figure 8, step by step. (c): n1 leads term 4 and brings its entry of term 2 to a
/// majority; it is not committed by that. (d): n5 leads and removes it, which was allowed. (e): had
/// n1 brought an entry of its own term to a majority, both would be committed and n5 would not win.
#[test]
fn fig8() {
    let state_c = || {
        let mut bench = figure_8_b();
        // Whatever is of term 4 is lost, so only the old entry travels.
        assert!(bench.campaign(1, &[1, 2, 3], |envelope| carries(envelope, 3)));
        bench.settle_but(&[1, 2, 3], |envelope| carries(envelope, 3));
        let state = bench.state(NodeId(1));
        assert!(state.hard_state.term >= Term(4));
        for node in [1, 2, 3] {
            assert_eq!(bench.on_disk(node, 2), Some(id(2, 2)), "n{node}");
        }
        assert_eq!(bench.on_disk(2, 3), None);
        assert!(state.commit < Index(2), "committed by counting");
        bench
    };
    let mut d = state_c();
    d.elect(5, &[2, 3, 4, 5]);
    for _ in 0..3 {
        d.tick(NodeId(5), 10);
        d.settle(&[2, 3, 4, 5]);
    }
    for node in 2..=5 {
        assert_eq!(d.on_disk(node, 2), Some(id(3, 2)), "n{node}");
    }
    let mut e = state_c();
    for _ in 0..10 {
        e.tick(NodeId(1), 10);
        e.settle(&[1, 2, 3]);
    }
    let commit = e.state(NodeId(1)).commit;
    assert!(commit >= Index(3), "its own entry commits the old one");
    assert!(
        !e.campaign(5, &[2, 3, 4, 5], |_| false),
        "n5 lacks what is committed"
    );
    e.elect(2, &[2, 3, 4, 5]);
    e.settle(&[2, 3, 4, 5]);
    for node in 2..=5 {
        assert_eq!(e.on_disk(node, 2), Some(id(2, 2)), "n{node}");
    }
}

/// Whether a message restarts the deadline of a follower in term 2, with the log 1 2, that knows no
/// leader.
fn restarts(term: u64, message: &Message) -> bool {
    let mut bench = Bench::new(3);
    bench.timing.election_ticks_min = 30;
    bench.timing.election_ticks_max = 31;
    let node = NodeId(1);
    bench.boot(node, Disk::with_log(entries(&[1, 2]), 2));
    bench.tick(node, 29);
    assert_eq!(bench.state(node).role, Role::Follower);
    let envelope = bench.envelope(2, 1, term, message.clone());
    bench.say(envelope);
    bench.tick(node, 2);
    bench.state(node).role == Role::Follower
}

/// NEW-timer (S0-05, S3-16): the deadline is restarted by a leader of the term and by a vote that
/// is given, and by nothing else: not by a higher term as such, not by a vote that is refused, not
/// by any answer, and not by a question that changes nothing. The table says so for terms that are
/// older, the same and newer.
#[test]
fn timer() {
    let rejected = AppendReply::Rejected {
        base: id(1, 1),
        conflict: Conflict::default(),
        last: LogId::ZERO,
    };
    let pre_vote = |next_term| {
        Message::PreVote(PreVote {
            next_term: Term(next_term),
            last: id(2, 9),
        })
    };
    let never = [false, false, false];
    let table = [
        (heartbeat(0), [false, true, true]),
        (append(id(1, 1), 0, Vec::new()), [false, true, true]),
        // It is rejected, but a leader spoke.
        (append(id(1, 7), 0, Vec::new()), [false, true, true]),
        // Granted.
        (vote(id(2, 2)), [false, true, true]),
        (vote(id(2, 9)), [false, true, true]),
        // Refused: shorter, and of an older term.
        (vote(id(2, 1)), never),
        (vote(id(1, 9)), never),
        (pre_vote(9), never),
        (
            Message::PreVoteReply(PreVoteReply {
                next_term: Term(3),
                granted: true,
            }),
            never,
        ),
        (
            Message::VoteReply(VoteReply {
                granted: true,
                last: id(2, 2),
            }),
            never,
        ),
        (
            Message::AppendReply(AppendReply::Accepted { matched: Index(1) }),
            never,
        ),
        (Message::AppendReply(rejected), never),
        (
            Message::HeartbeatReply(HeartbeatReply {
                round: 0,
                is_refilling: false,
            }),
            never,
        ),
    ];
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

/// A rejected append changes nothing (S3-06), and neither does one of an older term.
#[test]
fn rejected_append_changes_nothing() {
    let follower = NodeId(2);
    for (term, message) in [
        (3, append(id(3, 5), 5, vec![entry(3, 6)])),
        (3, append(id(3, 2), 5, vec![entry(3, 3)])),
        (2, append(id(1, 1), 5, vec![entry(2, 2)])),
    ] {
        let mut bench = Bench::new(3);
        bench.boot(follower, Disk::with_log(entries(&[1, 1, 2]), 3));
        let before = bench.state(follower);
        let envelope = bench.envelope(1, 2, term, message);
        bench.say(envelope);
        bench.persist_all(follower);
        let after = bench.state(follower);
        assert_eq!((after.last, after.commit), (before.last, before.commit));
        assert_eq!(bench.node(follower).disk.entries, entries(&[1, 1, 2]));
    }
}

/// A leader's log and a follower's that parted 50 terms ago and have 10,000 entries since.
pub(crate) fn parted() -> (Vec<u64>, Vec<u64>) {
    let (mut leader, mut follower) = (vec![1; 100], vec![1; 100]);
    for term in 2..102 {
        let log = if term % 2 == 0 {
            &mut follower
        } else {
            &mut leader
        };
        log.extend(vec![term; 200]);
    }
    (leader, follower)
}

/// NEW-backtrack (S3-13): a follower with 10,000 entries of 50 terms that are all wrong costs at
/// most 52 round trips before the first right entry is sent to it; one entry for each trip would be
/// 10,000.
#[test]
fn backtrack() {
    let (leader, follower) = parted();
    let mut bench = Bench::new(3);
    for node in [1, 2] {
        bench.boot(NodeId(node), Disk::with_log(entries(&leader), 101));
    }
    bench.boot(NodeId(3), Disk::with_log(entries(&follower), 101));
    bench.elect(1, &[1, 2]);
    bench.settle(&[1, 2]);
    catch_up(&mut bench);
    let sent = bench.node(NodeId(1)).sent[&NodeId(3)];
    assert!(sent.probes <= 52, "{sent:?}");
    assert_eq!(
        bench.node(NodeId(3)).disk.entries,
        bench.node(NodeId(1)).disk.entries
    );
}

/// Lets n1 bring n3 into step.
pub(crate) fn catch_up(bench: &mut Bench) {
    for _ in 0..200 {
        bench.settle(&[1, 2, 3]);
        bench.deliver_snapshots(NodeId(1));
        bench.settle(&[1, 2, 3]);
        if bench.node(NodeId(3)).disk.last() == bench.node(NodeId(1)).disk.last() {
            return;
        }
        bench.tick(NodeId(1), 1);
    }
    panic!("n3 ends at {}", bench.node(NodeId(3)).disk.last());
}

/// NEW-backtrack at the boundary: the leader has compacted its log. Where the logs part at or above
/// the boundary entries are enough; where they part below it a snapshot is sent, after at most as
/// many round trips.
#[test]
fn backtrack_at_the_boundary() {
    let (leader, follower) = parted();
    // The place of the last common entry is 100.
    for (boundary, snapshots) in [(99, 0), (100, 0), (101, 1), (5_000, 1)] {
        let mut bench = Bench::new(3);
        let log = entries(&leader);
        let last = log[boundary - 1].id();
        for node in [1, 2] {
            let disk = Disk::with_snapshot(&bench, last, log[boundary..].to_vec());
            bench.boot(NodeId(node), disk);
        }
        bench.boot(NodeId(3), Disk::with_log(entries(&follower), 101));
        bench.elect(1, &[1, 2]);
        bench.settle(&[1, 2]);
        catch_up(&mut bench);
        let sent = bench.node(NodeId(1)).sent[&NodeId(3)];
        assert!(sent.probes <= 52, "boundary {boundary}: {sent:?}");
        let state = bench.state(NodeId(1));
        let began = state.counters.snapshots_sent;
        assert_eq!(began, snapshots, "boundary {boundary}");
    }
}

/// NEW-inflight (S0-14, S3-25): a follower that answers heartbeats and no append, and 10,000
/// proposals: what is on the way to it stays within the window, in messages and bytes, and nothing
/// is sent again and again.
#[test]
fn inflight() {
    let limits = Limits {
        inflight_messages_max: 4,
        inflight_bytes_max: 64 << 10,
        ..Limits::default()
    };
    let mut bench = Bench::with_limits(3, limits);
    for node in bench.ids() {
        bench.boot(node, Disk::default());
    }
    bench.elect(1, &[1, 2, 3]);
    bench.settle(&[1, 2, 3]);
    let before = bench.node(NodeId(1)).sent[&NodeId(3)];
    let is_slow = |envelope: &Envelope| {
        envelope.from == NodeId(3) && matches!(envelope.message, Message::AppendReply(_))
    };
    let mut on_the_way = 0;
    for number in 0..10_000_u32 {
        bench.propose(NodeId(1), "a command of some bytes");
        if number % 16 == 0 {
            bench.settle_but(&[1, 2, 3], is_slow);
            on_the_way = bench.node(NodeId(1)).sent[&NodeId(3)].appends - before.appends;
            assert!(on_the_way <= 4, "{on_the_way} appends on the way");
        }
    }
    bench.settle_but(&[1, 2, 3], is_slow);
    assert!(on_the_way > 0);
    assert_eq!(
        bench.state(NodeId(1)).commit,
        bench.state(NodeId(1)).last.index
    );
    // As time passes the window is tried again, at the pace of heartbeats and not of proposals.
    for _ in 0..10 {
        bench.tick(NodeId(1), 10);
        bench.settle_but(&[1, 2, 3], is_slow);
    }
    let sent = bench.node(NodeId(1)).sent[&NodeId(3)];
    assert!(sent.appends - before.appends <= 4 * 4, "{sent:?}");
    assert!(sent.probes - before.probes <= 20, "{sent:?}");
}

/// NEW-n2 (S2-08): 200 proposals, one after the other, while nothing is acknowledged: each entry
/// is sent once to each follower, at most 1.2 times with what is sent again; not n squared.
#[test]
fn n2() {
    for settle_every in [1, 7, 50, 200] {
        let mut bench = Bench::running(3, &[]);
        bench.elect(1, &[1, 2, 3]);
        bench.settle(&[1, 2, 3]);
        let before = bench.node(NodeId(1)).sent.clone();
        for number in 1..=200 {
            bench.propose(NodeId(1), "a command");
            if number % settle_every == 0 {
                bench.settle(&[1, 2, 3]);
            }
        }
        bench.settle(&[1, 2, 3]);
        for follower in [NodeId(2), NodeId(3)] {
            let sent = bench.node(NodeId(1)).sent[&follower].entries - before[&follower].entries;
            assert!(
                (200..=240).contains(&sent),
                "{sent} entries for 200 proposals"
            );
        }
    }
}

/// NEW-empty-tail (S2-03): a node whose log is a snapshot and nothing behind it knows the term of
/// the snapshot's last entry: an append at the boundary matches with that term only, and a vote is
/// given to a log that is at least as new as the snapshot's end only.
#[test]
fn empty_tail() {
    let node = NodeId(2);
    let boot = || {
        let mut bench = Bench::new(3);
        let mut disk = Disk::with_snapshot(&bench, id(3, 10), Vec::new());
        disk.hard_state.term = Term(4);
        bench.boot(node, disk);
        assert_eq!(bench.state(node).last, id(3, 10));
        bench
    };
    // The right term: what follows is taken.
    let mut bench = boot();
    let envelope = bench.envelope(1, 2, 4, append(id(3, 10), 10, vec![entry(4, 11)]));
    bench.say(envelope);
    bench.persist_all(node);
    assert_eq!(bench.node(node).disk.last(), id(4, 11));
    let accepted = |envelope: &Envelope| {
        matches!(
            envelope.message,
            Message::AppendReply(AppendReply::Accepted { .. })
        )
    };
    assert!(bench.wire.iter().any(accepted));
    // Beyond the boundary: rejected, with a hint that names it.
    let mut bench = boot();
    let envelope = bench.envelope(1, 2, 4, append(id(4, 12), 10, vec![entry(4, 13)]));
    bench.say(envelope);
    bench.persist_all(node);
    assert_eq!(bench.node(node).disk.last(), id(3, 10));
    assert!(!bench.wire.iter().any(accepted));
    for (last, gives) in [
        (id(3, 10), true),
        (id(3, 11), true),
        (id(4, 1), true),
        (id(3, 9), false),
        (id(2, 99), false),
    ] {
        let mut bench = boot();
        let envelope = bench.envelope(1, 2, 5, vote(last));
        bench.say(envelope);
        bench.persist_all(node);
        assert_eq!(granted(&bench.wire), gives, "a vote for {last}");
    }
}

/// NEW-empty-tail, the wrong term at the boundary: no leader can have that, because the boundary is
/// committed; it is refused as malformed and changes nothing.
#[test]
#[should_panic(expected = "refused")]
fn empty_tail_of_a_wrong_term() {
    let mut bench = Bench::new(3);
    let disk = Disk::with_snapshot(&bench, id(3, 10), Vec::new());
    bench.boot(NodeId(2), disk);
    let envelope = bench.envelope(1, 2, 4, append(id(2, 10), 10, vec![entry(4, 11)]));
    bench.say(envelope);
}

/// Fault class N1: every message of an election, of replication and of a step-down comes three
/// times: nobody votes twice, no log differs, and nothing is counted twice.
#[test]
fn everything_comes_three_times() {
    let mut bench = Bench::running(5, &[1, 1]);
    let mut leaders = BTreeSet::new();
    for leader in [1, 3, 5, 1] {
        bench.elect(leader, &[1, 2, 3, 4, 5]);
        leaders.insert((bench.state(NodeId(leader)).hard_state.term, leader));
        for round in 0..5 {
            bench.propose(NodeId(leader), &format!("{leader}.{round}"));
            for node in bench.ids() {
                bench.persist_all(node);
            }
            for _ in 0..3 {
                let wire = std::mem::take(&mut bench.wire);
                for envelope in wire {
                    bench.say(envelope.clone());
                    bench.say(envelope.clone());
                    bench.say(envelope);
                }
                for node in bench.ids() {
                    bench.persist_all(node);
                }
            }
            bench.wire.clear();
        }
        bench.tick(NodeId(leader), 10);
        bench.settle(&[1, 2, 3, 4, 5]);
        bench.tick(NodeId(leader), 10);
        bench.settle(&[1, 2, 3, 4, 5]);
        let log = &bench.node(NodeId(leader)).disk.entries;
        for node in bench.ids() {
            assert_eq!(&bench.node(node).disk.entries, log, "n{node}");
        }
    }
    let terms: BTreeSet<_> = leaders.iter().map(|(term, _)| *term).collect();
    assert_eq!(terms.len(), leaders.len(), "one leader per term");
}

/// A tick more than nothing: a node that is alone in its group leads at once and commits alone.
#[test]
fn one_node_commits_alone() {
    let mut bench = Bench::running(1, &[1]);
    bench.elect(1, &[1]);
    bench.propose(NodeId(1), "alone");
    let last = bench.state(NodeId(1)).last.index;
    assert!(
        bench.state(NodeId(1)).commit < last,
        "not before it is durable"
    );
    bench.settle(&[1]);
    assert_eq!(bench.state(NodeId(1)).commit, last);
    bench.step(NodeId(1), Input::Tick);
}
