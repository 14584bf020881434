//! Legal histories, made by really running every operation at a moment that nobody sees, between
//! its invocation and its answer. The same seed makes the same history.

use history::{
    ClientId, Expect, Header, History, Location, LoggedWrite, Op, OpId, Recorder, Reply,
};

use crate::brute::{self, World};

/// Numbers that look like chance (SplitMix64).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `limit`, that included.
    pub(crate) fn up_to(&mut self, limit: u64) -> u64 {
        self.next() % (limit + 1)
    }

    pub(crate) fn percent(&mut self, share: u64) -> bool {
        self.up_to(99) < share
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let last = (items.len() as u64).checked_sub(1)?;
        items.get(self.up_to(last) as usize)
    }
}

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) clients: u64,
    pub(crate) keys: u64,
    pub(crate) operations: u64,
    /// How long a request or an answer travels at most.
    pub(crate) travel: u64,
    pub(crate) unknown_percent: u64,
    pub(crate) failed_percent: u64,
    pub(crate) resent_percent: u64,
    pub(crate) deletes: bool,
    /// How many reads there are to every eight writes.
    pub(crate) reads: u64,
    /// Whether a value is written once only.
    pub(crate) unique: bool,
    /// What the store does wrong.
    pub(crate) fault: Fault,
}

/// A store that does something wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// This write is acknowledged and never done.
    Loses(u64),
    /// A write that was sent twice is done twice.
    DoesTwice,
}

impl Plan {
    /// So few operations that all their orders can be tried.
    pub(crate) fn small(chance: &mut Chance) -> Self {
        Self {
            clients: 2 + chance.up_to(2),
            keys: 1 + chance.up_to(1),
            operations: 2 + chance.up_to(5),
            travel: 1 + chance.up_to(12),
            unknown_percent: 15,
            failed_percent: 8,
            resent_percent: 25,
            deletes: chance.percent(70),
            reads: 4 + chance.up_to(12),
            unique: chance.percent(50),
            fault: Fault::None,
        }
    }

    /// As a test run makes them.
    pub(crate) fn large(chance: &mut Chance) -> Self {
        Self {
            clients: 3 + chance.up_to(7),
            keys: 1 + chance.up_to(5),
            operations: 500 + chance.up_to(500),
            travel: 5 + chance.up_to(40),
            unknown_percent: 2,
            failed_percent: 3,
            resent_percent: 10,
            deletes: chance.percent(50),
            reads: 5,
            unique: true,
            fault: Fault::None,
        }
    }
}

/// What came of it.
pub(crate) struct Run {
    pub(crate) history: History,
    /// Every entry of a write, second ones included.
    pub(crate) log: Vec<LoggedWrite>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Unknown,
    Failed,
}

/// An operation before anybody knows what it will be.
struct Draft {
    seat: usize,
    invoked: u64,
    arrivals: Vec<u64>,
    ended: u64,
    fate: Fate,
    op: Option<Op>,
    id: Option<OpId>,
    done: Option<(Reply, Location)>,
}

/// The order of these is the one in which things happen at one moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Invoked,
    Arrived,
    Ended,
}

struct Generator<'a> {
    plan: Plan,
    chance: &'a mut Chance,
    world: World,
    recorder: Recorder,
    seats: Vec<ClientId>,
    log: Vec<LoggedWrite>,
    last: Location,
    writes: u64,
}

/// Makes a history.
pub(crate) fn generate(plan: Plan, chance: &mut Chance) -> Run {
    let mut drafts = drafts(plan, chance);
    let mut moments = Vec::new();
    for (position, draft) in drafts.iter().enumerate() {
        moments.push((draft.invoked, What::Invoked, position));
        moments.push((draft.ended, What::Ended, position));
        for at in &draft.arrivals {
            moments.push((*at, What::Arrived, position));
        }
    }
    moments.sort_unstable();
    let mut recorder = Recorder::new(Header::default());
    let seats = (0..plan.clients).map(|_| recorder.client()).collect();
    let mut generator = Generator {
        plan,
        chance,
        world: World::new(),
        recorder,
        seats,
        log: Vec::new(),
        last: Location { index: 0, term: 1 },
        writes: 0,
    };
    for (at, what, position) in moments {
        let draft = &mut drafts[position];
        match what {
            What::Invoked => generator.invoke(at, draft, position),
            What::Arrived => generator.arrive(draft),
            What::Ended => generator.end(at, draft),
        }
    }
    Run {
        history: generator.recorder.finish(),
        log: generator.log,
    }
}

fn drafts(plan: Plan, chance: &mut Chance) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut free_at: Vec<u64> = (0..plan.clients)
        .map(|_| chance.up_to(plan.travel))
        .collect();
    for _ in 0..plan.operations {
        let seat = chance.up_to(plan.clients - 1) as usize;
        let invoked = free_at[seat];
        let roll = chance.up_to(99);
        let fate = if roll < plan.unknown_percent {
            Fate::Unknown
        } else if roll < plan.unknown_percent + plan.failed_percent {
            Fate::Failed
        } else {
            Fate::Answered
        };
        let mut arrivals = Vec::new();
        let ended = match fate {
            Fate::Failed => invoked + chance.up_to(plan.travel),
            Fate::Answered => {
                let arrived = invoked + chance.up_to(plan.travel);
                arrivals.push(arrived);
                arrived + chance.up_to(plan.travel)
            }
            Fate::Unknown => {
                if chance.percent(60) {
                    // Perhaps long after its client gave up.
                    arrivals.push(invoked + chance.up_to(4 * plan.travel));
                }
                invoked + chance.up_to(plan.travel)
            }
        };
        if let Some(first) = arrivals.first().copied() {
            while chance.percent(plan.resent_percent) {
                arrivals.push(first + chance.up_to(2 * plan.travel));
            }
        }
        free_at[seat] = ended + 1 + chance.up_to(plan.travel / 2);
        drafts.push(Draft {
            seat,
            invoked,
            arrivals,
            ended,
            fate,
            op: None,
            id: None,
            done: None,
        });
    }
    drafts
}

impl Generator<'_> {
    fn invoke(&mut self, at: u64, draft: &mut Draft, number: usize) {
        let op = self.choose(number);
        let invoked = self.recorder.invoke(self.seats[draft.seat], at, op.clone());
        draft.id = Some(invoked.expect("the seat is free"));
        draft.op = Some(op);
    }

    fn choose(&mut self, number: usize) -> Op {
        let key = format!("k{}", self.chance.up_to(self.plan.keys - 1));
        let value = if self.plan.unique {
            format!("<{number}>")
        } else {
            ["", "x", "y"][self.chance.up_to(2) as usize].to_owned()
        };
        match self.chance.up_to(7 + self.plan.reads) {
            0..3 => Op::put(key, value),
            3..5 => Op::append(key, value),
            5 if self.plan.deletes => Op::delete(key),
            5..8 => {
                let held = self.world.get(&key.as_str().into());
                let version = held.map_or(0, |(_, version)| *version);
                let expect = match (self.chance.up_to(3), held) {
                    (0, Some((value, _))) => Expect::Value(value.as_slice().into()),
                    (1, _) => Expect::Absent,
                    (2, _) => Expect::Version(self.chance.up_to(version + 1)),
                    _ => Expect::Version(version),
                };
                Op::cas(key, expect, value)
            }
            _ => Op::get(key),
        }
    }

    fn arrive(&mut self, draft: &mut Draft) {
        let (Some(op), Some(OpId(operation))) = (draft.op.clone(), draft.id) else {
            panic!("it arrives before it is sent");
        };
        if op.is_write() {
            self.last.index += 1 + self.chance.up_to(2);
            self.last.term += u64::from(self.chance.percent(5));
            self.log.push(LoggedWrite {
                location: self.last,
                operation,
                op: op.clone(),
            });
        }
        if draft.done.is_some() {
            if self.plan.fault == Fault::DoesTwice {
                brute::run(&mut self.world, &op);
            }
            return;
        }
        self.writes += u64::from(op.is_write());
        let reply = if op.is_write() && self.plan.fault == Fault::Loses(self.writes) {
            brute::run(&mut self.world.clone(), &op)
        } else {
            brute::run(&mut self.world, &op)
        };
        draft.done = Some((reply, self.last));
    }

    fn end(&mut self, at: u64, draft: &Draft) {
        let id = draft.id.expect("it was invoked");
        let is_write = draft.op.as_ref().is_some_and(Op::is_write);
        match (draft.fate, &draft.done) {
            (Fate::Answered, Some((reply, location))) => {
                let location = is_write.then_some(*location);
                let ended = self.recorder.ok(id, at, reply.clone(), location);
                ended.expect("it was open");
            }
            (Fate::Unknown, _) => {
                self.seats[draft.seat] = self.recorder.info(id, at).expect("it was open");
            }
            _ => self.recorder.fail(id, at).expect("it was open"),
        }
    }
}
