//! The shape of `node.toml`: its keys and their defaults. What the keys mean is told in
//! `docs/configuration.md`; what values they may have is checked in `config`.

use std::path::PathBuf;

use kv_api::limits::COMMAND_BYTES_MAX;
use raft_core::{Limits, ReadPolicy, SnapshotPolicy, Timing};
use raft_storage::WalOptions;
use serde::{Deserialize, Serialize};

use crate::kinds::{
    ClientLimits, ReadKind, STATE_CACHE_BYTES_DEFAULT, StateKind, StorageKind, TransportKind,
};

/// `node.toml`, word for word.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    pub(crate) cluster: String,
    pub(crate) id: u64,
    pub(crate) listen: String,
    pub(crate) advertise: String,
    #[serde(default = "default_data")]
    pub(crate) data: PathBuf,
    #[serde(default = "default_ca")]
    pub(crate) ca: PathBuf,
    #[serde(default = "default_certificate")]
    pub(crate) certificate: PathBuf,
    #[serde(default = "default_key")]
    pub(crate) key: PathBuf,
    #[serde(default)]
    pub(crate) storage: StorageKind,
    #[serde(default)]
    pub(crate) state: StateKind,
    #[serde(default)]
    pub(crate) transport: TransportKind,
    #[serde(default)]
    pub(crate) reads: ReadKind,
    /// Whether the node waits to be told who its peers are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) join: bool,
    /// What the data directory of a node that joins was formatted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) incarnation: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) timing: TimingFile,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) limits: LimitsFile,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) log: LogFile,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) snapshots: SnapshotsFile,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) members: Vec<MemberFile>,
}

/// One `[[members]]` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberFile {
    pub(crate) id: u64,
    pub(crate) incarnation: u64,
    pub(crate) address: String,
}

/// `[timing]`: a preset, and what is to differ from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TimingFile {
    preset: TimingPreset,
    #[serde(skip_serializing_if = "Option::is_none")]
    tick_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat_ticks: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    election_ticks_min: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    election_ticks_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_drift_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quiesce_after_ticks: Option<u32>,
}

/// How much faster one clock may run than another where leases are used and nothing else is said.
/// Crystals differ by less than a hundredth of a percent; what is left is for clocks that are being
/// set right.
const CLOCK_DRIFT_PERCENT: u32 = 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TimingPreset {
    #[default]
    Lan,
    Wan,
}

/// `[limits]`: those of the replication, then those of the clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsFile {
    proposal_bytes_max: usize,
    append_bytes_max: usize,
    append_entries_max: usize,
    inflight_messages_max: usize,
    inflight_bytes_max: usize,
    uncommitted_bytes_max: usize,
    uncommitted_ticks_max: u32,
    tail_bytes_max: usize,
    apply_bytes_max: usize,
    proposals_pending_max: usize,
    proposals_pending_bytes_max: usize,
    reads_pending_max: usize,
    inputs_per_turn_max: usize,
    connections_max: usize,
    connection_bytes_max: usize,
    pub(crate) state_cache_bytes_max: usize,
}

fn default_data() -> PathBuf {
    "data".into()
}

fn default_ca() -> PathBuf {
    "ca.pem".into()
}

fn default_certificate() -> PathBuf {
    "node.pem".into()
}

fn default_key() -> PathBuf {
    "node.key".into()
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for LimitsFile {
    fn default() -> Self {
        let raft = Limits::default();
        let clients = ClientLimits::default();
        Self {
            // The largest command that a client may send must fit into a proposal.
            proposal_bytes_max: raft.proposal_bytes_max.max(COMMAND_BYTES_MAX),
            append_bytes_max: raft.append_bytes_max,
            append_entries_max: raft.append_entries_max,
            inflight_messages_max: raft.inflight_messages_max,
            inflight_bytes_max: raft.inflight_bytes_max,
            uncommitted_bytes_max: raft.uncommitted_bytes_max,
            uncommitted_ticks_max: raft.uncommitted_ticks_max,
            tail_bytes_max: raft.tail_bytes_max,
            apply_bytes_max: raft.apply_bytes_max,
            proposals_pending_max: raft.proposals_pending_max,
            proposals_pending_bytes_max: raft.proposals_pending_bytes_max,
            reads_pending_max: raft.reads_pending_max,
            inputs_per_turn_max: raft.inputs_per_turn_max,
            connections_max: clients.connections_max,
            connection_bytes_max: clients.connection_bytes_max,
            state_cache_bytes_max: STATE_CACHE_BYTES_DEFAULT,
        }
    }
}

impl LimitsFile {
    /// Those of the replication.
    pub(crate) fn raft(&self) -> Limits {
        Limits {
            proposal_bytes_max: self.proposal_bytes_max,
            append_bytes_max: self.append_bytes_max,
            append_entries_max: self.append_entries_max,
            inflight_messages_max: self.inflight_messages_max,
            inflight_bytes_max: self.inflight_bytes_max,
            uncommitted_bytes_max: self.uncommitted_bytes_max,
            uncommitted_ticks_max: self.uncommitted_ticks_max,
            tail_bytes_max: self.tail_bytes_max,
            apply_bytes_max: self.apply_bytes_max,
            proposals_pending_max: self.proposals_pending_max,
            proposals_pending_bytes_max: self.proposals_pending_bytes_max,
            reads_pending_max: self.reads_pending_max,
            inputs_per_turn_max: self.inputs_per_turn_max,
        }
    }

    /// Those of the clients.
    pub(crate) fn clients(&self) -> ClientLimits {
        ClientLimits {
            connections_max: self.connections_max,
            connection_bytes_max: self.connection_bytes_max,
        }
    }
}

impl TimingFile {
    /// The preset with what is to differ from it.
    pub(crate) fn timing(&self) -> Timing {
        let preset = match self.preset {
            TimingPreset::Lan => Timing::LAN,
            TimingPreset::Wan => Timing::WAN,
        };
        Timing {
            tick_ms: self.tick_ms.unwrap_or(preset.tick_ms),
            heartbeat_ticks: self.heartbeat_ticks.unwrap_or(preset.heartbeat_ticks),
            election_ticks_min: self.election_ticks_min.unwrap_or(preset.election_ticks_min),
            election_ticks_max: self.election_ticks_max.unwrap_or(preset.election_ticks_max),
        }
    }
}

impl TimingFile {
    /// How reads are confirmed.
    pub(crate) fn reads(&self, kind: ReadKind) -> ReadPolicy {
        match kind {
            ReadKind::Round => ReadPolicy::Round,
            ReadKind::Lease => ReadPolicy::Lease {
                clock_drift_percent: self.clock_drift_percent.unwrap_or(CLOCK_DRIFT_PERCENT),
            },
        }
    }

    /// After how many idle ticks the group falls asleep; 0 in the file is never.
    pub(crate) fn quiesce_after_ticks(&self) -> Option<u32> {
        self.quiesce_after_ticks.filter(|ticks| *ticks > 0)
    }
}

/// `[log]`: how the log in files is laid out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogFile {
    pub(crate) segment_bytes: u64,
}

impl Default for LogFile {
    fn default() -> Self {
        Self {
            segment_bytes: WalOptions::default().segment_bytes,
        }
    }
}

/// `[snapshots]`: when they are taken, what is kept beside them, how fast they are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SnapshotsFile {
    log_bytes: u64,
    entries: u64,
    interval_seconds: u64,
    kept_bytes_max: u64,
    pub(crate) send_bytes_per_second: u64,
}

impl Default for SnapshotsFile {
    fn default() -> Self {
        let policy = SnapshotPolicy::default();
        Self {
            log_bytes: policy.log_bytes,
            entries: policy.entries,
            interval_seconds: 0,
            kept_bytes_max: policy.tail_bytes_max,
            send_bytes_per_second: 128 << 20,
        }
    }
}

impl SnapshotsFile {
    /// When snapshots are taken.
    pub(crate) fn policy(&self, timing: Timing) -> SnapshotPolicy {
        let interval_ms = self.interval_seconds.saturating_mul(1000);
        SnapshotPolicy {
            log_bytes: self.log_bytes,
            entries: self.entries,
            // A tick of no length is refused later.
            ticks: interval_ms.div_ceil(timing.tick_ms.max(1)),
            tail_bytes_max: self.kept_bytes_max,
        }
    }
}

/// Whether this is `host:port` with something in both places.
pub(crate) fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let host_fits = !host.is_empty() && !host.contains(char::is_whitespace);
    let port_fits = port.parse::<u16>().is_ok_and(|port| port > 0);
    // A bare IPv6 address would be read as host and port; it needs brackets.
    let bracketed = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    host_fits && port_fits && bracketed
}
