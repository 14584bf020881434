//! One seed from its beginning to its verdict: a phase with faults, in which nothing may ever be
//! wrong, then one without, in which everything has to work again.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use history::picture;

use crate::coverage::Coverage;
use crate::judge::judge;
use crate::options::Options;
use crate::queue::Microseconds;
use crate::violation::Violation;
use crate::workload::Workload;
use crate::world::World;

/// The time that a cluster has to serve again after the faults, in longest election deadlines.
const RECOVERY_ELECTIONS_MAX: u64 = 60;

/// Such times in which it may still get better.
const RECOVERY_SPANS_MAX: u64 = 30;

/// Virtual time of a safety phase at most: one where nearly nothing happens ends too.
const SAFETY_TIME_MAX: Microseconds = 600_000_000;

/// How a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something panicked: an assertion of the protocol, of the machine, or of the simulator.
    Crash(String),
    /// An invariant does not hold.
    Safety(Violation),
    /// The faults ended, and the cluster did not serve again.
    Liveness(String),
}

impl Failure {
    /// What the program ends with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Crash(_) => 10,
            Self::Safety(_) => 11,
            Self::Liveness(_) => 12,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash(what) => write!(f, "crash: {what}"),
            Self::Safety(violation) => write!(f, "safety: {violation}"),
            Self::Liveness(what) => write!(f, "liveness: {what}"),
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was run.
    pub options: Options,
    /// Inputs that protocols stepped.
    pub steps: u64,
    /// Virtual time that passed.
    pub time: Microseconds,
    /// Operations of clients.
    pub operations: u64,
    /// Terms that had a leader.
    pub leaders: usize,
    /// The last committed index.
    pub committed: u64,
    /// A hash of all that happened.
    pub hash: u64,
    /// Rare states that were reached.
    pub coverage: Coverage,
    /// What went wrong, where something did.
    pub failure: Option<Failure>,
    /// The trace as text, where it was asked for.
    pub lines: Vec<String>,
    /// A page of HTML that shows the end of the run, where it was asked for.
    pub page: Option<String>,
}

/// What is to be kept of a run besides its verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The trace as text.
    pub trace: bool,
    /// A page that shows what happened last.
    pub page: bool,
}

/// Runs one seed.
#[must_use]
pub fn run(options: Options, keep: Keep) -> Report {
    run_world(World::new(options), keep)
}

/// Runs a world to its verdict.
#[must_use]
pub fn run_world(mut world: World, keep: Keep) -> Report {
    if keep.trace {
        world.write_trace();
    }
    if keep.page {
        world.keep_diagram();
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| phases(&mut world)));
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(panic) => Some(Failure::Crash(message(panic.as_ref()))),
    };
    let problem = failure.as_ref().map(Failure::to_string).unwrap_or_default();
    let title = format!("seed {}", world.options.seed);
    let page = world
        .picture
        .take()
        .or_else(|| world.draw(&title, &problem));
    Report {
        options: world.options.clone(),
        steps: world.steps,
        time: world.now,
        operations: world
            .workload
            .as_ref()
            .map_or(world.operations, |w| w.operations),
        leaders: world.checks.elections.count(),
        committed: world.checks.commits.last().index.0,
        hash: world.trace.hash(),
        coverage: world.coverage.clone(),
        failure,
        lines: world.trace.lines().map(str::to_owned).collect(),
        page,
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

fn phases(world: &mut World) -> Result<(), Failure> {
    while world.steps < world.options.steps && world.now < SAFETY_TIME_MAX {
        world.step().map_err(Failure::Safety)?;
    }
    world.heal();
    recover(world)?;
    world.compare_machines().map_err(Failure::Safety)?;
    if let Some(workload) = world.workload.take() {
        world.operations = workload.operations;
        let log = workload.log_of(world.checks.machines.all());
        let history = workload.into_history();
        if let Err(objection) = judge(&history, &log) {
            world.picture = objection.scene.map(|scene| picture::draw(&history, &scene));
            return Err(Failure::Safety(objection.violation));
        }
    }
    Ok(())
}

/// Every client gets an answer to something that it asked after the faults; then all end, and
/// everybody agrees. That may take long where everything is slow, but it goes on all the time.
fn recover(world: &mut World) -> Result<(), Failure> {
    let longest = world.options.election() * RECOVERY_ELECTIONS_MAX;
    let mut patience = 0;
    if let Some(workload) = &mut world.workload {
        workload.calm_down(world.options.election());
        patience = workload.longest_call();
    }
    let served = |world: &World| {
        let clients = world.workload.iter().flat_map(|w| &w.clients);
        let mut answered = clients.map(|client| client.answered_since_heal);
        answered.all(|count| count > 0)
    };
    if !goes_on_until(world, longest + patience, served)? {
        return Err(Failure::Liveness(describe(
            world,
            "some client is not served",
        )));
    }
    if let Some(workload) = &mut world.workload {
        workload.is_ending = true;
    }
    let ended = |world: &World| {
        let ended = world.workload.as_ref().is_none_or(Workload::has_ended);
        ended && world.is_agreed()
    };
    if !goes_on_until(world, longest + patience, ended)? {
        return Err(Failure::Liveness(describe(world, "the nodes do not agree")));
    }
    Ok(())
}

/// Runs until a condition holds, as long as in each span of time something gets better.
fn goes_on_until(
    world: &mut World,
    span: Microseconds,
    holds: impl Fn(&World) -> bool,
) -> Result<bool, Failure> {
    for _ in 0..RECOVERY_SPANS_MAX {
        let before = progress(world);
        if world.run_while_not(span, &holds).map_err(Failure::Safety)? {
            return Ok(true);
        }
        if progress(world) <= before {
            return Ok(false);
        }
    }
    Ok(false)
}

/// Grows while the cluster does something useful.
fn progress(world: &World) -> u64 {
    let nodes = world.nodes.iter().filter(|node| node.is_up());
    let nodes = nodes.map(|node| node.disk.last().index.0 + node.applier.applied.0);
    let clients = world.workload.iter().flat_map(|w| &w.clients);
    let answered = clients.map(|client| client.answered_since_heal);
    nodes.sum::<u64>() + answered.sum::<u64>()
}

fn describe(world: &World, what: &str) -> String {
    let nodes: Vec<_> = world
        .nodes
        .iter()
        .map(|node| {
            let state = &node.state;
            format!(
                "n{} {:?} {} term {} last {} commit {} applied {}",
                node.id,
                node.standing,
                state.role.name(),
                state.hard_state.term,
                state.last,
                state.commit,
                node.applier.applied
            )
        })
        .collect();
    format!("{what}: {}", nodes.join("; "))
}
