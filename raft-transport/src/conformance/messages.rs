//! Messages: they arrive, in two lanes, and what cannot arrive is an error and never a hang.

use std::collections::BTreeSet;
use std::time::Duration;

use raft_core::message::{
    AppendReply, Conflict, Heartbeat, HeartbeatReply, PreVote, PreVoteReply, ReadIndex,
    ReadIndexReply, Vote, VoteReply,
};
use raft_core::{Index, LogId, Message, NodeId, SendError, Term};
use tokio::time::timeout;

use super::support::{
    Fixture, Node, ONE, THREE, TWO, append, heartbeat, message, pair, wait_for_link, within,
};

/// Runs the checks of this file.
pub(super) async fn run<F: Fixture>(fixture: impl Fn() -> F) {
    every_kind_of_message_arrives_unchanged(&fixture()).await;
    all_nodes_hear_each_other(&fixture()).await;
    a_large_append_arrives(&fixture()).await;
    many_messages_arrive_in_both_lanes(&fixture()).await;
    a_stuck_bulk_lane_does_not_delay_control(&fixture()).await;
    an_unknown_peer_is_an_error(&fixture()).await;
    a_closed_transport_says_so(&fixture()).await;
    a_restarted_peer_is_reached_again(&fixture()).await;
    a_dead_peer_is_an_error_and_never_a_hang(&fixture()).await;
    a_cancelled_recv_loses_nothing(&fixture()).await;
}

fn one_of_each_kind() -> Vec<Message> {
    let id = |term, index| LogId::new(Term(term), Index(index));
    vec![
        Message::PreVote(PreVote {
            next_term: Term(4),
            last: id(2, 9),
        }),
        Message::PreVoteReply(PreVoteReply {
            next_term: Term(4),
            granted: true,
        }),
        Message::Vote(Vote {
            last: id(2, 9),
            is_transfer: false,
        }),
        Message::Vote(Vote {
            last: id(2, 9),
            is_transfer: true,
        }),
        Message::VoteReply(VoteReply {
            granted: false,
            last: id(3, 1),
        }),
        append(9, 0, 0),
        append(9, 3, 100),
        Message::AppendReply(AppendReply::Accepted { matched: Index(12) }),
        Message::AppendReply(AppendReply::Rejected {
            base: id(2, 9),
            conflict: Conflict {
                term: Term(1),
                first: Index(3),
                last: Index(6),
            },
            last: id(1, 6),
        }),
        Message::AppendReply(AppendReply::NoRoom { matched: Index(12) }),
        Message::RefillReply(AppendReply::Accepted { matched: Index(12) }),
        heartbeat(17),
        Message::Heartbeat(Heartbeat {
            commit: Index(5),
            round: 18,
            is_last: true,
        }),
        Message::HeartbeatReply(HeartbeatReply {
            round: 17,
            is_refilling: false,
        }),
        Message::HeartbeatReply(HeartbeatReply {
            round: 17,
            is_refilling: true,
        }),
        Message::TimeoutNow,
        Message::ReadIndex(ReadIndex { number: 3 }),
        Message::ReadIndexReply(ReadIndexReply {
            number: 3,
            index: Some(Index(12)),
        }),
        Message::ReadIndexReply(ReadIndexReply {
            number: 4,
            index: None,
        }),
    ]
}

async fn every_kind_of_message_arrives_unchanged(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    for message in one_of_each_kind() {
        let sent = fixture.envelope(ONE, TWO, message);
        one.transport.send(TWO, sent.clone()).await.expect("sent");
        let what = sent.message.name();
        within(what, two.next_matching(|found| *found == sent)).await;
    }
}

async fn all_nodes_hear_each_other(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    let three = Node::start(fixture, THREE).await;
    let nodes = [&one, &two, &three];
    for from in nodes {
        for to in nodes {
            if from.id != to.id {
                wait_for_link(fixture, from, to).await;
            }
        }
    }
}

async fn a_large_append_arrives(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    let sent = fixture.envelope(ONE, TWO, append(100, 8, 1 << 20));
    let send = async { one.transport.send(TWO, sent.clone()).await.expect("sent") };
    let receive = two.next_matching(|found| found.message.entry_bytes() > 0);
    let ((), received) = within("8 MiB of entries", async { tokio::join!(send, receive) }).await;
    assert!(received == sent, "the entries are others");
}

async fn many_messages_arrive_in_both_lanes(fixture: &dyn Fixture) {
    const COUNT: u64 = 3_000;
    let (one, two) = pair(fixture).await;
    let control = async {
        for round in 0..COUNT {
            let envelope = fixture.envelope(ONE, TWO, heartbeat(round));
            one.transport.send(TWO, envelope).await.expect("sent");
        }
    };
    let bulk = async {
        for base in 0..COUNT {
            let envelope = fixture.envelope(ONE, TWO, append(base, 2, 30));
            one.transport.send(TWO, envelope).await.expect("sent");
        }
    };
    let receive = async {
        let (mut rounds, mut bases) = (BTreeSet::new(), BTreeSet::new());
        while rounds.len() + bases.len() < 2 * COUNT as usize {
            match message(two.transport.recv().await).message {
                Message::Heartbeat(Heartbeat { round, .. }) if round < COUNT => {
                    rounds.insert(round);
                }
                Message::Append(append) if append.base.index.0 < COUNT => {
                    assert_eq!(append.entries.len(), 2);
                    bases.insert(append.base.index.0);
                }
                _ => {} // A late probe.
            }
        }
    };
    within("all messages", async {
        tokio::join!(control, bulk, receive)
    })
    .await;
}

async fn a_stuck_bulk_lane_does_not_delay_control(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    // Nobody receives, so at some point the lane takes no more.
    let mut sent = 0_u32;
    let envelope = fixture.envelope(ONE, TWO, append(0, 1, 1 << 20));
    while let Ok(result) = timeout(
        Duration::from_millis(500),
        one.transport.send(TWO, envelope.clone()),
    )
    .await
    {
        result.expect("sent");
        sent += 1;
        assert!(sent < 10_000, "the bulk lane has no bound");
    }
    let vote = fixture.envelope(ONE, TWO, heartbeat(1));
    within("control is sent", one.transport.send(TWO, vote.clone()))
        .await
        .expect("sent");
    let mut bulk_before = 0;
    within("control arrives", async {
        while message(two.transport.recv().await) != vote {
            bulk_before += 1;
            // Entries are taken slowly; control must not wait for them.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(
        bulk_before <= sent / 2,
        "control came behind {bulk_before} of {sent} messages with entries"
    );
}

async fn an_unknown_peer_is_an_error(fixture: &dyn Fixture) {
    let one = Node::start(fixture, ONE).await;
    let nobody = NodeId(99);
    let envelope = fixture.envelope(ONE, nobody, heartbeat(1));
    let result = within("an answer", one.transport.send(nobody, envelope)).await;
    assert_eq!(result, Err(SendError::UnknownPeer(nobody)));
}

async fn a_closed_transport_says_so(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    let waiting = async {
        // What arrived before may still come out, or not.
        while two.transport.recv().await.is_some() {}
    };
    let close = async {
        tokio::task::yield_now().await;
        two.transport.close().await;
    };
    within("recv ends", async { tokio::join!(waiting, close) }).await;
    assert!(within("recv", two.transport.recv()).await.is_none());
    let envelope = fixture.envelope(TWO, ONE, heartbeat(1));
    let result = within("an answer", two.transport.send(ONE, envelope)).await;
    assert_eq!(result, Err(SendError::Closed));
    within("a second close", two.transport.close()).await;
    errors_come(fixture, &one, TWO).await;
}

/// Sends until a send fails; none may hang.
async fn errors_come(fixture: &dyn Fixture, from: &Node, to: NodeId) {
    within("an error", async {
        loop {
            let envelope = fixture.envelope(from.id, to, heartbeat(1));
            let sent = from.transport.send(to, envelope).await;
            if let Err(error) = sent {
                assert!(matches!(error, SendError::Unreachable { .. }), "{error}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn a_restarted_peer_is_reached_again(fixture: &dyn Fixture) {
    let (one, mut two) = pair(fixture).await;
    wait_for_link(fixture, &two, &one).await;
    for _ in 0..3 {
        fixture.kill(TWO).await;
        drop(two);
        two = Node::start(fixture, TWO).await;
        wait_for_link(fixture, &one, &two).await;
        wait_for_link(fixture, &two, &one).await;
    }
}

async fn a_dead_peer_is_an_error_and_never_a_hang(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    fixture.kill(TWO).await;
    drop(two);
    errors_come(fixture, &one, TWO).await;
    // From here on it is known, and known at once.
    let envelope = fixture.envelope(ONE, TWO, append(0, 1, 1 << 20));
    let result = within("an answer", one.transport.send(TWO, envelope)).await;
    assert!(matches!(result, Err(SendError::Unreachable { .. })));
}

async fn a_cancelled_recv_loses_nothing(fixture: &dyn Fixture) {
    const COUNT: u64 = 200;
    let (one, two) = pair(fixture).await;
    let send = async {
        for round in 0..COUNT {
            let envelope = fixture.envelope(ONE, TWO, heartbeat(round));
            one.transport.send(TWO, envelope).await.expect("sent");
            tokio::task::yield_now().await;
        }
    };
    let receive = async {
        let mut rounds = BTreeSet::new();
        while rounds.len() < COUNT as usize {
            // Given up after one look, again and again.
            let envelope = tokio::select! {
                biased;
                envelope = two.transport.recv() => message(envelope),
                () = tokio::task::yield_now() => continue,
            };
            if let Message::Heartbeat(Heartbeat { round, .. }) = envelope.message
                && round < COUNT
            {
                rounds.insert(round);
            }
        }
    };
    within("all messages", async { tokio::join!(send, receive) }).await;
}
