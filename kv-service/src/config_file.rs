//! The shape of `node.toml`: its keys and their defaults, and the way from there to [`NodeConfig`]
//! and back. What the keys mean is told in `docs/configuration.md`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use kv_api::limits::COMMAND_BYTES_MAX;
use raft_core::membership::MEMBERS_MAX;
use raft_core::{
    ClusterId, Incarnation, Limits, Member, MemberRole, Membership, MembershipError, NodeId, Timing,
};
use serde::{Deserialize, Serialize};

use crate::config::{
    CertificatePaths, ClientLimits, ConfigError, NodeConfig, StateKind, StorageKind, TransportKind,
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
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) timing: TimingFile,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) limits: LimitsFile,
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
}

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
    tail_bytes_max: usize,
    apply_bytes_max: usize,
    proposals_pending_max: usize,
    proposals_pending_bytes_max: usize,
    reads_pending_max: usize,
    inputs_per_turn_max: usize,
    connections_max: usize,
    connection_bytes_max: usize,
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
            tail_bytes_max: raft.tail_bytes_max,
            apply_bytes_max: raft.apply_bytes_max,
            proposals_pending_max: raft.proposals_pending_max,
            proposals_pending_bytes_max: raft.proposals_pending_bytes_max,
            reads_pending_max: raft.reads_pending_max,
            inputs_per_turn_max: raft.inputs_per_turn_max,
            connections_max: clients.connections_max,
            connection_bytes_max: clients.connection_bytes_max,
        }
    }
}

impl LimitsFile {
    fn raft(&self) -> Limits {
        Limits {
            proposal_bytes_max: self.proposal_bytes_max,
            append_bytes_max: self.append_bytes_max,
            append_entries_max: self.append_entries_max,
            inflight_messages_max: self.inflight_messages_max,
            inflight_bytes_max: self.inflight_bytes_max,
            uncommitted_bytes_max: self.uncommitted_bytes_max,
            tail_bytes_max: self.tail_bytes_max,
            apply_bytes_max: self.apply_bytes_max,
            proposals_pending_max: self.proposals_pending_max,
            proposals_pending_bytes_max: self.proposals_pending_bytes_max,
            reads_pending_max: self.reads_pending_max,
            inputs_per_turn_max: self.inputs_per_turn_max,
        }
    }

    fn clients(&self) -> ClientLimits {
        ClientLimits {
            connections_max: self.connections_max,
            connection_bytes_max: self.connection_bytes_max,
        }
    }
}

impl TimingFile {
    fn timing(&self) -> Timing {
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

impl ConfigFile {
    /// Checks every value, and makes paths start at the file's directory.
    pub(crate) fn check(self, path: &Path) -> Result<NodeConfig, ConfigError> {
        let checker = Checker { path };
        let directory = path.parent().unwrap_or(Path::new(""));
        let cluster: ClusterId = self
            .cluster
            .parse()
            .map_err(|_| checker.value("cluster", &self.cluster, "32 hexadecimal digits"))?;
        let listen: SocketAddr = self.listen.parse().map_err(|_| {
            let rule = "an IP address and a port, such as 0.0.0.0:7400";
            checker.value("listen", &self.listen, rule)
        })?;
        checker.address("advertise", &self.advertise)?;
        let members = checker.members(&self.members)?;
        let config = NodeConfig {
            path: path.to_owned(),
            cluster,
            id: NodeId(self.id),
            listen,
            advertise: self.advertise,
            data: directory.join(self.data),
            certificates: CertificatePaths {
                ca: directory.join(self.ca),
                certificate: directory.join(self.certificate),
                key: directory.join(self.key),
            },
            storage: self.storage,
            state: self.state,
            transport: self.transport,
            members,
            timing: self.timing.timing(),
            limits: self.limits.raft(),
            clients: self.limits.clients(),
        };
        checker.whole(&config)?;
        Ok(config)
    }
}

/// Makes errors that name the file.
struct Checker<'a> {
    path: &'a Path,
}

impl Checker<'_> {
    fn value(&self, key: &str, value: impl ToString, rule: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_owned(),
            key: key.to_owned(),
            value: value.to_string(),
            rule: rule.into(),
        }
    }

    fn address(&self, key: &str, address: &str) -> Result<(), ConfigError> {
        if is_host_and_port(address) {
            return Ok(());
        }
        let rule = "a host name or IP address and a port from 1, such as db1.example.org:7400";
        Err(self.value(key, format!("{address:?}"), rule))
    }

    fn members(&self, list: &[MemberFile]) -> Result<Membership, ConfigError> {
        let mut members = BTreeMap::new();
        for listed in list {
            self.address("members.address", &listed.address)?;
            let member = Member {
                incarnation: Incarnation(listed.incarnation),
                address: listed.address.clone(),
                role: MemberRole::Voter,
            };
            if members.insert(NodeId(listed.id), member).is_some() {
                return Err(self.value("members.id", listed.id, "listed once"));
            }
        }
        Membership::new(members).map_err(|error| match error {
            MembershipError::ZeroId => self.value("members.id", 0, "at least 1"),
            _ => self.value(
                "members",
                format!("a list of {}", list.len()),
                format!("a list of 1 to {MEMBERS_MAX}"),
            ),
        })
    }

    /// What concerns more than one key.
    fn whole(&self, config: &NodeConfig) -> Result<(), ConfigError> {
        let Some(own) = config.members.get(config.id) else {
            return Err(self.value("id", config.id, "one of those in [[members]]"));
        };
        if own.address != config.advertise {
            let rule = format!(
                "the address that [[members]] gives node {}, {}",
                config.id, own.address
            );
            return Err(self.value("advertise", &config.advertise, rule));
        }
        if config.clients.connections_max == 0 {
            return Err(self.value("limits.connections_max", 0, "at least 1"));
        }
        // One request of the largest size must fit, or it could never be read.
        let least = kv_api::limits::FRAME_BYTES_MAX;
        let bytes = config.clients.connection_bytes_max;
        if !(least..=CONNECTION_BYTES_CEILING).contains(&bytes) {
            let rule = format!("from {least} to {CONNECTION_BYTES_CEILING} bytes");
            return Err(self.value("limits.connection_bytes_max", bytes, rule));
        }
        let bytes = config.limits.append_bytes_max;
        if bytes > APPEND_BYTES_CEILING {
            let rule = format!("from 4096 to {APPEND_BYTES_CEILING} bytes");
            return Err(self.value("limits.append_bytes_max", bytes, rule));
        }
        match config.raft(0).validate() {
            Ok(()) => Ok(()),
            Err(raft_core::ConfigError::Range { name, value, rule }) => {
                Err(self.value(&full_key(name), value, rule))
            }
            Err(other) => Err(self.value("members", other, "a list with this node in it")),
        }
    }
}

/// The largest `connection_bytes_max`: more would be a limit in name only.
const CONNECTION_BYTES_CEILING: usize = 1 << 30;

/// The largest `append_bytes_max`: what fits into a frame between peers.
const APPEND_BYTES_CEILING: usize = 64 << 20;

fn full_key(name: &str) -> String {
    let table = if name.contains("tick") {
        "timing"
    } else {
        "limits"
    };
    format!("{table}.{name}")
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
