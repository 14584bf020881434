//! What a node refuses to start with: a disk that contradicts itself, or the state machine.

use std::collections::BTreeMap;

use crate::config::{Config, ConfigError, Limits, Timing};
use crate::log_store::LoadedLog;
use crate::membership::{Member, MemberRole, Membership};
use crate::protocol::Raft;
use crate::types::{ClusterId, GroupId, HardState, Incarnation, Index, LogId, NodeId, Term};

/// Starts a lone node whose hard state is of `term` and whose log ends at `last`.
fn start(term: Term, last: LogId, applied: LogId) -> Result<(), ConfigError> {
    let id = NodeId(1);
    let member = Member {
        incarnation: Incarnation(1),
        address: String::new(),
        role: MemberRole::Voter,
    };
    let config = Config {
        cluster: ClusterId::default(),
        group: GroupId(0),
        id,
        incarnation: Incarnation(1),
        members: Membership::new(BTreeMap::from([(id, member)])).unwrap(),
        seed: 1,
        timing: Timing::LAN,
        limits: Limits::default(),
        snapshots: crate::SnapshotPolicy::default(),
        reads: crate::ReadPolicy::default(),
        quiesce_after_ticks: None,
    };
    let loaded = LoadedLog {
        hard_state: HardState { term, vote: None },
        term_runs: vec![(last.term, Index(1))],
        last,
        ..LoadedLog::default()
    };
    Raft::new(config, loaded, None, applied).map(|_| ())
}

#[test]
fn a_log_of_a_term_that_was_never_seen_is_refused() {
    let last = LogId::new(Term(3), Index(5));
    let term = Term(2);
    let refused = start(term, last, LogId::ZERO);
    assert_eq!(refused, Err(ConfigError::TermBehind { term, last }));
    assert_eq!(start(Term(3), last, LogId::ZERO), Ok(()));
}

#[test]
fn a_state_machine_that_is_ahead_of_its_log_is_refused() {
    let last = LogId::new(Term(3), Index(5));
    let applied = LogId::new(Term(3), Index(6));
    let refused = start(Term(3), last, applied);
    assert_eq!(refused, Err(ConfigError::LogBehind { applied, last }));
    assert_eq!(start(Term(3), last, last), Ok(()));
}
