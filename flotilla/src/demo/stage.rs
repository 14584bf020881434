//! The throw-away cluster of the demo: real processes on ports that happen to be free.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use kv_client::{ClientConfig, ClientError, KvClient, MemberChange};
use kv_service::config::{StateKind, StorageKind};
use kv_service::init::{ClusterPlan, make_cluster};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::narrator::Narrator;
use crate::cluster::node_commands;
use crate::cluster::ready::wait_for_leader;
use crate::cluster::supervisor::Supervisor;
use crate::commands::member::join::Newcomer;
use crate::commands::member::promote_when_possible;
use crate::commands::status::newest_commit;
use crate::exit::{Exit, Failure};

/// Nodes of the cluster at the beginning.
const NODES: usize = 3;

/// Nodes that may join.
const NEWCOMERS: usize = 1;

/// How long the cluster may take for anything before the demo gives up: many times what it takes,
/// on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where ports are looked for.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Between the ports of processes that were started one after the other.
const NODES_STRIDE: u32 = 8;

/// The pause between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// The cluster.
pub(super) struct Stage {
    /// A client that watches.
    pub(super) client: KvClient,
    /// For further clients.
    pub(super) config: ClientConfig,
    /// A client that may change the members.
    admin: KvClient,
    /// Addresses for nodes that join.
    addresses: Vec<String>,
    supervisor: Supervisor,
    /// Takes the events, so that nobody waits for it.
    events: JoinHandle<()>,
    dir: TempDir,
}

impl Stage {
    /// Makes and starts the cluster, and waits until it takes writes.
    ///
    /// # Errors
    /// When it does not.
    pub(super) async fn start(narrator: &Narrator, state: StateKind) -> Result<Self, Failure> {
        if state == StateKind::Rocksdb && !cfg!(feature = "rocksdb") {
            return Err(Failure::usage(
                "state rocksdb is not in this program: build it with `--features rocksdb`, or \
                 choose state memory",
            ));
        }
        let local =
            |error: std::io::Error| Failure::usage(format!("cannot make a cluster: {error}"));
        let dir = tempfile::Builder::new()
            .prefix("flotilla-demo-")
            .tempdir()
            .map_err(local)?;
        let mut plan = ClusterPlan::local(dir.path(), NODES, 1)?;
        let mut ports = free_ports().map_err(local)?.into_iter();
        for (node, port) in plan.nodes.iter_mut().zip(ports.by_ref()) {
            node.listen.set_port(port);
            node.advertise = node.listen.to_string();
        }
        let addresses = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        plan.state = state;
        let layout = make_cluster(&plan)?;
        let config = ClientConfig::load(&layout.client_config).map_err(ClientError::from)?;
        let (supervisor, mut events) = Supervisor::start(node_commands(&layout.nodes)?, true);
        let events = tokio::spawn(async move { while events.recv().await.is_some() {} });
        let client = KvClient::connect(config.clone()).await?;
        let admin = ClientConfig::load(&layout.admin_config).map_err(ClientError::from)?;
        let stage = Self {
            client,
            config,
            admin: KvClient::connect(admin).await?,
            addresses,
            supervisor,
            events,
            dir,
        };
        match stage.leader().await {
            Ok(leader) => {
                let shown = stage.dir.path().display();
                narrator.say(&format!(
                    "{NODES} nodes run in {shown}, node {leader} leads"
                ));
                Ok(stage)
            }
            Err(failure) => {
                stage.stop().await;
                Err(failure)
            }
        }
    }

    /// Waits for a leader that can commit, and says which node it is.
    ///
    /// # Errors
    /// When there is none for a long time.
    pub(super) async fn leader(&self) -> Result<u64, Failure> {
        within("a leader", wait_for_leader(&self.client)).await?
    }

    /// Kills a node; it is started again by its supervisor.
    pub(super) async fn kill(&self, id: u64) {
        self.supervisor.kill(id).await;
    }

    /// Waits until a node has applied all that is committed now.
    ///
    /// # Errors
    /// When it has not for a long time.
    pub(super) async fn caught_up(&self, id: u64) -> Result<(), Failure> {
        let wanted = newest_commit(&self.client.status().await?);
        let caught_up = async {
            loop {
                let reports = self.client.status().await?;
                let mut own = reports.iter().filter(|report| report.id == id);
                let applied = own.find_map(|report| Some(report.status.as_ref()?.applied));
                if applied >= Some(wanted) {
                    return Ok(());
                }
                sleep(PAUSE).await;
            }
        };
        within("a killed node that is back", caught_up).await?
    }

    /// Lets a node join as a learner, and starts it.
    ///
    /// # Errors
    /// When it cannot.
    pub(super) async fn add(&mut self, id: u64) -> Result<(), Failure> {
        let address = self.addresses.pop().ok_or_else(|| no_room(id))?;
        let newcomer = Newcomer {
            dir: self.dir.path(),
            id,
            address: &address,
            backends: StorageKind::File.into(),
        };
        let node = within("a node that joins", newcomer.join(&self.admin)).await??;
        for command in node_commands(&[node])? {
            self.supervisor.adopt(command);
        }
        Ok(())
    }

    /// Makes a learner a voter, as soon as it has caught up.
    ///
    /// # Errors
    /// When it does not for a long time.
    pub(super) async fn promote(&self, id: u64) -> Result<(), Failure> {
        let promoted = promote_when_possible(&self.admin, id, |_| ());
        within("a learner that catches up", promoted).await??;
        Ok(())
    }

    /// Takes a member out, and stops it.
    ///
    /// # Errors
    /// When it cannot be.
    pub(super) async fn remove(&self, id: u64) -> Result<(), Failure> {
        let removed = self.admin.change_members(MemberChange::Remove { id });
        within("a member that goes", removed).await??;
        self.supervisor.retire(id);
        Ok(())
    }

    /// Stops everything. The directory is gone when what is returned is dropped.
    pub(super) async fn stop(self) -> TempDir {
        self.client.close().await;
        self.admin.close().await;
        self.supervisor.stop().await;
        // The events have ended with the nodes.
        let _ = self.events.await;
        self.dir
    }
}

/// Waits, but not for ever.
///
/// # Errors
/// When it takes too long.
pub(super) async fn within<T>(what: &str, awaited: impl Future<Output = T>) -> Result<T, Failure> {
    let began = Instant::now();
    timeout(PATIENCE, awaited).await.map_err(|_| {
        let seconds = began.elapsed().as_secs();
        Failure::new(Exit::Unavailable, format!("waited {seconds} s for {what}"))
    })
}

/// What a demo says that adds more nodes than it has addresses for: a bug of the demo.
fn no_room(id: u64) -> Failure {
    Failure::stopped(format!("the demo has no address for node {id}"))
}

/// Ports that were free a moment ago. The system does not hand them out by itself, so that a
/// client's socket cannot take the place of a node that was killed.
fn free_ports() -> std::io::Result<Vec<u16>> {
    let count = u32::from(PORTS.end - PORTS.start);
    // Demos that run at the same time begin at different places.
    let first = std::process::id().wrapping_mul(NODES_STRIDE) % count;
    let in_turn = (0..count).filter_map(|step| u16::try_from((first + step) % count).ok());
    let is_free = |port: &u16| UdpSocket::bind(("127.0.0.1", *port)).is_ok();
    let found = in_turn.map(|offset| PORTS.start + offset).filter(is_free);
    let wanted = NODES + NEWCOMERS;
    let found: Vec<u16> = found.take(wanted).collect();
    if found.len() == wanted {
        return Ok(found);
    }
    Err(std::io::Error::other("there are no free UDP ports"))
}
