//! Makes clusters and nodes on the disk, and finds those that are there. Starts nothing.
//!
//! ```text
//! DIR/ca.pem ca.key client.pem client.key client.toml admin.pem admin.key admin.toml
//! DIR/node-1/node.toml node.pem node.key ca.pem data/
//! DIR/node-2/...
//! ```
//!
//! How a cluster is made whole or not at all is in `making`; nodes that come later are the matter
//! of `join`, and a cluster that begins with a snapshot that of `restore`.

use raft_core::Incarnation;

use crate::cluster_files::{self, ADMIN, Endpoint, lock};
use crate::config::{NodeConfig, StorageKind};
use crate::files;
use crate::identity::{self, DataDirectory, Owner};
pub use crate::init_error::InitError;
pub use crate::join::{NewcomerBackends, add_member_directory, replace_member_directory};
pub use crate::making::{ClusterLayout, load};
use crate::making::{make_cluster_with, make_locked, members};
pub use crate::plan::{ClusterPlan, NodePlan, PlanError};
pub use crate::restore::restore_cluster;

/// Makes a cluster with a new id, authority and certificates, and formats its data directories.
///
/// # Errors
/// When a cluster, or a part of one, is there already; when the plan cannot work; when a file
/// operation fails.
pub fn make_cluster(plan: &ClusterPlan) -> Result<ClusterLayout, InitError> {
    make_cluster_with(plan, |_| Ok(()))
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
            let (found, asked) = (node.state.name(), plan.state.name());
            different("state", found.to_owned(), asked.to_owned())?;
        }
    }
    Ok(())
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
