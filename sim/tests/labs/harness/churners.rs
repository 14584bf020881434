//! Clients that propose all the time, whatever happens to the cluster.

use std::collections::BTreeSet;

use bytes::Bytes;
use raft_core::Index;
use sim::Microseconds;

use super::{Lab, MILLISECOND};

/// Pauses of a client between looks.
const LOOKS: [Microseconds; 5] = [10, 20, 50, 100, 200];

/// A client of the churn: proposes everywhere, looks a few times whether its command was applied,
/// and begins anew.
struct Churner {
    place: u64,
    wakes_at: Microseconds,
    waits: Option<(Bytes, Index, usize)>,
    /// Commands that it saw applied.
    seen: Vec<Bytes>,
}

impl Churner {
    fn step(&mut self, lab: &mut Lab) {
        let now = lab.world.now();
        if let Some((command, index, look)) = self.waits.take() {
            if lab.n_committed(index) > 0 {
                if lab.is_at(index, &command) {
                    self.seen.push(command);
                }
            } else if let Some(pause) = LOOKS.get(look) {
                self.wakes_at = now + pause * MILLISECOND;
                self.waits = Some((command, index, look + 1));
                return;
            }
        }
        let command = lab.random();
        let mut placed = None;
        for id in lab.ids() {
            if let Some(at) = lab.propose(id, command.clone()) {
                placed = Some(at);
            }
        }
        match placed {
            Some(at) => {
                self.waits = Some((command, at.index, 0));
                self.wakes_at = now;
            }
            None => self.wakes_at = now + (79 + 17 * self.place) * MILLISECOND,
        }
    }
}

/// All clients.
pub(crate) struct Churners(Vec<Churner>);

impl Churners {
    /// So many.
    pub(crate) fn new(count: u64) -> Self {
        let churner = |place| Churner {
            place,
            wakes_at: 0,
            waits: None,
            seen: Vec::new(),
        };
        Self((0..count).map(churner).collect())
    }

    /// Lets them work while time passes.
    pub(crate) fn run(&mut self, lab: &mut Lab, time: Microseconds) {
        let end = lab.world.now() + time;
        loop {
            let next = self.0.iter_mut().min_by_key(|churner| churner.wakes_at);
            let next = next.expect("some clients");
            if next.wakes_at > end {
                break;
            }
            lab.sleep(next.wakes_at.saturating_sub(lab.world.now()));
            next.step(lab);
        }
        lab.sleep(end.saturating_sub(lab.world.now()));
    }

    /// Commands that some client saw applied.
    pub(crate) fn seen(&self) -> usize {
        self.0.iter().map(|churner| churner.seen.len()).sum()
    }

    /// Everything that was seen applied is in the log.
    pub(crate) fn check(&self, lab: &mut Lab) {
        assert!(self.seen() > 0, "some client saw something applied");
        let applied: BTreeSet<_> = lab.applied().into_iter().collect();
        for command in self.0.iter().flat_map(|churner| &churner.seen) {
            assert!(applied.contains(command), "{command:?} was applied once");
        }
    }
}
