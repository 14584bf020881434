//! Clients at work in a world: requests leave, answers come or do not, and what is known in the end
//! is recorded and judged.

use history::{HistoryError, Location, Reply};
use kv_api::{CommandError, CommandReply, KeyValue, QueryReply};
use raft_core::{LogId, NodeId, ProposeError, ReadError};

use super::{Call, Phase};
use crate::coverage::Mark;
use crate::event::Event;
use crate::node::{Answer, Ask, Origin};
use crate::queue::Microseconds;
use crate::violation::{Violation, require};
use crate::world::World;

/// The longest pause before a client asks again after a refusal.
const BACKOFF_MAX: Microseconds = 20_000;

/// Requests of 1,000 that go to any node, whoever is believed to lead.
const ANYBODY: u64 = 100;

/// Stamped requests of 1,000 that are sent twice.
const TWICE: u64 = 50;

impl World {
    /// Every client begins at some moment.
    pub(crate) fn plan_clients(&mut self) {
        let Some(workload) = &mut self.workload else {
            return;
        };
        let longest = workload.options.think_max;
        let count = workload.clients.len();
        for client in 0..count {
            let workload = self.workload.as_mut().expect("seen above");
            let after = workload.prng.between(0, longest);
            self.plan(after, Event::Client { client, alarm: 0 });
        }
    }

    /// How long a request or an answer travels; none when it is lost.
    pub(crate) fn client_delay(&mut self) -> Option<Microseconds> {
        let network = self.network.options;
        let workload = self.workload.as_mut()?;
        if workload.prng.chance(network.loss / 2) {
            return None;
        }
        let delay = workload.prng.between(network.delay_min, network.delay_max);
        Some(delay)
    }

    /// A client has waited or thought long enough.
    pub(crate) fn client_alarm(&mut self, position: usize, alarm: u64) {
        let Some(workload) = &mut self.workload else {
            return;
        };
        let client = &workload.clients[position];
        if client.alarm != alarm {
            return;
        }
        let happened = match &client.phase {
            Phase::Done => Ok(()),
            Phase::Thinking if workload.is_ending => {
                workload.clients[position].phase = Phase::Done;
                Ok(())
            }
            Phase::Thinking => {
                let term = self.checks.elections.newest_term();
                let begun = workload.begin(position, self.now, term);
                self.attempt(position);
                begun
            }
            Phase::Calling(call) => {
                let attempts = client.attempt + 1 - call.first_attempt;
                let can_repeat = call.stamp.is_some()
                    || call.recorded.is_none()
                    || !matches!(call.ask, Ask::Propose(_))
                    || (call.unheard.is_empty() && !call.is_unknown);
                if attempts < workload.options.attempts_max && can_repeat {
                    self.attempt(position);
                    Ok(())
                } else {
                    self.give_up(position)
                }
            }
        };
        self.note_contradiction(happened);
    }

    /// The recorder refuses what cannot have happened: a bug of the workload, or an answer that is
    /// none.
    fn note_contradiction(&mut self, happened: Result<(), HistoryError>) {
        let found = happened.map_err(|error| Violation {
            invariant: 40,
            what: error.to_string(),
        });
        self.note_violation(found);
    }

    fn alarm_after(&mut self, position: usize, after: Microseconds) {
        if let Some(workload) = &mut self.workload {
            let client = &mut workload.clients[position];
            client.alarm += 1;
            let alarm = client.alarm;
            let client = position;
            self.plan(after, Event::Client { client, alarm });
        }
    }

    /// Sends what is under way to some node.
    fn attempt(&mut self, position: usize) {
        let ids = self.ids();
        let Some(workload) = &mut self.workload else {
            return;
        };
        let anybody = workload.prng.chance(ANYBODY);
        let twice = workload.prng.chance(TWICE);
        let (target, other) = (*workload.prng.pick(&ids), *workload.prng.pick(&ids));
        let patience = workload.options.patience;
        let client = &mut workload.clients[position];
        let believed = client.believed_leader.filter(|_| !anybody);
        let target = believed.unwrap_or(target);
        client.attempt += 1;
        let attempt = client.attempt;
        let Phase::Calling(call) = &mut client.phase else {
            return;
        };
        call.unheard.insert(attempt);
        if attempt == call.first_attempt {
            call.first = target;
        }
        let (ask, is_stamped) = (call.ask.clone(), call.stamp.is_some());
        let mut targets = vec![target];
        if is_stamped && twice {
            targets.push(other);
        }
        for node in targets {
            if let Some(after) = self.client_delay() {
                let origin = Origin::Client {
                    client: position,
                    attempt,
                };
                let ask = ask.clone();
                self.plan(after, Event::Request { node, origin, ask });
            }
        }
        self.alarm_after(position, patience);
    }

    /// Nothing more is tried.
    fn give_up(&mut self, position: usize) -> Result<(), HistoryError> {
        let now = self.now;
        let Some(call) = self.take_call(position) else {
            return Ok(());
        };
        let Some(workload) = &mut self.workload else {
            return Ok(());
        };
        workload.clients[position].believed_leader = None;
        if call.unheard.is_empty() && !call.is_unknown {
            return workload.ended_without_effect(&call, now);
        }
        let is_write = call.recorded.is_some() && matches!(call.ask, Ask::Propose(_));
        self.coverage.count_if(is_write, Mark::OutcomeUnknown);
        workload.ended_unknown(position, &call, now)
    }

    /// A call ends; its client thinks for a while.
    fn take_call(&mut self, position: usize) -> Option<Box<Call>> {
        let workload = self.workload.as_mut()?;
        let think = workload.options.think_max;
        let after = workload.prng.between(0, think);
        let phase = &mut workload.clients[position].phase;
        let Phase::Calling(call) = std::mem::replace(phase, Phase::Thinking) else {
            return None;
        };
        self.alarm_after(position, after);
        Some(call)
    }

    /// An answer reaches a client.
    pub(crate) fn client_answered(
        &mut self,
        node: NodeId,
        position: usize,
        attempt: u64,
        answer: Answer,
    ) -> Result<(), Violation> {
        let Some(workload) = &mut self.workload else {
            return Ok(());
        };
        let client = &mut workload.clients[position];
        let is_newest = attempt == client.attempt;
        let Phase::Calling(call) = &mut client.phase else {
            return Ok(());
        };
        if attempt < call.first_attempt {
            return Ok(());
        }
        match answer {
            Answer::Applied { id, reply } => return self.acknowledged(node, position, id, &reply),
            Answer::Found { reply } => return self.found(position, &reply),
            Answer::NotProposed(ProposeError::NotLeader { leader })
            | Answer::NotRead(ReadError::NotLeader { leader }) => {
                client.believed_leader = leader;
                // Sent twice, one copy may have been taken all the same.
                if call.stamp.is_none() {
                    call.unheard.remove(&attempt);
                }
            }
            Answer::NotProposed(
                ProposeError::Busy { .. }
                | ProposeError::NoRoom(_)
                | ProposeError::TooLarge { .. }
                | ProposeError::Transferring(_),
            )
            | Answer::NotRead(_) => {
                if call.stamp.is_none() {
                    call.unheard.remove(&attempt);
                }
            }
            Answer::NotProposed(_) | Answer::Gone | Answer::Changed(_) | Answer::Transferred(_) => {
                call.unheard.remove(&attempt);
                call.is_unknown = true;
            }
        }
        if is_newest {
            let after = workload.prng.between(0, BACKOFF_MAX);
            self.alarm_after(position, after);
        }
        Ok(())
    }

    fn acknowledged(
        &mut self,
        node: NodeId,
        position: usize,
        id: LogId,
        reply: &[u8],
    ) -> Result<(), Violation> {
        let known = self.checks.commits.at(id.index);
        require(known == Some(id), 34, || {
            format!("n{node} acknowledged {id}; committed there is {known:?}")
        })?;
        let reply: CommandReply = kv_api::decode(reply).map_err(|error| Violation {
            invariant: 40,
            what: format!("n{node} answered {id} with {error}"),
        })?;
        let now = self.now;
        let Some(call) = self.take_call(position) else {
            return Ok(());
        };
        let executed = call.stamp.and_then(|stamp| {
            let machines = &self.checks.machines;
            machines.executed(stamp.session, stamp.sequence)
        });
        let at = executed.unwrap_or(id);
        let Some(workload) = &mut self.workload else {
            return Ok(());
        };
        workload.clients[position].believed_leader = Some(node);
        let reply = match reply {
            CommandReply::SessionOpened(session) => {
                workload.clients[position].opened(session);
                return Ok(());
            }
            CommandReply::Written(written) => Reply::Written {
                version: written.version,
                value_bytes: written.value_bytes,
            },
            CommandReply::Deleted { existed, .. } => Reply::Deleted { existed },
            CommandReply::Mismatch { version, .. } => {
                self.coverage.count(Mark::CasMismatch);
                Reply::Mismatch { version }
            }
            CommandReply::Refused(CommandError::SessionExpired(_)) => {
                self.coverage.count(Mark::SessionExpired);
                let ended = workload.ended_unknown(position, &call, now);
                self.note_contradiction(ended);
                return Ok(());
            }
            CommandReply::Compacted { .. } | CommandReply::Refused(_) => {
                return Err(Violation {
                    invariant: 40,
                    what: format!("n{node} answered {id} with {reply:?}"),
                });
            }
        };
        self.coverage
            .count_if(call.first != node, Mark::AnsweredElsewhere);
        self.record(position, &call, reply, Some(at))
    }

    fn found(&mut self, position: usize, reply: &[u8]) -> Result<(), Violation> {
        let found = match kv_api::decode(reply) {
            Ok(QueryReply::Get { found, .. }) => found,
            other => {
                return Err(Violation {
                    invariant: 40,
                    what: format!("a get was answered with {other:?}"),
                });
            }
        };
        let Some(call) = self.take_call(position) else {
            return Ok(());
        };
        let crossed = self.checks.elections.newest_term() > call.term;
        self.coverage.count_if(crossed, Mark::ReadCrossedLeader);
        let held = found
            .as_ref()
            .map(|KeyValue { value, version, .. }| (value.clone(), *version));
        if let Some(workload) = &mut self.workload {
            workload.saw(position, call.key_slot, held);
        }
        let reply = match found {
            None => Reply::Absent,
            Some(KeyValue { value, version, .. }) => Reply::Found {
                value: value[..].into(),
                version,
            },
        };
        self.record(position, &call, reply, None)
    }

    fn record(
        &mut self,
        position: usize,
        call: &Call,
        reply: Reply,
        at: Option<LogId>,
    ) -> Result<(), Violation> {
        let now = self.now;
        let (Some(workload), Some(recorded)) = (&mut self.workload, call.recorded) else {
            return Ok(());
        };
        let location = at.map(|at| Location {
            index: at.index.0,
            term: at.term.0,
        });
        if !self.is_hostile {
            workload.clients[position].answered_since_heal += 1;
        }
        let taken = workload.recorder.ok(recorded, now, reply, location);
        self.note_contradiction(taken);
        Ok(())
    }
}
