//! The streams of snapshots over QUIC: peers that break the order, stand still or go away, and the
//! rate.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quic_link::{FrameReader, FrameWriter};
use raft_core::snapshot::SNAPSHOT_PART_BYTES_MAX;
use raft_core::{
    Incoming, IncomingSnapshot, Membership, NodeId, SendError, SnapshotStream, Transport,
};
use raft_transport::conformance::{Fixture, Parts};
use raft_transport::{QuicTransport, codec};

use crate::quic::{connected, until};
use crate::quic_fixture::Quic;
use crate::quic_raw::{Raw, within};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

/// The kinds of frames, written down here once more.
const OFFER: u8 = 3;
const PART: u8 = 4;
const END: u8 = 5;
const FROM: u8 = 6;
const REFUSED: u8 = 7;
const STORED: u8 = 8;

async fn offer(at: &QuicTransport) -> IncomingSnapshot {
    match within("an offer", at.recv()).await {
        Some(Incoming::Snapshot(offer)) => offer,
        Some(Incoming::Message(other)) => panic!("{other:?}"),
        None => panic!("closed"),
    }
}

fn part(number: u64, bytes: &[u8]) -> Vec<u8> {
    [&number.to_le_bytes()[..], bytes].concat()
}

async fn frame(writer: &mut FrameWriter, kind: u8, bytes: Vec<u8>) {
    writer.queue(kind, [Bytes::from(bytes)]).unwrap();
    within("sent", writer.flush()).await.unwrap();
}

/// Offers by hand what `parts` says, and waits until node 1 has accepted it from `first` on.
async fn begin(
    raw: &Raw,
    fixture: &Quic,
    one: &QuicTransport,
    parts: &Parts,
    first: u64,
) -> (FrameWriter, FrameReader, Box<dyn SnapshotStream>) {
    let (mut writer, mut answers) = raw.link.open_bi().await.unwrap();
    let envelope = fixture.envelope(TWO, ONE, parts.offer());
    frame(&mut writer, OFFER, codec::encode(&envelope).concat()).await;
    let offered = offer(one).await;
    assert_eq!(offered.envelope, envelope);
    let mut stream = offered.stream;
    stream.accept(first).await.unwrap();
    let answer = within("an answer", answers.read(100))
        .await
        .unwrap()
        .unwrap();
    let expected = first.to_le_bytes();
    assert_eq!((answer.kind, &answer.payload[..]), (FROM, &expected[..]));
    (writer, answers, stream)
}

/// The bytes of a whole transfer, with the receiver under test.
#[tokio::test]
async fn a_transfer_frame_by_frame() {
    let fixture = Quic::new();
    let one = fixture.start_node(ONE).await;
    let raw = Raw::greeted(&fixture).await;
    let parts = Parts::new(&[3; 4], fixture.membership(&[ONE, TWO]));
    let (mut writer, mut answers, mut stream) = begin(&raw, &fixture, &one, &parts, 2).await;
    frame(&mut writer, PART, part(2, b"abc")).await;
    frame(&mut writer, PART, part(3, b"def")).await;
    frame(&mut writer, END, Vec::new()).await;
    writer.finish();
    for expected in [Some(&b"abc"[..]), Some(b"def"), None, None] {
        let part = within("a part", stream.next_part()).await.unwrap();
        assert_eq!(part.as_deref(), expected);
    }
    stream.finish(Ok(())).await;
    let answer = within("an answer", answers.read(100))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((answer.kind, answer.payload.len()), (STORED, 0));
    assert_eq!(within("the end", answers.read(100)).await.unwrap(), None);
    assert_eq!(one.counters().snapshots_received, 1);
}

#[tokio::test]
async fn a_refusal_frame_by_frame() {
    let fixture = Quic::new();
    let one = fixture.start_node(ONE).await;
    let raw = Raw::greeted(&fixture).await;
    let parts = Parts::new(&[3; 4], Membership::default());
    let (mut writer, mut answers) = raw.link.open_bi().await.unwrap();
    let envelope = fixture.envelope(TWO, ONE, parts.offer());
    frame(&mut writer, OFFER, codec::encode(&envelope).concat()).await;
    let offered = offer(&one).await;
    // However much there is to say.
    offered.stream.finish(Err("no".repeat(5_000))).await;
    let answer = within("an answer", answers.read(2_000))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((answer.kind, answer.payload.len()), (REFUSED, 1_024));
}

/// The kind of a frame and its payload.
type Sent = (u8, Vec<u8>);

#[tokio::test]
async fn a_transfer_that_breaks_the_order_ends_and_the_link_lives() {
    let fixture = Quic::new();
    let one = fixture.start_node(ONE).await;
    let raw = Raw::greeted(&fixture).await;
    let parts = Parts::new(&[3; 2], Membership::default());
    let too_large = part(0, &vec![0; SNAPSHOT_PART_BYTES_MAX + 1]);
    let cases: Vec<(&str, Vec<Sent>)> = vec![
        ("in place of 0", vec![(PART, part(1, b"abc"))]),
        (
            "in place of 1",
            vec![(PART, part(0, b"abc")), (PART, part(0, b"abc"))],
        ),
        (
            "has 2",
            vec![
                (PART, part(0, b"")),
                (PART, part(1, b"")),
                (PART, part(2, b"")),
            ],
        ),
        ("7 bytes came", vec![(PART, part(0, b"7 bytes"))]),
        (
            "in place of part 1",
            vec![(PART, part(0, b"abc")), (END, Vec::new())],
        ),
        ("kind 4 with 7 bytes", vec![(PART, vec![0; 7])]),
        ("kind 5 with 1 bytes", vec![(END, vec![0])]),
        ("kind 2 with 0 bytes", vec![(2, Vec::new())]),
        ("above the limit", vec![(PART, too_large)]),
    ];
    let count = cases.len() as u64;
    for (expected, frames) in cases {
        let (mut writer, _answers, mut stream) = begin(&raw, &fixture, &one, &parts, 0).await;
        for (kind, bytes) in frames {
            writer.queue(kind, [Bytes::from(bytes)]).unwrap();
        }
        // All of it, if the receiver does not stop it before.
        let write = async {
            let _ = writer.flush().await;
        };
        let read = async {
            loop {
                match within("a part or an error", stream.next_part()).await {
                    Ok(part) => assert!(part.is_some(), "the end: {expected}"),
                    Err(error) => break error,
                }
            }
        };
        let error = tokio::select! {
            biased;
            error = read => error,
            () = async { write.await; std::future::pending::<()>().await } => unreachable!(),
        };
        let is_snapshot = matches!(&error, SendError::Snapshot(why) if why.contains(expected));
        assert!(is_snapshot, "{expected}: {error}");
    }
    assert_eq!(one.counters().snapshots_malformed, count);
    // Bytes that are no frame.
    let (mut writer, _answers, mut stream) = begin(&raw, &fixture, &one, &parts, 0).await;
    writer.queue_raw(Bytes::from_static(b"these bytes are no frame"));
    within("sent", writer.flush()).await.unwrap();
    let error = within("an error", stream.next_part()).await.unwrap_err();
    assert!(matches!(error, SendError::Snapshot(_)), "{error}");
    assert!(!raw.link.is_closed());
}

#[tokio::test]
async fn a_stream_that_ends_before_the_end_is_no_shorter_snapshot() {
    let fixture = Quic::new();
    let one = fixture.start_node(ONE).await;
    let raw = Raw::greeted(&fixture).await;
    let parts = Parts::new(&[3; 2], Membership::default());
    let (mut writer, _answers, mut stream) = begin(&raw, &fixture, &one, &parts, 0).await;
    frame(&mut writer, PART, part(0, b"abc")).await;
    frame(&mut writer, PART, part(1, b"abc")).await;
    writer.finish();
    for _ in 0..2 {
        assert!(
            within("a part", stream.next_part())
                .await
                .unwrap()
                .is_some()
        );
    }
    let error = within("an error", stream.next_part()).await.unwrap_err();
    assert!(matches!(error, SendError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_offer_ends_the_link() {
    let fixture = Quic::new();
    let one = fixture.start_node(ONE).await;
    let parts = Parts::new(&[3; 2], fixture.membership(&[ONE, TWO]));
    let good = fixture.envelope(TWO, ONE, parts.offer());
    let mut other_sender = good.clone();
    other_sender.from = NodeId(3);
    let mut other_incarnation = good.clone();
    other_incarnation.from_incarnation.0 += 1;
    let mut no_snapshot = good.clone();
    no_snapshot.message = raw_message();
    let encoded = |envelope| codec::encode(envelope).concat();
    let bad = [
        (PART, encoded(&good)),
        (OFFER, encoded(&other_sender)),
        (OFFER, encoded(&other_incarnation)),
        (OFFER, encoded(&no_snapshot)),
        (OFFER, b"\x01garbage".to_vec()),
        (OFFER, Vec::new()),
        (OFFER, vec![1; 6_000]), // Above the limit of an offer.
    ];
    for (index, (kind, bytes)) in bad.into_iter().enumerate() {
        let raw = Raw::greeted(&fixture).await;
        let (mut writer, _answers) = raw.link.open_bi().await.unwrap();
        frame(&mut writer, kind, bytes).await;
        let why = within("the end", raw.link.closed()).await;
        assert!(why.contains("code 16"), "{index}: {why}");
        assert_eq!(one.counters().envelopes_refused, index as u64 + 1);
    }
    // And the message that belongs on a stream of its own does not come on a lane.
    let mut raw = Raw::greeted(&fixture).await;
    raw.send(2, encoded(&good)).await;
    let why = within("the end", raw.link.closed()).await;
    assert!(why.contains("code 16"), "{why}");
}

fn raw_message() -> raft_core::Message {
    raft_core::Message::TimeoutNow
}

/// A peer that stands still at each step in which the receiver waits for it.
#[tokio::test]
async fn a_sender_that_stands_still_ends_the_transfer() {
    let mut fixture = Quic::new();
    fixture.options.snapshot_step_deadline = Duration::from_millis(100);
    let one = fixture.start_node(ONE).await;
    let raw = Raw::greeted(&fixture).await;
    // Streams that offer nothing are given up, so they do not use up what a link may have.
    for _ in 0..20 {
        let (mut writer, mut answers) = within("a stream", raw.link.open_bi()).await.unwrap();
        writer.queue_raw(Bytes::from_static(b"\xf1"));
        within("sent", writer.flush()).await.unwrap();
        assert!(!matches!(
            within("an end", answers.read(10)).await,
            Ok(Some(_))
        ));
    }
    // Nor does a part that is half there last.
    let parts = Parts::new(&[30; 2], Membership::default());
    let (mut writer, _answers, mut stream) = begin(&raw, &fixture, &one, &parts, 0).await;
    writer.queue_raw(Bytes::from_static(b"\xf1\x07\x01\x04\x20\x00\x00\x00"));
    within("sent", writer.flush()).await.unwrap();
    let error = within("an error", stream.next_part()).await.unwrap_err();
    assert!(error.to_string().contains("nothing moved"), "{error}");
    assert!(!raw.link.is_closed());
}

/// A receiver that stands still at each step in which the sender waits for it.
#[tokio::test]
async fn a_receiver_that_stands_still_ends_the_transfer() {
    let mut fixture = Quic::new();
    fixture.options.snapshot_step_deadline = Duration::from_millis(200);
    fixture.options.snapshot_store_deadline = Duration::from_millis(200);
    let (one, two) = connected(&fixture).await;
    // The last one is small enough to be taken whole by what is between the two.
    for (does_accept, sizes) in [(false, &[10][..]), (true, &[1 << 20; 20]), (true, &[10])] {
        let parts = Parts::new(sizes, Membership::default());
        let hold = async {
            let mut stream = offer(&two).await.stream;
            if does_accept {
                // Fails on a machine so busy that the sender has given up already.
                let _ = stream.accept(0).await;
            }
            let _stream = stream;
            std::future::pending::<()>().await;
        };
        let envelope = fixture.envelope(ONE, TWO, parts.offer());
        let send = one.send_snapshot(TWO, envelope, parts.reader());
        let sent = tokio::select! {
            sent = within("an end", send) => sent,
            () = hold => unreachable!("it holds for ever"),
        };
        let error = sent.unwrap_err().to_string();
        assert!(error.contains("nothing moved"), "{error}");
    }
    assert_eq!(one.counters().snapshots_failed, 3);
    assert!(one.is_connected(TWO));
}

/// Slow is not still: one byte after the other keeps a transfer alive.
#[tokio::test]
async fn a_slow_transfer_is_not_taken_for_a_dead_one() {
    let mut fixture = Quic::new();
    fixture.options.snapshot_step_deadline = Duration::from_secs(2);
    fixture.options.snapshot_bytes_per_second = 10_000;
    let (one, two) = connected(&fixture).await;
    let parts = Parts::new(&[30_000], Membership::default());
    let take = async {
        let mut stream = offer(&two).await.stream;
        stream.accept(0).await.unwrap();
        while stream.next_part().await.unwrap().is_some() {}
        stream.finish(Ok(())).await;
    };
    let start = Instant::now();
    let envelope = fixture.envelope(ONE, TWO, parts.offer());
    let send = one.send_snapshot(TWO, envelope, parts.reader());
    let (sent, ()) = within("an end", async { tokio::join!(send, take) }).await;
    assert_eq!(sent, Ok(()));
    // The rate is kept, too.
    assert!(start.elapsed() >= Duration::from_millis(2_900));
    assert_eq!(one.counters().snapshots_sent, 1);
    until("it is counted", || two.counters().snapshots_received == 1).await;
}

#[tokio::test]
async fn more_offers_than_a_node_holds_are_refused() {
    let fixture = Quic::new();
    let (one, two) = connected(&fixture).await;
    let parts = Parts::new(&[10], Membership::default());
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (one, parts) = (std::sync::Arc::clone(&one), parts.clone());
        let envelope = fixture.envelope(ONE, TWO, parts.offer());
        waiting.spawn(async move { one.send_snapshot(TWO, envelope, parts.reader()).await });
    }
    for _ in 0..2 {
        let refused = within("a refusal", waiting.join_next())
            .await
            .unwrap()
            .unwrap();
        assert!(
            matches!(&refused, Err(SendError::Refused { why, .. })
            if why.contains("too many")),
            "{refused:?}"
        );
    }
    // The others wait until somebody closes.
    one.close().await;
    while let Some(ended) = within("an end", waiting.join_next()).await {
        assert_eq!(ended.unwrap(), Err(SendError::Closed));
    }
    drop(two);
}

/// Nothing is left behind in either node: both can be dropped, and the memory of the stream with
/// them.
#[tokio::test]
async fn a_closed_transport_ends_what_it_receives() {
    let fixture = Quic::new();
    let (one, two) = connected(&fixture).await;
    let parts = Parts::new(&[1 << 20; 20], Membership::default());
    let take = async {
        let mut stream = offer(&two).await.stream;
        stream.accept(0).await.unwrap();
        within("a part", stream.next_part()).await.unwrap();
        two.close().await;
        let error = within("an error", async {
            loop {
                if let Err(error) = stream.next_part().await {
                    return error;
                }
            }
        })
        .await;
        assert!(matches!(error, SendError::Unreachable { .. }), "{error}");
    };
    let envelope = fixture.envelope(ONE, TWO, parts.offer());
    let send = one.send_snapshot(TWO, envelope, parts.reader());
    let (sent, ()) = within("an end", async { tokio::join!(send, take) }).await;
    assert!(
        matches!(sent, Err(SendError::Unreachable { .. })),
        "{sent:?}"
    );
}
