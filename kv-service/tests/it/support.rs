//! What the tests of running nodes share: clusters on the loopback interface, a client that speaks
//! frames and knows no retry, and waiting for a condition.

use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use kv_api::{
    Command, CommandReply, KeyValue, Notice, Outcome, Query, QueryReply, Request, RequestBody,
    Response, WriteOp,
};
use kv_client::{ClientConfig, KvClient};
use kv_service::compose::{Overrides, Server, StartError};
use kv_service::config::{NodeConfig, StorageKind, TransportKind};
use kv_service::init::{self, ClusterLayout, ClusterPlan, NodePlan};
use kv_service::{REQUEST_FRAME, RESPONSE_FRAME};
use quic_link::{
    BindError, ConnectError, Credentials, Endpoint, EndpointOptions, FrameReader, FrameWriter,
    Identity, Link, LinkLimits, Protocol, Role,
};
use raft_core::NodeId;

/// Far above what anything here takes, for machines that do a lot else.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, waiting).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain until {what}"),
    }
}

/// Fails instead of hanging.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain: {what}"),
    }
}

/// Ports that this process has given out.
static PORTS_GIVEN: AtomicU16 = AtomicU16::new(0);

/// UDP ports of the loopback interface that nobody uses, and that nobody gets by chance while a
/// node is stopped: they are below those that the system gives to sockets without a port of their
/// own.
fn free_ports(count: usize) -> Vec<u16> {
    let first = 20_000 + (std::process::id() % 100) as u16 * 120;
    let next = || first + PORTS_GIVEN.fetch_add(1, Ordering::Relaxed) % 120;
    std::iter::repeat_with(next)
        .take(240)
        .filter(|port| UdpSocket::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .collect()
}

/// An address of the loopback interface that nobody uses.
pub(crate) fn free_address() -> String {
    let port = free_ports(1)[0];
    format!("127.0.0.1:{port}")
}

/// A plan with free ports.
fn plan(dir: &Path, nodes: usize) -> ClusterPlan {
    let nodes = (1..).zip(free_ports(nodes)).map(|(id, port)| {
        let listen = SocketAddr::from(([127, 0, 0, 1], port));
        let advertise = listen.to_string();
        NodePlan {
            id,
            listen,
            advertise,
        }
    });
    ClusterPlan {
        dir: dir.to_owned(),
        nodes: nodes.collect(),
        storage: StorageKind::File,
        state: kv_service::config::StateKind::Memory,
        transport: TransportKind::Quic,
    }
}

/// A cluster whose nodes run in this process, each as if it had one of its own.
pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    pub(crate) layout: ClusterLayout,
    pub(crate) servers: Vec<Option<Server>>,
}

impl Cluster {
    /// A cluster on the disk; nothing runs.
    pub(crate) fn made(nodes: usize) -> Self {
        Self::planned(nodes, |plan| plan)
    }

    /// The same with other settings.
    pub(crate) fn planned(nodes: usize, change: impl Fn(ClusterPlan) -> ClusterPlan) -> Self {
        Self::made_by(nodes, |plan| init::make_cluster(&change(plan)).unwrap())
    }

    /// Made as the test says.
    pub(crate) fn made_by(nodes: usize, make: impl FnOnce(ClusterPlan) -> ClusterLayout) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = make(plan(&directory.path().join("c"), nodes));
        let servers = layout.nodes.iter().map(|_| None).collect();
        Self {
            directory,
            layout,
            servers,
        }
    }

    /// A running cluster, joined by QUIC.
    pub(crate) async fn started(nodes: usize) -> Self {
        let mut cluster = Self::made(nodes);
        cluster.start_all().await;
        cluster
    }

    pub(crate) async fn start_all(&mut self) {
        for id in 1..=self.servers.len() as u64 {
            self.start(id).await;
        }
    }

    pub(crate) async fn stop_all(&mut self) {
        for id in 1..=self.servers.len() as u64 {
            self.stop(id).await;
        }
    }

    /// A client as whoever has this file.
    pub(crate) async fn library(&self, config: &Path) -> KvClient {
        KvClient::connect(ClientConfig::load(config).unwrap())
            .await
            .unwrap()
    }

    pub(crate) async fn administrator(&self) -> KvClient {
        self.library(&self.layout.admin_config).await
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn config(&self, id: u64) -> NodeConfig {
        let config = self.layout.nodes.iter().find(|node| node.id == NodeId(id));
        config.unwrap().clone()
    }

    pub(crate) async fn start(&mut self, id: u64) {
        let server = started(&self.config(id)).await;
        self.servers[id as usize - 1] = Some(server);
    }

    /// Starts a node that was not there when the cluster was made; the next id is its own.
    pub(crate) async fn start_joined(&mut self, config: NodeConfig) {
        assert_eq!(config.id.0, self.servers.len() as u64 + 1);
        self.servers.push(Some(started(&config).await));
        self.layout.nodes.push(config);
    }

    /// A node that runs.
    pub(crate) fn server(&self, id: u64) -> &Server {
        self.servers[id as usize - 1].as_ref().unwrap()
    }

    pub(crate) async fn stop(&mut self, id: u64) {
        let server = self.servers[id as usize - 1].take().unwrap();
        soon("stopping a node", server.shutdown()).await;
    }

    /// A running node that leads and has a majority behind it.
    pub(crate) async fn leader(&self) -> u64 {
        eventually("somebody leads", async || {
            let running = self.servers.iter().flatten();
            running
                .map(|server| server.raft().status())
                .find(|status| status.leader == Some(status.id) && status.commit.0 > 0)
                .map(|status| status.id.0)
        })
        .await
    }

    pub(crate) async fn client(&self, id: u64) -> Client {
        self.client_as("client", id).await
    }

    /// With the certificate of this name.
    pub(crate) async fn client_as(&self, name: &str, id: u64) -> Client {
        let (endpoint, link) = eventually("a node takes the connection", async || {
            self.dial_as(name, id).await.ok()
        })
        .await;
        let (writer, reader) = soon("opening a stream", link.open_bi()).await.unwrap();
        Client {
            _endpoint: endpoint,
            link,
            writer,
            reader,
            notice: None,
            next_id: 1,
        }
    }

    /// A link that the node may close again at once.
    pub(crate) async fn dial(&self, id: u64) -> Result<(Endpoint, Link), ConnectError> {
        self.dial_as("client", id).await
    }

    async fn dial_as(&self, name: &str, id: u64) -> Result<(Endpoint, Link), ConnectError> {
        let endpoint = endpoint_of(&self.layout.dir, name);
        let address = self.config(id).listen;
        let link = endpoint
            .connect(address, &self.identity(id), Protocol::Client)
            .await?;
        Ok((endpoint, link))
    }

    /// Whom a client of the node wants to talk to.
    pub(crate) fn identity(&self, id: u64) -> Identity {
        Identity {
            cluster: self.layout.cluster.0,
            role: Role::Node(id),
        }
    }

    pub(crate) async fn client_of_leader(&self) -> Client {
        self.client(self.leader().await).await
    }
}

async fn started(config: &NodeConfig) -> Server {
    let free = "the address of the node is free again";
    eventually(free, async || {
        match Server::start(config.clone(), Overrides::default()).await {
            Err(StartError::Bind(BindError::InUse(_))) => None,
            result => Some(result.unwrap()),
        }
    })
    .await
}

pub(crate) fn credentials(dir: &Path, name: &str) -> Credentials {
    let read = |file: String| std::fs::read(dir.join(file)).unwrap();
    let (certificate, key) = (read(format!("{name}.pem")), read(format!("{name}.key")));
    Credentials::from_pem(&read("ca.pem".to_owned()), &certificate, &key).unwrap()
}

pub(crate) fn client_endpoint(dir: &Path) -> Endpoint {
    endpoint_of(dir, "client")
}

fn endpoint_of(dir: &Path, name: &str) -> Endpoint {
    Endpoint::bind(EndpointOptions {
        credentials: credentials(dir, name),
        listen: "127.0.0.1:0".parse().unwrap(),
        accept: false,
        reset_key: None,
        limits: LinkLimits::default(),
    })
    .unwrap()
}

/// One stream to one node. Sends what it is told to, also what is wrong.
pub(crate) struct Client {
    _endpoint: Endpoint,
    pub(crate) link: Link,
    pub(crate) writer: FrameWriter,
    pub(crate) reader: FrameReader,
    pub(crate) notice: Option<Notice>,
    next_id: u64,
}

impl Client {
    /// Queues a request and gives its id.
    pub(crate) fn queue(&mut self, body: RequestBody) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let request = kv_api::encode(&Request { id, body });
        self.writer.queue(REQUEST_FRAME, [request.into()]).unwrap();
        id
    }

    /// The next response that is no notice.
    pub(crate) async fn response(&mut self) -> Response {
        loop {
            let read = self.reader.read(kv_api::limits::FRAME_BYTES_MAX);
            let frame = soon("a response", read)
                .await
                .unwrap()
                .expect("the stream goes on");
            assert_eq!(frame.kind, RESPONSE_FRAME);
            let response: Response = kv_api::decode(&frame.payload).unwrap();
            match response.outcome {
                Outcome::Notice(notice) => {
                    assert_eq!(response.id, 0);
                    self.notice = Some(notice);
                }
                _ => return response,
            }
        }
    }

    pub(crate) async fn request(&mut self, body: RequestBody) -> Outcome {
        let id = self.queue(body);
        self.writer.flush().await.unwrap();
        let response = self.response().await;
        assert_eq!(response.id, id);
        response.outcome
    }

    /// Sends a frame as it is and waits for the node to close the link; gives its words.
    pub(crate) async fn send_and_be_closed(mut self, kind: u8, payload: Vec<u8>) -> String {
        self.writer.queue(kind, [payload.into()]).unwrap();
        // The node may close the link while a large frame is still on its way.
        let _ = self.writer.flush().await;
        soon("the node closes the link", self.link.closed()).await
    }

    pub(crate) async fn put(&mut self, key: &str, value: impl AsRef<[u8]>) -> Outcome {
        self.request(put(key, value)).await
    }

    pub(crate) async fn get(&mut self, key: &str) -> Option<KeyValue> {
        match self.request(RequestBody::Read(query(key))).await {
            Outcome::Answer(bytes) => found(&bytes),
            other => panic!("get {key}: {other:?}"),
        }
    }

    pub(crate) async fn get_stale(&mut self, key: &str) -> Option<KeyValue> {
        match self.request(RequestBody::ReadStale(query(key))).await {
            Outcome::Answer(bytes) => found(&bytes),
            other => panic!("stale get {key}: {other:?}"),
        }
    }
}

pub(crate) fn put(key: &str, value: impl AsRef<[u8]>) -> RequestBody {
    let op = WriteOp::Put {
        key: key.as_bytes().to_vec().into(),
        value: value.as_ref().to_vec().into(),
    };
    RequestBody::Write(kv_api::encode(&Command::Write { stamp: None, op }).into())
}

pub(crate) fn query(key: &str) -> bytes::Bytes {
    let get = Query::Get {
        key: key.as_bytes().to_vec().into(),
        revision: None,
    };
    kv_api::encode(&get).into()
}

pub(crate) fn found(bytes: &[u8]) -> Option<KeyValue> {
    match kv_api::decode(bytes).unwrap() {
        QueryReply::Get { found, .. } => found,
        other => panic!("{other:?}"),
    }
}

/// What an acknowledged write says.
pub(crate) fn written(outcome: &Outcome) -> kv_api::Written {
    let Outcome::Applied { reply, .. } = outcome else {
        panic!("not applied: {outcome:?}");
    };
    match kv_api::decode(reply).unwrap() {
        CommandReply::Written(written) => written,
        other => panic!("{other:?}"),
    }
}
