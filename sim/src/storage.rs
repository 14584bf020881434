//! Disks at work: syncs that take their time, promises that leave behind them, and old entries that
//! are read back.

use raft_core::protocol::{Input, Load, Loaded, Persisted};
use raft_core::{NodeId, Role};

use crate::coverage::Mark;
use crate::event::Event;
use crate::queue::Microseconds;
use crate::violation::{Violation, require};
use crate::world::World;

impl World {
    fn disk_delay(&mut self) -> Microseconds {
        let disk = self.options.disk;
        self.chances.disks.between(disk.sync_min, disk.sync_max)
    }

    /// Begins the next sync of a disk that is free.
    pub(crate) fn begin_sync(&mut self, id: NodeId) {
        let group_max = self.options.disk.group_max;
        let Some(needs_sync) = self.node_mut(id).disk.begin(group_max) else {
            return;
        };
        // An empty write keeps its place and costs nothing.
        let after = if needs_sync { self.disk_delay() } else { 0 };
        let life = self.node(id).life;
        self.plan(after, Event::Synced { node: id, life });
    }

    /// A sync ends: what it wrote is durable, and what was promised may be said.
    pub(crate) fn synced(&mut self, id: NodeId, life: u64) -> Result<(), Violation> {
        if !self.is_current(id, life) {
            return Ok(());
        }
        let now = self.now;
        let node = self.node_mut(id);
        let held_until = node.stalled_until.max(node.paused_until);
        if held_until > now {
            self.plan(held_until - now, Event::Synced { node: id, life });
            return Ok(());
        }
        if std::mem::take(&mut node.disk_fails) {
            // A failed write is final: nobody knows what is on the disk, so the node stops.
            self.coverage.count(Mark::DiskError);
            self.trace
                .note(now, || format!("n{id} stops: its disk failed"));
            self.crash_and_return(id);
            return Ok(());
        }
        let mut last = None;
        for write in self.node_mut(id).disk.end() {
            let position = Self::place(id);
            if self.nodes[position].disk.finish(&write) {
                self.checks.commits.safe_on_disks(&self.nodes)?;
            }
            for promise in write.promises {
                self.checks.promise(&promise, &self.nodes[position])?;
                self.transmit(promise);
            }
            last = Some(Persisted {
                number: write.number,
                last: write.last,
            });
        }
        if let Some(persisted) = last {
            self.put(id, Input::Persisted(persisted));
        }
        self.begin_sync(id);
        Ok(())
    }

    pub(crate) fn begin_load(&mut self, id: NodeId, load: Load) {
        self.coverage.count(Mark::ColdLoad);
        let after = self.disk_delay();
        let life = self.node(id).life;
        let node = id;
        self.plan(after, Event::Loaded { node, life, load });
    }

    /// Old entries were read for a follower.
    pub(crate) fn loaded(&mut self, id: NodeId, life: u64, load: Load) -> Result<(), Violation> {
        if !self.is_current(id, life) {
            return Ok(());
        }
        let node = self.node(id);
        let mut bytes = 0;
        let read = node.disk.read(load.from, load.to).iter();
        let entries: Vec<_> = read
            .take_while(|entry| {
                bytes += entry.encoded_len();
                entry.index() == load.from || bytes <= load.bytes_max
            })
            .cloned()
            .collect();
        if entries.is_empty() {
            if load.from <= node.state.start.index {
                // It was compacted meanwhile; the follower will get a snapshot.
                return Ok(());
            }
            // A leader never truncates, so while its term lasts it holds what it asked for.
            let leads = node.state.role == Role::Leader;
            let asked_now = leads && node.state.hard_state.term == load.term;
            return require(!asked_now, 36, || {
                let last = node.disk.last();
                format!(
                    "n{id} leads and asks for {}, its disk ends at {last}",
                    load.from
                )
            });
        }
        let Load { peer, term, .. } = load;
        let loaded = Loaded {
            peer,
            term,
            entries,
        };
        self.put(id, Input::Loaded(loaded));
        Ok(())
    }
}
