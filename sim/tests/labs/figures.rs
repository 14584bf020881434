//! What it takes to bring a follower in step, and how long a cluster does without its leader. Each
//! test prints a table, and fails where a figure is worse than it may be:
//!
//! ```text
//! cargo test -p sim --test labs figures -- --nocapture
//! ```

use raft_core::{Entry, NodeId, Timing};
use sim::{Microseconds, Options};

use crate::harness::{Bench, Disk, Lab, MILLISECOND, SECOND, Sent, entries, number};
use crate::rules::{catch_up, parted};

/// What it took to bring n3 in step.
struct Backtracking {
    /// Appends without entries: questions where the logs part. Each is a round trip.
    probes: usize,
    /// Appends with entries, and how many are in them.
    appends: usize,
    entries: usize,
    /// From the leader and back.
    bytes: (usize, usize),
}

/// n1 leads with the vote of n2, whose log is the same. n3, with a log of its own, votes too and
/// says so how far it is; or it is heard of only after the election.
fn backtracking(log: &[Entry], of_n3: &[Entry], votes: bool) -> Backtracking {
    let mut bench = Bench::new(3);
    let newest = log.last().map_or(0, |entry| entry.term().0);
    for node in [1, 2] {
        bench.boot(NodeId(node), Disk::with_log(log.to_vec(), newest));
    }
    bench.boot(NodeId(3), Disk::with_log(of_n3.to_vec(), newest));
    let others: &[u64] = if votes { &[1, 2, 3] } else { &[1, 2] };
    bench.elect(1, others);
    let before = if votes {
        Sent::default()
    } else {
        // What was said to it meanwhile, in vain.
        bench.settle(&[1, 2]);
        bench.node(NodeId(1)).sent[&NodeId(3)]
    };
    catch_up(&mut bench);
    let logs = [1, 3].map(|node| bench.node(NodeId(node)).disk.entries.clone());
    assert_eq!(logs[0], logs[1]);
    let sent = bench.node(NodeId(1)).sent[&NodeId(3)];
    let back = bench.node(NodeId(3)).sent[&NodeId(1)];
    Backtracking {
        probes: sent.probes - before.probes,
        appends: sent.appends - before.appends,
        entries: sent.entries - before.entries,
        bytes: (sent.bytes - before.bytes, back.bytes),
    }
}

/// A leader with 10,100 entries of 51 terms, and followers that have all of it, a half, nothing, or
/// 10,000 others of 50 terms. Each entry that is missing is sent once; the leader's own, with which
/// it began its term, is one of them.
#[test]
fn figures_of_backtracking() {
    let (leader, diverged) = parted();
    let (log, diverged) = (entries(&leader), entries(&diverged));
    println!("follower     voted  round trips  appends  entries  bytes sent  bytes back");
    for (name, follower, missing, round_trips) in [
        ("up to date", &log[..], 1, 0),
        ("short", &log[..5_000], 5_101, 1),
        ("empty", &[], 10_101, 1),
        ("diverged", &diverged[..], 10_001, 50),
    ] {
        for votes in [true, false] {
            let took = backtracking(&log, follower, votes);
            let (sent, back) = took.bytes;
            println!(
                "{name:<11}  {votes:<5}  {:>11}  {:>7}  {:>7}  {sent:>10}  {back:>10}",
                took.probes, took.appends, took.entries
            );
            let most = match (name, votes) {
                // Its vote said that its log is a part of ours.
                ("up to date" | "short" | "empty", true) => 0,
                _ => round_trips + 1,
            };
            assert!(took.probes <= most, "{name}, votes: {votes}");
            assert_eq!(took.entries, missing, "{name}, votes: {votes}");
        }
    }
}

/// How long a cluster did without a leader, and without an answer to a client, after one was gone.
struct FailOver {
    elected: Microseconds,
    answered: Microseconds,
}

/// The leader loses power at some moment between two of its heartbeats. A client proposes wherever
/// somebody leads.
fn fail_over(seed: u64, nodes: u64) -> FailOver {
    let mut options = Options::calm(seed, nodes);
    options.timing = Timing::LAN;
    let mut lab = Lab::with_options(options);
    lab.one(number(0), lab.size(), true);
    let leader = lab.check_one_leader();
    let moment = lab.chance.between(0, 100 * MILLISECOND);
    lab.sleep(moment);
    let killed = lab.world.now();
    lab.world.crash(leader);
    lab.check_one_leader_but(leader);
    let elected = lab.world.now() - killed;
    let mut value = 1;
    loop {
        if let Some(at) = lab.propose_anywhere(&number(value))
            && lab.sleep_while_not(SECOND, |world| world.applied_by(at.index) > 0)
        {
            let answered = lab.world.now() - killed;
            return FailOver { elected, answered };
        }
        value += 1;
        lab.sleep(MILLISECOND);
    }
}

/// 100 leaders of three and of five nodes, with the times of a LAN: heartbeats every 50 ms,
/// deadlines of 200 to 400 ms. Half of the clusters go on within the longest deadline, and all
/// within three, which are two split votes.
#[test]
fn figures_of_fail_over() {
    println!("nodes  until      p50 ms  p99 ms  max ms");
    for nodes in [3, 5] {
        let all: Vec<_> = (1..=100).map(|seed| fail_over(seed, nodes)).collect();
        for (until, times) in [
            ("elected", all.iter().map(|f| f.elected).collect::<Vec<_>>()),
            ("answered", all.iter().map(|f| f.answered).collect()),
        ] {
            let mut times = times;
            times.sort_unstable();
            let [p50, p99, max] = [49, 98, 99].map(|rank| times[rank] as f64 / 1_000.0);
            println!("{nodes:>5}  {until:<9}  {p50:>6.1}  {p99:>6.1}  {max:>6.1}");
            assert!(p50 <= 400.0, "{p50} ms for half of {nodes}");
            assert!(max <= 1_200.0, "{max} ms for one of {nodes}");
        }
    }
}
