//! State machines as the simulator needs them: the real trait, and two things that only a simulator
//! asks for.

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use kv_service::state_machine::KvStateMachine;
use raft_core::StateMachine;

/// A state machine that can be compared with its replicas and copied.
pub trait Machine: StateMachine + Debug {
    /// A hash of the whole logical state; equal on replicas that applied the same commands.
    fn digest(&self) -> u64;

    /// The machine as it is now, unmoved by later commands.
    fn image(&self) -> Box<dyn Machine>;
}

impl Machine for KvStateMachine {
    fn digest(&self) -> u64 {
        Self::digest(self)
    }

    fn image(&self) -> Box<dyn Machine> {
        Box::new(self.clone())
    }
}

/// Runs a future of a state machine to its end. The trait is asynchronous for machines that wait
/// for disks; those that are simulated never do.
///
/// # Panics
/// When it waits nevertheless.
pub(crate) fn run_now<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a simulated state machine never waits"),
    }
}
