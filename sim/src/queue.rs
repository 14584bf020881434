//! What will happen, in the order in which it will: by time, then by when it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Virtual time since the world began, in microseconds.
pub type Microseconds = u64;

/// Planned events. Two that are due at the same moment come out in the order in which they went in,
/// so that a run depends on nothing but its seed.
#[derive(Debug)]
pub(crate) struct EventQueue<E> {
    /// Moment, number, and the slot that holds the event: the heap moves small things only.
    heap: BinaryHeap<Reverse<(Microseconds, u64, usize)>>,
    slots: Vec<Option<E>>,
    free: Vec<usize>,
    planned: u64,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            planned: 0,
        }
    }
}

impl<E> EventQueue<E> {
    /// Plans an event.
    pub(crate) fn plan(&mut self, at: Microseconds, event: E) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(event);
                slot
            }
            None => {
                self.slots.push(Some(event));
                self.slots.len() - 1
            }
        };
        self.planned += 1;
        self.heap.push(Reverse((at, self.planned, slot)));
    }

    /// When the next event is due.
    #[must_use]
    pub(crate) fn next_at(&self) -> Option<Microseconds> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Takes the next event.
    pub(crate) fn take(&mut self) -> Option<(Microseconds, E)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        self.free.push(slot);
        let event = self.slots[slot].take().expect("a planned slot is filled");
        Some((at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_of_planning() {
        let mut queue = EventQueue::default();
        for (at, name) in [(5, "c"), (1, "a"), (5, "d"), (3, "b")] {
            queue.plan(at, name);
        }
        assert_eq!(queue.take(), Some((1, "a")));
        queue.plan(5, "e");
        let rest: Vec<_> = std::iter::from_fn(|| queue.take())
            .map(|(_, name)| name)
            .collect();
        assert_eq!(rest, ["b", "c", "d", "e"]);
        assert_eq!(queue.next_at(), None);
    }
}
