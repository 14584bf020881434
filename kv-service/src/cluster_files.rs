//! The files of a cluster on the disk, each by itself: certificates, configurations of users and of
//! nodes. Which of them make a whole cluster is the matter of `init` and `join`.

use std::path::{Path, PathBuf};

use quic_link::{Credentials, Identity, Role};
use raft_core::ClusterId;
use serde::{Deserialize, Serialize};

use crate::certificates::{Authority, SignedPair};
use crate::config::{Backends, ConfigError, ReadKind, StateKind, StorageKind, TransportKind};
use crate::config_file::{ConfigFile, LimitsFile, LogFile, SnapshotsFile, TimingFile};
use crate::files::{self, DirectoryLock, FileError, PUBLIC, SECRET};
use crate::identity::{self, Owner};
use crate::init_error::InitError;
use crate::plan::NodePlan;

pub(crate) const CLIENT_CONFIG: &str = "client.toml";
pub(crate) const NODE_CONFIG: &str = "node.toml";
pub(crate) const NODE_PREFIX: &str = "node-";

const CA: &str = "ca";
const NODE_HEAD: &str = "# One node of a Flotilla cluster. Every key: docs/configuration.md\n\n";

/// Somebody who talks to the nodes.
#[derive(Clone, Copy)]
pub(crate) struct User {
    name: &'static str,
    role: Role,
    /// The name of the configuration.
    pub(crate) config: &'static str,
    certificate: &'static str,
    key: &'static str,
    head: &'static str,
}

/// Reads and writes data.
pub(crate) const CLIENT: User = User {
    name: "client",
    role: Role::Client,
    config: CLIENT_CONFIG,
    certificate: "client.pem",
    key: "client.key",
    head: "# How clients reach a Flotilla cluster.\n\n",
};

/// Changes the cluster.
pub(crate) const ADMIN: User = User {
    name: "admin",
    role: Role::Admin,
    config: "admin.toml",
    certificate: "admin.pem",
    key: "admin.key",
    head: "# How administrators reach a Flotilla cluster. Who has the key may change it.\n\n",
};

/// `client.toml` and `admin.toml`, word for word.
#[derive(Serialize)]
struct UserFile<'a> {
    cluster: String,
    ca: &'static str,
    certificate: &'static str,
    key: &'static str,
    endpoints: &'a [Endpoint],
}

/// A node that users know beforehand.
#[derive(Serialize)]
pub(crate) struct Endpoint {
    id: u64,
    address: String,
}

impl Endpoint {
    pub(crate) fn new(id: u64, address: &str) -> Self {
        let address = address.to_owned();
        Self { id, address }
    }

    pub(crate) fn of(node: &NodePlan) -> Self {
        Self::new(node.id, &node.advertise)
    }
}

/// The one key of a user's configuration that is of interest here.
#[derive(Deserialize)]
struct ClusterOnly {
    cluster: String,
}

/// The cluster that the files in a directory belong to.
///
/// # Errors
/// When there is none, or its file cannot be read.
pub(crate) fn cluster_of(dir: &Path) -> Result<ClusterId, InitError> {
    let candidates = [ADMIN.config, CLIENT_CONFIG].map(|name| dir.join(name));
    let Some(path) = candidates.into_iter().find(|path| path.exists()) else {
        return Err(InitError::NoCluster(dir.to_owned()));
    };
    let text = files::read_text(&path)?;
    let file: ClusterOnly =
        toml::from_str(&text).map_err(|error| ConfigError::syntax(&path, &text, &error))?;
    let cluster = file.cluster.parse().map_err(|_| ConfigError::Value {
        path,
        key: "cluster".to_owned(),
        value: file.cluster,
        rule: "32 hexadecimal digits".to_owned(),
    })?;
    Ok(cluster)
}

/// The authority whose key lies in a directory; what it signs is checked once.
///
/// # Errors
/// When there is no key, or it is not that of the certificate beside it.
pub(crate) fn authority(dir: &Path, cluster: ClusterId) -> Result<Authority, InitError> {
    let (certificate, path) = (dir.join("ca.pem"), dir.join("ca.key"));
    if !path.exists() {
        return Err(InitError::NoAuthority(path));
    }
    let pair = SignedPair {
        certificate: files::read_text(&certificate)?,
        key: files::read_text(&path)?,
    };
    let authority = Authority::from_pair(&cluster.to_string(), pair)?;
    let trial = authority.sign(&Identity {
        cluster: cluster.0,
        role: Role::Client,
    })?;
    let ca = authority.pair().certificate.as_bytes();
    Credentials::from_pem(ca, trial.certificate.as_bytes(), trial.key.as_bytes())
        .map_err(|source| InitError::WrongAuthority { path, source })?;
    Ok(authority)
}

/// Writes certificate, key and, last, the configuration of a user.
pub(crate) fn write_user(
    dir: &Path,
    user: User,
    authority: &Authority,
    cluster: ClusterId,
    endpoints: &[Endpoint],
) -> Result<(), InitError> {
    let identity = Identity {
        cluster: cluster.0,
        role: user.role,
    };
    write_pair(dir, user.name, &authority.sign(&identity)?)?;
    let file = UserFile {
        cluster: cluster.to_string(),
        ca: "ca.pem",
        certificate: user.certificate,
        key: user.key,
        endpoints,
    };
    write_config(&dir.join(user.config), user.head, &file)?;
    Ok(())
}

/// A node's configuration, with the defaults.
pub(crate) fn node_file(cluster: ClusterId, node: &NodePlan) -> ConfigFile {
    ConfigFile {
        cluster: cluster.to_string(),
        id: node.id,
        listen: node.listen.to_string(),
        advertise: node.advertise.clone(),
        data: "data".into(),
        ca: "ca.pem".into(),
        certificate: "node.pem".into(),
        key: "node.key".into(),
        storage: StorageKind::default(),
        state: StateKind::default(),
        transport: TransportKind::default(),
        reads: ReadKind::default(),
        join: false,
        incarnation: None,
        timing: TimingFile::default(),
        limits: LimitsFile::default(),
        log: LogFile::default(),
        snapshots: SnapshotsFile::default(),
        members: Vec::new(),
    }
}

/// Writes everything of a node into a directory that nobody uses yet.
pub(crate) fn write_node(
    node_dir: &Path,
    authority: &Authority,
    owner: Owner,
    file: &ConfigFile,
) -> Result<(), InitError> {
    files::create_directory(node_dir)?;
    write_certificates(node_dir, authority, owner)?;
    write_node_config(&node_dir.join(NODE_CONFIG), file)?;
    let backends = Backends {
        storage: file.storage,
        state: file.state,
    };
    identity::format(&node_dir.join(&file.data), owner, backends)?;
    Ok(())
}

/// Writes a node's certificate, its key and the authority's certificate.
pub(crate) fn write_certificates(
    node_dir: &Path,
    authority: &Authority,
    owner: Owner,
) -> Result<(), InitError> {
    let identity = Identity {
        cluster: owner.cluster.0,
        role: Role::Node(owner.node.0),
    };
    write_pair(node_dir, "node", &authority.sign(&identity)?)?;
    let ca = authority.pair().certificate.as_bytes();
    files::write_atomically(&node_dir.join("ca.pem"), ca, PUBLIC)?;
    Ok(())
}

/// Reads a `node.toml` to write it again.
pub(crate) fn read_node(path: &Path) -> Result<ConfigFile, InitError> {
    let text = files::read_text(path)?;
    let file = toml::from_str(&text).map_err(|error| ConfigError::syntax(path, &text, &error))?;
    Ok(file)
}

/// Writes a `node.toml`.
pub(crate) fn write_node_config(path: &Path, file: &ConfigFile) -> Result<(), FileError> {
    write_config(path, NODE_HEAD, file)
}

fn write_config(path: &Path, head: &str, file: &impl Serialize) -> Result<(), FileError> {
    let body = toml::to_string(file).map_err(|error| FileError {
        operation: "encode",
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    files::write_atomically(path, format!("{head}{body}").as_bytes(), PUBLIC)
}

/// Writes the authority's own pair.
pub(crate) fn write_authority(dir: &Path, authority: &Authority) -> Result<(), FileError> {
    write_pair(dir, CA, authority.pair())
}

fn write_pair(dir: &Path, name: &str, pair: &SignedPair) -> Result<(), FileError> {
    let path = |extension: &str| dir.join(format!("{name}.{extension}"));
    files::write_atomically(&path("pem"), pair.certificate.as_bytes(), PUBLIC)?;
    files::write_atomically(&path("key"), pair.key.as_bytes(), SECRET)
}

/// A number that no other life of any node has.
pub(crate) fn new_incarnation() -> Result<u64, FileError> {
    // A TOML integer has a sign, and 0 stands for "none" in many places.
    let random = u64::from_le_bytes(files::random()?) >> 1;
    Ok(random.max(1))
}

/// Keeps other processes from making anything in the same directory.
pub(crate) fn lock(dir: &Path) -> Result<DirectoryLock, InitError> {
    files::lock_directory(dir)?.ok_or_else(|| InitError::Locked(dir.to_owned()))
}

/// Where a node's files are.
pub(crate) fn node_dir(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{NODE_PREFIX}{id}"))
}
