//! Joins the parts of a node: data directory, log store, state machine, endpoint, transport, the
//! replication, and the service of clients. The only place where backends meet a node.
//!
//! ```text
//! start:  lock -> log -> listen -> count the start -> transport -> node -> accept loop
//! stop:   node (its log and state machine) -> accept loop and connections -> endpoint -> lock
//! ```

pub(crate) mod log;
mod state;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quic_link::{
    CLOSE_REFUSED, Credentials, Endpoint, EndpointOptions, Identity, Link, LinkLimits, Role,
};
use raft_core::{
    Index, Node, NodeId, RaftHandle, StateMachine, StopReason, StorageError, Transport,
};
use raft_transport::{LocalPeer, MemoryNetwork, PeerAddress, QuicOptions, QuicTransport};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::{NodeConfig, StateKind, StorageKind, TransportKind};
use crate::files;
use crate::handler::Service;
use crate::identity::{DataDirectory, Owner};
use crate::inspect;
use crate::server;
pub use crate::start_error::{StartError, stop_exit_code};

use log::OpenedLog;

/// Links that an endpoint takes beyond those of clients: both directions of every peer, and those
/// that replace a dead one.
const PEER_LINKS_MAX: usize = 64;

/// What an append message takes beside its entries; far more than it really does.
const FRAME_OVERHEAD_BYTES: usize = 1 << 20;

/// How often a node looks whether it has replayed its log.
const REPLAY_CHECK: Duration = Duration::from_millis(100);

/// What the command line says instead of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Where the log is kept.
    pub storage: Option<StorageKind>,
    /// Where the state is kept.
    pub state: Option<StateKind>,
    /// What carries messages between nodes.
    pub transport: Option<TransportKind>,
}

/// A running node with its service of clients. Dropping it shuts the node down without waiting.
#[derive(Debug)]
pub struct Server {
    raft: RaftHandle,
    local_addr: SocketAddr,
    storage: StorageKind,
    stopped: watch::Receiver<Option<StopReason>>,
    /// Dropped together with the server; its other end then shuts the node down.
    _owned: oneshot::Sender<()>,
}

impl Server {
    /// Starts the node that a configuration describes.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running, and the data directory is unlocked.
    pub async fn start(config: NodeConfig, overrides: Overrides) -> Result<Self, StartError> {
        let config = with_overrides(config, overrides);
        if config.transport == TransportKind::Memory {
            let path = config.path.clone();
            let members = config.members.iter().count();
            let alone = StartError::Alone { path, members };
            // Who joins will have peers, and not in this process.
            if members != 1 {
                return Err(alone);
            }
            let servers = Self::start_memory_cluster(vec![config], overrides).await?;
            return servers.into_iter().next().ok_or(alone);
        }
        let prepared = Prepared::open(config).await?;
        let transport = prepared.quic_transport();
        let peers = Arc::clone(&transport);
        prepared
            .run(transport, move |link| peers.accept(link))
            .await
    }

    /// Starts all nodes of a cluster in this process, joined by memory. Clients still come by QUIC,
    /// to the address of each node.
    ///
    /// # Errors
    /// As [`Server::start`], for the first node that does not start.
    pub async fn start_memory_cluster(
        configs: Vec<NodeConfig>,
        overrides: Overrides,
    ) -> Result<Vec<Self>, StartError> {
        let network = MemoryNetwork::new(seed()?);
        let mut prepared = Vec::new();
        for config in configs {
            prepared.push(Prepared::open(with_overrides(config, overrides)).await?);
        }
        let mut servers = Vec::new();
        for node in prepared {
            let transport = network.transport(node.config.id);
            servers.push(node.run(transport, refuse_peer).await?);
        }
        Ok(servers)
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The replication.
    #[must_use]
    pub fn raft(&self) -> &RaftHandle {
        &self.raft
    }

    /// Whether what it acknowledges survives the process.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.storage.is_durable()
    }

    /// Waits until the node has ended, by itself or because it was asked to. Its data directory is
    /// then unlocked. Its address is free when the process ends, or when the last of its
    /// connections has been forgotten: within seconds.
    pub async fn stopped(&self) -> StopReason {
        let mut stopped = self.stopped.clone();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(StopReason::Shutdown),
            Err(_) => StopReason::Panicked {
                task: "supervisor",
                message: "it ended without a reason".to_owned(),
            },
        }
    }

    /// Asks the node to end and waits as [`Server::stopped`]. A second call is harmless.
    pub async fn shutdown(&self) -> StopReason {
        self.raft.shutdown().await;
        self.stopped().await
    }
}

fn with_overrides(mut config: NodeConfig, overrides: Overrides) -> NodeConfig {
    config.storage = overrides.storage.unwrap_or(config.storage);
    config.state = overrides.state.unwrap_or(config.state);
    config.transport = overrides.transport.unwrap_or(config.transport);
    config
}

fn seed() -> Result<u64, StartError> {
    Ok(u64::from_le_bytes(files::random()?))
}

/// Peers of a cluster in memory do not dial.
fn refuse_peer(link: Link) {
    link.close(CLOSE_REFUSED, "this node's peers are in its own process");
}

/// A node that has everything it needs except its transport.
struct Prepared {
    config: NodeConfig,
    directory: DataDirectory,
    log: OpenedLog,
    machine: Box<dyn StateMachine>,
    endpoint: Endpoint,
}

impl Prepared {
    async fn open(config: NodeConfig) -> Result<Self, StartError> {
        if config.storage == StorageKind::Rocksdb && !cfg!(feature = "rocksdb") {
            return Err(StartError::WithoutRocksdb);
        }
        if config.state == StateKind::Rocksdb && !cfg!(feature = "rocksdb") {
            return Err(StartError::StateWithoutRocksdb);
        }
        if !config.backends().fit() {
            return Err(StartError::ForgetfulLog);
        }
        let credentials = credentials(&config)?;
        let owner = Owner {
            cluster: config.cluster,
            node: config.id,
            incarnation: config.incarnation(),
        };
        let mut directory = DataDirectory::open(&config.data, owner, config.backends())?;
        let log = open_log(&directory, &config).await?;
        let machine = state::open(&directory, &config).await?;
        let mut limits = LinkLimits::default();
        limits.links_max = config.clients.connections_max + PEER_LINKS_MAX;
        let endpoint = Endpoint::bind(EndpointOptions {
            credentials,
            listen: config.listen,
            accept: true,
            reset_key: Some(directory.reset_key()),
            limits,
        })?;
        // Last, because a node with its log in memory can be started only once.
        directory.count_start()?;
        Ok(Self {
            config,
            directory,
            log,
            machine,
            endpoint,
        })
    }

    /// It starts with the members that the cluster was made with; the node says who they are by
    /// now.
    fn quic_transport(&self) -> Arc<QuicTransport> {
        let config = &self.config;
        let local = LocalPeer {
            cluster: config.cluster,
            id: config.id,
            incarnation: config.incarnation(),
            boot: self.directory.boot(),
        };
        let others = config.members.iter().filter(|(id, _)| *id != config.id);
        let peers: BTreeMap<_, _> = others
            .map(|(id, member)| {
                let address = PeerAddress {
                    address: member.address.clone(),
                    incarnation: member.incarnation,
                };
                (id, address)
            })
            .collect();
        QuicTransport::new(self.endpoint.clone(), local, peers, self.quic_options())
    }

    /// The largest entry travels alone, and must fit into a frame whatever the limits say.
    fn quic_options(&self) -> QuicOptions {
        let limits = &self.config.limits;
        let largest = limits.append_bytes_max.max(limits.proposal_bytes_max);
        let mut options = QuicOptions::default();
        let needed = largest.saturating_add(FRAME_OVERHEAD_BYTES);
        options.bulk_frame_bytes_max = options.bulk_frame_bytes_max.max(needed);
        options.snapshot_bytes_per_second = self.config.snapshot_bytes_per_second;
        options
    }

    /// Starts the node, and what serves its clients.
    async fn run(
        self,
        transport: Arc<dyn Transport>,
        on_peer: impl Fn(Link) + Send + Sync + 'static,
    ) -> Result<Server, StartError> {
        let Self {
            config,
            directory,
            log,
            machine,
            endpoint,
        } = self;
        let settings = config.raft(seed()?);
        let started = Instant::now();
        let raft = Node::start(settings, transport, log.store, machine).await?;
        let status = raft.status();
        tracing::info!(
            node = %config.id,
            cluster = %config.cluster,
            listen = %endpoint.local_addr(),
            boot = directory.boot(),
            storage = config.storage.name(),
            state = config.state.name(),
            durable = config.storage.is_durable(),
            last = %status.last,
            term = %status.term,
            open_ms = log.duration.as_millis(),
            load_ms = started.elapsed().as_millis(),
            "started"
        );
        if !status.is_member() {
            let incarnation = config.incarnation();
            tracing::info!(node = %config.id, %incarnation, "waits to become a member");
        }
        let replay = Replay {
            node: config.id,
            first: status.log_start.index,
            last: status.last.index,
            started,
        };
        let directory = Arc::new(directory);
        let backends = config.backends();
        let service = Arc::new(Service {
            raft: raft.clone(),
            directory: Arc::clone(&directory),
            advertise: config.advertise,
            backends,
        });
        let local_addr = endpoint.local_addr();
        let accept = server::accept_loop(endpoint.clone(), service, config.clients, on_peer);
        let (owned, disowned) = oneshot::channel();
        let (stopping, stopped) = watch::channel(None);
        let supervisor = Supervisor {
            raft: raft.clone(),
            endpoint,
            directory,
            accept: tokio::spawn(accept),
        };
        tokio::spawn(async move {
            let reason = supervisor.run(disowned, replay).await;
            stopping.send_replace(Some(reason));
        });
        Ok(Server {
            raft,
            local_addr,
            storage: config.storage,
            stopped,
            _owned: owned,
        })
    }
}

/// Waits for the end of a node and takes down what is around it.
struct Supervisor {
    raft: RaftHandle,
    endpoint: Endpoint,
    directory: Arc<DataDirectory>,
    accept: JoinHandle<()>,
}

impl Supervisor {
    async fn run(mut self, disowned: oneshot::Receiver<()>, replay: Replay) -> StopReason {
        let reason = tokio::select! {
            reason = self.raft.stopped() => reason,
            never = replay.tell(&self.raft) => match never {},
            _ = disowned => self.raft.shutdown().await,
            ended = &mut self.accept => {
                // A node that nobody can reach must not look alive.
                self.raft.shutdown().await;
                match ended {
                    Ok(()) => StopReason::Transport,
                    Err(error) => StopReason::Panicked {
                        task: "accept loop",
                        message: error.to_string(),
                    },
                }
            }
        };
        let node = self.directory.owner().node;
        match &reason {
            StopReason::Shutdown => tracing::info!(%node, "shut down"),
            reason => tracing::error!(%node, %reason, "the node stopped itself"),
        }
        let farewell = format!("node {node} stopped: {reason}");
        self.take_down(&farewell).await;
        reason
    }

    async fn take_down(self, farewell: &str) {
        let Self {
            raft: _,
            endpoint,
            directory,
            accept,
        } = self;
        accept.abort();
        if !accept.is_finished() {
            // Cancelled, as was asked for.
            let _ = accept.await;
        }
        endpoint.close(farewell).await;
        if let Err(error) = directory.unlock() {
            tracing::warn!(%error, "the data directory stays locked until the process ends");
        }
    }
}

/// A state machine in memory starts empty; until it has the snapshot and has applied what the log
/// held at the start, a node that leads has clients waiting.
struct Replay {
    node: NodeId,
    /// The log begins behind this entry.
    first: Index,
    last: Index,
    started: Instant,
}

impl Replay {
    /// Tells once how long it took.
    async fn tell(self, raft: &RaftHandle) -> Infallible {
        while raft.status().applied < self.last {
            tokio::time::sleep(REPLAY_CHECK).await;
        }
        if self.last > Index(0) {
            let replay_ms = self.started.elapsed().as_millis();
            let (node, behind, last) = (self.node, self.first, self.last);
            tracing::info!(%node, %behind, %last, replay_ms, "replayed the log");
        }
        std::future::pending().await
    }
}

async fn open_log(directory: &DataDirectory, config: &NodeConfig) -> Result<OpenedLog, StartError> {
    let storage = config.storage;
    let path = directory.log_path(storage);
    let owner = directory.owner();
    let opening = log::Opening {
        is_first_start: directory.boot() == 0,
        // Whoever did not begin alone has somebody who may refill a damaged log.
        has_others: config.members.iter().count() != 1,
        segment_bytes: config.segment_bytes,
    };
    let config = config.clone();
    // Reading a long log takes a while; the runtime's threads have other nodes to serve.
    let open = move || match log::open(storage, &path, owner, opening) {
        // Whoever began alone may have peers by now; what is left of its disk may tell.
        Err(damage @ StorageError::Damaged { .. }) if !opening.has_others => {
            let members = inspect::known_members(&config, owner, storage);
            if members.is_ok_and(|members| !inspect::is_alone(owner.node, &members)) {
                let has_others = true;
                let opening = log::Opening {
                    has_others,
                    ..opening
                };
                return log::open(storage, &path, owner, opening);
            }
            Err(damage)
        }
        opened => opened,
    };
    tokio::task::spawn_blocking(open)
        .await
        .map_err(|error| StartError::Panicked(error.to_string()))?
        .map_err(StartError::Storage)
}

fn credentials(config: &NodeConfig) -> Result<Credentials, StartError> {
    let paths = &config.certificates;
    let (ca, certificate, key) = (
        files::read(&paths.ca)?,
        files::read(&paths.certificate)?,
        files::read(&paths.key)?,
    );
    let path = || paths.certificate.clone();
    let credentials = Credentials::from_pem(&ca, &certificate, &key).map_err(|source| {
        StartError::Credentials {
            path: path(),
            source,
        }
    })?;
    let expected = Identity {
        cluster: config.cluster.0,
        role: Role::Node(config.id.0),
    };
    let found = *credentials.identity();
    if found == expected {
        return Ok(credentials);
    }
    Err(StartError::WrongCertificate {
        path: path(),
        found,
        expected,
    })
}
