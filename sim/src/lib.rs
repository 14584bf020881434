//! A seeded, deterministic simulator: whole clusters of the real protocol with the real key-value
//! machine, in one thread and in virtual time. Messages are lost, late, repeated and overtaken;
//! links are cut in all shapes; power goes at any moment and takes with it what was not synced;
//! disks stall, clocks drift and processes stand still. What must hold across nodes is looked at
//! after every step, what clients were told is judged at the end, and once the faults end the
//! cluster must serve again. The same seed gives the same run.
//!
//! - [`World`] is a cluster that a suite drives by hand, see `suite`.
//! - [`run`] does all of it for one seed.
//!
//! ```
//! use sim::{Options, World};
//!
//! let mut world = World::new(Options::calm(1, 3));
//! assert!(world.run_while_not(5_000_000, |world| world.leader().is_some())?);
//! let leader = world.leader().expect("just seen");
//! let (_, at) = world.propose(leader, "anything").expect("it leads");
//! assert!(world.run_while_not(1_000_000, |world| world.applied_by(at.index) == 3)?);
//! # Ok::<(), sim::Violation>(())
//! ```

mod applying;
mod budget;
mod checks;
mod coverage;
mod diagram;
mod disk;
mod drill;
mod event;
mod execute;
mod faults;
mod judge;
mod machine;
mod network;
mod node;
mod operator;
mod options;
mod partitions;
mod prng;
mod queue;
mod render;
mod run;
mod shelf;
mod snapshots;
mod stage;
mod storage;
mod suite;
mod trace;
mod turn;
mod violation;
mod workload;
mod world;

pub use coverage::{Coverage, Mark};
pub use disk::Disk;
pub use drill::Drill;
pub use machine::Machine;
pub use network::{Fate, LabSwitches, Network, Traffic};
pub use node::{Answer, Ask, Node, RequestId, Standing};
pub use options::{
    ClientOptions, DiskOptions, Family, MachineOptions, NetworkOptions, Options, STEPS,
};
pub use prng::Prng;
pub use queue::Microseconds;
pub use run::{Failure, Keep, Report, run, run_world};
pub use violation::{INVARIANTS, Violation};
pub use world::{MachineFactory, World};
