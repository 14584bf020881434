//! The plan of a cluster that is to be made: how many nodes, where, with which backends. Checked
//! before anything is written; written by `init`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use raft_core::membership::{ADDRESS_BYTES_MAX, MEMBERS_MAX};

use crate::config::{Backends, StateKind, StorageKind, TransportKind};
use crate::config_file::is_host_and_port;

/// A cluster that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPlan {
    /// Where; created if it is missing.
    pub dir: PathBuf,
    /// Its nodes.
    pub nodes: Vec<NodePlan>,
    /// Where they keep their logs.
    pub storage: StorageKind,
    /// Where they keep their state.
    pub state: StateKind,
    /// What carries messages between them.
    pub transport: TransportKind,
}

/// A node that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Its id, from 1.
    pub id: u64,
    /// The UDP address that it listens on.
    pub listen: SocketAddr,
    /// `host:port` under which others reach it.
    pub advertise: String,
}

/// A plan that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {value}, but must be {rule}")]
pub struct PlanError {
    /// What of it.
    pub what: &'static str,
    /// Its value.
    pub value: String,
    /// What is allowed.
    pub rule: String,
}

fn plan_error(what: &'static str, value: impl ToString, rule: impl Into<String>) -> PlanError {
    PlanError {
        what,
        value: value.to_string(),
        rule: rule.into(),
    }
}

impl NodePlan {
    /// A node that others reach at `host:port`. It listens on that port: of the loopback interface
    /// where the host is there, else of all interfaces.
    ///
    /// # Errors
    /// When the id is 0 or the address is not `host:port`.
    pub fn reached_at(id: u64, address: &str) -> Result<Self, PlanError> {
        if id == 0 {
            return Err(plan_error("a node's id", id, "at least 1"));
        }
        let shown = || format!("{address:?}");
        if !is_host_and_port(address) {
            return Err(plan_error("an address", shown(), "host:port"));
        }
        if address.len() > ADDRESS_BYTES_MAX {
            let rule = format!("at most {ADDRESS_BYTES_MAX} bytes long");
            return Err(plan_error("an address", shown(), rule));
        }
        let (host, port) = address.rsplit_once(':').unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let bare = if bare == "localhost" {
            "127.0.0.1"
        } else {
            bare
        };
        let local = bare.parse().ok().filter(IpAddr::is_loopback);
        let any = if host.starts_with('[') {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        Ok(Self {
            id,
            listen: SocketAddr::new(local.unwrap_or(any), port.parse().unwrap_or(0)),
            advertise: address.to_owned(),
        })
    }
}

impl ClusterPlan {
    /// Nodes 1 to `count` on this machine; node `i` listens on port `base_port + i`.
    ///
    /// # Errors
    /// When there are too few or too many nodes, or the ports end above 65535.
    pub fn local(dir: &Path, count: usize, base_port: u16) -> Result<Self, PlanError> {
        let mut nodes = Vec::new();
        for (id, offset) in (1..=count as u64).zip(1_u16..) {
            let port = base_port.checked_add(offset).ok_or_else(|| {
                let rule = format!("at most {}, for {count} nodes", u16::MAX as usize - count);
                plan_error("base port", base_port, rule)
            })?;
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let advertise = listen.to_string();
            nodes.push(NodePlan {
                id,
                listen,
                advertise,
            });
        }
        let plan = Self::with_defaults(dir, nodes);
        plan.check()?;
        Ok(plan)
    }

    /// One node per `host:port`, in this order; each listens on its port of all addresses of its
    /// host.
    ///
    /// # Errors
    /// When there are too few or too many, one is listed twice, or is not `host:port`.
    pub fn hosts(dir: &Path, addresses: &[String]) -> Result<Self, PlanError> {
        let mut nodes = Vec::new();
        for (id, advertise) in (1..).zip(addresses) {
            let port = advertise
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse().ok());
            let any = if advertise.starts_with('[') {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            } else {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            };
            nodes.push(NodePlan {
                id,
                listen: SocketAddr::new(any, port.unwrap_or(0)),
                advertise: advertise.clone(),
            });
        }
        let plan = Self::with_defaults(dir, nodes);
        plan.check()?;
        Ok(plan)
    }

    fn with_defaults(dir: &Path, nodes: Vec<NodePlan>) -> Self {
        Self {
            dir: dir.to_owned(),
            nodes,
            storage: StorageKind::default(),
            state: StateKind::default(),
            transport: TransportKind::default(),
        }
    }

    /// Checks all of it.
    pub(crate) fn check(&self) -> Result<(), PlanError> {
        let count = self.nodes.len();
        if !(1..=MEMBERS_MAX).contains(&count) {
            return Err(plan_error(
                "the number of nodes",
                count,
                format!("1 to {MEMBERS_MAX}"),
            ));
        }
        let backends = Backends {
            storage: self.storage,
            state: self.state,
        };
        if !backends.fit() {
            let rule = "memory where the storage is memory, which forgets";
            return Err(plan_error("the state", self.state.name(), rule));
        }
        let (mut ids, mut addresses) = (BTreeSet::from([0]), BTreeSet::new());
        for node in &self.nodes {
            if !ids.insert(node.id) {
                return Err(plan_error(
                    "a node's id",
                    node.id,
                    "at least 1 and given once",
                ));
            }
            let address = node.advertise.as_str();
            if !is_host_and_port(address) {
                return Err(plan_error(
                    "an address",
                    format!("{address:?}"),
                    "host:port",
                ));
            }
            if !addresses.insert(address) {
                return Err(plan_error("an address", address, "given once"));
            }
        }
        Ok(())
    }
}
