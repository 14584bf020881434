//! The directory of a node that joins a cluster which is there already: a new member, or one that
//! comes back because its disk was lost. The cluster is told by whoever calls this; nothing is
//! started.
//!
//! Such a node knows nobody. It is told who its peers are by the leader, once it is a member.

use std::path::Path;

use raft_core::{ClusterId, Incarnation, NodeId};

use crate::cluster_files::{self, NODE_CONFIG, NODE_PREFIX};
use crate::config::{Backends, NodeConfig, StateKind, StorageKind};
use crate::config_file::ConfigFile;
use crate::files;
use crate::identity::{self, Owner};
use crate::init_error::InitError;
use crate::plan::{NodePlan, PlanError};

/// What a new member keeps, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewcomerBackends {
    /// Where its log is kept.
    pub storage: StorageKind,
    /// Where its state is kept; like that of a node that is there, where nothing is said.
    pub state: Option<StateKind>,
}

impl From<StorageKind> for NewcomerBackends {
    fn from(storage: StorageKind) -> Self {
        Self {
            storage,
            state: None,
        }
    }
}

/// Makes `DIR/node-ID` for a new member: certificate, configuration, and a data directory with a
/// fresh incarnation. `dir` is where the cluster was made, with the key of its authority. Timing
/// and limits are those of a node that is there.
///
/// # Errors
/// When there is no cluster or no key, something is there already, the address is not `host:port`,
/// or a file operation fails. Nothing is made then.
pub fn add_member_directory(
    dir: &Path,
    id: u64,
    address: &str,
    asked: impl Into<NewcomerBackends>,
) -> Result<NodeConfig, InitError> {
    let plan = NodePlan::reached_at(id, address)?;
    let cluster = cluster_files::cluster_of(dir)?;
    let _lock = cluster_files::lock(dir)?;
    let path = cluster_files::node_dir(dir, id);
    if path.exists() {
        let dir = dir.to_owned();
        return Err(InitError::Exists { dir, path });
    }
    let mut file = like_the_others(dir, cluster, &plan)?;
    let asked = asked.into();
    file.storage = asked.storage;
    file.state = asked.state.unwrap_or(file.state);
    let backends = Backends {
        storage: file.storage,
        state: file.state,
    };
    if !backends.fit() {
        return Err(InitError::Plan(PlanError {
            what: "the state",
            value: backends.state.name().to_owned(),
            rule: "memory where the storage is memory, which forgets".to_owned(),
        }));
    }
    make(dir, cluster, file)
}

/// Makes `DIR/node-ID` fit for a member whose disk was lost: a data directory with a fresh
/// incarnation, and what else is missing. Certificate and settings are kept where they are there.
///
/// # Errors
/// As [`add_member_directory`]; also when the data directory still holds data.
pub fn replace_member_directory(
    dir: &Path,
    id: u64,
    address: &str,
) -> Result<NodeConfig, InitError> {
    let plan = NodePlan::reached_at(id, address)?;
    let cluster = cluster_files::cluster_of(dir)?;
    let _lock = cluster_files::lock(dir)?;
    let node_dir = cluster_files::node_dir(dir, id);
    let path = node_dir.join(NODE_CONFIG);
    if !path.exists() {
        if node_dir.exists() {
            let data = node_dir.join("data");
            identity::remove_unused(&data, NodeId(id))?;
            files::remove_directory(&node_dir)?;
        }
        let file = like_the_others(dir, cluster, &plan)?;
        return make(dir, cluster, file);
    }
    let mut file = cluster_files::read_node(&path)?;
    if (&file.cluster, file.id) != (&cluster.to_string(), id) {
        return Err(InitError::Different {
            dir: dir.to_owned(),
            what: "in its place node",
            found: format!("{} of cluster {}", file.id, file.cluster),
            asked: format!("{id} of cluster {cluster}"),
        });
    }
    let data = node_dir.join(&file.data);
    identity::remove_unused(&data, NodeId(id))?;
    let owner = joins(&mut file, cluster)?;
    if file.advertise != plan.advertise {
        file.listen = plan.listen.to_string();
        file.advertise = plan.advertise;
    }
    let parts = [&file.certificate, &file.key, &file.ca];
    if parts.iter().any(|part| !node_dir.join(part).exists()) {
        let authority = cluster_files::authority(dir, cluster)?;
        cluster_files::write_certificates(&node_dir, &authority, owner)?;
        file.certificate = "node.pem".into();
        file.key = "node.key".into();
        file.ca = "ca.pem".into();
    }
    // The configuration comes first: a crash on the way leaves a directory that does not fit it,
    // and the next call does it all again.
    cluster_files::write_node_config(&path, &file)?;
    let backends = Backends {
        storage: file.storage,
        state: file.state,
    };
    identity::format(&data, owner, backends)?;
    Ok(NodeConfig::load(&path)?)
}

/// A configuration with the settings of a node that is there, whichever is found first.
fn like_the_others(
    dir: &Path,
    cluster: ClusterId,
    plan: &NodePlan,
) -> Result<ConfigFile, InitError> {
    let mut file = cluster_files::node_file(cluster, plan);
    for name in files::entry_names(dir)? {
        let path = dir.join(&name).join(NODE_CONFIG);
        if !name.starts_with(NODE_PREFIX) || !path.exists() {
            continue;
        }
        let other = cluster_files::read_node(&path)?;
        file.storage = other.storage;
        file.state = other.state;
        file.transport = other.transport;
        file.reads = other.reads;
        file.timing = other.timing;
        file.limits = other.limits;
        file.log = other.log;
        file.snapshots = other.snapshots;
        break;
    }
    Ok(file)
}

/// Gives a node that joins a fresh incarnation.
fn joins(file: &mut ConfigFile, cluster: ClusterId) -> Result<Owner, InitError> {
    let incarnation = cluster_files::new_incarnation()?;
    file.join = true;
    file.incarnation = Some(incarnation);
    file.members.clear();
    Ok(Owner {
        cluster,
        node: NodeId(file.id),
        incarnation: Incarnation(incarnation),
    })
}

/// Makes a node's directory beside its place, then moves it there.
fn make(dir: &Path, cluster: ClusterId, mut file: ConfigFile) -> Result<NodeConfig, InitError> {
    let owner = joins(&mut file, cluster)?;
    let authority = cluster_files::authority(dir, cluster)?;
    let making = dir.join(format!(".making-{NODE_PREFIX}{}", file.id));
    // Left behind by a crash: nothing in it was ever used.
    files::remove_directory(&making)?;
    if let Err(error) = cluster_files::write_node(&making, &authority, owner, &file) {
        // What is wrong is told; what is left here is removed by the next attempt at the latest.
        let _ = files::remove_directory(&making);
        return Err(error);
    }
    let node_dir = cluster_files::node_dir(dir, file.id);
    files::rename(&making, &node_dir)?;
    Ok(NodeConfig::load(&node_dir.join(NODE_CONFIG))?)
}
