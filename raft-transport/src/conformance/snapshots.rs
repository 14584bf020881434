//! Snapshots: whole or resumed, refused, given up by either side, and beside messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use raft_core::message::Heartbeat;
use raft_core::snapshot::SNAPSHOT_PART_BYTES_MAX;
use raft_core::{IncomingSnapshot, Membership, Message, SendError, SnapshotStream};

use super::support::{Fixture, Node, ONE, Parts, THREE, TWO, heartbeat, pair, within};

/// Transfers that one link sees one after the other; more than it has streams.
const TRANSFERS: usize = 40;

/// Runs the checks of this file.
pub(super) async fn run<F: Fixture>(fixture: impl Fn() -> F) {
    a_snapshot_arrives_whole(&fixture()).await;
    a_snapshot_is_resumed_where_the_receiver_wants_it(&fixture()).await;
    a_refused_snapshot_comes_back_with_the_reason(&fixture()).await;
    a_receiver_that_drops_a_snapshot_ends_it(&fixture()).await;
    a_receiver_that_closes_midway_ends_it(&fixture()).await;
    a_sender_that_gives_up_ends_it(&fixture()).await;
    what_is_not_the_offered_snapshot_is_not_sent(&fixture()).await;
    a_snapshot_that_nobody_reads_holds_up_nothing(&fixture()).await;
    heartbeats_flow_while_a_large_snapshot_moves(&fixture()).await;
}

fn parts(fixture: &dyn Fixture, sizes: &[usize]) -> Parts {
    Parts::new(sizes, fixture.membership(&[ONE, TWO, THREE]))
}

async fn send(fixture: &dyn Fixture, from: &Node, parts: &Parts) -> Result<(), SendError> {
    let envelope = fixture.envelope(from.id, TWO, parts.offer());
    let content = parts.reader();
    within(
        "the transfer ends",
        from.transport.send_snapshot(TWO, envelope, content),
    )
    .await
}

async fn offer(at: &Node) -> IncomingSnapshot {
    within("an offer", at.next_offer()).await
}

async fn next(stream: &mut Box<dyn SnapshotStream>) -> Result<Option<Bytes>, SendError> {
    within("a part", stream.next_part()).await
}

/// Takes all parts from `first` on, compares them, and says that they are stored.
async fn receive(at: &Node, parts: &Parts, first: usize) -> IncomingSnapshotEnvelope {
    let IncomingSnapshot {
        envelope,
        mut stream,
    } = offer(at).await;
    stream.accept(first as u64).await.expect("accepted");
    let mut number = first;
    while let Some(part) = next(&mut stream).await.expect("a part or the end") {
        assert!(part == parts.part(number), "part {number} is another one");
        number += 1;
    }
    assert!(next(&mut stream).await.expect("still the end").is_none());
    stream.finish(Ok(())).await;
    IncomingSnapshotEnvelope { envelope, number }
}

struct IncomingSnapshotEnvelope {
    envelope: raft_core::Envelope,
    number: usize,
}

async fn a_snapshot_arrives_whole(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    for sizes in [
        &[][..],
        &[5],
        &[1_000, 0, 70_000, SNAPSHOT_PART_BYTES_MAX, 1],
    ] {
        let parts = parts(fixture, sizes);
        let (sent, received) = tokio::join!(send(fixture, &one, &parts), receive(&two, &parts, 0));
        sent.expect("stored");
        assert_eq!(received.envelope, fixture.envelope(ONE, TWO, parts.offer()));
        assert_eq!(received.number, sizes.len());
    }
}

async fn a_snapshot_is_resumed_where_the_receiver_wants_it(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    let parts = parts(fixture, &[10, 20, 30, 40, 50]);
    for first in [3, 5] {
        let before = parts.read();
        let (sent, received) =
            tokio::join!(send(fixture, &one, &parts), receive(&two, &parts, first));
        sent.expect("stored");
        assert_eq!(received.number, 5);
        assert_eq!(parts.read() - before, 5 - first as u64, "parts were read");
    }
    // There is no sixth.
    let take = async {
        let mut stream = offer(&two).await.stream;
        assert!(stream.accept(6).await.is_err());
    };
    let (sent, ()) = tokio::join!(send(fixture, &one, &parts), take);
    sent.expect_err("not stored");
}

async fn a_refused_snapshot_comes_back_with_the_reason(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    let parts = parts(fixture, &[1 << 20; 40]);
    let refuse = |accepted: Option<usize>| {
        let two = &two;
        async move {
            let mut stream = offer(two).await.stream;
            if let Some(count) = accepted {
                stream.accept(0).await.expect("accepted");
                for _ in 0..count {
                    next(&mut stream)
                        .await
                        .expect("a part")
                        .expect("not the end");
                }
            }
            stream.finish(Err("the disk is full".to_owned())).await;
        }
    };
    for accepted in [None, Some(0), Some(3), Some(40)] {
        let (sent, ()) = tokio::join!(send(fixture, &one, &parts), refuse(accepted));
        let why = "the disk is full".to_owned();
        assert_eq!(sent, Err(SendError::Refused { to: TWO, why }));
    }
}

async fn a_receiver_that_drops_a_snapshot_ends_it(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    let parts = parts(fixture, &[1 << 20; 40]);
    for count in 0..TRANSFERS {
        let take = async {
            let mut stream = offer(&two).await.stream;
            if count % 2 == 1 {
                stream.accept(0).await.expect("accepted");
                next(&mut stream).await.expect("a part");
            }
        };
        let (sent, ()) = tokio::join!(send(fixture, &one, &parts), take);
        assert!(
            matches!(sent, Err(SendError::Refused { to: TWO, .. })),
            "{sent:?}"
        );
    }
}

async fn a_receiver_that_closes_midway_ends_it(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    let parts = parts(fixture, &[1 << 20; 40]);
    let take = async {
        let mut stream = offer(&two).await.stream;
        stream.accept(0).await.expect("accepted");
        next(&mut stream).await.expect("a part");
        two.transport.close().await;
        // What had arrived may still be read; the rest never comes.
        while let Ok(part) = next(&mut stream).await {
            part.expect("not the end");
        }
    };
    let (sent, ()) = tokio::join!(send(fixture, &one, &parts), take);
    assert!(
        matches!(sent, Err(SendError::Unreachable { to: TWO, .. })),
        "{sent:?}"
    );
}

async fn a_sender_that_gives_up_ends_it(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    let many = parts(fixture, &[1 << 20; 40]);
    for _ in 0..TRANSFERS {
        let mut stream = tokio::select! {
            sent = send(fixture, &one, &many) => panic!("it ended: {sent:?}"),
            stream = async {
                let mut stream = offer(&two).await.stream;
                stream.accept(0).await.expect("accepted");
                next(&mut stream).await.expect("a part");
                stream
            } => stream,
        };
        // The sender's future is gone.
        within("an error", async {
            while let Ok(part) = stream.next_part().await {
                part.expect("not the end");
            }
        })
        .await;
    }
    let few = parts(fixture, &[10; 3]);
    let (sent, _) = tokio::join!(send(fixture, &one, &few), receive(&two, &few, 0));
    sent.expect("nothing was left behind");
}

async fn what_is_not_the_offered_snapshot_is_not_sent(fixture: &dyn Fixture) {
    let (one, _two) = pair(fixture).await;
    let content = parts(fixture, &[10]);
    let other = Parts::new(&[10], Membership::default());
    for message in [other.offer(), heartbeat(1)] {
        let envelope = fixture.envelope(ONE, TWO, message);
        let sent = one
            .transport
            .send_snapshot(TWO, envelope, content.reader())
            .await;
        assert!(matches!(sent, Err(SendError::Snapshot(_))), "{sent:?}");
    }
    let envelope = fixture.envelope(ONE, TWO, content.offer());
    let sent = one.transport.send(TWO, envelope).await;
    assert!(matches!(sent, Err(SendError::Snapshot(_))), "{sent:?}");
}

async fn a_snapshot_that_nobody_reads_holds_up_nothing(fixture: &dyn Fixture) {
    const COUNT: u64 = 300;
    let (one, two) = pair(fixture).await;
    let parts = parts(fixture, &[1 << 20; 40]);
    let take = async {
        let mut stream = offer(&two).await.stream;
        stream.accept(0).await.expect("accepted");
        next(&mut stream).await.expect("a part");
        for round in 0..COUNT {
            let envelope = fixture.envelope(ONE, TWO, heartbeat(round));
            one.transport
                .send(TWO, envelope.clone())
                .await
                .expect("sent");
            let arrives = two.next_matching(|found| *found == envelope);
            within("a heartbeat", arrives).await;
        }
        let read = parts.read();
        assert!(read <= 16, "{read} parts are held somewhere");
        while next(&mut stream).await.expect("a part").is_some() {}
        stream.finish(Ok(())).await;
    };
    let (sent, ()) = tokio::join!(send(fixture, &one, &parts), take);
    sent.expect("stored");
}

async fn heartbeats_flow_while_a_large_snapshot_moves(fixture: &dyn Fixture) {
    let (one, two) = pair(fixture).await;
    let parts = parts(fixture, &[256 << 10; 256]);
    let sender = async { send(fixture, &one, &parts).await.expect("stored") };
    let is_moving = Arc::new(AtomicBool::new(true));
    let receiver = async {
        let mut stream = offer(&two).await.stream;
        stream.accept(0).await.expect("accepted");
        next(&mut stream).await.expect("a part");
        let pull = async {
            while next(&mut stream).await.expect("a part").is_some() {}
            is_moving.store(false, Ordering::SeqCst);
        };
        // One after the other, each after the one before it has arrived.
        let beat = async {
            let mut round = 0;
            while is_moving.load(Ordering::SeqCst) {
                round += 1;
                let envelope = fixture.envelope(ONE, TWO, heartbeat(round));
                one.transport.send(TWO, envelope).await.expect("sent");
                let arrives = two.next_matching(|found| {
                    matches!(found.message, Message::Heartbeat(Heartbeat { round: found, .. })
                        if found == round)
                });
                within("a heartbeat", arrives).await;
            }
            round
        };
        let ((), beats) = tokio::join!(pull, beat);
        stream.finish(Ok(())).await;
        beats
    };
    let ((), beats) = tokio::join!(sender, receiver);
    assert!(beats >= 20, "{beats} heartbeats went beside the snapshot");
}
