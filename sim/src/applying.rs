//! State machines at work: committed entries in order, then the reads that waited for them.

use bytes::Bytes;
use raft_core::protocol::{Apply, Input};
use raft_core::{Command, Entry, EntryKind, Index, LogId, NodeId, ProposeError};

use crate::coverage::Mark;
use crate::event::Event;
use crate::machine::run_now;
use crate::node::{Answer, Origin, Work};
use crate::violation::{Violation, require};
use crate::world::World;

/// Machines are compared at every index that this divides.
const DIGEST_EVERY: u64 = 128;

/// Batches after which a durable machine has written itself down, out of 1,000.
const FLUSHED: u64 = 300;

/// Pieces of work of 1,000 behind which the machine stops for a while.
const ONE_BY_ONE: u64 = 100;

impl World {
    pub(crate) fn queue_work(&mut self, id: NodeId, work: Work) {
        self.node_mut(id).applier.queue.push_back(work);
        self.plan_work(id);
    }

    fn plan_work(&mut self, id: NodeId) {
        let longest = self.options.machine.apply_max;
        let node = self.node_mut(id);
        if node.applier.is_planned || node.applier.queue.is_empty() {
            return;
        }
        node.applier.is_planned = true;
        let life = node.life;
        let after = self.chances.machines.between(0, longest);
        self.plan(after, Event::Work { node: id, life });
    }

    /// Does the oldest thing in the queue of a state machine.
    pub(crate) fn work(&mut self, id: NodeId, life: u64) -> Result<(), Violation> {
        if !self.is_current(id, life) {
            return Ok(());
        }
        let now = self.now;
        let node = self.node_mut(id);
        if node.paused_until > now {
            let after = node.paused_until - now;
            self.plan(after, Event::Work { node: id, life });
            return Ok(());
        }
        node.applier.is_planned = false;
        // All that waits goes at once, as in a real node; but a crash may come in between.
        while let Some(work) = self.node_mut(id).applier.queue.pop_front() {
            self.do_work(id, work)?;
            if self.chances.machines.chance(ONE_BY_ONE) {
                break;
            }
        }
        self.answer_reads(id);
        self.plan_work(id);
        Ok(())
    }

    fn do_work(&mut self, id: NodeId, work: Work) -> Result<(), Violation> {
        match work {
            Work::Restore(meta) => self.restore(id, &meta),
            Work::TakeSnapshot(meta) => self.take_snapshot(id, meta),
            Work::Apply { range, waiters } => self.apply(id, range, waiters),
            Work::Read {
                index,
                origin,
                query,
            } => {
                let reads = &mut self.node_mut(id).applier.reads;
                reads.entry(index).or_default().push((origin, query));
                Ok(())
            }
        }
    }

    fn apply(
        &mut self,
        id: NodeId,
        range: Apply,
        waiters: Vec<(LogId, Origin)>,
    ) -> Result<(), Violation> {
        let Apply { from, to, entries } = range;
        let node = self.node(id);
        let in_memory = entries.first().map_or(to.next(), Entry::index);
        let start = node.disk.start().index;
        if from <= start.max(node.log.start().index) && node.applier.applied < start {
            // The log was replaced by a snapshot meanwhile, which the machine becomes next.
            let is_there = from > start || in_memory <= from;
            if !is_there || from != node.applier.applied.next() {
                for (_, origin) in waiters {
                    self.answer(id, origin, Answer::NotProposed(ProposeError::Unknown));
                }
                return Ok(());
            }
        }
        let is_again = node.applier.is_ahead() && from <= node.applier.applied;
        require(is_again || from == node.applier.applied.next(), 31, || {
            format!(
                "n{id} applied {} and goes on at {from}",
                node.applier.applied
            )
        })?;
        require(to <= node.disk.last().index.max(start), 31, || {
            format!("n{id} applies {to}, its disk ends at {}", node.disk.last())
        })?;
        let mut all = node.disk.read(from, in_memory.previous()).to_vec();
        self.coverage.count_if(!all.is_empty(), Mark::ColdApply);
        all.extend(entries);
        let reaches = all.first().map(Entry::index) == Some(from)
            && all.last().map(Entry::index) == Some(to)
            && all.len() as u64 == to.0 - from.0 + 1;
        require(reaches, 31, || {
            format!("n{id} applies {from} to {to} with gaps")
        })?;
        if is_again {
            // The machine kept what the log had lost.
            let applied = self.node(id).applier.applied;
            all.retain(|entry| entry.index() > applied);
        }
        let mut waiters = waiters.into_iter().peekable();
        let mut rest = &all[..];
        while let Some(first) = rest.first() {
            // Up to the next index at which machines are compared.
            let count = DIGEST_EVERY - first.index().0 % DIGEST_EVERY;
            let count = usize::try_from(count).expect("small").min(rest.len());
            let (part, behind) = rest.split_at(count);
            rest = behind;
            let replies = self.apply_part(id, part)?;
            for (entry, reply) in part.iter().zip(replies) {
                while let Some((at, origin)) = waiters.next_if(|(at, _)| at.index <= entry.index())
                {
                    self.answer_waiter(id, origin, at, entry, &reply);
                }
            }
        }
        self.flush(id);
        self.put(id, Input::Applied(to));
        Ok(())
    }

    /// Applies consecutive entries; gives one reply for each, empty for what is no command.
    fn apply_part(&mut self, id: NodeId, part: &[Entry]) -> Result<Vec<Bytes>, Violation> {
        let is_command = |entry: &&Entry| entry.kind() == EntryKind::Command;
        let commands = part.iter().filter(is_command).map(|entry| Command {
            id: entry.id(),
            payload: entry.payload().clone(),
        });
        let commands: Vec<_> = commands.collect();
        let applier = &mut self.nodes[Self::place(id)].applier;
        let applied = run_now(applier.machine.apply(commands));
        let mut answers = applied
            .map_err(|error| Violation {
                invariant: 31,
                what: format!("n{id}: {error}"),
            })?
            .into_iter();
        let mut replies = Vec::with_capacity(part.len());
        for entry in part {
            let reply = match entry.kind() {
                EntryKind::Command => answers.next().unwrap_or_default(),
                EntryKind::Noop | EntryKind::Membership => Bytes::new(),
            };
            let shown = self.checks.machines.applied(id, entry, &reply)?;
            self.coverage
                .count_if(shown.is_repetition, Mark::RetryDeduplicated);
            replies.push(reply);
        }
        if let Some(last) = part.last() {
            applier.applied = last.index();
            self.trace.mix([4, id.0, last.index().0, last.term().0]);
            if last.index().0 % DIGEST_EVERY == DIGEST_EVERY - 1 {
                let digest = applier.machine.digest();
                self.checks.machines.digest(id, last.index(), digest)?;
            }
        }
        Ok(replies)
    }

    fn answer_waiter(
        &mut self,
        id: NodeId,
        origin: Origin,
        at: LogId,
        entry: &Entry,
        reply: &Bytes,
    ) {
        let answer = if at == entry.id() {
            let reply = reply.clone();
            Answer::Applied { id: at, reply }
        } else {
            Answer::NotProposed(ProposeError::Unknown)
        };
        self.answer(id, origin, answer);
    }

    /// A machine with a disk of its own writes itself down now and then. What it holds is committed
    /// and in the durable log, so it is never ahead of that.
    pub(crate) fn flush(&mut self, id: NodeId) {
        if self.options.machine.is_durable && self.chances.machines.chance(FLUSHED) {
            let applier = &mut self.node_mut(id).applier;
            applier.image = Some(applier.machine.image());
        }
    }

    fn answer_reads(&mut self, id: NodeId) {
        let applier = &mut self.node_mut(id).applier;
        let later = applier.reads.split_off(&Index(applier.applied.0 + 1));
        let ready = std::mem::replace(&mut applier.reads, later);
        for (origin, query) in ready.into_values().flatten() {
            let machine = &mut self.node_mut(id).applier.machine;
            let answer = match run_now(machine.query(query)) {
                Ok(reply) => Answer::Found { reply },
                Err(_) => Answer::Gone,
            };
            self.answer(id, origin, answer);
        }
    }
}
