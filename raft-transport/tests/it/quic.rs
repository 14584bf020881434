//! The QUIC transport: the suite, and who is refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quic_link::{
    Endpoint, EndpointOptions, FrameWriter, Identity, Link, LinkLimits, Protocol, Role,
};
use raft_core::message::{Append, Heartbeat};
use raft_core::{
    Entry, EntryKind, Envelope, Incarnation, Index, LogId, Message, NodeId, SendError, Term,
    Transport,
};
use raft_transport::conformance::{self, DEADLINE, Fixture};
use raft_transport::{QuicTransport, codec};
use tokio::time::timeout;

use crate::quic_fixture::{CLUSTER, Quic, incarnation};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_elapsed| panic!("not within {DEADLINE:?}: {what}"))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

fn heartbeat(fixture: &Quic, from: NodeId, to: NodeId, round: u64) -> Envelope {
    fixture.envelope(
        from,
        to,
        Message::Heartbeat(Heartbeat {
            commit: Index(0),
            round,
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

async fn connected(fixture: &Quic) -> (Arc<QuicTransport>, Arc<QuicTransport>) {
    let one = fixture.start_node(ONE).await;
    let two = fixture.start_node(TWO).await;
    until("links in both directions", || {
        one.is_connected(TWO) && two.is_connected(ONE)
    })
    .await;
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
        let envelope = within("all arrive", two.recv()).await.unwrap();
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
    assert_eq!(within("it arrives", two.recv()).await, Some(small));
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
            let probe = heartbeat(&fixture, source, target, 1);
            loop {
                let _ = from.send(target, probe.clone()).await;
                let arrived = timeout(Duration::from_millis(20), to.recv()).await;
                if arrived == Ok(Some(probe.clone())) {
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

/// Each of these is refused by the node that is dialled, for the reason that the dialling side can
/// read in its error.
#[tokio::test]
async fn a_hello_that_does_not_fit_is_refused() {
    let fixture = Quic::new();
    let one = fixture.start_node(ONE).await;
    let wiped = Incarnation(77);
    let mut wiped_sender = fixture.local(TWO, 1);
    wiped_sender.incarnation = wiped;
    let mut wiped_receiver = fixture.peers();
    wiped_receiver.get_mut(&ONE).unwrap().incarnation = wiped;
    for (index, (reason, local, peers)) in [
        ("speaks as incarnation 77", wiped_sender, fixture.peers()),
        (
            "is for incarnation 77",
            fixture.local(TWO, 1),
            wiped_receiver,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let two = fixture.start_as(local, peers).await;
        until("a refusal", || {
            one.counters().links_refused > index as u64 && two.counters().dials_failed > 0
        })
        .await;
        let error = two
            .send(ONE, heartbeat(&fixture, TWO, ONE, 1))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        fixture.kill_node(TWO).await;
    }
    assert_eq!(one.counters().links_accepted, 0);
}

#[tokio::test]
async fn who_is_not_a_member_is_refused() {
    let fixture = Quic::new();
    let mut peers = fixture.peers();
    peers.remove(&TWO);
    let one = fixture.start_as(fixture.local(ONE, 1), peers).await;
    let two = fixture.start_node(TWO).await;
    until("a refusal", || {
        one.counters().links_refused > 0 && two.counters().dials_failed > 0
    })
    .await;
    let error = two
        .send(ONE, heartbeat(&fixture, TWO, ONE, 1))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not a member"), "{error}");
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
    let error = early
        .send(ONE, heartbeat(&fixture, TWO, ONE, 1))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("boot 8"), "{error}");
}

/// A peer that does not keep to the rules, by hand.
struct Raw {
    link: Link,
    control: FrameWriter,
    _endpoint: Endpoint,
}

impl Raw {
    async fn dial(fixture: &Quic, role: Role, protocol: Protocol) -> (Endpoint, Link) {
        let endpoint = Endpoint::bind(EndpointOptions {
            credentials: fixture.authority.credentials(role),
            listen: "127.0.0.1:0".parse().unwrap(),
            accept: false,
            reset_key: None,
            limits: LinkLimits::default(),
        })
        .unwrap();
        let expected = Identity {
            cluster: CLUSTER.0,
            role: Role::Node(1),
        };
        let link = within(
            "a link",
            endpoint.connect(fixture.address(ONE), &expected, protocol),
        )
        .await
        .unwrap();
        (endpoint, link)
    }

    /// The bytes of a hello, written down here once more: version, cluster, from, its incarnation,
    /// to, its incarnation, boot.
    fn hello(from: u64, boot: u64) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&CLUSTER.0);
        for word in [
            from,
            incarnation(NodeId(from)).0,
            1,
            incarnation(ONE).0,
            boot,
        ] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    async fn greeted(fixture: &Quic) -> Self {
        let (endpoint, link) = Self::dial(fixture, Role::Node(2), Protocol::Peer).await;
        let (mut control, mut answers) = link.open_bi().await.unwrap();
        control.queue(1, [Bytes::from(Self::hello(2, 1))]).unwrap();
        within("hello", control.flush()).await.unwrap();
        let answer = within("an answer", answers.read(256))
            .await
            .unwrap()
            .unwrap();
        let mut expected = Self::hello(2, 1);
        expected[17..25].copy_from_slice(&1_u64.to_le_bytes());
        expected[25..33].copy_from_slice(&incarnation(ONE).0.to_le_bytes());
        expected[33..41].copy_from_slice(&2_u64.to_le_bytes());
        expected[41..49].copy_from_slice(&incarnation(TWO).0.to_le_bytes());
        assert_eq!((answer.kind, &answer.payload[..]), (1, &expected[..]));
        Self {
            link,
            control,
            _endpoint: endpoint,
        }
    }

    async fn send(&mut self, kind: u8, bytes: Vec<u8>) {
        self.control.queue(kind, [Bytes::from(bytes)]).unwrap();
        within("sent", self.control.flush()).await.unwrap();
    }
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
        assert_eq!(
            within("the good one", one.recv()).await.as_ref(),
            Some(&good)
        );
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
    let (_endpoint, link) = Raw::dial(&fixture, Role::Client, Protocol::Client).await;
    let why = within("the end", link.closed()).await;
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
    assert_eq!(within("it arrives", one.recv()).await, Some(good));
}
