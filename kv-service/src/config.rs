//! The settings of one node: what `node.toml` says, checked, with paths made absolute to the file.
//!
//! The shape of the file itself lives in `config_file`; every key is described in
//! `docs/configuration.md`. Nothing is started and no other file is read here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use raft_core::membership::MEMBERS_MAX;
use raft_core::{
    ClusterId, GroupId, Incarnation, Limits, Member, MemberRole, Membership, MembershipError,
    NodeId, ReadPolicy, SnapshotPolicy, Timing,
};
use raft_storage::WalOptions;

use crate::config_file::{ConfigFile, MemberFile, is_host_and_port};
pub use crate::kinds::{
    Backends, ClientLimits, ReadKind, STATE_CACHE_BYTES_DEFAULT, STATE_CACHE_BYTES_MAX,
    STATE_CACHE_BYTES_MIN, StateKind, StorageKind, TransportKind,
};

/// Where a node's certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePaths {
    /// The certificate of the cluster's own authority.
    pub ca: PathBuf,
    /// The node's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The settings of one node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The file they came from; errors name it.
    pub path: PathBuf,
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub id: NodeId,
    /// The UDP address to listen on, for peers and clients.
    pub listen: SocketAddr,
    /// `host:port` under which others reach it.
    pub advertise: String,
    /// The data directory.
    pub data: PathBuf,
    /// Its certificates.
    pub certificates: CertificatePaths,
    /// Where the log is kept.
    pub storage: StorageKind,
    /// Where the state is kept.
    pub state: StateKind,
    /// What a state in RocksDB may cache, in bytes.
    pub state_cache_bytes_max: usize,
    /// What carries messages between nodes.
    pub transport: TransportKind,
    /// The members that the cluster was made with; empty for a node that joined later.
    pub members: Membership,
    /// For a node that joined later: what its data directory was formatted with.
    pub joined_as: Option<Incarnation>,
    /// How time is measured.
    pub timing: Timing,
    /// How reads are confirmed.
    pub reads: ReadPolicy,
    /// Ticks without work after which the node falls asleep.
    pub quiesce_after_ticks: Option<u32>,
    /// Bytes of a segment of the log in files.
    pub segment_bytes: u64,
    /// When snapshots are taken.
    pub snapshots: SnapshotPolicy,
    /// How fast snapshots are sent, in bytes per second; 0 is as fast as possible.
    pub snapshot_bytes_per_second: u64,
    /// Limits of the replication.
    pub limits: Limits,
    /// Limits of the clients.
    pub clients: ClientLimits,
}

impl NodeConfig {
    /// Reads and checks a `node.toml`.
    ///
    /// # Errors
    /// When the file cannot be read, is not valid TOML, has an unknown key, or a value is outside
    /// what is allowed. Each error names the file, and the key and value where there is one.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        Self::parse(path, &text)
    }

    /// The same for text that is already in memory; relative paths in it start at `path`'s
    /// directory.
    ///
    /// # Errors
    /// As [`NodeConfig::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: ConfigFile =
            toml::from_str(text).map_err(|error| ConfigError::syntax(path, text, &error))?;
        check(file, path)
    }

    /// The incarnation that the data directory was formatted with: what the list of members gives
    /// this node, or what it joined as.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        // A configuration that was loaded has one of the two.
        let listed = || self.members.get(self.id).map(|member| member.incarnation);
        self.joined_as.or_else(listed).unwrap_or(Incarnation(0))
    }

    /// Where the log and the state are kept.
    #[must_use]
    pub fn backends(&self) -> Backends {
        Backends {
            storage: self.storage,
            state: self.state,
        }
    }

    /// The part that the replication needs.
    #[must_use]
    pub fn raft(&self, seed: u64) -> raft_core::Config {
        raft_core::Config {
            cluster: self.cluster,
            group: GroupId(0),
            id: self.id,
            incarnation: self.incarnation(),
            members: self.members.clone(),
            seed,
            timing: self.timing,
            limits: self.limits,
            snapshots: self.snapshots,
            reads: self.reads,
            quiesce_after_ticks: self.quiesce_after_ticks,
        }
    }
}

/// Settings that cannot be used. All are errors of whoever wrote the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {message}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        message: String,
    },
    /// The text is not valid, a key is unknown or missing, or a value has the wrong type.
    #[error("{}:{line}: {message}, in `{excerpt}`", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
        /// The text of that line.
        excerpt: String,
    },
    /// A value is outside what is allowed.
    #[error("{}: {key} is {value}, but must be {rule}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What is allowed.
        rule: String,
    },
}

impl ConfigError {
    pub(crate) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.as_bytes().get(..at).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Self::Syntax {
            path: path.to_owned(),
            line,
            message: error.message().replace('\n', ", "),
            excerpt: text.lines().nth(line - 1).unwrap_or("").trim().to_owned(),
        }
    }
}

/// Checks every value, and makes paths start at the file's directory.
fn check(file: ConfigFile, path: &Path) -> Result<NodeConfig, ConfigError> {
    let checker = Checker { path };
    let directory = path.parent().unwrap_or(Path::new(""));
    let cluster: ClusterId = file
        .cluster
        .parse()
        .map_err(|_| checker.value("cluster", &file.cluster, "32 hexadecimal digits"))?;
    let listen: SocketAddr = file.listen.parse().map_err(|_| {
        let rule = "an IP address and a port, such as 0.0.0.0:7400";
        checker.value("listen", &file.listen, rule)
    })?;
    checker.address("advertise", &file.advertise)?;
    let (members, joined_as) = checker.members(&file)?;
    let timing = file.timing.timing();
    let config = NodeConfig {
        path: path.to_owned(),
        cluster,
        id: NodeId(file.id),
        listen,
        advertise: file.advertise,
        data: directory.join(file.data),
        certificates: CertificatePaths {
            ca: directory.join(file.ca),
            certificate: directory.join(file.certificate),
            key: directory.join(file.key),
        },
        storage: file.storage,
        state: file.state,
        state_cache_bytes_max: file.limits.state_cache_bytes_max,
        transport: file.transport,
        members,
        joined_as,
        timing,
        reads: file.timing.reads(file.reads),
        quiesce_after_ticks: file.timing.quiesce_after_ticks(),
        segment_bytes: file.log.segment_bytes,
        snapshots: file.snapshots.policy(timing),
        snapshot_bytes_per_second: file.snapshots.send_bytes_per_second,
        limits: file.limits.raft(),
        clients: file.limits.clients(),
    };
    checker.whole(&config)?;
    Ok(config)
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

    /// The members, and what the node joined as: one of the two.
    fn members(&self, file: &ConfigFile) -> Result<(Membership, Option<Incarnation>), ConfigError> {
        match (file.join, file.incarnation) {
            (false, None) => Ok((self.bootstrap(&file.members)?, None)),
            (false, Some(incarnation)) => {
                let rule = "left out, or join must be true: else [[members]] has it";
                Err(self.value("incarnation", incarnation, rule))
            }
            (true, _) if !file.members.is_empty() => {
                let rule = "left out where [[members]] lists the nodes, or false";
                Err(self.value("join", true, rule))
            }
            (true, Some(incarnation)) if incarnation > 0 => {
                Ok((Membership::default(), Some(Incarnation(incarnation))))
            }
            (true, given) => {
                let rule = "the number, from 1, that the data directory was formatted with";
                let found = given.map_or("missing".to_owned(), |zero| zero.to_string());
                Err(self.value("incarnation", found, rule))
            }
        }
    }

    fn bootstrap(&self, list: &[MemberFile]) -> Result<Membership, ConfigError> {
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

    /// A node that the cluster was made with is in its list.
    fn listed(&self, config: &NodeConfig) -> Result<(), ConfigError> {
        let Some(own) = config.members.get(config.id) else {
            return Err(self.value("id", config.id, "one of those in [[members]]"));
        };
        if own.address == config.advertise {
            return Ok(());
        }
        let rule = format!(
            "the address that [[members]] gives node {}, {}",
            config.id, own.address
        );
        Err(self.value("advertise", &config.advertise, rule))
    }

    /// What concerns more than one key.
    fn whole(&self, config: &NodeConfig) -> Result<(), ConfigError> {
        if config.joined_as.is_none() {
            self.listed(config)?;
        }
        if config.id == NodeId(0) {
            return Err(self.value("id", 0, "at least 1"));
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
        let bytes = config.state_cache_bytes_max;
        if !(STATE_CACHE_BYTES_MIN..=STATE_CACHE_BYTES_MAX).contains(&bytes) {
            let rule = format!("from {STATE_CACHE_BYTES_MIN} to {STATE_CACHE_BYTES_MAX} bytes");
            return Err(self.value("limits.state_cache_bytes_max", bytes, rule));
        }
        if !config.backends().fit() {
            let rule = "memory where storage is memory: a log that forgets cannot be under a state \
                        that does not";
            return Err(self.value("state", config.state.name(), rule));
        }
        let bytes = config.limits.append_bytes_max;
        if bytes > APPEND_BYTES_CEILING {
            let rule = format!("from 4096 to {APPEND_BYTES_CEILING} bytes");
            return Err(self.value("limits.append_bytes_max", bytes, rule));
        }
        let (least, most) = (WalOptions::SEGMENT_BYTES_MIN, WalOptions::SEGMENT_BYTES_MAX);
        if !(least..=most).contains(&config.segment_bytes) {
            let rule = format!("from {least} to {most} bytes");
            return Err(self.value("log.segment_bytes", config.segment_bytes, rule));
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
    let table = if name.contains("tick") || name.contains("drift") {
        "timing"
    } else {
        "limits"
    };
    format!("{table}.{name}")
}
