//! The protocol: a pure state machine.

mod effects;
mod input;

pub use effects::{Apply, Effects, Load, Role, RoleChange, Write};
pub use input::{Input, Loaded, Persisted, Proposal, ProposalTicket, ReadTicket};

use crate::config::{Config, ConfigError};
use crate::error::Refusal;
use crate::log_store::LoadedLog;
use crate::types::{HardState, Index, LogId, NodeId};

/// The protocol state of one node.
#[derive(Debug)]
pub struct Raft {}

impl Raft {
    /// A node with what its log store loaded.
    ///
    /// # Errors
    /// When a setting cannot work.
    pub fn new(config: Config, loaded: LoadedLog, applied: LogId) -> Result<Self, ConfigError> {
        let _ = (loaded, applied);
        config.validate()?;
        Ok(Self {})
    }

    /// Takes in one thing that happened.
    pub fn step(&mut self, input: Input) {
        let _ = input;
    }

    /// All effects since the last call.
    pub fn take_effects(&mut self) -> Effects {
        Effects::default()
    }

    /// Messages that were refused since the last call; at most a few are kept.
    pub fn take_refusals(&mut self) -> Vec<Refusal> {
        Vec::new()
    }

    /// Where this node stands.
    #[must_use]
    pub fn state(&self) -> State {
        State::default()
    }
}

/// A summary of one node, for status, metrics and invariant checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Term and vote.
    pub hard_state: HardState,
    /// What the node is.
    pub role: Role,
    /// Who leads, where that is known.
    pub leader: Option<NodeId>,
    /// The last entry.
    pub last: LogId,
    /// The last entry that is on this node's disk.
    pub durable: Index,
    /// The last entry known to be committed.
    pub commit: Index,
    /// The last entry applied.
    pub applied: Index,
    /// What the leader knows each other member to hold; empty elsewhere.
    pub matched: Vec<(NodeId, Index)>,
}
