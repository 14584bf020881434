//! The client as its users see it: one method per thing that can be asked of the store. Scans are
//! in `scan`, the nodes' reports in `status`, what administrators ask for in `admin` and
//! `download`.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kv_api::limits::{self, KEY_BYTES_MAX};
use kv_api::{
    Command, CommandError, CommandReply, Expect, KeyValue, Outcome, Query, QueryReply, RequestBody,
    WriteOp, Written,
};
use quic_link::{Credentials, Endpoint, EndpointOptions, LinkLimits};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::calls::{Answer, Completion, Lane, NewCall, Route};
use crate::config::{ClientConfig, ConfigError, ENDPOINTS_MAX, Timeouts, hexadecimal};
use crate::connection::{Dialer, supervise};
use crate::error::ClientError;
use crate::retry::Jitter;
use crate::router::Router;
use crate::shared::Shared;

/// Sessions that one write may find expired before it is given up: a service that evicts sessions
/// faster than they can be used is overloaded.
const SESSIONS_PER_WRITE_MAX: u32 = 3;

/// What a delete came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// Whether the key had been there.
    pub existed: bool,
    /// The store's revision afterwards.
    pub revision: u64,
}

/// What a compare-and-set came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CasOutcome {
    /// The key held what was expected and was set.
    Written(Written),
    /// The key held something else; nothing was changed.
    Mismatch {
        /// The key's version, 0 where it is absent.
        version: u64,
        /// The store's revision.
        revision: u64,
    },
}

/// A write, and where it stands in the replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The term of the log entry that was answered.
    pub term: u64,
    /// The index of that entry.
    pub index: u64,
    /// How often the write was sent. Where this is 1, the entry above is the one that took effect;
    /// otherwise it may be a repetition of an earlier one.
    pub sends: u32,
    /// What the write came to.
    pub reply: CommandReply,
}

/// A connection to a cluster. Clones share it, with its session and its streams; a program needs
/// one.
#[derive(Clone, Debug)]
pub struct KvClient {
    handle: Arc<Handle>,
}

/// Ends the background tasks when the last clone of the client goes.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    timeouts: Timeouts,
    dialer: Dialer,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl KvClient {
    /// Starts connecting to all nodes, and returns without waiting for any: calls wait for a
    /// connection until their own deadline. Must be called inside a Tokio runtime with time and IO.
    ///
    /// # Errors
    /// [`ClientError::Config`] when the settings or certificates cannot be used, or no socket can
    /// be opened.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        config.check()?;
        let credentials = Credentials::from_pem(&config.ca, &config.certificate, &config.key)
            .map_err(|error| ConfigError::Credentials(error.to_string()))?;
        let certified = credentials.identity().cluster;
        if certified != config.cluster {
            return Err(ClientError::Config(ConfigError::OtherCluster {
                certificate: hexadecimal(&certified),
                cluster: hexadecimal(&config.cluster),
            }));
        }
        let any_ipv6 = config
            .endpoints
            .iter()
            .any(|node| node.address.starts_with('['));
        let unspecified = if any_ipv6 { "[::]:0" } else { "0.0.0.0:0" };
        let listen = unspecified
            .parse()
            .map_err(|error| ConfigError::Socket(format!("{error}")))?;
        let endpoint = Endpoint::bind(EndpointOptions {
            credentials,
            listen,
            accept: false,
            reset_key: None,
            limits: LinkLimits::default(),
        })
        .map_err(|error| ConfigError::Socket(error.to_string()))?;
        let timeouts = config.timeouts;
        let router = Router::new(&config.endpoints, timeouts, Jitter::from_system());
        let (discovered_sender, discovered) = mpsc::channel(ENDPOINTS_MAX);
        let shared = Shared::new(router, discovered_sender);
        let cluster = config.cluster;
        let dialer = Dialer {
            endpoint,
            cluster,
            timeouts,
        };
        let task = supervise(Arc::clone(&shared), dialer.clone(), discovered);
        let supervisor = tokio::spawn(task);
        let handle = Handle {
            shared,
            timeouts,
            dialer,
            supervisor: Mutex::new(Some(supervisor)),
        };
        Ok(Self {
            handle: Arc::new(handle),
        })
    }

    /// Sets a key.
    ///
    /// # Errors
    /// As [`KvClient::write_located`].
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Written, ClientError> {
        let (key, value) = (key.into(), value.into());
        written(self.write_located(WriteOp::Put { key, value }).await?)
    }

    /// Puts bytes behind a key's value; an absent key counts as empty.
    ///
    /// # Errors
    /// As [`KvClient::write_located`].
    pub async fn append(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Written, ClientError> {
        let (key, value) = (key.into(), value.into());
        written(self.write_located(WriteOp::Append { key, value }).await?)
    }

    /// Removes a key.
    ///
    /// # Errors
    /// As [`KvClient::write_located`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Deleted, ClientError> {
        let key = key.into();
        match self.write_located(WriteOp::Delete { key }).await?.reply {
            CommandReply::Deleted { existed, revision } => Ok(Deleted { existed, revision }),
            other => Err(unexpected(&other)),
        }
    }

    /// Sets a key where it holds what is expected.
    ///
    /// # Errors
    /// As [`KvClient::write_located`]. That the key holds something else is no error.
    pub async fn cas(
        &self,
        key: impl Into<Bytes>,
        expect: Expect,
        value: impl Into<Bytes>,
    ) -> Result<CasOutcome, ClientError> {
        let (key, value) = (key.into(), value.into());
        let op = WriteOp::Cas { key, expect, value };
        match self.write_located(op).await?.reply {
            CommandReply::Written(written) => Ok(CasOutcome::Written(written)),
            CommandReply::Mismatch { version, revision } => {
                Ok(CasOutcome::Mismatch { version, revision })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Carries out a write exactly once, and tells where it stands in the log. It is sent again,
    /// through any node, until it is answered or its deadline passes.
    ///
    /// # Errors
    /// [`ClientError::Limit`] when a key or value is outside its limit;
    /// [`ClientError::Unavailable`] when it was certainly not applied by its deadline,
    /// [`ClientError::Unknown`] when it may have been; [`ClientError::Refused`] and
    /// [`ClientError::Command`] when the service refuses it.
    pub async fn write_located(&self, op: WriteOp) -> Result<Located, ClientError> {
        let bytes = op_bytes(&op);
        let mut command = Command::Write { stamp: None, op };
        command.check_limits()?;
        let deadline = self.deadline();
        let shared = &self.handle.shared;
        let _room = shared.room(bytes, deadline).await?;
        for _ in 0..SESSIONS_PER_WRITE_MAX {
            let given = shared.stamp(deadline).await?;
            if let Command::Write { stamp, .. } = &mut command {
                *stamp = Some(given);
            }
            let call = NewCall {
                route: Route::Leader,
                lane: Lane::for_bytes(bytes),
                body: RequestBody::Write(kv_api::encode(&command).into()),
                deadline,
                stamp: Some(given),
            };
            let completion = shared.call(call).await;
            let unresolved = completion.unresolved;
            let located = applied(completion)?;
            match located.reply {
                CommandReply::Refused(CommandError::SessionExpired(session)) => {
                    shared.session_expired(given);
                    if unresolved > 0 {
                        return Err(ClientError::Unknown(format!(
                            "session {} has expired since the write was first sent",
                            session.0
                        )));
                    }
                }
                CommandReply::Refused(error @ CommandError::AlreadyAcknowledged { .. }) => {
                    return Err(ClientError::Unknown(error.to_string()));
                }
                CommandReply::Refused(error) => return Err(error.into()),
                _ => return Ok(located),
            }
        }
        Err(ClientError::Unavailable(format!(
            "{SESSIONS_PER_WRITE_MAX} sessions in a row expired before they were used"
        )))
    }

    /// Drops all revisions that were superseded at or before this one. Returns the oldest revision
    /// that can still be read at.
    ///
    /// # Errors
    /// As [`KvClient::write_located`]; also when the revision does not exist yet.
    pub async fn compact(&self, revision: u64) -> Result<u64, ClientError> {
        let deadline = self.deadline();
        let _room = self.handle.shared.room(0, deadline).await?;
        let command = Command::Compact { revision };
        let call = NewCall {
            route: Route::Leader,
            lane: Lane::Quick,
            body: RequestBody::Write(kv_api::encode(&command).into()),
            deadline,
            stamp: None,
        };
        match applied(self.handle.shared.call(call).await)?.reply {
            CommandReply::Compacted { oldest } => Ok(oldest),
            CommandReply::Refused(error) => Err(error.into()),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads a key: the newest value at some moment between call and return.
    ///
    /// # Errors
    /// [`ClientError::Limit`] when the key is outside its limit, [`ClientError::Unavailable`] when
    /// no answer came before the deadline.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, ClientError> {
        self.get_from(key.into(), None, Reading::Newest).await
    }

    /// Reads a key as of a revision.
    ///
    /// # Errors
    /// As [`KvClient::get`]; also [`ClientError::Query`] when the revision was compacted away or
    /// does not exist yet.
    pub async fn get_at(
        &self,
        key: impl Into<Bytes>,
        revision: u64,
    ) -> Result<Option<KeyValue>, ClientError> {
        self.get_from(key.into(), Some(revision), Reading::Newest)
            .await
    }

    /// Reads a key from whatever some node has applied, which may be old. Needs no leader; the
    /// first connected node in the configured order is asked.
    ///
    /// # Errors
    /// As [`KvClient::get`].
    pub async fn get_stale(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, ClientError> {
        self.get_from(key.into(), None, Reading::Stale).await
    }

    async fn get_from(
        &self,
        key: Bytes,
        revision: Option<u64>,
        reading: Reading,
    ) -> Result<Option<KeyValue>, ClientError> {
        limits::check_key(&key)?;
        let query = Query::Get { key, revision };
        match self.query(&query, reading, Lane::Quick).await? {
            QueryReply::Get { found, .. } => Ok(found),
            other => Err(unexpected_answer(&other)),
        }
    }

    /// Asks a question.
    pub(crate) async fn query(
        &self,
        query: &Query,
        reading: Reading,
        lane: Lane,
    ) -> Result<QueryReply, ClientError> {
        let deadline = self.deadline();
        let shared = &self.handle.shared;
        let _room = shared.room(KEY_BYTES_MAX, deadline).await?;
        let question = Bytes::from(kv_api::encode(query));
        let (route, body) = match reading {
            Reading::Newest => (Route::Leader, RequestBody::Read(question)),
            Reading::Stale => (Route::Any, RequestBody::ReadStale(question)),
        };
        let call = NewCall {
            route,
            lane,
            body,
            deadline,
            stamp: None,
        };
        match shared.call(call).await.answer {
            Answer::Outcome(Outcome::Answer(reply)) => match kv_api::decode(&reply) {
                Ok(QueryReply::Refused(error)) => Err(error.into()),
                Ok(reply) => Ok(reply),
                Err(error) => Err(ClientError::Unavailable(format!(
                    "malformed answer: {error}"
                ))),
            },
            Answer::Outcome(Outcome::Limit(limit)) => Err(limit.into()),
            Answer::Outcome(Outcome::Refused(why)) => Err(ClientError::Refused(why)),
            Answer::Outcome(other) => Err(unexpected_answer(&other)),
            Answer::Late(why) | Answer::Lost(why) => Err(ClientError::Unavailable(why)),
            Answer::Closed => Err(ClientError::Closed),
        }
    }

    /// Takes no further calls, waits until all that were made have ended, and closes the
    /// connections. Calls made afterwards, through any clone, end with [`ClientError::Closed`].
    pub async fn close(&self) {
        self.handle.shared.drain().await;
        self.handle.shared.stop();
        let supervisor = self
            .handle
            .supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(supervisor) = supervisor {
            // It only fails when it panicked or the runtime ends: then nothing is left to close.
            let _ = supervisor.await;
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    pub(crate) fn timeouts(&self) -> &Timeouts {
        &self.handle.timeouts
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.handle.dialer
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.handle.timeouts.request
    }
}

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reading {
    /// Linearizable.
    Newest,
    /// Whatever a node has applied.
    Stale,
}

/// Bytes that a write holds on to while it is on its way.
fn op_bytes(op: &WriteOp) -> usize {
    let value = match op {
        WriteOp::Put { value, .. } | WriteOp::Append { value, .. } => value.len(),
        WriteOp::Delete { .. } => 0,
        WriteOp::Cas { expect, value, .. } => match expect {
            Expect::Value(expected) => value.len() + expected.len(),
            Expect::Absent | Expect::Version(_) => value.len(),
        },
    };
    op.key().len() + value
}

/// What is known about a command once its call has ended.
fn applied(completion: Completion) -> Result<Located, ClientError> {
    let Completion {
        answer,
        sends,
        unresolved,
    } = completion;
    let refused = |error: ClientError| {
        // An earlier attempt that was never answered may have been applied all the same.
        if unresolved > 0 {
            ClientError::Unknown(error.to_string())
        } else {
            error
        }
    };
    match answer {
        Answer::Outcome(Outcome::Applied { term, index, reply }) => {
            let reply = kv_api::decode(&reply)
                .map_err(|error| ClientError::Unknown(format!("malformed reply: {error}")))?;
            Ok(Located {
                term,
                index,
                sends,
                reply,
            })
        }
        Answer::Outcome(Outcome::Limit(limit)) => Err(refused(limit.into())),
        Answer::Outcome(Outcome::Refused(why)) => Err(refused(ClientError::Refused(why))),
        Answer::Outcome(other) => Err(ClientError::Unknown(format!("unexpected answer {other:?}"))),
        Answer::Late(why) if unresolved > 0 => Err(ClientError::Unknown(why)),
        Answer::Late(why) => Err(ClientError::Unavailable(why)),
        Answer::Lost(why) => Err(ClientError::Unknown(why)),
        Answer::Closed if unresolved > 0 => Err(ClientError::Unknown(
            "the client was closed before an answer came".to_owned(),
        )),
        Answer::Closed => Err(ClientError::Closed),
    }
}

fn written(located: Located) -> Result<Written, ClientError> {
    match located.reply {
        CommandReply::Written(written) => Ok(written),
        other => Err(unexpected(&other)),
    }
}

/// A reply that belongs to another command. The write was applied, but what came of it is not
/// known.
fn unexpected(reply: &CommandReply) -> ClientError {
    ClientError::Unknown(format!("unexpected reply {reply:?}"))
}

fn unexpected_answer(answer: &impl std::fmt::Debug) -> ClientError {
    ClientError::Unavailable(format!("unexpected answer {answer:?}"))
}
