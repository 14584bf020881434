//! Seeded schedules: any message may be lost, repeated, overtaken or come back much later, clocks
//! run unevenly or stand still, disks stall, any node may crash at any point and lose what its disk
//! had not finished. The properties in [`super::checks`] hold all along, and once the faults end
//! the cluster elects, commits and agrees.
//!
//! Each seed draws which faults it has at all: too many at once and nothing ever happens.

use std::collections::{BTreeMap, BTreeSet};

use super::Cluster;
use super::clocks::{Clocks, DRIFT_PERCENT, TICK};
use super::disk::Disk;
use crate::config::ReadPolicy;
use crate::membership::{Member, MemberRole, MembershipChange};
use crate::message::Envelope;
use crate::protocol::random::Random;
use crate::protocol::{Input, Role};
use crate::types::{Index, NodeId};

const SEEDS: u64 = 2_500;
const NODES_MAX: u32 = 7;
const ACTIONS: u64 = 2_500;
const OLD_MESSAGES_MAX: usize = 300;
const NETWORK_MESSAGES_MAX: usize = 1_000;

/// Chances out of 1,000 of the faults that a seed has; zero for those that it does not have.
#[derive(Debug)]
struct Faults {
    loss: u32,
    repeat: u32,
    /// A message is delivered before earlier ones.
    overtake: u32,
    /// A message from long ago comes again.
    replay: u32,
    crash: u32,
    cut: u32,
    /// A disk stalls, until it goes on.
    stall: u32,
    /// A clock stands still, until it goes on.
    pause: u32,
    /// Somebody's clock jumps past its deadline.
    jump: u32,
    /// A leader crashes right after it proposed.
    churn: u32,
    /// A leader is replaced without noticing.
    depose: u32,
    /// An operator changes the members.
    change: u32,
    /// An operator hands leadership over.
    transfer: u32,
    /// A disk is lost, and an operator has it replaced.
    wipe: u32,
}

impl Faults {
    fn draw(random: &mut Random) -> Self {
        let mut chance = |highest| random.between(0, 1) * random.between(1, highest);
        Self {
            loss: chance(200),
            repeat: chance(200),
            overtake: chance(1000),
            replay: chance(40),
            crash: chance(20),
            cut: chance(20),
            stall: chance(40),
            pause: chance(40),
            jump: chance(40),
            churn: chance(60),
            depose: chance(4),
            change: chance(30),
            transfer: chance(10),
            wipe: chance(4),
        }
    }
}

struct Schedule {
    seed: u64,
    random: Random,
    cluster: Cluster,
    faults: Faults,
    stalled: BTreeSet<NodeId>,
    paused: BTreeSet<NodeId>,
    old: Vec<Envelope>,
    proposals: u64,
    reads: u64,
    lost_disk: bool,
}

impl Drop for Schedule {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}, {:?}", self.seed, self.faults);
            for node in self.cluster.nodes.values() {
                let (id, incarnation) = (node.id, node.incarnation);
                let state = node.raft.as_ref().map(crate::protocol::Raft::state);
                eprintln!("n{id} as {incarnation}: {state:?}");
            }
        }
    }
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let size = [1, 2, 3, 3, 3, 4, 5, 5, 5][random.between(0, 8) as usize];
        let disks: BTreeMap<_, _> = (1..=size).map(|id| (NodeId(id), Disk::default())).collect();
        let mut cluster = Cluster::new(disks, seed);
        cluster.is_traced = false;
        if random.between(0, 7) > 0 {
            // Short deadlines, small windows and an almost empty tail: catch-up from the disk.
            cluster.timing.heartbeat_ticks = 1;
            cluster.timing.election_ticks_min = random.between(2, 4);
            cluster.timing.election_ticks_max = random.between(5, 8);
            cluster.limits.append_entries_max = random.between(1, 4) as usize;
            cluster.limits.inflight_messages_max = random.between(1, 4) as usize;
            cluster.limits.tail_bytes_max = random.between(0, 1) as usize * 200;
            cluster.snapshots.entries = u64::from(random.between(0, 2) * random.between(2, 20));
            cluster.snapshots.tail_bytes_max = u64::from(random.between(0, 1) * 300);
            cluster.is_apply_slow = random.between(0, 1) == 0;
            cluster.quiesce_after_ticks = (random.between(0, 3) == 0).then_some(4);
            if random.between(0, 3) == 0 {
                // Leases, and clocks that drift as far as is allowed.
                cluster.reads = ReadPolicy::Lease {
                    clock_drift_percent: DRIFT_PERCENT,
                };
                cluster.timing.election_ticks_min = random.between(4, 6);
                cluster.timing.election_ticks_max = random.between(7, 10);
                let mut clocks = Clocks::default();
                for id in 1..=u64::from(NODES_MAX) {
                    clocks.set(NodeId(id), &mut random);
                }
                cluster.clocks = Some(clocks);
            }
            cluster.restart_all();
        }
        let faults = Faults::draw(&mut random);
        Self {
            seed,
            random,
            cluster,
            faults,
            stalled: BTreeSet::new(),
            paused: BTreeSet::new(),
            old: Vec::new(),
            proposals: 0,
            reads: 0,
            lost_disk: false,
        }
    }

    fn chance(&mut self, of_1000: u32) -> bool {
        self.random.between(1, 1000) <= of_1000
    }

    fn below(&mut self, count: usize) -> usize {
        self.random.between(0, count as u32 - 1) as usize
    }

    fn pick(&mut self) -> NodeId {
        let ids = self.cluster.ids();
        ids[self.below(ids.len())]
    }

    /// Anybody who thinks that it leads, also one that was deposed and does not know; else anybody.
    fn pick_leader(&mut self) -> NodeId {
        let leads =
            |id: &NodeId| self.cluster.is_up(*id) && self.cluster.raft(*id).role() == Role::Leader;
        let leaders: Vec<_> = self.cluster.ids().into_iter().filter(leads).collect();
        if leaders.is_empty() {
            return self.pick();
        }
        leaders[self.below(leaders.len())]
    }

    fn act(&mut self) {
        self.fault();
        let id = self.pick();
        match self.random.between(0, 99) {
            0..=14 if !self.paused.contains(&id) => self.tick(id),
            0..=44 => self.message(),
            45..=59 => self.burst(id),
            60..=82 if !self.stalled.contains(&id) => {
                self.cluster.persist(id);
                self.cluster.load(id);
                while self.chance(700) && self.cluster.work(id) {}
            }
            83..=84 => self.snapshot(id),
            60..=89 => {
                let leader = self.pick_leader();
                self.propose(leader);
            }
            90..=94 => {
                self.reads += 1;
                let anybody = self.pick();
                let leader = self.pick_leader();
                let reader = if self.random.between(0, 2) == 0 {
                    anybody
                } else {
                    leader
                };
                self.cluster.read(reader, self.reads);
            }
            _ if !self.cluster.is_up(id) => self.cluster.start(id),
            _ => self.message(),
        }
    }

    /// A clock ticks, where a clock says so.
    fn tick(&mut self, id: NodeId) {
        let is_due = |clocks: &mut Clocks| clocks.takes_tick(id);
        if self.cluster.clocks.as_mut().is_none_or(is_due) {
            self.cluster.step(id, Input::Tick);
        }
    }

    /// A little time passes, sometimes more; or it will, while a process stands still between what
    /// it was told and its look at the clock.
    fn pass(&mut self) {
        let little = u64::from(self.random.between(0, 1_000)) * (TICK / 10_000);
        let much = u64::from(self.random.between(0, 10_000)) * (TICK / 1_000);
        let (stands_still, is_long) = (self.chance(3), self.chance(3));
        if let Some(clocks) = &mut self.cluster.clocks {
            clocks.pass(if is_long { much } else { little });
            if stands_still {
                clocks.pause = much;
            }
        }
    }

    fn fault(&mut self) {
        self.pass();
        let id = self.pick();
        if self.chance(self.faults.replay) && !self.old.is_empty() {
            let position = self.below(self.old.len());
            let envelope = self.old[position].clone();
            self.cluster.receive(envelope);
        }
        if self.chance(self.faults.cut) {
            self.cut();
        }
        if self.chance(self.faults.stall) && !self.stalled.remove(&id) {
            self.stalled.insert(id);
        }
        if self.chance(self.faults.pause) && !self.paused.remove(&id) {
            self.paused.insert(id);
        }
        if self.chance(self.faults.jump) {
            self.jump(id);
        }
        if self.chance(self.faults.churn) {
            self.churn();
        }
        if self.chance(self.faults.depose) {
            self.depose();
        }
        if self.chance(self.faults.crash) {
            self.crash(id);
        }
        if self.chance(self.faults.change) {
            self.change();
        }
        if self.chance(self.faults.transfer) {
            let leader = self.pick_leader();
            self.cluster.transfer_to(leader, id);
        }
        if self.chance(self.faults.wipe) {
            self.wipe(id);
        }
    }

    /// A snapshot is finished, or a transfer ends.
    fn snapshot(&mut self, id: NodeId) {
        if self.random.between(0, 1) == 0 {
            self.cluster.finish_snapshot(id);
            return;
        }
        let transfers = self.cluster.transfers.len();
        if transfers > 0 {
            let position = self.below(transfers);
            let is_delivered = !self.chance(self.faults.loss);
            self.cluster.finish_transfer(position, is_delivered);
        }
    }

    fn change(&mut self) {
        let leader = self.pick_leader();
        // With a disk lost no other change is begun: it could leave too few who remember.
        if self.lost_disk {
            if self.cluster.is_up(leader) {
                self.replace_wiped(leader);
            }
            return;
        }
        let id = NodeId(u64::from(self.random.between(1, NODES_MAX)));
        if !self.cluster.ids().contains(&id) {
            self.cluster.add_node(id);
            self.cluster.start(id);
        }
        let incarnation = self.cluster.node(id).incarnation;
        let address = String::new();
        let change = match self.random.between(0, 9) {
            0..=2 => MembershipChange::AddLearner {
                id,
                incarnation,
                address,
            },
            3..=6 => MembershipChange::Promote { id },
            7 => MembershipChange::Set(self.any_members()),
            _ => MembershipChange::Remove { id },
        };
        self.cluster.change(leader, change);
    }

    /// Any set of the nodes that are there, each as a voter or as a learner.
    fn any_members(&mut self) -> BTreeMap<NodeId, Member> {
        let mut members = BTreeMap::new();
        for id in self.cluster.ids() {
            let role = match self.random.between(0, 3) {
                0 => continue,
                1 => MemberRole::Learner,
                _ => MemberRole::Voter,
            };
            let incarnation = self.cluster.node(id).incarnation;
            let address = String::new();
            let member = Member {
                incarnation,
                address,
                role,
            };
            members.insert(id, member);
        }
        members
    }

    /// A disk is lost, where the group can bear it: three voters at least, none lost before, and no
    /// change of membership anywhere.
    fn wipe(&mut self, id: NodeId) {
        let known: Vec<_> = self
            .cluster
            .nodes
            .values()
            .map(|node| {
                let membership = node.disk.membership(&node.bootstrap);
                let is_same = node
                    .raft
                    .as_ref()
                    .is_none_or(|r| r.state().membership == membership);
                (membership, is_same)
            })
            .collect();
        let Some((first, _)) = known.iter().find(|(membership, _)| !membership.is_empty()) else {
            return;
        };
        let is_settled = known
            .iter()
            .all(|(m, same)| *same && (m == first || m.is_empty()));
        let lives = |(id, member): (&NodeId, &Member)| {
            self.cluster.ids().contains(id)
                && self.cluster.node(*id).incarnation == member.incarnation
        };
        if !is_settled
            || first.is_joint()
            || first.voters().count() < 3
            || !first.members().iter().all(lives)
        {
            return;
        }
        if self.cluster.is_up(id) {
            self.cluster.crash(id, 0);
        }
        self.cluster.wipe(id);
        self.cluster.start(id);
        self.lost_disk = true;
    }

    /// An operator brings back whoever lost its disk.
    fn replace_wiped(&mut self, leader: NodeId) {
        let membership = self.cluster.raft(leader).state().membership;
        for (id, member) in membership.members() {
            let incarnation = self.cluster.node(*id).incarnation;
            if incarnation != member.incarnation {
                let (id, address) = (*id, String::new());
                self.cluster.change(
                    leader,
                    MembershipChange::Replace {
                        id,
                        incarnation,
                        address,
                    },
                );
            }
        }
    }

    fn propose(&mut self, id: NodeId) {
        self.proposals += 1;
        let payload = self.proposals.to_string();
        self.cluster.propose(id, &payload);
    }

    fn message(&mut self) {
        let waiting = self.cluster.network.len();
        if waiting == 0 {
            return;
        }
        let overtakes = self.chance(self.faults.overtake);
        let position = if overtakes { self.below(waiting) } else { 0 };
        let envelope = self.cluster.network[position].clone();
        if self.old.len() < OLD_MESSAGES_MAX {
            self.old.push(envelope.clone());
        } else if self.faults.replay > 0 {
            let forgotten = self.below(self.old.len());
            self.old[forgotten] = envelope.clone();
        }
        if self.chance(self.faults.repeat) {
            self.cluster.network.push(envelope);
        }
        if self.chance(self.faults.loss) {
            let lost = self.cluster.network.remove(position);
            if self.random.between(0, 1) == 1 {
                self.cluster.step(lost.from, Input::Unreachable(lost.to));
            }
        } else {
            self.cluster.deliver(position);
        }
        if self.cluster.network.len() > NETWORK_MESSAGES_MAX {
            self.cluster.network.drain(..NETWORK_MESSAGES_MAX / 2);
        }
    }

    /// Several messages are stepped before any effect is taken, as a busy driver does.
    fn burst(&mut self, id: NodeId) {
        let (burst, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.cluster.network)
            .into_iter()
            .partition(|e| e.to == id);
        self.cluster.network = rest;
        let cut = self.cluster.cut.clone();
        let heard = burst.into_iter().filter(|e| !cut.contains(&(e.from, e.to)));
        self.cluster
            .step_all(id, heard.map(Input::Message).collect());
    }

    /// Heals everything, cuts one direction of a link, or cuts the leader from all or all but one.
    fn cut(&mut self) {
        let (id, other) = (self.pick(), self.pick());
        match self.random.between(0, 4) {
            0..=1 => self.cluster.cut.clear(),
            2 => drop(self.cluster.cut.insert((id, other))),
            _ => {
                let leader = self.pick_leader();
                for peer in self.cluster.ids() {
                    if peer != other {
                        self.cluster.cut.extend([(leader, peer), (peer, leader)]);
                    }
                }
                // What it does not notice by its clock it may go on believing.
                if self.faults.pause > 0 {
                    self.paused.insert(leader);
                }
            }
        }
    }

    /// Enough ticks at once that a follower campaigns, though it heard its leader just now.
    fn jump(&mut self, id: NodeId) {
        for _ in 0..self.cluster.timing.election_ticks_max {
            if let Some(clocks) = &mut self.cluster.clocks {
                clocks.pass_to_tick(id);
            }
            self.cluster.step(id, Input::Tick);
        }
    }

    fn crash(&mut self, id: NodeId) {
        if self.cluster.is_up(id) {
            let unsynced = self.cluster.node(id).writes.len() as u32;
            let kept = self.random.between(0, unsynced) * self.random.between(0, 1);
            self.cluster.crash(id, kept as usize);
        }
    }

    /// Figure 8: a leader proposes, reaches a few others or none, and is gone. Somebody who was
    /// down comes back, and somebody else wants to lead.
    fn churn(&mut self) {
        let leader = self.pick_leader();
        self.propose(leader);
        for _ in 0..self.random.between(0, 2) {
            let first = self.cluster.network.iter().position(|e| e.from == leader);
            if let Some(position) = first {
                self.cluster.deliver(position);
            }
        }
        self.crash(leader);
        let (back, next) = (self.pick(), self.pick());
        if !self.cluster.is_up(back) {
            self.cluster.start(back);
        }
        self.jump(next);
    }

    /// A leader answers a read, is cut off, and its clock stands still. The others elect and
    /// commit; then somebody reads from it again.
    fn depose(&mut self) {
        let leader = self.pick_leader();
        if !self.cluster.is_up(leader) {
            return;
        }
        let read = |schedule: &mut Self| {
            schedule.reads += 1;
            schedule.cluster.read(leader, schedule.reads);
        };
        read(self);
        self.cluster.stabilize();
        self.paused.insert(leader);
        let others = self.cluster.ids().into_iter().filter(|id| *id != leader);
        for other in others.collect::<Vec<_>>() {
            self.cluster.cut.extend([(leader, other), (other, leader)]);
            self.jump(other);
        }
        self.cluster.stabilize();
        if let Some(next) = self.cluster.leader() {
            self.propose(next);
        }
        self.cluster.stabilize();
        read(self);
    }

    fn rounds(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.cluster.stabilize();
            if let Some(clocks) = &mut self.cluster.clocks {
                clocks.pass(TICK);
            }
            for id in self.cluster.ids() {
                self.cluster.step(id, Input::Tick);
            }
        }
        self.cluster.stabilize();
    }

    /// No more faults: the cluster must elect somebody, commit, and agree.
    fn heal(&mut self) {
        self.cluster.cut.clear();
        for id in self.cluster.ids() {
            if !self.cluster.is_up(id) {
                self.cluster.start(id);
            }
        }
        self.rounds(self.cluster.timing.election_ticks_max * 10);
        let leader = self.cluster.leader().expect("somebody leads");
        self.replace_wiped(leader);
        self.rounds(self.cluster.timing.election_ticks_max * 2);
        let leader = self.cluster.leader().expect("somebody leads");
        self.cluster.propose(leader, "last");
        self.rounds(self.cluster.timing.heartbeat_ticks * 4 + 1);
        let all = self.cluster.node(leader).applied.clone();
        let last = all.last().map(|entry| &entry.payload()[..]);
        assert_eq!(last, Some(&b"last"[..]));
        let membership = self.cluster.raft(leader).state().membership;
        assert!(!membership.is_joint(), "every change comes to its end");
        for id in membership.members().keys().copied() {
            assert_eq!(self.cluster.node(id).applied, all, "n{id} lags");
            let state = self.cluster.raft(id).state();
            assert_eq!(state.applied, Index(all.len() as u64), "n{id} lags");
        }
    }
}

#[test]
fn any_schedule_is_safe_and_heals() {
    // What the schedules reached: a generator that never gets there proves nothing.
    let (mut applied, mut truncations, mut leaders, mut reads) = (0, 0, 0, 0);
    let mut rare = BTreeMap::<&str, u64>::new();
    let only = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let mut schedule = Schedule::new(seed);
        for _ in 0..ACTIONS {
            schedule.act();
        }
        schedule.heal();
        let counts = schedule.cluster.counts;
        applied += counts.applied;
        truncations += counts.truncations;
        leaders += counts.leaders;
        reads += counts.reads;
        for (name, count) in [
            ("snapshots", counts.snapshots),
            ("installs", counts.installs),
            ("changes", counts.changes),
            ("joint leaders", counts.joint_leaders),
            ("transfers", counts.transfers),
            ("forwarded reads", counts.forwarded_reads),
            ("lease reads", counts.lease_reads),
        ] {
            *rare.entry(name).or_default() += count;
        }
    }
    println!(
        "{applied} applied, {truncations} truncations, {leaders} leaders, {reads} reads, {rare:?}"
    );
    assert!(rare.values().all(|count| *count > 100), "{rare:?}");
    assert!(applied > 100_000 && truncations > 1_000 && leaders > 7_000 && reads > 10_000);
}
