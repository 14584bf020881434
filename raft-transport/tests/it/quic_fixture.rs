//! Nodes on the loopback interface that can be killed without a farewell: each has a runtime of its
//! own, and killing it is shutting the runtime down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use quic_link::test_support::Authority;
use quic_link::{BindError, Credentials, Endpoint, EndpointOptions, LinkLimits, Role};
use raft_core::{ClusterId, Incarnation, NodeId, Transport};
use raft_transport::conformance::{DEADLINE, Fixture};
use raft_transport::{LocalPeer, PeerAddress, QuicOptions, QuicTransport};
use tokio::runtime::Runtime;

pub(crate) const CLUSTER: ClusterId = ClusterId([1; 16]);

const PORT: u16 = 7_400;

/// The first incarnation of a node.
pub(crate) fn incarnation(id: NodeId) -> Incarnation {
    Incarnation(1_000 + id.0)
}

/// An address of the loopback network that no other fixture has, so that a node finds its port free
/// when it comes back.
fn own_address() -> Ipv4Addr {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, process[2] | 1, process[3], count[3])
}

pub(crate) struct Quic {
    pub(crate) authority: Authority,
    credentials: BTreeMap<NodeId, Credentials>,
    address: Ipv4Addr,
    lives: Mutex<BTreeMap<NodeId, Runtime>>,
    boots: Mutex<BTreeMap<Incarnation, u64>>,
    /// Nodes that lost their disk and came back at another address.
    replaced: Mutex<BTreeSet<NodeId>>,
    pub(crate) options: QuicOptions,
    pub(crate) limits: LinkLimits,
}

impl Quic {
    pub(crate) fn new() -> Self {
        let authority = Authority::new(CLUSTER.0);
        let credentials = (1..=3)
            .map(|id| (NodeId(id), authority.credentials(Role::Node(id))))
            .collect();
        let mut options = QuicOptions::default();
        // A check that blocks a lane on purpose must not lose the link by it.
        options.write_deadline = DEADLINE;
        options.dial_deadline = Duration::from_secs(3);
        Self {
            authority,
            credentials,
            address: own_address(),
            lives: Mutex::default(),
            boots: Mutex::default(),
            replaced: Mutex::default(),
            options,
            limits: LinkLimits::default(),
        }
    }

    pub(crate) fn address(&self, id: NodeId) -> SocketAddr {
        let port = if self.is_replaced(id) {
            PORT + 100
        } else {
            PORT
        };
        SocketAddr::from((self.address, port + id.0 as u16))
    }

    fn is_replaced(&self, id: NodeId) -> bool {
        self.replaced.lock().unwrap().contains(&id)
    }

    pub(crate) fn peers(&self) -> BTreeMap<NodeId, PeerAddress> {
        (1..=3)
            .map(NodeId)
            .map(|id| {
                let address = PeerAddress {
                    address: self.address(id).to_string(),
                    incarnation: self.incarnation(id),
                };
                (id, address)
            })
            .collect()
    }

    pub(crate) fn local(&self, id: NodeId, boot: u64) -> LocalPeer {
        LocalPeer {
            cluster: CLUSTER,
            id,
            incarnation: self.incarnation(id),
            boot,
        }
    }

    /// The node's next life.
    pub(crate) async fn start_node(&self, id: NodeId) -> Arc<QuicTransport> {
        self.start_as(self.next_life(id), self.peers()).await
    }

    /// The same, of a node that knows nobody.
    pub(crate) async fn start_alone(&self, id: NodeId) -> Arc<QuicTransport> {
        self.start_as(self.next_life(id), BTreeMap::new()).await
    }

    fn next_life(&self, id: NodeId) -> LocalPeer {
        let mut boots = self.boots.lock().unwrap();
        let boot = boots.entry(self.incarnation(id)).or_default();
        *boot += 1;
        self.local(id, *boot)
    }

    pub(crate) async fn start_as(
        &self,
        local: LocalPeer,
        peers: BTreeMap<NodeId, PeerAddress>,
    ) -> Arc<QuicTransport> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let endpoint = self.bind(&runtime, local.id).await;
        let guard = runtime.enter();
        let transport = QuicTransport::new(endpoint.clone(), local, peers, self.options);
        drop(guard);
        let (accepting, target) = (endpoint.clone(), Arc::downgrade(&transport));
        runtime.spawn(async move {
            while let Some(link) = accepting.accept().await {
                let Some(target) = target.upgrade() else {
                    break;
                };
                target.accept(link);
            }
        });
        self.lives.lock().unwrap().insert(local.id, runtime);
        transport
    }

    /// Waits until a killed life has let go of the port.
    async fn bind(&self, runtime: &Runtime, id: NodeId) -> Endpoint {
        tokio::time::timeout(DEADLINE, async {
            loop {
                let guard = runtime.enter();
                let bound = Endpoint::bind(EndpointOptions {
                    credentials: self.credentials[&id].clone(),
                    listen: self.address(id),
                    accept: true,
                    reset_key: Some([id.0 as u8; 64]),
                    limits: self.limits.clone(),
                });
                drop(guard);
                match bound {
                    Ok(endpoint) => return endpoint,
                    Err(BindError::InUse(_)) => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        })
        .await
        .expect("the port becomes free")
    }

    /// When this returns, no task of the node runs any more.
    pub(crate) async fn kill_node(&self, id: NodeId) {
        let runtime = self.lives.lock().unwrap().remove(&id);
        if let Some(runtime) = runtime {
            tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE))
                .await
                .unwrap();
        }
    }
}

impl Drop for Quic {
    fn drop(&mut self) {
        for (_, runtime) in std::mem::take(&mut *self.lives.lock().unwrap()) {
            runtime.shutdown_background();
        }
    }
}

#[async_trait]
impl Fixture for Quic {
    async fn start(&self, id: NodeId) -> Arc<dyn Transport> {
        self.start_node(id).await
    }

    async fn kill(&self, id: NodeId) {
        self.kill_node(id).await;
    }

    fn cluster(&self) -> ClusterId {
        CLUSTER
    }

    async fn replace(&self, id: NodeId) -> Arc<dyn Transport> {
        self.replaced.lock().unwrap().insert(id);
        self.start_node(id).await
    }

    fn address(&self, id: NodeId) -> String {
        self.address(id).to_string()
    }

    fn incarnation(&self, id: NodeId) -> Incarnation {
        let first = incarnation(id).0;
        Incarnation(first + if self.is_replaced(id) { 1_000 } else { 0 })
    }
}
