//! Seeded schedules: any message may be lost, repeated or overtaken, any node may crash at any point
//! and lose what its disk had not finished. The properties in [`super::checks`] hold all along, and
//! once the faults end the cluster elects, commits and agrees.

use std::collections::BTreeMap;

use super::Cluster;
use super::cluster::Disk;
use crate::protocol::Input;
use crate::protocol::random::Random;
use crate::types::NodeId;

struct Schedule {
    random: Random,
    cluster: Cluster,
    proposals: u64,
    reads: u64,
    /// Chances out of 1,000, drawn for each seed, some of them zero.
    loss: u32,
    repeat: u32,
    crash: u32,
    slow_disk: u32,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let size = u64::from(random.between(1, 5));
        let disks: BTreeMap<_, _> = (1..=size).map(|id| (NodeId(id), Disk::default())).collect();
        let mut cluster = Cluster::new(disks, seed);
        if random.between(0, 3) > 0 {
            // Short deadlines, small windows and an almost empty tail: catch-up from the disk.
            cluster.timing.heartbeat_ticks = 1;
            cluster.timing.election_ticks_min = 3;
            cluster.timing.election_ticks_max = 6;
            cluster.limits.append_entries_max = 3;
            cluster.limits.inflight_messages_max = 2;
            cluster.limits.tail_bytes_max = 200;
            for id in cluster.ids() {
                cluster.crash(id, 0);
                cluster.start(id);
            }
        }
        let mut chance = |highest| random.between(0, 1) * random.between(1, highest);
        let (loss, repeat, crash, slow_disk) = (chance(300), chance(300), chance(8), chance(900));
        Self {
            random,
            cluster,
            proposals: 0,
            reads: 0,
            loss,
            repeat,
            crash,
            slow_disk,
        }
    }

    fn chance(&mut self, of_1000: u32) -> bool {
        self.random.between(1, 1000) <= of_1000
    }

    fn pick(&mut self) -> NodeId {
        let ids = self.cluster.ids();
        ids[self.random.between(0, ids.len() as u32 - 1) as usize]
    }

    fn act(&mut self) {
        let id = self.pick();
        match self.random.between(0, 99) {
            0..=29 => self.cluster.step(id, Input::Tick),
            30..=59 => self.message(),
            60..=69 => self.burst(id),
            70..=84 => {
                if !self.chance(self.slow_disk) {
                    self.cluster.persist(id);
                    self.cluster.load(id);
                }
            }
            85..=92 => {
                self.proposals += 1;
                let payload = self.proposals.to_string();
                self.cluster.propose(id, &payload);
            }
            93..=95 => {
                self.reads += 1;
                self.cluster.read(id, self.reads);
            }
            96 => self.cluster.cut.clear(),
            97 => self.cut(),
            _ if self.cluster.is_up(id) => {
                if self.chance(self.crash * 10) {
                    let unsynced = self.cluster.node(id).writes.len() as u32;
                    let kept = self.random.between(0, unsynced) as usize;
                    self.cluster.crash(id, kept);
                }
            }
            _ => self.cluster.start(id),
        }
    }

    fn message(&mut self) {
        let waiting = self.cluster.network.len() as u32;
        if waiting == 0 {
            return;
        }
        let position = self.random.between(0, waiting - 1) as usize;
        if self.chance(self.repeat) {
            let again = self.cluster.network[position].clone();
            self.cluster.network.push(again);
        }
        if self.chance(self.loss) {
            let lost = self.cluster.network.remove(position);
            if self.random.between(0, 1) == 1 {
                self.cluster.step(lost.from, Input::Unreachable(lost.to));
            }
        } else {
            self.cluster.deliver(position);
        }
        if self.cluster.network.len() > 2000 {
            self.cluster.network.drain(..1000);
        }
    }

    /// Cuts one direction of a link, or the leader from everybody.
    fn cut(&mut self) {
        let (id, other) = (self.pick(), self.pick());
        match self.cluster.leader() {
            Some(leader) if self.random.between(0, 1) == 1 => {
                for other in self.cluster.ids() {
                    self.cluster.cut.extend([(leader, other), (other, leader)]);
                }
            }
            _ => drop(self.cluster.cut.insert((id, other))),
        }
    }

    /// Several messages are stepped before any effect is taken, as a busy driver does.
    fn burst(&mut self, id: NodeId) {
        let (burst, rest) = std::mem::take(&mut self.cluster.network)
            .into_iter()
            .partition(|e| e.to == id);
        self.cluster.network = rest;
        let burst: Vec<_> = burst;
        self.cluster
            .step_all(id, burst.into_iter().map(Input::Message).collect());
    }

    /// No more faults: the cluster must elect somebody, commit, and agree.
    fn heal(&mut self, seed: u64) {
        self.cluster.cut.clear();
        for id in self.cluster.ids() {
            if !self.cluster.is_up(id) {
                self.cluster.start(id);
            }
        }
        for _ in 0..self.cluster.timing.election_ticks_max * 20 {
            self.cluster.stabilize();
            for id in self.cluster.ids() {
                self.cluster.step(id, Input::Tick);
            }
        }
        self.cluster.stabilize();
        let leader = self
            .cluster
            .leader()
            .unwrap_or_else(|| panic!("seed {seed}: no leader"));
        self.cluster.propose(leader, "last");
        for _ in 0..self.cluster.timing.heartbeat_ticks * 2 + 1 {
            self.cluster.stabilize();
            for id in self.cluster.ids() {
                self.cluster.step(id, Input::Tick);
            }
        }
        self.cluster.stabilize();
        let all = self.cluster.node(leader).applied.clone();
        assert_eq!(
            all.last().map(|e| &e.payload()[..]),
            Some(&b"last"[..]),
            "seed {seed}"
        );
        for id in self.cluster.ids() {
            assert_eq!(
                self.cluster.node(id).applied,
                all,
                "seed {seed}: n{id} lags"
            );
        }
    }
}

#[test]
fn any_schedule_is_safe_and_heals() {
    // What the schedules reached: a generator that never gets there proves nothing.
    let (mut commits, mut truncations, mut elections, mut reads) = (0, 0, 0, 0);
    for seed in 0..400 {
        let mut schedule = Schedule::new(seed);
        for _ in 0..4000 {
            schedule.act();
            let trace = schedule.cluster.take_trace();
            let count = |what: &str| trace.iter().filter(|line| line.contains(what)).count();
            commits += count("applies");
            truncations += count("truncate from");
            elections += count("is leader");
            reads += count("ready at");
        }
        schedule.heal(seed);
    }
    println!("{commits} applied, {truncations} truncations, {elections} leaders, {reads} reads");
    assert!(commits > 10_000 && truncations > 100 && elections > 500 && reads > 500);
}
