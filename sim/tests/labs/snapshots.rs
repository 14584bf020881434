//! Section 5D: snapshots.
//!
//! "Raft state" of the course is its term, vote and log in its encoding, at most 2,000 bytes; here
//! it is what the log holds beside the snapshot, 40 bytes for a command that is a number, and 24
//! bytes of term and vote. A snapshot is due every 10 entries. Where nobody is away the last 16
//! before it are kept, one burst of a round, for whoever is a few messages behind; else none. So at
//! most 9 entries wait for the next snapshot, 16 are kept, and the 16 of a round come on top: 41
//! entries, 1,664 bytes, and a few that are applied while a snapshot is being written. The
//! course's number holds unchanged.

use raft_core::{NodeId, SnapshotPolicy};
use sim::{Mark, Options};

use crate::harness::{Lab, each_seed};

/// Commands between two snapshots.
const SNAPSHOT_INTERVAL: u64 = 10;

/// Entries that are kept behind a snapshot, where nobody is away.
const TAIL_ENTRIES: u64 = 16;

/// See the file.
const RAFT_STATE_BYTES_MAX: u64 = 2_000;

/// Bytes of term and vote.
const HARD_STATE_BYTES: u64 = 24;

/// What happens to the victim of a round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Cut,
    Crash,
}

/// A cluster that takes a snapshot every ten entries.
fn lab(seed: u64, unreliable: bool, tail_entries: u64) -> Lab {
    let mut options = Options::calm(seed, 3);
    options.snapshots = SnapshotPolicy {
        entries: SNAPSHOT_INTERVAL,
        tail_bytes_max: tail_entries * 40,
        ..options.snapshots
    };
    let mut lab = Lab::with_options(options);
    lab.set_unreliable(unreliable);
    lab
}

/// The most that a node holds beside its snapshot.
fn raft_state_bytes(lab: &Lab) -> u64 {
    let log_bytes = lab.ids().into_iter().map(|id| lab.world.log_bytes(id));
    log_bytes.max().expect("three nodes") + HARD_STATE_BYTES
}

fn one(lab: &mut Lab, nodes: usize) -> raft_core::Index {
    let command = lab.random();
    lab.one(command, nodes, true)
}

fn propose_some(lab: &mut Lab, to: NodeId) {
    let count = SNAPSHOT_INTERVAL / 2 + lab.chance.below(SNAPSHOT_INTERVAL);
    for _ in 0..count {
        let command = lab.random();
        lab.propose(to, command);
    }
}

fn check_size(lab: &Lab) {
    let bytes = raft_state_bytes(lab);
    if bytes >= RAFT_STATE_BYTES_MAX {
        lab.fail(&format!("the log is not trimmed: {bytes} bytes"));
    }
}

/// Thirty rounds: a victim, every third time the leader, is cut off or crashes; the others commit
/// enough for a snapshot; the victim comes back and has everything.
fn common(seed: u64, fault: Fault, unreliable: bool) {
    let tail_entries = if fault == Fault::None {
        TAIL_ENTRIES
    } else {
        0
    };
    let mut lab = lab(seed, unreliable, tail_entries);
    one(&mut lab, 3);
    let mut leader = lab.check_one_leader();
    for round in 0..30 {
        let (mut victim, mut proposer) = (lab.behind(leader, 1), leader);
        if round % 3 == 1 {
            (victim, proposer) = (proposer, victim);
        }
        match fault {
            Fault::None => {}
            Fault::Cut => lab.disconnect(victim),
            Fault::Crash => lab.crash(victim),
        }
        let left = if fault == Fault::None { 3 } else { 2 };
        if fault != Fault::None {
            one(&mut lab, left);
        }
        propose_some(&mut lab, proposer);
        one(&mut lab, left);
        check_size(&lab);
        if fault != Fault::None {
            if fault == Fault::Crash {
                lab.start(victim);
            }
            lab.connect(victim);
            one(&mut lab, 3);
            leader = lab.check_one_leader();
        }
    }
    let coverage = lab.world.coverage();
    assert!(coverage.of(Mark::Compacted) > 0, "logs are trimmed");
    let delivered = coverage.of(Mark::SnapshotDelivered);
    if fault == Fault::None {
        assert_eq!(delivered, 0, "whoever keeps up needs no snapshot");
    } else {
        assert!(delivered > 0, "whoever was away gets a snapshot");
    }
}

/// Nobody fails: everybody keeps up, and no snapshot is ever sent.
#[test]
fn snapshot_basic() {
    each_seed(|seed| common(seed, Fault::None, false));
}

/// The victim is cut off.
#[test]
fn snapshot_install() {
    each_seed(|seed| common(seed, Fault::Cut, false));
}

/// The victim is cut off, and messages are lost.
#[test]
fn snapshot_install_unreliable() {
    each_seed(|seed| common(seed, Fault::Cut, true));
}

/// The victim crashes.
#[test]
fn snapshot_install_crash() {
    each_seed(|seed| common(seed, Fault::Crash, false));
}

/// The victim crashes, and messages are lost.
#[test]
fn snapshot_install_un_crash() {
    each_seed(|seed| common(seed, Fault::Crash, true));
}

fn crash_and_start_all(lab: &mut Lab) {
    let ids = lab.ids();
    ids.iter().for_each(|id| lab.crash(*id));
    for id in ids {
        lab.start(id);
        lab.connect(id);
    }
}

/// Everybody crashes, five times: what comes next is behind what was there. With and without
/// losses, because the course changed its mind about which it means.
#[test]
fn snapshot_all_crash() {
    each_seed(|seed| {
        for unreliable in [false, true] {
            let mut lab = lab(seed, unreliable, 0);
            one(&mut lab, 3);
            for _ in 0..5 {
                let count = SNAPSHOT_INTERVAL / 2 + lab.chance.below(SNAPSHOT_INTERVAL);
                for _ in 0..count {
                    one(&mut lab, 3);
                }
                let before = one(&mut lab, 3);
                crash_and_start_all(&mut lab);
                let after = one(&mut lab, 3);
                assert!(after > before, "{after} comes after {before}");
                check_size(&lab);
            }
        }
    });
}

/// After a crash the snapshot is still there, and a later save of the log does not lose it: crash,
/// one command, crash, one command.
#[test]
fn snapshot_init() {
    each_seed(|seed| {
        for unreliable in [false, true] {
            let mut lab = lab(seed, unreliable, 0);
            one(&mut lab, 3);
            for _ in 0..SNAPSHOT_INTERVAL + 1 {
                one(&mut lab, 3);
            }
            assert!(lab.world.coverage().of(Mark::SnapshotTaken) > 0);
            for _ in 0..2 {
                crash_and_start_all(&mut lab);
                one(&mut lab, 3);
            }
            assert!(lab.commands() >= 14);
        }
    });
}
