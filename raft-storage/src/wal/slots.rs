//! Which groups have a store: one at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft_core::GroupId;

use crate::batch_thread::Pending;

/// All groups that ever had a store.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots(Arc<Mutex<BTreeMap<GroupId, Slot>>>);

#[derive(Debug)]
enum Slot {
    Taken,
    /// The store was dropped. A change that it did not wait for may be under way.
    Free(Option<Pending>),
}

/// Held by the store of a group.
#[derive(Debug)]
pub(super) struct TakenSlot {
    slots: Slots,
    group: GroupId,
    pub(super) pending: Option<Pending>,
}

impl Slots {
    /// `None` where the group has a store.
    pub(super) fn take(&self, group: GroupId) -> Option<TakenSlot> {
        let mut slots = self.lock();
        let pending = match slots.insert(group, Slot::Taken) {
            Some(Slot::Taken) => return None,
            Some(Slot::Free(pending)) => pending,
            None => None,
        };
        Some(TakenSlot {
            slots: self.clone(),
            group,
            pending,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Slot>> {
        // Nothing that can panic is done while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TakenSlot {
    fn drop(&mut self) {
        let pending = self.pending.take();
        self.slots.lock().insert(self.group, Slot::Free(pending));
    }
}
