//! What a seed draws: how large the cluster is, how it measures time, how slow everything is, and
//! which kinds of faults it has at all. Too many at once and nothing ever happens; so each seed
//! leaves most of them out (swarm testing, Groce et al., ISSTA 2012).

use raft_core::{Limits, ReadPolicy, SnapshotPolicy, Timing};

use crate::prng::Prng;
use crate::queue::Microseconds;

/// Protocol events of the safety phase, where nothing else is asked for.
pub const STEPS: u64 = 20_000;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// One node loses power, and comes back.
    Crash,
    /// All nodes lose power.
    PowerCut,
    /// Leaders lose power right after they proposed (paper figure 8).
    Churn,
    /// A leader is replaced without noticing.
    Depose,
    /// Links are cut in all kinds of shapes.
    Partition,
    /// Links hold everything back for a while.
    Clog,
    /// Messages from long ago come again.
    Replay,
    /// Processes stand still.
    Pause,
    /// Clocks jump.
    Jump,
    /// Disks stall.
    Stall,
    /// Disks fail a write.
    DiskError,
    /// Disks are lost for good.
    Wipe,
    /// The members change.
    Reconfigure,
    /// Leadership is handed over.
    Transfer,
    /// Disks lose synced entries.
    Damage,
    /// Disks are short of room.
    Short,
}

impl Family {
    /// All of them, in a fixed order.
    pub const ALL: &'static [Self] = &[
        Self::Crash,
        Self::PowerCut,
        Self::Churn,
        Self::Depose,
        Self::Partition,
        Self::Clog,
        Self::Replay,
        Self::Pause,
        Self::Jump,
        Self::Stall,
        Self::DiskError,
        Self::Wipe,
        Self::Reconfigure,
        Self::Transfer,
    ];

    /// Those that came later are drawn by themselves, so that each seed has what it had before.
    const LATER: &'static [Self] = &[Self::Damage, Self::Short];

    /// How often it strikes at the most and at the least: mean distance in longest election
    /// deadlines.
    fn distances(self) -> (u64, u64) {
        match self {
            Self::Crash => (2, 20),
            Self::PowerCut => (30, 100),
            Self::Churn => (2, 12),
            Self::Depose => (8, 30),
            Self::Partition | Self::Stall | Self::Pause => (4, 25),
            Self::Clog => (3, 15),
            Self::Replay => (0, 2),
            Self::Jump => (3, 20),
            Self::DiskError => (20, 60),
            Self::Wipe => (20, 80),
            Self::Reconfigure => (1, 8),
            Self::Transfer => (3, 20),
            Self::Damage => (4, 30),
            Self::Short => (6, 30),
        }
    }
}

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// The shortest delay.
    pub delay_min: Microseconds,
    /// The longest delay, but for late messages. Messages overtake each other within it.
    pub delay_max: Microseconds,
    /// Lost, out of 1,000.
    pub loss: u64,
    /// Delivered twice, out of 1,000.
    pub duplicate: u64,
    /// Very late, out of 1,000.
    pub late: u64,
    /// How late at most.
    pub late_max: Microseconds,
    /// Losses that the sender is told of, out of 1,000.
    pub reported: u64,
}

/// How disks behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// The shortest sync.
    pub sync_min: Microseconds,
    /// The longest, but for stalls.
    pub sync_max: Microseconds,
    /// Writes that one sync covers at most.
    pub group_max: usize,
    /// Crashes that leave a part of what was being written, out of 1,000.
    pub torn: u64,
}

/// How state machines behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineOptions {
    /// The longest time that one batch takes to apply.
    pub apply_max: Microseconds,
    /// Whether the machine has a disk of its own. One in memory begins anew.
    pub is_durable: bool,
    /// Sessions that are kept.
    pub sessions_max: usize,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Clients that run at the same time.
    pub clients: u64,
    /// The longest pause of a client between two operations.
    pub think_max: Microseconds,
    /// How long a client waits for an answer before it asks again.
    pub patience: Microseconds,
    /// Attempts at one operation before a client gives up.
    pub attempts_max: u64,
    /// Keys that everybody uses.
    pub hot_keys: u64,
    /// Keys that are rarely used twice.
    pub cold_keys: u64,
    /// Operations on a hot key before another takes its place.
    pub rotate_after: u64,
    /// Reads, out of 1,000.
    pub reads: u64,
    /// Clients without a session, out of 1,000.
    pub stateless: u64,
}

/// All that a seed decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Members at the beginning.
    pub nodes: u64,
    /// How nodes measure time.
    pub timing: Timing,
    /// Their limits.
    pub limits: Limits,
    /// Protocol events of the safety phase.
    pub steps: u64,
    /// The longest time between an input and the turn that steps it; what arrives meanwhile shares
    /// the turn.
    pub turn_max: Microseconds,
    /// How much faster or slower than the world's a clock may run, out of 1,000.
    pub clock_drift: u64,
    /// Crashes between the decision and the deeds of a turn, out of a million turns.
    pub crash_within_turn: u64,
    /// When snapshots are taken.
    pub snapshots: SnapshotPolicy,
    /// How reads are confirmed.
    pub reads: ReadPolicy,
    /// Ticks after which an idle group sleeps.
    pub quiesce_after_ticks: Option<u32>,
    /// The network.
    pub network: NetworkOptions,
    /// The disks.
    pub disk: DiskOptions,
    /// The state machines.
    pub machine: MachineOptions,
    /// The clients; none in suites that bring their own.
    pub clients: Option<ClientOptions>,
    /// Which faults there are, and the mean distance of their strikes.
    pub faults: Vec<(Family, Microseconds)>,
}

impl Options {
    /// What a seed draws.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut prng = Prng::new(seed, "options");
        let nodes = *prng.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7]);
        let timing = draw_timing(&mut prng);
        let election = u64::from(timing.election_ticks_max) * timing.tick_ms * 1_000;
        let mut faults = Vec::new();
        for family in Family::ALL {
            // Drawn for all, so that a new family does not change the others.
            let (low, high) = family.distances();
            let mean = prng.between(low * election, high * election).max(1);
            let drawn = if *family == Family::Reconfigure {
                500
            } else {
                350
            };
            if prng.chance(drawn) {
                faults.push((*family, mean));
            }
        }
        let mut later = Prng::new(seed, "later faults");
        for family in Family::LATER {
            let (low, high) = family.distances();
            let mean = later.between(low * election, high * election).max(1);
            if later.chance(250) {
                faults.push((*family, mean));
            }
        }
        let clock_drift = prng.between(0, 1) * prng.between(1, 100);
        let mut options = Self {
            seed,
            nodes,
            timing,
            limits: draw_limits(&mut prng),
            steps: STEPS,
            turn_max: prng.between(0, 1) * prng.skewed(1, 2_000),
            clock_drift,
            crash_within_turn: prng.between(0, 1) * prng.skewed(10, 2_000),
            snapshots: draw_snapshots(&mut prng),
            reads: draw_reads(&mut prng, clock_drift),
            quiesce_after_ticks: prng
                .chance(150)
                .then(|| u32::try_from(prng.between(1, 40)).expect("small")),
            network: draw_network(&mut prng, election),
            disk: draw_disk(&mut prng),
            machine: MachineOptions {
                apply_max: prng.skewed(0, 20_000),
                is_durable: prng.chance(500),
                sessions_max: *prng.pick(&[4, 12, 1_000]),
            },
            clients: Some(draw_clients(&mut prng, election)),
            faults,
        };
        if options.reads != ReadPolicy::Round && prng.chance(600) {
            options.sharpen_leases(&mut prng);
        }
        options
    }

    /// Leases end by ticks, and an election adds the time of messages and disks to that. Where
    /// both take nothing, a lease that is one tick too long shows: somebody else leads while the
    /// old leader is still asked.
    fn sharpen_leases(&mut self, prng: &mut Prng) {
        self.network.delay_min = 20;
        self.network.delay_max = 20 + prng.between(0, 300);
        self.network.late /= 4;
        self.network.loss /= 4;
        self.disk.sync_min = 20;
        self.disk.sync_max = 20 + prng.between(0, 300);
        self.machine.apply_max = prng.between(0, 100);
        self.turn_max = prng.between(0, 50);
        if let Some(clients) = &mut self.clients {
            clients.clients = prng.between(4, 10);
            clients.think_max = prng.between(500, 4_000);
            clients.reads = 850;
        }
        let election = self.election();
        for family in [Family::Partition, Family::Transfer, Family::Crash] {
            if !self.has(family) && prng.chance(600) {
                let mean = prng.between(2, 6) * election;
                self.faults.push((family, mean));
            }
        }
    }

    /// A world without faults and without clients of its own: a suite brings both. Heartbeats every
    /// 100 ms, deadlines of 300 to 600 ms, as in the course's labs.
    #[must_use]
    pub fn calm(seed: u64, nodes: u64) -> Self {
        Self {
            seed,
            nodes,
            timing: Timing {
                tick_ms: 10,
                heartbeat_ticks: 10,
                election_ticks_min: 30,
                election_ticks_max: 60,
            },
            limits: Limits::default(),
            steps: 0,
            turn_max: 50,
            clock_drift: 0,
            crash_within_turn: 0,
            snapshots: SnapshotPolicy {
                log_bytes: 0,
                entries: 0,
                ticks: 0,
                tail_bytes_max: 0,
            },
            reads: ReadPolicy::Round,
            quiesce_after_ticks: None,
            network: NetworkOptions {
                delay_min: 50,
                delay_max: 500,
                loss: 0,
                duplicate: 0,
                late: 0,
                late_max: 0,
                reported: 0,
            },
            disk: DiskOptions {
                sync_min: 50,
                sync_max: 500,
                group_max: 64,
                torn: 0,
            },
            machine: MachineOptions {
                apply_max: 0,
                is_durable: false,
                sessions_max: 1_000,
            },
            clients: None,
            faults: Vec::new(),
        }
    }

    /// The longest election deadline.
    #[must_use]
    pub fn election(&self) -> Microseconds {
        u64::from(self.timing.election_ticks_max) * self.tick()
    }

    /// The length of a tick.
    #[must_use]
    pub fn tick(&self) -> Microseconds {
        self.timing.tick_ms * 1_000
    }

    /// Whether this seed has this kind of fault.
    #[must_use]
    pub fn has(&self, family: Family) -> bool {
        self.faults.iter().any(|(drawn, _)| *drawn == family)
    }
}

fn draw_timing(prng: &mut Prng) -> Timing {
    if prng.chance(200) {
        return Timing::LAN;
    }
    // Few ticks per deadline: elections are what is interesting.
    let heartbeat_ticks = u32::try_from(prng.between(1, 3)).expect("small");
    let width = u32::try_from(prng.between(2, 8)).expect("small");
    let election_ticks_min =
        heartbeat_ticks * 2 + u32::try_from(prng.between(0, 4)).expect("small");
    Timing {
        tick_ms: 10,
        heartbeat_ticks,
        election_ticks_min,
        election_ticks_max: election_ticks_min + width,
    }
}

fn draw_limits(prng: &mut Prng) -> Limits {
    let mut limits = Limits::default();
    if prng.chance(700) {
        // Small windows and an almost empty tail: catch-up from the disk, in many steps.
        limits.append_entries_max = usize::try_from(prng.between(1, 8)).expect("small");
        limits.inflight_messages_max = usize::try_from(prng.between(1, 4)).expect("small");
        limits.tail_bytes_max = usize::try_from(prng.skewed(0, 20_000)).expect("small");
        limits.proposal_bytes_max = 2_048;
        limits.uncommitted_bytes_max = usize::try_from(prng.between(4_096, 8_192)).expect("small");
        limits.apply_bytes_max = usize::try_from(prng.between(4_096, 8_192)).expect("small");
        limits.uncommitted_ticks_max = u32::try_from(prng.between(1, 40)).expect("small");
        limits.reads_pending_max = usize::try_from(prng.between(4, 32)).expect("small");
    }
    limits
}

fn draw_snapshots(prng: &mut Prng) -> SnapshotPolicy {
    let mut some = |low, high| prng.between(0, 1) * prng.skewed(low, high);
    SnapshotPolicy {
        entries: some(3, 500),
        log_bytes: some(100, 40_000),
        ticks: some(5, 500),
        tail_bytes_max: some(1, 4_000),
    }
}

/// A lease trusts that no clock runs faster than another by more than is configured.
fn draw_reads(prng: &mut Prng, drift: u64) -> ReadPolicy {
    if prng.chance(700) {
        return ReadPolicy::Round;
    }
    let apart = ((1_000 + drift) * 100).div_ceil(1_000 - drift) - 100;
    let percent = apart.max(1) + prng.between(0, 3);
    ReadPolicy::Lease {
        clock_drift_percent: u32::try_from(percent).expect("below 50"),
    }
}

fn draw_network(prng: &mut Prng, election: Microseconds) -> NetworkOptions {
    let delay_min = prng.skewed(20, 2_000);
    let mut chance = |highest| prng.between(0, 1) * prng.skewed(1, highest);
    let (loss, duplicate, late) = (chance(200), chance(200), chance(100));
    NetworkOptions {
        delay_min,
        delay_max: delay_min + prng.skewed(0, 20_000),
        loss,
        duplicate,
        late,
        late_max: election * prng.between(1, 10),
        reported: *prng.pick(&[0, 300, 1_000]),
    }
}

fn draw_disk(prng: &mut Prng) -> DiskOptions {
    let sync_min = prng.skewed(20, 5_000);
    DiskOptions {
        sync_min,
        sync_max: sync_min + prng.skewed(0, 30_000),
        group_max: *prng.pick(&[1, 2, 64]),
        torn: *prng.pick(&[0, 500, 1_000]),
    }
}

fn draw_clients(prng: &mut Prng, election: Microseconds) -> ClientOptions {
    ClientOptions {
        clients: prng.between(1, 10),
        think_max: prng.skewed(1_000, election * 2),
        patience: prng.between(election / 2, election * 4),
        attempts_max: prng.between(1, 12),
        hot_keys: prng.between(1, 3),
        cold_keys: *prng.pick(&[0, 20, 200]),
        rotate_after: prng.between(50, 400),
        reads: prng.between(100, 700),
        stateless: *prng.pick(&[0, 0, 200, 1_000]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_draws_the_same_and_others_draw_others() {
        assert_eq!(Options::draw(7), Options::draw(7));
        assert_ne!(Options::draw(7).network, Options::draw(8).network);
    }

    #[test]
    fn every_size_and_every_fault_is_drawn() {
        let drawn: Vec<_> = (0..300).map(Options::draw).collect();
        for nodes in 1..=7 {
            assert!(drawn.iter().any(|o| o.nodes == nodes), "{nodes} nodes");
        }
        for family in Family::ALL.iter().chain(Family::LATER) {
            let with = drawn.iter().filter(|o| o.has(*family)).count();
            assert!((20..280).contains(&with), "{family:?} in {with} of 300");
        }
    }

    #[test]
    fn all_other_trouble_is_drawn_and_left_out() {
        let drawn: Vec<_> = (0..300).map(Options::draw).collect();
        type Kind = (&'static str, fn(&Options) -> bool);
        let kinds: [Kind; 14] = [
            ("lost messages", |o| o.network.loss > 0),
            ("messages that come twice", |o| o.network.duplicate > 0),
            ("late messages", |o| o.network.late > 0),
            ("losses that are reported", |o| o.network.reported > 0),
            ("torn writes", |o| o.disk.torn > 0),
            ("clocks of other rates", |o| o.clock_drift > 0),
            ("crashes within a turn", |o| o.crash_within_turn > 0),
            ("snapshots by entries", |o| o.snapshots.entries > 0),
            ("snapshots by bytes", |o| o.snapshots.log_bytes > 0),
            ("snapshots by time", |o| o.snapshots.ticks > 0),
            ("a tail behind snapshots", |o| {
                o.snapshots.tail_bytes_max > 0
            }),
            ("machines with a disk", |o| o.machine.is_durable),
            ("leases", |o| o.reads != ReadPolicy::Round),
            ("sleep", |o| o.quiesce_after_ticks.is_some()),
        ];
        for (name, is_drawn) in kinds {
            let with = drawn.iter().filter(|options| is_drawn(options)).count();
            assert!((20..280).contains(&with), "{name} in {with} of 300");
        }
        // Messages overtake each other within the range of their delays.
        assert!(
            drawn
                .iter()
                .any(|o| o.network.delay_max > o.network.delay_min)
        );
    }
}
