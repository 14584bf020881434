//! Section 1: the simulated network itself. What the course asks of its `labrpc` is asked of the
//! simulator's network here: a call is a request and a reply. That arguments are encoded, and that
//! nothing is shared, is a matter of the transports, which have their own conformance suite; and a
//! message of this network is a value that is moved.

use bytes::Bytes;
use raft_core::message::{Append, Heartbeat};
use raft_core::{
    ClusterId, Entry, EntryKind, Envelope, GroupId, Incarnation, Index, LogId, Message, NodeId,
    Term,
};
use sim::{Answer, Ask, Fate, LabSwitches, Microseconds, Network, Options};

use crate::harness::{Lab, MILLISECOND, SECOND, each_seed, number};

const CLIENT: NodeId = NodeId(1);
const SERVER: NodeId = NodeId(2);

fn network(seed: u64) -> Network {
    Network::new(Options::calm(seed, 3).network, seed, false)
}

fn message(from: NodeId, to: NodeId, bytes: usize) -> Envelope {
    let entry = |bytes| {
        let payload = Bytes::from(vec![b'x'; bytes]);
        let id = LogId::new(Term(1), Index(1));
        Entry::new(id, EntryKind::Command, payload)
    };
    let message = if bytes == 0 {
        Message::Heartbeat(Heartbeat {
            commit: Index(0),
            round: 0,
            is_last: false,
        })
    } else {
        Message::Append(Append {
            base: LogId::ZERO,
            commit: Index(0),
            entries: vec![entry(bytes)],
        })
    };
    Envelope {
        cluster: ClusterId([7; 16]),
        group: GroupId(0),
        from,
        from_incarnation: Incarnation(1),
        to,
        to_incarnation: Incarnation(2),
        term: Term(1),
        message,
    }
}

/// A request and its reply: when the reply is there, none where either was lost.
fn call(network: &mut Network, now: Microseconds) -> Option<Microseconds> {
    let Fate::Arrives { at, .. } = network.send(now, &message(CLIENT, SERVER, 0)) else {
        return None;
    };
    match network.send(at, &message(SERVER, CLIENT, 0)) {
        Fate::Arrives { at, .. } => Some(at),
        Fate::Lost { .. } => None,
    }
}

/// Over a link that is cut or to a node that is cut off nothing arrives, in both directions.
#[test]
fn disconnect_delivers_nothing() {
    each_seed(|seed| {
        let mut network = network(seed);
        network.disconnect(SERVER);
        assert_eq!(call(&mut network, 0), None);
        assert!(matches!(
            network.send(0, &message(SERVER, CLIENT, 0)),
            Fate::Lost { .. }
        ));
        network.connect(SERVER);
        assert!(call(&mut network, 0).is_some());
        network.cut(SERVER, CLIENT);
        assert_eq!(
            call(&mut network, 0),
            None,
            "the handler ran, the reply is lost"
        );
    });
}

/// 17 calls are 17 messages of each side.
#[test]
fn count_is_exact() {
    each_seed(|seed| {
        let mut network = network(seed);
        for _ in 0..17 {
            assert!(call(&mut network, 0).is_some());
        }
        assert_eq!(network.sent_by(CLIENT).messages, 17);
        assert_eq!(network.sent_by(SERVER).messages, 17);
        assert_eq!(network.traffic().messages, 34);
    });
}

/// Bytes are counted once, when a message is sent. The course's bounds (4,828 to 6,000 bytes for 17
/// arguments of 284 bytes, 1,800 to 2,500 for 17 replies of 107) are for its own encoding, which
/// adds 0 to 69 bytes to each; here it is 32 bytes of the entry's header and a flat 64 for the
/// rest of the message, exactly.
#[test]
fn bytes_are_exact() {
    each_seed(|seed| {
        let mut network = network(seed);
        for _ in 0..17 {
            network.send(0, &message(CLIENT, SERVER, 284));
            network.send(0, &message(SERVER, CLIENT, 107));
        }
        assert_eq!(network.sent_by(CLIENT).bytes, 17 * (284 + 32 + 64));
        assert_eq!(network.sent_by(SERVER).bytes, 17 * (107 + 32 + 64));
    });
}

/// 20 clients make 10 calls each; all arrive and are counted.
#[test]
fn concurrent_many() {
    each_seed(|seed| {
        let mut network = network(seed);
        let answered = (0..20 * 10).filter(|_| call(&mut network, 0).is_some());
        assert_eq!(answered.count(), 20 * 10);
        assert_eq!(network.sent_by(CLIENT).messages, 20 * 10);
    });
}

/// Unreliable: of 300 clients some but not all get an answer, about 81 of 100.
#[test]
fn unreliable() {
    each_seed(|seed| {
        let mut network = network(seed);
        network.lab.unreliable = true;
        let answered = (0..300).filter(|_| call(&mut network, 0).is_some()).count();
        assert!((200..290).contains(&answered), "{answered} of 300");
    });
}

/// 20 calls at once on one link are all delivered, and may overtake each other.
#[test]
fn concurrent_one() {
    let mut overtook = false;
    for seed in 1..=100 {
        let mut network = network(seed);
        let arrivals: Vec<_> = (0..20)
            .map(|_| call(&mut network, 0).expect("delivered"))
            .collect();
        overtook |= !arrivals.is_sorted();
    }
    assert!(overtook, "calls at once may be delivered in any order");
}

/// Calls that began while a node was cut off stay lost, and do not slow down the one that is made
/// afterwards: it takes less than 30 ms, and is the only one that the other side hears of.
#[test]
fn regression1() {
    each_seed(|seed| {
        let mut network = network(seed);
        network.lab.long_delays = true;
        network.disconnect(SERVER);
        for _ in 0..20 {
            assert_eq!(call(&mut network, 0), None);
        }
        network.connect(SERVER);
        let at = call(&mut network, 100 * MILLISECOND).expect("delivered");
        assert!(at - 100 * MILLISECOND <= 30 * MILLISECOND);
        assert_eq!(network.sent_by(SERVER).messages, 1);
    });
}

/// Whoever waits for a server that is stuck, and then killed, hears at once that there will be no
/// answer.
#[test]
fn killed() {
    each_seed(|seed| {
        let mut lab = Lab::new(seed, 3);
        let leader = lab.check_one_leader();
        lab.world.pause(leader, SECOND);
        let asked = lab.world.ask(leader, Ask::Propose(number(1)));
        lab.sleep(SECOND / 2);
        assert_eq!(lab.world.answer_to(asked), None, "it is stuck");
        lab.crash(leader);
        lab.sleep(100 * MILLISECOND);
        assert_eq!(lab.world.answer_to(asked), Some(&Answer::Gone));
    });
}

/// Whoever talks to somebody unreachable hears of it after up to 7 s with long delays, else after
/// up to 100 ms.
#[test]
fn long_delays() {
    each_seed(|seed| {
        for (long_delays, longest) in [(false, 100 * MILLISECOND), (true, 7 * SECOND)] {
            let mut network = network(seed);
            network.options.reported = 1_000;
            network.lab.long_delays = long_delays;
            network.disconnect(SERVER);
            let mut latest = 0;
            for _ in 0..1_000 {
                match network.send(0, &message(CLIENT, SERVER, 0)) {
                    Fate::Lost {
                        reported_at: Some(at),
                    } => latest = latest.max(at),
                    fate => panic!("{fate:?}"),
                }
            }
            assert!((longest / 2..=longest).contains(&latest), "{latest} us");
        }
    });
}

/// Two of three replies are 200 to 2,200 ms late, about 700 ms in the mean of those; requests are
/// not.
#[test]
fn long_reordering() {
    each_seed(|seed| {
        let mut network = network(seed);
        network.lab = LabSwitches {
            long_reordering: true,
            ..LabSwitches::default()
        };
        let reply = |network: &mut Network| {
            let mut reply = message(SERVER, CLIENT, 0);
            reply.message = Message::HeartbeatReply(raft_core::message::HeartbeatReply {
                round: 0,
                is_refilling: false,
            });
            match network.send(0, &reply) {
                Fate::Arrives { at, .. } => at,
                fate => panic!("{fate:?}"),
            }
        };
        let delays: Vec<_> = (0..10_000).map(|_| reply(&mut network)).collect();
        let late: Vec<_> = delays
            .into_iter()
            .filter(|at| *at >= 200 * MILLISECOND)
            .collect();
        assert!(
            (6_500..6_850).contains(&late.len()),
            "{} of 10,000 late",
            late.len()
        );
        assert!(late.iter().all(|at| *at <= 2_200 * MILLISECOND));
        let mean = late.iter().sum::<u64>() / late.len() as u64;
        assert!(
            (600..800).contains(&(mean / MILLISECOND)),
            "{mean} us in the mean"
        );
        let Fate::Arrives { at, .. } = network.send(0, &message(CLIENT, SERVER, 0)) else {
            panic!("a request is lost");
        };
        assert!(at < 100 * MILLISECOND);
    });
}

/// 100,000 calls take less than the 22 microseconds each, of real time, that the course names.
#[test]
fn benchmark() {
    let mut network = network(1);
    let begun = std::time::Instant::now();
    for _ in 0..100_000 {
        assert!(call(&mut network, 0).is_some());
    }
    assert_eq!(network.traffic().messages, 200_000);
    let took = begun.elapsed();
    assert!(took.as_millis() < 2_200, "{took:?}");
}
