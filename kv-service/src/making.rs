//! A cluster as it is on the disk: made whole or not at all, and read again.
//!
//! Everything is made in `DIR/.making` and moved into place with `client.toml` last: where that
//! file is, the cluster is whole.

use std::path::{Path, PathBuf};

use raft_core::{ClusterId, Incarnation, NodeId};

use crate::certificates::Authority;
use crate::cluster_files::{
    self, ADMIN, CLIENT, CLIENT_CONFIG, Endpoint, NODE_CONFIG, NODE_PREFIX,
};
use crate::config::{NodeConfig, StorageKind};
use crate::config_file::{ConfigFile, MemberFile};
use crate::files;
use crate::identity::Owner;
use crate::init_error::InitError;
use crate::plan::ClusterPlan;

const MAKING: &str = ".making";

/// A cluster as it is on the disk.
#[derive(Clone, Debug)]
pub struct ClusterLayout {
    /// Where.
    pub dir: PathBuf,
    /// Its id.
    pub cluster: ClusterId,
    /// The configuration for clients.
    pub client_config: PathBuf,
    /// The configuration for administrators. Not there where an older version made the cluster and
    /// the authority's key has been taken away since.
    pub admin_config: PathBuf,
    /// The configurations of its nodes, in order of their ids.
    pub nodes: Vec<NodeConfig>,
}

/// Reads a cluster that was made before; `None` where there is nothing of one.
///
/// # Errors
/// When the cluster is not whole, or a configuration in it is not usable.
pub fn load(dir: &Path) -> Result<Option<ClusterLayout>, InitError> {
    let client_config = dir.join(CLIENT_CONFIG);
    let Some(found) = first_remnant(dir)? else {
        return Ok(None);
    };
    let not_whole = |missing: PathBuf| InitError::NotWhole {
        dir: dir.to_owned(),
        path: found.clone(),
        missing,
    };
    if !client_config.exists() {
        return Err(not_whole(client_config));
    }
    let mut nodes = Vec::new();
    for name in files::entry_names(dir)? {
        if name.starts_with(NODE_PREFIX) {
            nodes.push(NodeConfig::load(&dir.join(name).join(NODE_CONFIG))?);
        }
    }
    nodes.sort_by_key(|node| node.id);
    let Some(first) = nodes.first() else {
        return Err(not_whole(dir.join("node-1")));
    };
    if let Some(stranger) = nodes.iter().find(|node| node.cluster != first.cluster) {
        return Err(InitError::Different {
            dir: dir.to_owned(),
            what: "two cluster ids: node",
            found: format!("{} in {}", first.id, first.cluster),
            asked: format!("{} in {}", stranger.id, stranger.cluster),
        });
    }
    Ok(Some(ClusterLayout {
        dir: dir.to_owned(),
        cluster: first.cluster,
        client_config,
        admin_config: dir.join(ADMIN.config),
        nodes,
    }))
}

/// A data directory that was just formatted, where it is until the cluster is whole.
pub(crate) struct Formatted<'a> {
    /// The directory.
    pub(crate) data: &'a Path,
    /// Whose it is.
    pub(crate) owner: Owner,
    /// Where the log will be kept.
    pub(crate) storage: StorageKind,
    /// All nodes of the new cluster.
    pub(crate) members: &'a [MemberFile],
}

/// Makes a cluster with a new id, authority and certificates, and formats its data directories.
/// Each of them is handed over before the cluster is whole.
///
/// # Errors
/// When a cluster, or a part of one, is there already; when the plan cannot work; when a file
/// operation fails; and what `formatted` says. Nothing is made then.
pub(crate) fn make_cluster_with<E: From<InitError>>(
    plan: &ClusterPlan,
    formatted: impl FnMut(&Formatted<'_>) -> Result<(), E>,
) -> Result<ClusterLayout, E> {
    plan.check().map_err(InitError::from)?;
    files::create_directory(&plan.dir).map_err(InitError::from)?;
    let _lock = cluster_files::lock(&plan.dir)?;
    make_locked(plan, formatted)
}

/// The same, where the directory is locked.
pub(crate) fn make_locked<E: From<InitError>>(
    plan: &ClusterPlan,
    formatted: impl FnMut(&Formatted<'_>) -> Result<(), E>,
) -> Result<ClusterLayout, E> {
    let dir = &plan.dir;
    if let Some(path) = first_remnant(dir)? {
        let dir = dir.clone();
        return Err(InitError::Exists { dir, path }.into());
    }
    let making = dir.join(MAKING);
    // Left behind by a crash: nothing in it was ever used.
    files::remove_directory(&making).map_err(InitError::from)?;
    files::create_directory(&making).map_err(InitError::from)?;
    if let Err(error) = fill(plan, &making, formatted) {
        // What is wrong is told; what is left here is removed by the next attempt at the latest.
        let _ = files::remove_directory(&making);
        return Err(error);
    }
    Ok(move_into_place(dir, &making)?)
}

fn move_into_place(dir: &Path, making: &Path) -> Result<ClusterLayout, InitError> {
    let mut names = files::entry_names(making)?;
    names.sort_by_key(|name| name == CLIENT_CONFIG);
    for name in names {
        let target = dir.join(&name);
        files::rename(&making.join(&name), &target)?;
    }
    files::remove_directory(making)?;
    load(dir)?.ok_or_else(|| InitError::NotWhole {
        dir: dir.to_owned(),
        path: dir.to_owned(),
        missing: dir.join(CLIENT_CONFIG),
    })
}

/// The first thing in a directory that belongs to a cluster.
fn first_remnant(dir: &Path) -> Result<Option<PathBuf>, InitError> {
    if !dir.exists() {
        return Ok(None);
    }
    let belongs = |name: &String| {
        let ours = [
            "ca.pem",
            "ca.key",
            "client.pem",
            "client.key",
            CLIENT_CONFIG,
            "admin.pem",
            "admin.key",
            ADMIN.config,
        ];
        ours.contains(&name.as_str()) || name.starts_with(NODE_PREFIX)
    };
    Ok(files::entry_names(dir)?
        .into_iter()
        .find(belongs)
        .map(|name| dir.join(name)))
}

/// Writes everything of a new cluster into a directory that nobody uses yet.
fn fill<E: From<InitError>>(
    plan: &ClusterPlan,
    dir: &Path,
    mut formatted: impl FnMut(&Formatted<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let cluster = ClusterId(files::random().map_err(InitError::from)?);
    let authority = Authority::new(&cluster.to_string()).map_err(InitError::from)?;
    cluster_files::write_authority(dir, &authority).map_err(InitError::from)?;
    let endpoints: Vec<Endpoint> = plan.nodes.iter().map(Endpoint::of).collect();
    for user in [CLIENT, ADMIN] {
        cluster_files::write_user(dir, user, &authority, cluster, &endpoints)?;
    }
    let addresses = plan.nodes.iter().map(|node| (node.id, &node.advertise[..]));
    let listed = members(addresses)?;
    for (node, member) in plan.nodes.iter().zip(&listed) {
        let file = ConfigFile {
            storage: plan.storage,
            state: plan.state,
            transport: plan.transport,
            members: listed.clone(),
            ..cluster_files::node_file(cluster, node)
        };
        let node_dir = cluster_files::node_dir(dir, node.id);
        let owner = Owner {
            cluster,
            node: NodeId(node.id),
            incarnation: Incarnation(member.incarnation),
        };
        cluster_files::write_node(&node_dir, &authority, owner, &file)?;
        let data = node_dir.join(&file.data);
        formatted(&Formatted {
            data: &data,
            owner,
            storage: plan.storage,
            members: &listed,
        })?;
    }
    Ok(())
}

/// Members with new incarnations.
pub(crate) fn members<'a>(
    nodes: impl Iterator<Item = (u64, &'a str)>,
) -> Result<Vec<MemberFile>, InitError> {
    nodes
        .map(|(id, address)| {
            Ok(MemberFile {
                id,
                incarnation: cluster_files::new_incarnation()?,
                address: address.to_owned(),
            })
        })
        .collect()
}
