//! The QUIC transport: the suite, and who is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quic_link::{Endpoint, EndpointOptions, LinkLimits, Protocol, Role};
use raft_core::message::{Append, Heartbeat};
use raft_core::{
    Entry, EntryKind, Envelope, Incarnation, Incoming, Index, LogId, Message, NodeId, SendError,
    Term, Transport,
};
use raft_transport::conformance::{self, Fixture};
use raft_transport::{QuicTransport, codec};
use tokio::time::timeout;

use crate::quic_fixture::Quic;
use crate::quic_raw::{Raw, within};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// The next message; snapshots are not expected.
async fn next(transport: &QuicTransport) -> Option<Envelope> {
    match within("a message", transport.recv()).await {
        Some(Incoming::Message(envelope)) => Some(envelope),
        Some(Incoming::Snapshot(_)) => panic!("a snapshot"),
        None => None,
    }
}

fn heartbeat(fixture: &Quic, from: NodeId, to: NodeId, round: u64) -> Envelope {
    fixture.envelope(
        from,
        to,
        Message::Heartbeat(Heartbeat {
            commit: Index(0),
            round,
            is_last: false,
        }),
    )
}

fn append(fixture: &Quic, from: NodeId, to: NodeId, bytes: usize) -> Envelope {
    let id = LogId::new(Term(1), Index(1));
    let entry = Entry::new(id, EntryKind::Command, Bytes::from(vec![1; bytes]));
    fixture.envelope(
        from,
        to,
        Message::Append(Append {
            base: LogId::ZERO,
            commit: Index(0),
            entries: vec![entry],
        }),
    )
}

pub(crate) async fn connected(fixture: &Quic) -> (Arc<QuicTransport>, Arc<QuicTransport>) {
    let one = fixture.start_alone(ONE).await;
    let two = fixture.start_alone(TWO).await;
    // One after the other: of two that dial each other at the same time, a link may be replaced.
    let members = fixture.membership(&[ONE, TWO]);
    one.set_members(ONE, &members);
    until("a link", || one.is_connected(TWO)).await;
    two.set_members(TWO, &members);
    until("a link", || two.is_connected(ONE)).await;
    (one, two)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    conformance::run(Quic::new).await;
}

#[tokio::test]
async fn a_batch_goes_over_both_lanes() {
    let fixture = Quic::new();
    let (one, two) = connected(&fixture).await;
    let batch: Vec<Envelope> = (0..20)
        .map(|i| match i % 2 {
            0 => heartbeat(&fixture, ONE, TWO, i),
            _ => append(&fixture, ONE, TWO, 100),
        })
        .collect();
    one.send_batch(TWO, batch.clone()).await.unwrap();
    let mut bulk = 0;
    for _ in 0..batch.len() {
        let envelope = next(&two).await.unwrap();
        assert!(batch.contains(&envelope));
        bulk += usize::from(envelope.message.is_bulk());
    }
    assert_eq!(bulk, 10);
}

#[tokio::test]
async fn a_message_above_the_frame_limit_is_refused_and_the_link_lives() {
    let mut fixture = Quic::new();
    fixture.options.bulk_frame_bytes_max = 1 << 20;
    let (one, two) = connected(&fixture).await;
    let error = one
        .send(TWO, append(&fixture, ONE, TWO, 1 << 20))
        .await
        .unwrap_err();
    assert!(matches!(error, SendError::TooLarge { bytes, limit }
        if bytes > limit && limit == 1 << 20));
    let small = append(&fixture, ONE, TWO, 1_000);
    one.send(TWO, small.clone()).await.unwrap();
    assert_eq!(next(&two).await, Some(small));
}

/// With an idle time-out of ten minutes, only the reset and the boot counter can be what ends the
/// links of the first life.
#[tokio::test]
async fn a_killed_and_restarted_peer_is_not_waited_for() {
    let mut fixture = Quic::new();
    fixture.limits.idle_timeout = Duration::from_secs(600);
    fixture.limits.keep_alive_interval = Duration::from_secs(200);
    let (one, two) = connected(&fixture).await;
    fixture.kill_node(TWO).await;
    drop(two);
    let two = fixture.start_node(TWO).await;
    for (from, to, target) in [(&one, &two, TWO), (&two, &one, ONE)] {
        within("a message goes over", async {
            let source = if target == TWO { ONE } else { TWO };
            // Entries go over no other link than the one that is dialled.
            let probe = append(&fixture, source, target, 1);
            loop {
                let _ = from.send(target, probe.clone()).await;
                let arrived = timeout(Duration::from_millis(20), to.recv()).await;
                if let Ok(Some(Incoming::Message(found))) = arrived
                    && found == probe
                {
                    return;
                }
            }
        })
        .await;
    }
}

/// The first packet of a dial is lost and would not be repeated for minutes. That the peer dials us
/// must be enough to dial it again.
#[tokio::test]
async fn a_peer_that_shows_itself_is_dialled_at_once() {
    let mut fixture = Quic::new();
    fixture.limits.initial_rtt = Duration::from_secs(60);
    fixture.limits.connect_deadline = Duration::from_secs(600);
    fixture.options.dial_deadline = Duration::from_secs(600);
    let black_hole = tokio::net::UdpSocket::bind(fixture.address(TWO))
        .await
        .unwrap();
    let one = fixture.start_node(ONE).await;
    within("the first packet", black_hole.recv(&mut [0; 2_000]))
        .await
        .unwrap();
    drop(black_hole);
    let _two = fixture.start_node(TWO).await;
    until("a link", || one.is_connected(TWO)).await;
}

#[tokio::test]
async fn a_peer_that_takes_nothing_costs_its_link_and_not_more() {
    let mut fixture = Quic::new();
    fixture.options.write_deadline = Duration::from_millis(300);
    let (one, _two) = connected(&fixture).await;
    // Node 2 never receives, so its queue fills, then the window. Other losses do not count: while
    // both nodes dial each other, one link may replace another.
    let dialled = within("a stalled link", async {
        loop {
            let sent = one.send(TWO, append(&fixture, ONE, TWO, 1 << 20)).await;
            // Read before anything else runs, and so before the next link comes up.
            let counters = one.counters();
            if counters.links_stalled > 0 {
                return counters.links_dialled;
            }
            match sent {
                Ok(()) => {}
                Err(SendError::Unreachable { .. }) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await;
    assert_eq!(one.counters().links_stalled, 1);
    until("the link comes back", || {
        one.counters().links_dialled > dialled && one.is_connected(TWO)
    })
    .await;
}

#[tokio::test]
async fn a_host_name_is_looked_up_at_each_dial() {
    let fixture = Quic::new();
    let endpoint = Endpoint::bind(EndpointOptions {
        credentials: fixture.authority.credentials(Role::Node(2)),
        listen: "127.0.0.1:0".parse().unwrap(),
        accept: true,
        reset_key: None,
        limits: LinkLimits::default(),
    })
    .unwrap();
    let two = QuicTransport::new(
        endpoint.clone(),
        fixture.local(TWO, 1),
        fixture.peers(),
        fixture.options,
    );
    let mut peers = fixture.peers();
    let port = endpoint.local_addr().port();
    peers.get_mut(&TWO).unwrap().address = format!("localhost:{port}");
    let accept = async {
        while let Some(link) = endpoint.accept().await {
            two.accept(link);
        }
    };
    // From the wildcard address, so that it reaches 127.0.0.1.
    let own = Endpoint::bind(EndpointOptions {
        credentials: fixture.authority.credentials(Role::Node(1)),
        listen: "0.0.0.0:0".parse().unwrap(),
        accept: false,
        reset_key: None,
        limits: LinkLimits::default(),
    })
    .unwrap();
    let one = QuicTransport::new(own, fixture.local(ONE, 1), peers, fixture.options);
    tokio::select! {
        () = accept => {}
        () = until("a link", || one.is_connected(TWO)) => {}
    }
    assert!(one.is_connected(TWO));
}

/// A disk was lost on one side, and the other has not heard of it. The link stays, and each message
/// says whom it is from and for.
#[tokio::test]
async fn another_incarnation_is_counted_and_the_link_stays() {
    let wiped = Incarnation(77);
    for is_sender in [true, false] {
        let fixture = Quic::new();
        let one = fixture.start_alone(ONE).await;
        let (mut local, mut peers) = (fixture.local(TWO, 1), fixture.peers());
        if is_sender {
            local.incarnation = wiped;
        } else {
            peers.get_mut(&ONE).unwrap().incarnation = wiped;
        }
        let two = fixture.start_as(local, peers).await;
        until("a link", || two.is_connected(ONE)).await;
        one.set_members(ONE, &fixture.membership(&[ONE, TWO]));
        until("a link", || one.is_connected(TWO)).await;
        let mut sent = heartbeat(&fixture, TWO, ONE, 1);
        sent.from_incarnation = local.incarnation;
        sent.to_incarnation = wiped;
        two.send(ONE, sent.clone()).await.unwrap();
        assert_eq!(next(&one).await, Some(sent));
        for counters in [one.counters(), two.counters()] {
            assert!(counters.incarnations_mismatched > 0);
            assert_eq!(counters.links_refused, 0);
        }
    }
}

#[tokio::test]
async fn a_stranger_is_counted_and_too_many_are_refused() {
    let mut fixture = Quic::new();
    fixture.options.strangers_max = 1;
    let one = fixture
        .start_as(fixture.local(ONE, 1), BTreeMap::new())
        .await;
    let two = fixture.start_node(TWO).await;
    until("a link", || two.is_connected(ONE)).await;
    assert_eq!(one.counters().links_from_strangers, 1);
    let reply = heartbeat(&fixture, ONE, TWO, 1);
    one.send(TWO, reply.clone()).await.unwrap();
    assert_eq!(next(&two).await, Some(reply));
    // Entries are no replies.
    let sent = one.send(TWO, append(&fixture, ONE, TWO, 1)).await;
    assert_eq!(sent, Err(SendError::UnknownPeer(TWO)));

    let three = fixture.start_node(THREE).await;
    until("a refusal", || {
        one.counters().links_refused > 0 && three.counters().dials_failed > 0
    })
    .await;
    let sent = three.send(ONE, heartbeat(&fixture, THREE, ONE, 1)).await;
    let error = sent.unwrap_err().to_string();
    assert!(error.contains("no members"), "{error}");
    // The place of one that is gone is given away.
    two.close().await;
    until("a link", || three.is_connected(ONE)).await;
}

/// The node at the old address is gone for good; only the node itself knows its new one.
#[tokio::test]
async fn replies_reach_a_member_whose_address_is_an_old_one() {
    let fixture = Quic::new();
    let mut peers = fixture.peers();
    peers.get_mut(&TWO).unwrap().address = "127.0.0.1:9".to_owned();
    let one = fixture.start_as(fixture.local(ONE, 1), peers).await;
    let two = fixture.start_node(TWO).await;
    until("a link", || two.is_connected(ONE)).await;
    let reply = heartbeat(&fixture, ONE, TWO, 1);
    one.send(TWO, reply.clone()).await.unwrap();
    assert_eq!(next(&two).await, Some(reply));
    assert!(!one.is_connected(TWO));
}

#[tokio::test]
async fn a_removed_member_is_not_dialled_any_more() {
    let fixture = Quic::new();
    let (one, two) = connected(&fixture).await;
    one.set_members(ONE, &fixture.membership(&[ONE]));
    two.set_members(TWO, &fixture.membership(&[TWO]));
    assert!(!one.is_connected(TWO) && !two.is_connected(ONE));
    assert_eq!(
        one.send(TWO, append(&fixture, ONE, TWO, 1)).await,
        Err(SendError::UnknownPeer(TWO))
    );
    // Whoever dialled node 2 would show up there.
    let accepted = two.counters().links_accepted;
    one.set_members(ONE, &fixture.membership(&[ONE, TWO]));
    until("a link", || one.is_connected(TWO)).await;
    assert_eq!(two.counters().links_accepted, accepted + 1);
}

#[tokio::test]
async fn an_earlier_boot_does_not_replace_a_later_one() {
    let fixture = Quic::new();
    let one = fixture.start_node(ONE).await;
    let late = fixture
        .start_as(fixture.local(TWO, 9), fixture.peers())
        .await;
    until("a link", || late.is_connected(ONE)).await;
    fixture.kill_node(TWO).await;
    drop(late);
    let early = fixture
        .start_as(fixture.local(TWO, 8), fixture.peers())
        .await;
    until("a refusal", || {
        one.counters().links_refused > 0 && early.counters().dials_failed > 0
    })
    .await;
    // Bulk goes over the link that was dialled only. Node 1 dials too, and until it has heard which
    // boot answers there is a link that other messages would go over, to be lost.
    let bulk = append(&fixture, TWO, ONE, 1);
    let error = early.send(ONE, bulk).await.unwrap_err();
    assert!(error.to_string().contains("boot 8"), "{error}");
}

#[tokio::test]
async fn messages_that_contradict_their_link_end_it() {
    let fixture = Quic::new();
    let one = fixture.start_node(ONE).await;
    let good = heartbeat(&fixture, TWO, ONE, 5);
    let changed = |change: &dyn Fn(&mut Envelope)| {
        let mut envelope = good.clone();
        change(&mut envelope);
        codec::encode(&envelope).concat()
    };
    let bad = [
        (2, changed(&|envelope| envelope.from = NodeId(3))),
        (
            2,
            changed(&|envelope| envelope.from_incarnation = Incarnation(1)),
        ),
        (2, changed(&|envelope| envelope.to = NodeId(3))),
        (2, changed(&|envelope| envelope.cluster.0[0] ^= 1)),
        (2, b"\x01garbage".to_vec()),
        (2, Vec::new()),
        (2, vec![0; 5_000]), // Above the limit of the lane.
        (3, changed(&|_| {})),
    ];
    for (index, (kind, bytes)) in bad.into_iter().enumerate() {
        let mut raw = Raw::greeted(&fixture).await;
        raw.send(2, changed(&|_| {})).await;
        assert_eq!(next(&one).await.as_ref(), Some(&good));
        raw.send(kind, bytes).await;
        let why = within("the end", raw.link.closed()).await;
        assert!(why.contains("code 16"), "{index}: {why}");
        until("it is counted", || {
            one.counters().envelopes_refused == index as u64 + 1
        })
        .await;
    }
    assert_eq!(one.counters().links_refused, 0);
}

#[tokio::test]
async fn what_is_no_hello_is_refused() {
    let fixture = Quic::new();
    let one = fixture.start_node(ONE).await;
    let mut newer = Raw::hello(2, 1);
    newer[0] = 2;
    let mut longer = Raw::hello(2, 1);
    longer.push(0);
    let mut other_cluster = Raw::hello(2, 1);
    other_cluster[1] ^= 1;
    let mut other_node = Raw::hello(2, 1);
    other_node[33] = 3;
    for (index, (kind, bytes, reason)) in [
        (1, newer, "version 2"),
        (1, longer, "malformed"),
        (1, Vec::new(), "malformed"),
        (1, other_cluster, "cluster"),
        (1, other_node, "for node 3"),
        (1, Raw::hello(3, 1), "claims to be from node 3"),
        (2, Raw::hello(2, 1), "another frame"),
    ]
    .into_iter()
    .enumerate()
    {
        let (_endpoint, link) = Raw::dial(&fixture, Role::Node(2), Protocol::Peer).await;
        let (mut control, _answers) = link.open_bi().await.unwrap();
        control.queue(kind, [Bytes::from(bytes)]).unwrap();
        within("sent", control.flush()).await.unwrap();
        let why = within("the end", link.closed()).await;
        assert!(why.contains(reason) && why.contains("code 16"), "{why}");
        assert_eq!(one.counters().links_refused, index as u64 + 1);
    }
    // A client's link that was handed to the wrong room.
    let why = match Raw::try_dial(&fixture, Role::Client, Protocol::Client).await {
        Ok((_endpoint, link)) => within("the end", link.closed()).await,
        // The refusal was faster than the welcome.
        Err(error) => error.to_string(),
    };
    assert!(why.contains("not a node"), "{why}");
}

#[tokio::test]
async fn a_newer_link_replaces_an_older_one_at_once() {
    let fixture = Quic::new();
    let one = fixture.start_node(ONE).await;
    let first = Raw::greeted(&fixture).await;
    let mut second = Raw::greeted(&fixture).await;
    let why = within("the end", first.link.closed()).await;
    assert!(why.contains("replaced by a newer link"), "{why}");
    let good = heartbeat(&fixture, TWO, ONE, 5);
    second.send(2, codec::encode(&good).concat()).await;
    assert_eq!(next(&one).await, Some(good));
}

/// Where nobody can be dialled, a reply comes back on the stream of the hello.
#[tokio::test]
async fn a_reply_goes_over_the_link_that_the_other_has_dialled() {
    let fixture = Quic::new();
    let one = fixture.start_node(ONE).await;
    let mut raw = Raw::greeted(&fixture).await;
    let reply = heartbeat(&fixture, ONE, TWO, 5);
    one.send(TWO, reply.clone()).await.unwrap();
    let frame = within("a frame", raw.replies.read(4_096)).await.unwrap();
    let frame = frame.unwrap();
    assert_eq!(frame.kind, 2);
    assert_eq!(codec::decode(frame.payload), Ok(reply));
}

/// The boots of two incarnations have nothing to do with each other.
#[tokio::test]
async fn another_incarnation_replaces_a_link_whatever_its_boot() {
    let fixture = Quic::new();
    let one = fixture.start_node(ONE).await;
    let greet = async |hello: Vec<u8>| {
        let (endpoint, link) = Raw::dial(&fixture, Role::Node(2), Protocol::Peer).await;
        let (mut control, mut replies) = link.open_bi().await.unwrap();
        control.queue(1, [Bytes::from(hello)]).unwrap();
        within("sent", control.flush()).await.unwrap();
        let answer = within("an answer", replies.read(256)).await;
        (answer, endpoint, link, control, replies)
    };
    let (_answer, _endpoint, late, _control, _replies) = greet(Raw::hello(2, 9)).await;
    let mut wiped = Raw::hello(2, 1);
    wiped[25..33].copy_from_slice(&77_u64.to_le_bytes());
    let (answer, _endpoint, _link, _control, _replies) = greet(wiped).await;
    assert_eq!(answer.unwrap().unwrap().kind, 1);
    let why = within("the end", late.closed()).await;
    assert!(why.contains("replaced by a newer link"), "{why}");
    assert_eq!(one.counters().incarnations_mismatched, 1);
    // Of one incarnation, the earlier boot is over.
    let mut earlier = Raw::hello(2, 0);
    earlier[25..33].copy_from_slice(&77_u64.to_le_bytes());
    let (answer, _endpoint, link, _control, _replies) = greet(earlier).await;
    assert!(answer.is_err());
    let why = within("the end", link.closed()).await;
    assert!(why.contains("boot 0"), "{why}");
}
