//! Makes a cluster on the disk: authority, certificates, one configuration and one formatted data
//! directory per node, and the configuration of a client. Starts nothing.
//!
//! ```text
//! DIR/ca.pem ca.key client.pem client.key client.toml admin.pem admin.key admin.toml
//! DIR/node-1/node.toml node.pem node.key ca.pem data/
//! DIR/node-2/...
//! ```
//!
//! Everything is made in `DIR/.making` and moved into place with `client.toml` last: where that
//! file is, the cluster is whole. Nodes that come later are the matter of `join`.

use std::path::{Path, PathBuf};

use raft_core::{ClusterId, Incarnation, NodeId};

use crate::certificates::Authority;
use crate::cluster_files::{
    self, ADMIN, CLIENT, CLIENT_CONFIG, Endpoint, NODE_CONFIG, NODE_PREFIX, lock,
};
use crate::config::{NodeConfig, StorageKind};
use crate::config_file::{ConfigFile, MemberFile};
use crate::files::{self, at};
use crate::identity::{self, DataDirectory, Owner};
pub use crate::init_error::InitError;
pub use crate::join::{add_member_directory, replace_member_directory};
pub use crate::plan::{ClusterPlan, NodePlan, PlanError};

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

/// Makes a cluster with a new id, authority and certificates, and formats its data directories.
///
/// # Errors
/// When a cluster, or a part of one, is there already; when the plan cannot work; when a file
/// operation fails.
pub fn make_cluster(plan: &ClusterPlan) -> Result<ClusterLayout, InitError> {
    make_cluster_with(plan, |_| Ok(()))
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

/// The same; each data directory is handed over before the cluster is whole.
///
/// # Errors
/// As [`make_cluster`], and what `formatted` says. Nothing is made then.
pub(crate) fn make_cluster_with<E: From<InitError>>(
    plan: &ClusterPlan,
    formatted: impl FnMut(&Formatted<'_>) -> Result<(), E>,
) -> Result<ClusterLayout, E> {
    plan.check().map_err(InitError::from)?;
    files::create_directory(&plan.dir).map_err(InitError::from)?;
    let _lock = lock(&plan.dir)?;
    make_locked(plan, formatted)
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

/// Uses the cluster that is there, or makes it. One whose logs are kept in memory has forgotten
/// everything, so its nodes get new incarnations and freshly formatted directories.
///
/// # Errors
/// As [`make_cluster`] and [`load`]; also when the cluster that is there has other nodes, addresses
/// or storage than the plan.
pub fn load_or_make(plan: &ClusterPlan) -> Result<ClusterLayout, InitError> {
    plan.check()?;
    files::create_directory(&plan.dir)?;
    let _lock = lock(&plan.dir)?;
    let Some(mut layout) = load(&plan.dir)? else {
        return make_locked(plan, |_| Ok(()));
    };
    require_same(plan, &layout)?;
    add_administrator(&layout)?;
    if plan.storage == StorageKind::Memory {
        renew(&layout)?;
        layout.nodes = layout
            .nodes
            .iter()
            .map(|node| NodeConfig::load(&node.path))
            .collect::<Result<_, _>>()?;
    }
    for node in &mut layout.nodes {
        node.transport = plan.transport;
    }
    Ok(layout)
}

/// An older version made clusters without administrators.
fn add_administrator(layout: &ClusterLayout) -> Result<(), InitError> {
    let dir = &layout.dir;
    if layout.admin_config.exists() {
        return Ok(());
    }
    let authority = match cluster_files::authority(dir, layout.cluster) {
        // The key was taken to a safe place: whoever has it makes the file there.
        Err(InitError::NoAuthority(_)) => return Ok(()),
        result => result?,
    };
    let nodes = layout.nodes.iter();
    let endpoints: Vec<Endpoint> = nodes
        .map(|node| Endpoint::new(node.id.0, &node.advertise))
        .collect();
    cluster_files::write_user(dir, ADMIN, &authority, layout.cluster, &endpoints)
}

fn require_same(plan: &ClusterPlan, layout: &ClusterLayout) -> Result<(), InitError> {
    let different = |what, found: String, asked: String| {
        if found == asked {
            return Ok(());
        }
        let dir = plan.dir.clone();
        Err(InitError::Different {
            dir,
            what,
            found,
            asked,
        })
    };
    let (found, asked) = (layout.nodes.len(), plan.nodes.len());
    different("nodes:", found.to_string(), asked.to_string())?;
    for (node, planned) in layout.nodes.iter().zip(&plan.nodes) {
        let found = format!("{} at {}", node.id, node.advertise);
        let asked = format!("{} at {}", planned.id, planned.advertise);
        different("node", found, asked)?;
        // One that joined later may keep its log elsewhere.
        if node.joined_as.is_none() {
            let (found, asked) = (node.storage.name(), plan.storage.name());
            different("storage", found.to_owned(), asked.to_owned())?;
        }
    }
    Ok(())
}

fn make_locked<E: From<InitError>>(
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
        if name == CLIENT_CONFIG {
            files::sync_directory(dir)?;
        }
        let target = dir.join(&name);
        std::fs::rename(making.join(&name), &target).map_err(at("rename to", &target))?;
    }
    std::fs::remove_dir(making).map_err(at("remove", making))?;
    files::sync_directory(dir)?;
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
fn members<'a>(nodes: impl Iterator<Item = (u64, &'a str)>) -> Result<Vec<MemberFile>, InitError> {
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

/// Gives all nodes of a cluster in memory new incarnations and formats their directories anew. The
/// configurations come first: a crash on the way leaves directories that do not fit them, and the
/// next call does it all again.
fn renew(layout: &ClusterLayout) -> Result<(), InitError> {
    let mut directories = Vec::new();
    for node in &layout.nodes {
        directories.extend(DataDirectory::lock_forgetful(&node.data)?);
    }
    let addresses = layout
        .nodes
        .iter()
        .map(|node| (node.id.0, node.advertise.as_str()));
    let members = members(addresses)?;
    for node in &layout.nodes {
        let mut file = cluster_files::read_node(&node.path)?;
        file.members.clone_from(&members);
        // Also one that joined is there from the beginning now.
        (file.join, file.incarnation) = (false, None);
        cluster_files::write_node_config(&node.path, &file)?;
    }
    for (node, member) in layout.nodes.iter().zip(&members) {
        files::remove_directory(&node.data)?;
        let owner = Owner {
            cluster: layout.cluster,
            node: node.id,
            incarnation: Incarnation(member.incarnation),
        };
        identity::format(&node.data, owner, StorageKind::Memory)?;
    }
    Ok(())
}
