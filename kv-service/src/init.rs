//! Makes a cluster on the disk: authority, certificates, one configuration and one formatted data
//! directory per node, and the configuration of a client. Starts nothing.
//!
//! ```text
//! DIR/ca.pem ca.key client.pem client.key client.toml
//! DIR/node-1/node.toml node.pem node.key ca.pem data/
//! DIR/node-2/...
//! ```
//!
//! Everything is made in `DIR/.making` and moved into place with `client.toml` last: where that
//! file is, the cluster is whole.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use quic_link::{Identity, Role};
use raft_core::{ClusterId, Incarnation, NodeId};
use serde::Serialize;

use crate::certificates::{Authority, CertificateError, SignedPair};
use crate::config::{ConfigError, NodeConfig, StorageKind};
use crate::config_file::{ConfigFile, LimitsFile, MemberFile, TimingFile};
use crate::files::{self, FileError, PUBLIC, SECRET, at};
use crate::identity::{self, DataDirectory, IdentityError, Owner};
pub use crate::plan::{ClusterPlan, NodePlan, PlanError};

const MAKING: &str = ".making";
const CLIENT_CONFIG: &str = "client.toml";
const NODE_CONFIG: &str = "node.toml";
const NODE_PREFIX: &str = "node-";

/// A cluster as it is on the disk.
#[derive(Clone, Debug)]
pub struct ClusterLayout {
    /// Where.
    pub dir: PathBuf,
    /// Its id.
    pub cluster: ClusterId,
    /// The configuration for clients.
    pub client_config: PathBuf,
    /// The configurations of its nodes, in order of their ids.
    pub nodes: Vec<NodeConfig>,
}

/// A cluster cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// There is a cluster already.
    #[error(
        "{} exists already: {} has a cluster, which is never overwritten. \
         Choose another directory, or remove this one to give its data up",
        path.display(), dir.display()
    )]
    Exists {
        /// The directory.
        dir: PathBuf,
        /// What was found in it.
        path: PathBuf,
    },
    /// There is something, but not a whole cluster.
    #[error(
        "{} exists, but {} does not: the cluster in {} is not whole. \
         Bring the missing file back, or choose another directory",
        path.display(), missing.display(), dir.display()
    )]
    NotWhole {
        /// The directory.
        dir: PathBuf,
        /// What was found in it.
        path: PathBuf,
        /// What is missing.
        missing: PathBuf,
    },
    /// Another process is making a cluster at the same place.
    #[error("another process is making a cluster in {}", .0.display())]
    Locked(PathBuf),
    /// The plan cannot work.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The cluster that is there is not the one that was asked for.
    #[error("the cluster in {} was made with {what} {found}, not {asked}", dir.display())]
    Different {
        /// The directory.
        dir: PathBuf,
        /// What differs.
        what: &'static str,
        /// What is there.
        found: String,
        /// What was asked for.
        asked: String,
    },
    /// A node's configuration is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A node's data directory is not usable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl InitError {
    /// What the process ends with: 70 for damaged data, otherwise 2.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Identity(error) => error.exit_code(),
            _ => 2,
        }
    }
}

/// Makes a cluster with a new id, authority and certificates, and formats its data directories.
///
/// # Errors
/// When a cluster, or a part of one, is there already; when the plan cannot work; when a file
/// operation fails.
pub fn make_cluster(plan: &ClusterPlan) -> Result<ClusterLayout, InitError> {
    plan.check()?;
    files::create_directory(&plan.dir)?;
    let _lock = lock(&plan.dir)?;
    make_locked(plan)
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
    for name in entry_names(dir)? {
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
        return make_locked(plan);
    };
    require_same(plan, &layout)?;
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
        let (found, asked) = (node.storage.name(), plan.storage.name());
        different("storage", found.to_owned(), asked.to_owned())?;
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, InitError> {
    let file = File::open(dir).map_err(at("open", dir))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(InitError::Locked(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(at("lock", dir)(error).into()),
    }
}

fn make_locked(plan: &ClusterPlan) -> Result<ClusterLayout, InitError> {
    let dir = &plan.dir;
    if let Some(path) = first_remnant(dir)? {
        let dir = dir.clone();
        return Err(InitError::Exists { dir, path });
    }
    let making = dir.join(MAKING);
    // Left behind by a crash: nothing in it was ever used.
    if making.exists() {
        std::fs::remove_dir_all(&making).map_err(at("remove", &making))?;
    }
    files::create_directory(&making)?;
    fill(plan, &making)?;
    let mut names = entry_names(&making)?;
    names.sort_by_key(|name| name == CLIENT_CONFIG);
    for name in names {
        if name == CLIENT_CONFIG {
            files::sync_directory(dir)?;
        }
        let target = dir.join(&name);
        std::fs::rename(making.join(&name), &target).map_err(at("rename to", &target))?;
    }
    std::fs::remove_dir(&making).map_err(at("remove", &making))?;
    files::sync_directory(dir)?;
    load(dir)?.ok_or_else(|| InitError::NotWhole {
        dir: dir.clone(),
        path: dir.clone(),
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
        ];
        ours.contains(&name.as_str()) || name.starts_with(NODE_PREFIX)
    };
    Ok(entry_names(dir)?
        .into_iter()
        .find(belongs)
        .map(|name| dir.join(name)))
}

/// The names in a directory, in order. A name that is not UTF-8 is none of ours.
fn entry_names(dir: &Path) -> Result<Vec<String>, InitError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at("list", dir))? {
        let entry = entry.map_err(at("list", dir))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Writes everything of a new cluster into a directory that nobody uses yet.
fn fill(plan: &ClusterPlan, dir: &Path) -> Result<(), InitError> {
    let cluster = ClusterId(files::random()?);
    let authority = Authority::new(&cluster.to_string())?;
    write_pair(dir, "ca", authority.pair())?;
    let identity = |role| Identity {
        cluster: cluster.0,
        role,
    };
    write_pair(dir, "client", &authority.sign(&identity(Role::Client))?)?;
    write_client_config(plan, cluster, dir)?;
    let members = members(
        plan.nodes
            .iter()
            .map(|node| (node.id, node.advertise.as_str())),
    )?;
    for (node, member) in plan.nodes.iter().zip(&members) {
        let node_dir = dir.join(format!("{NODE_PREFIX}{}", node.id));
        files::create_directory(&node_dir)?;
        write_pair(
            &node_dir,
            "node",
            &authority.sign(&identity(Role::Node(node.id)))?,
        )?;
        let ca = authority.pair().certificate.as_bytes();
        files::write_atomically(&node_dir.join("ca.pem"), ca, PUBLIC)?;
        let file = ConfigFile {
            cluster: cluster.to_string(),
            id: node.id,
            listen: node.listen.to_string(),
            advertise: node.advertise.clone(),
            data: "data".into(),
            ca: "ca.pem".into(),
            certificate: "node.pem".into(),
            key: "node.key".into(),
            storage: plan.storage,
            state: plan.state,
            transport: plan.transport,
            timing: TimingFile::default(),
            limits: LimitsFile::default(),
            members: members.clone(),
        };
        write_config(&node_dir.join(NODE_CONFIG), NODE_HEAD, &file)?;
        let owner = Owner {
            cluster,
            node: NodeId(node.id),
            incarnation: Incarnation(member.incarnation),
        };
        identity::format(&node_dir.join("data"), owner, plan.storage)?;
    }
    Ok(())
}

const NODE_HEAD: &str = "# One node of a Flotilla cluster. Every key: docs/configuration.md\n\n";
const CLIENT_HEAD: &str = "# How clients reach a Flotilla cluster.\n\n";

/// `client.toml`, word for word.
#[derive(Serialize)]
struct ClientFile {
    cluster: String,
    ca: &'static str,
    certificate: &'static str,
    key: &'static str,
    endpoints: Vec<EndpointEntry>,
}

#[derive(Serialize)]
struct EndpointEntry {
    id: u64,
    address: String,
}

fn write_client_config(
    plan: &ClusterPlan,
    cluster: ClusterId,
    dir: &Path,
) -> Result<(), InitError> {
    let endpoint = |node: &NodePlan| EndpointEntry {
        id: node.id,
        address: node.advertise.clone(),
    };
    let file = ClientFile {
        cluster: cluster.to_string(),
        ca: "ca.pem",
        certificate: "client.pem",
        key: "client.key",
        endpoints: plan.nodes.iter().map(endpoint).collect(),
    };
    write_config(&dir.join(CLIENT_CONFIG), CLIENT_HEAD, &file)
}

fn write_config(path: &Path, head: &str, file: &impl Serialize) -> Result<(), InitError> {
    let body = toml::to_string(file).map_err(|error| FileError {
        operation: "encode",
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    files::write_atomically(path, format!("{head}{body}").as_bytes(), PUBLIC)?;
    Ok(())
}

fn write_pair(dir: &Path, name: &str, pair: &SignedPair) -> Result<(), FileError> {
    let path = |extension: &str| dir.join(format!("{name}.{extension}"));
    files::write_atomically(&path("pem"), pair.certificate.as_bytes(), PUBLIC)?;
    files::write_atomically(&path("key"), pair.key.as_bytes(), SECRET)
}

/// Members with new incarnations.
fn members<'a>(nodes: impl Iterator<Item = (u64, &'a str)>) -> Result<Vec<MemberFile>, InitError> {
    nodes
        .map(|(id, address)| {
            // A TOML integer has a sign, and 0 stands for "none" in many places.
            let random = u64::from_le_bytes(files::random()?) >> 1;
            Ok(MemberFile {
                id,
                incarnation: random.max(1),
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
        let text = std::fs::read_to_string(&node.path).map_err(at("read", &node.path))?;
        let mut file: ConfigFile = toml::from_str(&text)
            .map_err(|error| ConfigError::syntax(&node.path, &text, &error))?;
        file.members.clone_from(&members);
        write_config(&node.path, NODE_HEAD, &file)?;
    }
    for (node, member) in layout.nodes.iter().zip(&members) {
        if node.data.exists() {
            std::fs::remove_dir_all(&node.data).map_err(at("remove", &node.data))?;
        }
        let owner = Owner {
            cluster: layout.cluster,
            node: node.id,
            incarnation: Incarnation(member.incarnation),
        };
        identity::format(&node.data, owner, StorageKind::Memory)?;
    }
    Ok(())
}
