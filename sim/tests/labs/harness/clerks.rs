//! Clients of the key-value service: each has a session and one operation at a time, which it
//! repeats at other nodes under the same stamp until it is answered. Their requests and answers are
//! lost and late as the course's are, and they reach every node that they are allowed to, whatever
//! the nodes can reach. What they were told is judged at the end.

use bytes::Bytes;
use history::{Budget, ByteString, ClientId, Expect, Header, Op, OpId, Recorder, Reply, Verdict};
use kv_api::{Command, CommandReply, Query, QueryReply, SessionId, SessionStamp, WriteOp};
use raft_core::{NodeId, ProposeError, ReadError};
use sim::{Answer, Ask, Microseconds, RequestId};

use super::{Lab, MILLISECOND};

/// How long a clerk waits for an answer before it asks somebody else.
const PATIENCE: Microseconds = 500 * MILLISECOND;

/// How long it waits where nobody leads.
const BACKOFF: Microseconds = 10 * MILLISECOND;

/// Where a call is.
#[derive(Debug)]
enum Stage {
    /// It is sent, or sent again, at this moment.
    Sends(Microseconds),
    /// It was sent, and waited for until this moment; nothing may come of it.
    Waits(Option<RequestId>, Microseconds),
    /// The answer arrives at this moment.
    Hears(Box<Answer>, Microseconds),
}

#[derive(Debug)]
struct Call {
    ask: Ask,
    /// None for the opening of a session.
    recorded: Option<(OpId, Op)>,
    stage: Stage,
}

/// A client.
#[derive(Debug)]
struct Clerk {
    recorded_as: ClientId,
    session: Option<SessionId>,
    sequence: u64,
    /// What it does once it has a session.
    next: Option<Op>,
    call: Option<Call>,
    believed: usize,
    /// Nodes that it can reach.
    reach: Vec<NodeId>,
    /// The newest answer, until it is taken.
    reply: Option<Reply>,
}

/// All clients, and what they were told.
pub(crate) struct Clerks {
    clerks: Vec<Clerk>,
    recorder: Recorder,
    unreliable: bool,
    /// Operations that were answered.
    pub(crate) answered: u64,
}

impl Clerks {
    /// So many clients, that reach all nodes.
    pub(crate) fn new(lab: &Lab, count: u64, unreliable: bool) -> Self {
        let mut recorder = Recorder::new(Header::default());
        let clerk = |recorder: &mut Recorder, place: usize| Clerk {
            recorded_as: recorder.client(),
            session: None,
            sequence: 0,
            next: None,
            call: None,
            believed: place,
            reach: lab.ids(),
            reply: None,
        };
        let count = usize::try_from(count).expect("a few");
        Self {
            clerks: (0..count)
                .map(|place| clerk(&mut recorder, place))
                .collect(),
            recorder,
            unreliable,
            answered: 0,
        }
    }

    /// How many clients there are.
    pub(crate) fn count(&self) -> usize {
        self.clerks.len()
    }

    /// From now on a client reaches these nodes only.
    pub(crate) fn reach(&mut self, clerk: usize, nodes: &[NodeId]) {
        self.clerks[clerk].reach = nodes.to_vec();
    }

    /// Whether a client has nothing under way.
    pub(crate) fn is_idle(&self, clerk: usize) -> bool {
        let clerk = &self.clerks[clerk];
        clerk.call.is_none() && clerk.next.is_none()
    }

    /// A client that is idle begins something.
    pub(crate) fn begin(&mut self, lab: &Lab, clerk: usize, op: Op) {
        assert!(self.is_idle(clerk), "one operation at a time");
        self.clerks[clerk].reply = None;
        self.clerks[clerk].next = Some(op);
        self.call_next(lab.world.now(), clerk);
    }

    /// What a client heard, once.
    pub(crate) fn take_reply(&mut self, clerk: usize) -> Option<Reply> {
        self.clerks[clerk].reply.take()
    }

    /// Does an operation and waits for it, at most so long.
    pub(crate) fn try_do(
        &mut self,
        lab: &mut Lab,
        clerk: usize,
        op: Op,
        longest: Microseconds,
    ) -> Option<Reply> {
        self.begin(lab, clerk, op);
        let end = lab.world.now() + longest;
        while lab.world.now() < end && !self.is_idle(clerk) {
            self.advance(lab, end);
        }
        self.take_reply(clerk)
    }

    /// As [`Clerks::try_do`]; 30 s have to be enough.
    pub(crate) fn call(&mut self, lab: &mut Lab, clerk: usize, op: Op) -> Reply {
        let shown = op.to_string();
        match self.try_do(lab, clerk, op, 30_000 * MILLISECOND) {
            Some(reply) => reply,
            None => lab.fail(&format!("clerk {clerk}: {shown} is not answered in 30 s")),
        }
    }

    /// Sets a key.
    pub(crate) fn put(&mut self, lab: &mut Lab, clerk: usize, key: &str, value: &str) {
        self.call(lab, clerk, Op::put(key, value));
    }

    /// What a key holds; empty where it is absent.
    pub(crate) fn get(&mut self, lab: &mut Lab, clerk: usize, key: &str) -> String {
        text(&self.call(lab, clerk, Op::get(key)))
    }

    /// Lets time pass until something happened to a client, at most until `end`.
    pub(crate) fn advance(&mut self, lab: &mut Lab, end: Microseconds) {
        let now = lab.world.now();
        let due = self.clerks.iter().filter_map(Clerk::due_at).min();
        let until = due.unwrap_or(end).clamp(now, end.max(now));
        let waiting = lab.world.answers_waiting();
        lab.sleep_while_not(until - now, |world| world.answers_waiting() > waiting);
        for clerk in 0..self.clerks.len() {
            self.step(lab, clerk);
        }
    }

    fn call_next(&mut self, now: Microseconds, place: usize) {
        let clerk = &mut self.clerks[place];
        if clerk.call.is_some() || clerk.next.is_none() {
            return;
        }
        let (ask, recorded) = if clerk.session.is_none() {
            let open = kv_api::encode(&Command::OpenSession);
            (Ask::Propose(open.into()), None)
        } else {
            let op = clerk.next.take().expect("seen above");
            let id = self.recorder.invoke(clerk.recorded_as, now, op.clone());
            let id = id.expect("time goes on, one operation at a time");
            (clerk.encode(&op), Some((id, op)))
        };
        clerk.call = Some(Call {
            ask,
            recorded,
            stage: Stage::Sends(now),
        });
    }

    fn step(&mut self, lab: &mut Lab, place: usize) {
        let now = lab.world.now();
        let unreliable = self.unreliable;
        let clerk = &mut self.clerks[place];
        let Some(call) = &mut clerk.call else {
            return;
        };
        match &mut call.stage {
            Stage::Sends(at) if *at <= now => {
                let node = clerk.reach[clerk.believed % clerk.reach.len()];
                let is_lost = unreliable && lab.chance.chance(100);
                let request = (!is_lost).then(|| lab.world.ask(node, call.ask.clone()));
                // A lost request fails at once, as in the course's network.
                let until = now + if is_lost { 0 } else { PATIENCE };
                call.stage = Stage::Waits(request, until);
            }
            Stage::Waits(request, until) => {
                let answer = request.and_then(|request| lab.world.take_answer(request));
                if let Some(answer) = answer {
                    let is_lost = unreliable && lab.chance.chance(100);
                    let answer = if is_lost { Answer::Gone } else { answer };
                    let delay = lab.chance.between(50, 500);
                    call.stage = Stage::Hears(Box::new(answer), now + delay);
                } else if *until <= now {
                    self.again(lab, place, None);
                }
            }
            Stage::Hears(answer, at) if *at <= now => {
                let answer = std::mem::replace(&mut **answer, Answer::Gone);
                self.hear(lab, place, answer);
            }
            _ => {}
        }
    }

    /// Asks again: whoever is said to lead, else the next one.
    fn again(&mut self, lab: &mut Lab, place: usize, leader: Option<NodeId>) {
        let now = lab.world.now();
        let clerk = &mut self.clerks[place];
        let hinted = leader.and_then(|id| clerk.reach.iter().position(|known| *known == id));
        clerk.believed = hinted.unwrap_or((clerk.believed + 1) % clerk.reach.len());
        let late = if self.unreliable {
            lab.chance.below(26) * MILLISECOND
        } else {
            0
        };
        let pause = if hinted.is_some() { 0 } else { BACKOFF };
        if let Some(call) = &mut clerk.call {
            call.stage = Stage::Sends(now + pause + late);
        }
    }

    fn hear(&mut self, lab: &mut Lab, place: usize, answer: Answer) {
        match answer {
            Answer::Applied { reply, .. } => {
                let reply: CommandReply = kv_api::decode(&reply).expect("a reply of the machine");
                match reply {
                    CommandReply::SessionOpened(session) => {
                        let clerk = &mut self.clerks[place];
                        clerk.session = Some(session);
                        clerk.call = None;
                        self.call_next(lab.world.now(), place);
                    }
                    CommandReply::Written(written) => {
                        let reply = Reply::Written {
                            version: written.version,
                            value_bytes: written.value_bytes,
                        };
                        self.done(lab, place, reply);
                    }
                    CommandReply::Mismatch { version, .. } => {
                        self.done(lab, place, Reply::Mismatch { version });
                    }
                    other => lab.fail(&format!("clerk {place} is told {other:?}")),
                }
            }
            Answer::Found { reply } => match kv_api::decode(&reply) {
                Ok(QueryReply::Get { found: None, .. }) => self.done(lab, place, Reply::Absent),
                Ok(QueryReply::Get {
                    found: Some(found), ..
                }) => {
                    let reply = Reply::Found {
                        value: found.value[..].into(),
                        version: found.version,
                    };
                    self.done(lab, place, reply);
                }
                other => lab.fail(&format!("clerk {place} is told {other:?}")),
            },
            Answer::NotProposed(ProposeError::NotLeader { leader })
            | Answer::NotRead(ReadError::NotLeader { leader }) => self.again(lab, place, leader),
            _ => self.again(lab, place, None),
        }
    }

    fn done(&mut self, lab: &Lab, place: usize, reply: Reply) {
        let clerk = &mut self.clerks[place];
        let call = clerk.call.take().expect("it was answered");
        let (id, _) = call.recorded.expect("an operation");
        let noted = self.recorder.ok(id, lab.world.now(), reply.clone(), None);
        if let Err(error) = noted {
            lab.fail(&format!("clerk {place}: {error}"));
        }
        self.answered += 1;
        clerk.reply = Some(reply);
    }

    /// Whether what all clients were told is linearizable; that it was not decided fails too (W2).
    pub(crate) fn judge(self, lab: &Lab) {
        let history = self.recorder.finish();
        match history::check(&history, Budget::default()) {
            Verdict::Linearizable => {}
            verdict => lab.fail(&verdict.to_string()),
        }
    }
}

impl Clerk {
    /// When something happens to it by itself.
    fn due_at(&self) -> Option<Microseconds> {
        self.call.as_ref().map(|call| match &call.stage {
            Stage::Sends(at) | Stage::Waits(_, at) | Stage::Hears(_, at) => *at,
        })
    }

    fn encode(&mut self, op: &Op) -> Ask {
        let bytes = |text: &ByteString| Bytes::copy_from_slice(text.as_bytes());
        let op = match op {
            Op::Get { key } => {
                let (key, revision) = (bytes(key), None);
                let query = Query::Get { key, revision };
                return Ask::Read(kv_api::encode(&query).into());
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
                    Expect::Absent => kv_api::Expect::Absent,
                    Expect::Value(value) => kv_api::Expect::Value(bytes(value)),
                    Expect::Version(version) => kv_api::Expect::Version(*version),
                },
                value: bytes(value),
            },
        };
        self.sequence += 1;
        let stamp = SessionStamp {
            session: self.session.expect("it was opened first"),
            sequence: self.sequence,
            unanswered_from: self.sequence,
        };
        let stamp = Some(stamp);
        Ask::Propose(kv_api::encode(&Command::Write { stamp, op }).into())
    }
}

/// The value in the answer to a get; empty where the key is absent.
pub(crate) fn text(reply: &Reply) -> String {
    match reply {
        Reply::Found { value, .. } => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        _ => String::new(),
    }
}
