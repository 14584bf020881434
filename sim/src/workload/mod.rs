//! Clients of the key-value store: each has a session and one operation at a time, repeats it under
//! the same stamp through any node until it is answered or given up, and writes down what it was
//! told. Decides; `drive` sends.

mod drive;
mod keys;
mod written;

use std::collections::BTreeSet;

use bytes::Bytes;
use history::{ClientId, Header, History, HistoryError, LoggedWrite, Op, OpId, Recorder};
use kv_api::{Command, Expect, Query, SessionId, SessionStamp, WriteOp};
use raft_core::{Entry, NodeId, Term};

use crate::node::Ask;
use crate::options::ClientOptions;
use crate::prng::Prng;
use crate::queue::Microseconds;
use keys::Keys;
use written::Written;

/// Clients at most; so at most so many operations are under way on one key.
pub(crate) const CLIENTS_MAX: u64 = 10;

/// What is under way.
#[derive(Debug)]
pub(crate) struct Call {
    /// None while a session is being opened.
    pub(crate) recorded: Option<OpId>,
    pub(crate) key_slot: usize,
    pub(crate) ask: Ask,
    pub(crate) stamp: Option<SessionStamp>,
    /// The first node that was asked.
    pub(crate) first: NodeId,
    /// The first of its attempts.
    pub(crate) first_attempt: u64,
    /// Attempts that nothing was heard of.
    pub(crate) unheard: BTreeSet<u64>,
    /// An attempt ended as unknown.
    pub(crate) is_unknown: bool,
    /// The newest term that anybody led when it began.
    pub(crate) term: Term,
}

/// Where a client is.
#[derive(Debug)]
pub(crate) enum Phase {
    Thinking,
    Calling(Box<Call>),
    /// It will not begin anything any more.
    Done,
}

#[derive(Debug)]
pub(crate) struct Client {
    recorded_as: ClientId,
    uses_session: bool,
    pub(crate) session: Option<SessionId>,
    sequence: u64,
    values: u64,
    pub(crate) phase: Phase,
    /// Counts all attempts of this client.
    pub(crate) attempt: u64,
    /// Only the newest alarm counts.
    pub(crate) alarm: u64,
    pub(crate) believed_leader: Option<NodeId>,
    /// What it last saw of each key: value and version.
    seen: std::collections::BTreeMap<usize, (Bytes, u64)>,
    /// Operations that were answered since the faults ended.
    pub(crate) answered_since_heal: u64,
}

/// All clients, and what they were told.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) options: ClientOptions,
    pub(crate) clients: Vec<Client>,
    pub(crate) recorder: Recorder,
    pub(crate) prng: Prng,
    keys: Keys,
    written: Written,
    pub(crate) is_ending: bool,
    /// Operations that began.
    pub(crate) operations: u64,
}

impl Workload {
    /// Clients that have not begun.
    #[must_use]
    pub(crate) fn new(options: ClientOptions, seed: u64) -> Self {
        let mut recorder = Recorder::new(Header {
            seed: Some(seed),
            ..Header::default()
        });
        let mut prng = Prng::new(seed, "clients");
        let clients = (0..options.clients.min(CLIENTS_MAX)).map(|_| Client {
            recorded_as: recorder.client(),
            uses_session: !prng.chance(options.stateless),
            session: None,
            sequence: 0,
            values: 0,
            phase: Phase::Thinking,
            attempt: 0,
            alarm: 0,
            believed_leader: None,
            seen: std::collections::BTreeMap::new(),
            answered_since_heal: 0,
        });
        let clients = clients.collect();
        Self {
            options,
            clients,
            recorder,
            prng,
            keys: Keys::new(options),
            written: Written::default(),
            is_ending: false,
            operations: 0,
        }
    }

    /// The faults are over: clients ask less often and wait longer, so that a slow cluster is not
    /// taken for a dead one.
    pub(crate) fn calm_down(&mut self, election: Microseconds) {
        let options = &mut self.options;
        options.think_max = options.think_max.max(election);
        options.patience = options.patience.max(election * 4);
    }

    /// The longest time that one operation can take.
    pub(crate) fn longest_call(&self) -> Microseconds {
        let options = &self.options;
        (options.patience + options.think_max) * (options.attempts_max + 2)
    }

    /// Whether every client has ended.
    #[must_use]
    pub(crate) fn has_ended(&self) -> bool {
        let mut clients = self.clients.iter();
        clients.all(|client| matches!(client.phase, Phase::Done))
    }

    /// The writes of clients as they stand in the log.
    pub(crate) fn log_of(&self, applied: &[(Entry, Bytes)]) -> Vec<LoggedWrite> {
        self.written.log_of(applied)
    }

    /// The history so far.
    #[must_use]
    pub(crate) fn into_history(self) -> History {
        self.recorder.finish()
    }

    /// Begins the next thing of a client.
    pub(crate) fn begin(
        &mut self,
        position: usize,
        now: Microseconds,
        term: Term,
    ) -> Result<(), HistoryError> {
        let client = &self.clients[position];
        let (ask, recorded, key_slot, stamp);
        if client.uses_session && client.session.is_none() {
            let open = kv_api::encode(&Command::OpenSession);
            (ask, recorded, key_slot, stamp) = (Ask::Propose(open.into()), None, 0, None);
        } else {
            self.operations += 1;
            key_slot = self.keys.draw(&mut self.prng);
            let op = self.draw_op(position, key_slot);
            let client = &mut self.clients[position];
            let id = self.recorder.invoke(client.recorded_as, now, op.clone())?;
            recorded = Some(id);
            (ask, stamp) = client.encode(&op);
            self.written.note(id, &op, stamp);
        }
        let client = &mut self.clients[position];
        client.phase = Phase::Calling(Box::new(Call {
            recorded,
            key_slot,
            ask,
            stamp,
            first: NodeId(0),
            first_attempt: client.attempt + 1,
            unheard: BTreeSet::new(),
            is_unknown: false,
            term,
        }));
        Ok(())
    }

    fn draw_op(&mut self, position: usize, slot: usize) -> Op {
        let key = self.keys.name(slot);
        if self.prng.chance(self.options.reads) {
            return Op::get(key);
        }
        let client = &mut self.clients[position];
        client.values += 1;
        let value = format!("{}-{:04}.", client.recorded_as.0, client.values);
        match self.prng.below(100) {
            0..=49 => Op::put(key, value),
            50..=64 => Op::append(key, value),
            // Outside a session nothing would tell one deletion from another.
            65..=74 if client.session.is_some() => Op::delete(key),
            draw => {
                let expect = match (client.seen.get(&slot), draw) {
                    (Some((_, version)), 75..=84) => history::Expect::Version(*version),
                    (Some((seen, _)), 85..=94) => history::Expect::Value(seen[..].into()),
                    _ => history::Expect::Absent,
                };
                Op::cas(key, expect, value)
            }
        }
    }

    /// An operation ended without anybody knowing how. Whoever was behind the client goes on as
    /// another one, with another session.
    pub(crate) fn ended_unknown(
        &mut self,
        position: usize,
        call: &Call,
        now: Microseconds,
    ) -> Result<(), HistoryError> {
        let Some(recorded) = call.recorded else {
            return Ok(());
        };
        let client = &mut self.clients[position];
        client.session = None;
        if matches!(call.ask, Ask::Read(_)) {
            return self.recorder.fail(recorded, now);
        }
        client.recorded_as = self.recorder.info(recorded, now)?;
        self.keys.unknown(call.key_slot);
        Ok(())
    }

    /// An operation certainly took no effect.
    pub(crate) fn ended_without_effect(
        &mut self,
        call: &Call,
        now: Microseconds,
    ) -> Result<(), HistoryError> {
        call.recorded
            .map_or(Ok(()), |recorded| self.recorder.fail(recorded, now))
    }

    /// Remembers what a key held, for later comparisons.
    pub(crate) fn saw(&mut self, position: usize, slot: usize, held: Option<(Bytes, u64)>) {
        let seen = &mut self.clients[position].seen;
        match held {
            Some(held) => drop(seen.insert(slot, held)),
            None => drop(seen.remove(&slot)),
        }
    }
}

impl Client {
    /// The bytes of an operation, and its stamp where it has one.
    fn encode(&mut self, op: &Op) -> (Ask, Option<SessionStamp>) {
        let bytes = |text: &history::ByteString| Bytes::copy_from_slice(text.as_bytes());
        let op = match op {
            Op::Get { key } => {
                let query = Query::Get {
                    key: bytes(key),
                    revision: None,
                };
                return (Ask::Read(kv_api::encode(&query).into()), None);
            }
            Op::Put { key, value } => WriteOp::Put {
                key: bytes(key),
                value: bytes(value),
            },
            Op::Append { key, value } => WriteOp::Append {
                key: bytes(key),
                value: bytes(value),
            },
            Op::Delete { key } => WriteOp::Delete { key: bytes(key) },
            Op::Cas { key, expect, value } => WriteOp::Cas {
                key: bytes(key),
                expect: match expect {
                    history::Expect::Absent => Expect::Absent,
                    history::Expect::Value(value) => Expect::Value(bytes(value)),
                    history::Expect::Version(version) => Expect::Version(*version),
                },
                value: bytes(value),
            },
        };
        let stamp = self.session.map(|session| {
            self.sequence += 1;
            SessionStamp {
                session,
                sequence: self.sequence,
                unanswered_from: self.sequence,
            }
        });
        let command = Command::Write { stamp, op };
        (Ask::Propose(kv_api::encode(&command).into()), stamp)
    }

    /// A new session begins to count anew.
    pub(crate) fn opened(&mut self, session: SessionId) {
        self.session = Some(session);
        self.sequence = 0;
    }
}
