//! Nodes that speak the client protocol over real links and share one store, but replicate nothing.
//! What a node does with a request can be decided by the test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kv_api::limits::FRAME_BYTES_MAX;
use kv_api::{
    Command, CommandError, CommandReply, Expect, KeyValue, MemberChange, MemberKind, MemberReport,
    MembersReport, NodeStatus, Notice, Outcome, Query, QueryReply, Request, RequestBody, Response,
    ScanPage, SessionId, SessionStamp, WriteOp, Written,
};
use kv_client::{ClientConfig, EndpointAddress, KvClient, Timeouts};
use quic_link::test_support::Authority;
use quic_link::{
    BindError, Endpoint, EndpointOptions, FrameReader, FrameWriter, Link, LinkLimits, Protocol,
    Role,
};
use tokio::sync::watch;

pub(crate) const CLUSTER: [u8; 16] = [7; 16];

/// What a node does with a request.
pub(crate) enum Reaction {
    /// What a real one would do.
    Usual,
    /// Carries it out and answers, leader or not.
    Apply,
    /// Answers this.
    Answer(Outcome),
    /// Answers all of this, one after the other.
    Answers(Vec<Outcome>),
    /// Does nothing, and loses the connection.
    HangUp,
    /// Carries it out, but does not tell.
    ApplySilently,
    /// Carries it out, and loses the connection before telling.
    ApplyAndHangUp,
    /// Does nothing.
    Ignore,
    /// Sends these bytes as a frame of this kind.
    Frame(u8, Bytes),
}

type Script = Box<dyn FnMut(&RequestBody) -> Reaction + Send>;

/// The replicated state, as it were.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) values: BTreeMap<Bytes, KeyValue>,
    pub(crate) revision: u64,
    pub(crate) sessions: u64,
    /// Sessions up to this one have expired.
    pub(crate) expired_to: u64,
    pub(crate) members: MembersReport,
    replies: BTreeMap<(SessionId, u64), CommandReply>,
    /// Stamps of all writes that came, repetitions included.
    pub(crate) stamps: Vec<SessionStamp>,
}

impl Store {
    fn apply(&mut self, command: Command) -> CommandReply {
        match command {
            Command::OpenSession => {
                self.sessions += 1;
                CommandReply::SessionOpened(SessionId(self.sessions))
            }
            Command::Compact { revision } => CommandReply::Compacted { oldest: revision },
            Command::Write { stamp, op } => {
                let stamp = stamp.expect("the client stamps every write");
                self.stamps.push(stamp);
                if stamp.session.0 <= self.expired_to {
                    return CommandReply::Refused(CommandError::SessionExpired(stamp.session));
                }
                let call = (stamp.session, stamp.sequence);
                if let Some(reply) = self.replies.get(&call) {
                    return reply.clone();
                }
                let reply = self.write(op);
                self.replies.insert(call, reply.clone());
                reply
            }
        }
    }

    fn change(&mut self, change: MemberChange) -> Outcome {
        let members = &mut self.members.members;
        match change {
            MemberChange::Add {
                id,
                incarnation,
                address,
            } => members.push(MemberReport {
                id,
                incarnation,
                address,
                role: MemberKind::Learner,
                is_leaving: false,
            }),
            MemberChange::Remove { id } => members.retain(|member| member.id != id),
            other => return Outcome::Refused(format!("{other:?}")),
        }
        Outcome::Members(self.members.clone())
    }

    fn write(&mut self, op: WriteOp) -> CommandReply {
        let before = self.values.get(op.key()).cloned();
        let version = before.as_ref().map_or(0, |found| found.version);
        let (key, value) = match op {
            WriteOp::Put { key, value } => (key, value),
            WriteOp::Append { key, value } => {
                let old = before.map(|found| found.value).unwrap_or_default();
                (key, [old, value].concat().into())
            }
            WriteOp::Delete { key } => {
                let existed = self.values.remove(&key).is_some();
                self.revision += u64::from(existed);
                let revision = self.revision;
                return CommandReply::Deleted { existed, revision };
            }
            WriteOp::Cas { key, expect, value } => {
                let holds = match expect {
                    Expect::Absent => before.is_none(),
                    Expect::Value(expected) => before.is_some_and(|found| found.value == expected),
                    Expect::Version(expected) => version == expected,
                };
                if !holds {
                    let revision = self.revision;
                    return CommandReply::Mismatch { version, revision };
                }
                (key, value)
            }
        };
        self.revision += 1;
        let value_bytes = value.len() as u64;
        let entry = KeyValue {
            key: key.clone(),
            value,
            create_revision: self.revision,
            mod_revision: self.revision,
            version: version + 1,
        };
        self.values.insert(key, entry);
        CommandReply::Written(Written {
            revision: self.revision,
            version: version + 1,
            value_bytes,
        })
    }

    fn query(&self, query: Query) -> QueryReply {
        match query {
            Query::Get { key, .. } => QueryReply::Get {
                found: self.values.get(&key).cloned(),
                revision: self.revision,
            },
            Query::Scan {
                from, to, limit, ..
            } => {
                // Pages of two keys, so that a few keys make several pages.
                let limit = limit.min(2) as usize;
                let mut rest = self
                    .values
                    .range(from..)
                    .map(|(_, found)| found.clone())
                    .filter(|found| to.as_ref().is_none_or(|to| found.key < *to));
                let items: Vec<KeyValue> = rest.by_ref().take(limit).collect();
                QueryReply::Scan(ScanPage {
                    items,
                    next: rest.next().map(|found| found.key),
                    revision: self.revision,
                })
            }
        }
    }
}

/// What one node has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) links: usize,
    pub(crate) streams: usize,
    pub(crate) writes: usize,
    pub(crate) reads: usize,
    pub(crate) members: usize,
    pub(crate) changes: usize,
    /// The most requests that one read of a stream brought.
    pub(crate) batch_max: usize,
}

struct NodeState {
    id: u64,
    store: Arc<Mutex<Store>>,
    members: Vec<(u64, String)>,
    script: Mutex<Script>,
    seen: Mutex<Seen>,
    notice: watch::Sender<Notice>,
}

/// One node.
pub(crate) struct FakeNode {
    pub(crate) address: SocketAddr,
    state: Arc<NodeState>,
    endpoint: Endpoint,
}

/// Nodes with ids from 1, and what a client needs to reach them.
pub(crate) struct FakeCluster {
    authority: Authority,
    pub(crate) nodes: Vec<FakeNode>,
    pub(crate) store: Arc<Mutex<Store>>,
}

impl FakeCluster {
    /// Starts nodes; the first leads in term 1.
    pub(crate) async fn start(count: u64) -> Self {
        let mut cluster = Self {
            authority: Authority::new(CLUSTER),
            nodes: Vec::new(),
            store: Arc::default(),
        };
        let endpoints: Vec<Endpoint> = (1..=count)
            .map(|id| cluster.bind(id, 0).expect("a free port"))
            .collect();
        let members: Vec<(u64, String)> = (1..)
            .zip(&endpoints)
            .map(|(id, endpoint)| (id, endpoint.local_addr().to_string()))
            .collect();
        for (id, endpoint) in (1..).zip(endpoints) {
            let node = FakeNode::serve(endpoint, id, members.clone(), Arc::clone(&cluster.store));
            cluster.nodes.push(node);
        }
        cluster.lead(1, 1);
        cluster
    }

    fn bind(&self, id: u64, port: u16) -> Result<Endpoint, BindError> {
        Endpoint::bind(EndpointOptions {
            credentials: self.authority.credentials(Role::Node(id)),
            listen: SocketAddr::from(([127, 0, 0, 1], port)),
            accept: true,
            reset_key: None,
            limits: LinkLimits::default(),
        })
    }

    /// All nodes say that this one leads.
    pub(crate) fn lead(&self, term: u64, leader: u64) {
        for node in &self.nodes {
            node.say(term, Some((leader, self.node(leader).address.to_string())));
        }
    }

    pub(crate) fn node(&self, id: u64) -> &FakeNode {
        &self.nodes[id as usize - 1]
    }

    /// Ends a node and starts it again at the same address.
    pub(crate) async fn restart(&mut self, id: u64) {
        let old = self.nodes.remove(id as usize - 1);
        let port = old.address.port();
        let (members, notice) = (old.state.members.clone(), old.state.notice.borrow().clone());
        old.endpoint.close("restart").await;
        drop(old);
        // The port is free when the last task of the old node has noticed its end.
        let deadline = Instant::now() + Duration::from_secs(20);
        let endpoint = loop {
            match self.bind(id, port) {
                Ok(endpoint) => break endpoint,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let node = FakeNode::serve(endpoint, id, members, Arc::clone(&self.store));
        node.state.notice.send_replace(notice);
        self.nodes.insert(id as usize - 1, node);
    }

    pub(crate) fn config(&self) -> ClientConfig {
        let pem = self.authority.pem(Role::Client);
        let endpoints = self
            .nodes
            .iter()
            .map(|node| EndpointAddress {
                id: node.state.id,
                address: node.address.to_string(),
            })
            .collect();
        ClientConfig {
            cluster: CLUSTER,
            endpoints,
            ca: pem.ca.into_bytes(),
            certificate: pem.cert.into_bytes(),
            key: pem.key.into_bytes(),
            timeouts: Timeouts {
                request: Duration::from_secs(30),
                ..Timeouts::default()
            },
        }
    }

    pub(crate) async fn client(&self) -> KvClient {
        KvClient::connect(self.config())
            .await
            .expect("good settings")
    }

    /// A client whose calls end early.
    pub(crate) async fn impatient_client(&self, request: Duration) -> KvClient {
        let mut config = self.config();
        config.timeouts.request = request;
        KvClient::connect(config).await.expect("good settings")
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().expect("no test panicked with it")
    }
}

impl FakeNode {
    fn serve(
        endpoint: Endpoint,
        id: u64,
        members: Vec<(u64, String)>,
        store: Arc<Mutex<Store>>,
    ) -> Self {
        let state = Arc::new(NodeState {
            id,
            store,
            members,
            script: Mutex::new(Box::new(|_| Reaction::Usual)),
            seen: Mutex::default(),
            notice: watch::Sender::new(Notice::default()),
        });
        tokio::spawn(accept_links(endpoint.clone(), Arc::clone(&state)));
        Self {
            address: endpoint.local_addr(),
            state,
            endpoint,
        }
    }

    /// Decides from now on what the node does with requests.
    pub(crate) fn play(&self, script: impl FnMut(&RequestBody) -> Reaction + Send + 'static) {
        *self.state.script.lock().expect("whole") = Box::new(script);
    }

    /// Changes what the node knows about the leader, and tells its clients.
    pub(crate) fn say(&self, term: u64, leader: Option<(u64, String)>) {
        self.state.notice.send_replace(Notice { term, leader });
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.seen.lock().expect("whole")
    }

    /// Ends the node.
    pub(crate) async fn stop(&self) {
        self.endpoint.close("stopped").await;
    }
}

async fn accept_links(endpoint: Endpoint, state: Arc<NodeState>) {
    while let Some(link) = endpoint.accept().await {
        assert_eq!(link.protocol(), Protocol::Client);
        state.seen.lock().expect("whole").links += 1;
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((writer, reader)) = link.accept_bi().await {
                state.seen.lock().expect("whole").streams += 1;
                tokio::spawn(talk(link.clone(), writer, reader, Arc::clone(&state)));
            }
        });
    }
}

/// One stream, until it ends.
async fn talk(link: Link, mut writer: FrameWriter, mut reader: FrameReader, state: Arc<NodeState>) {
    let mut notices = state.notice.subscribe();
    notices.mark_changed();
    loop {
        let mut frame = tokio::select! {
            frame = reader.read(FRAME_BYTES_MAX) => match frame {
                Ok(Some(frame)) => Some(frame),
                Ok(None) | Err(_) => return,
            },
            _ = notices.changed() => None,
        };
        if frame.is_none() {
            let outcome = Outcome::Notice(notices.borrow_and_update().clone());
            respond(&mut writer, 0, outcome);
        }
        let mut batch = 0;
        while let Some(request) = frame {
            batch += 1;
            assert_eq!(request.kind, 1);
            let request: Request = kv_api::decode(&request.payload).expect("a request");
            if state.react(request, &mut writer) {
                link.close(1, "as the script says");
                return;
            }
            frame = reader.try_read(FRAME_BYTES_MAX).ok().flatten();
        }
        state.note_batch(batch);
        if writer.flush().await.is_err() {
            return;
        }
    }
}

fn respond(writer: &mut FrameWriter, id: u64, outcome: Outcome) {
    let response = kv_api::encode(&Response { id, outcome });
    writer.queue(2, [response.into()]).expect("it fits");
}

impl NodeState {
    fn note_batch(&self, batch: usize) {
        let mut seen = self.seen.lock().expect("whole");
        seen.batch_max = seen.batch_max.max(batch);
    }

    /// Deals with one request. Says whether the link has to be dropped.
    fn react(&self, request: Request, writer: &mut FrameWriter) -> bool {
        {
            let mut seen = self.seen.lock().expect("whole");
            match request.body {
                RequestBody::Write(_) => seen.writes += 1,
                RequestBody::Read(_) | RequestBody::ReadStale(_) => seen.reads += 1,
                RequestBody::Members => seen.members += 1,
                RequestBody::ChangeMembers(_) => seen.changes += 1,
                _ => {}
            }
        }
        let reaction = (self.script.lock().expect("whole"))(&request.body);
        match reaction {
            Reaction::Usual => {
                let outcome = self.carry_out(request.body, false);
                respond(writer, request.id, outcome);
            }
            Reaction::Apply => {
                let outcome = self.carry_out(request.body, true);
                respond(writer, request.id, outcome);
            }
            Reaction::Answer(outcome) => respond(writer, request.id, outcome),
            Reaction::Answers(outcomes) => {
                for outcome in outcomes {
                    respond(writer, request.id, outcome);
                }
            }
            Reaction::HangUp => return true,
            Reaction::ApplySilently => drop(self.carry_out(request.body, true)),
            Reaction::ApplyAndHangUp => {
                self.carry_out(request.body, true);
                return true;
            }
            Reaction::Ignore => {}
            Reaction::Frame(kind, payload) => writer.queue(kind, [payload]).expect("it fits"),
        }
        false
    }

    fn carry_out(&self, body: RequestBody, forced: bool) -> Outcome {
        let notice = self.notice.borrow().clone();
        let leads = notice.leader.as_ref().is_some_and(|(id, _)| *id == self.id);
        let mut store = self.store.lock().expect("whole");
        match body {
            RequestBody::Write(_)
            | RequestBody::Read(_)
            | RequestBody::Members
            | RequestBody::ChangeMembers(_)
                if !leads && !forced =>
            {
                Outcome::NotLeader(notice)
            }
            RequestBody::Members => Outcome::Members(store.members.clone()),
            RequestBody::ChangeMembers(change) => store.change(change),
            RequestBody::Write(command) => {
                let command = kv_api::decode(&command).expect("a command");
                let reply = kv_api::encode(&store.apply(command)).into();
                let (term, index) = (notice.term, store.revision);
                Outcome::Applied { term, index, reply }
            }
            RequestBody::Read(query) | RequestBody::ReadStale(query) => {
                let query = kv_api::decode(&query).expect("a query");
                Outcome::Answer(kv_api::encode(&store.query(query)).into())
            }
            RequestBody::Status => Outcome::Status(Box::new(NodeStatus {
                id: self.id,
                term: notice.term,
                leader: notice.leader.map(|(id, _)| id),
                members: self.members.clone(),
                ..NodeStatus::default()
            })),
            other => Outcome::Refused(format!("a played node knows nothing of {other:?}")),
        }
    }
}

/// Whether a request is a write other than the opening of a session.
pub(crate) fn is_stamped(body: &RequestBody) -> bool {
    let RequestBody::Write(command) = body else {
        return false;
    };
    matches!(kv_api::decode(command), Ok(Command::Write { .. }))
}
