//! Entries on their way into the state machine: consecutive, a bounded amount at a time; and what
//! each of them means to it and to those who wait.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::entry::{Entry, EntryKind};
use crate::error::{ProposeError, StopReason, StorageError};
use crate::membership::Membership;
use crate::node::request::Committed;
use crate::node::waiters::PlacedWaiter;
use crate::state_machine::Command;
use crate::types::{Index, LogId};

/// Encoded bytes of entries that are applied with one call, and that are read from the log at once.
/// A single larger entry still goes alone. Small enough that queries do not wait long.
pub(crate) const PAGE_BYTES_MAX: usize = 1 << 20;

/// Consecutive entries that are applied with one call.
#[derive(Debug, Default)]
pub(crate) struct Page {
    entries: Vec<Entry>,
    bytes: usize,
}

impl Page {
    /// The last entry; none in an empty page.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.entries.last().map(Entry::id)
    }

    /// Puts an entry behind the last one. Whether the page is full now.
    pub(crate) fn push(&mut self, entry: Entry) -> bool {
        self.bytes += entry.encoded_len();
        self.entries.push(entry);
        self.bytes >= PAGE_BYTES_MAX
    }

    /// What a state machine is given that holds everything up to `kept` already.
    pub(crate) fn commands_behind(&self, kept: Index) -> Vec<Command> {
        let new = |entry: &&Entry| entry.index() > kept && is_command(entry);
        let commands = self.entries.iter().filter(new);
        let command = |entry: &Entry| Command {
            id: entry.id(),
            payload: entry.payload().clone(),
        };
        commands.map(command).collect()
    }

    /// The membership that holds behind the page, where it brings one.
    pub(crate) fn membership(&self) -> Result<Option<Membership>, StopReason> {
        let is_membership = |entry: &&Entry| entry.kind() == EntryKind::Membership;
        let Some(entry) = self.entries.iter().rfind(is_membership) else {
            return Ok(None);
        };
        let decoded = Membership::decode(entry.payload());
        let damaged = |error| bad_read(entry.index(), &format!("gave no membership: {error}"));
        decoded.map(Some).map_err(damaged)
    }

    /// Answers those who wait for entries of the page, given one reply for each command in it that
    /// is behind `kept`. What a machine kept of an earlier life has no reply any more.
    pub(crate) fn answer(
        self,
        kept: Index,
        replies: Vec<Bytes>,
        waiters: &mut VecDeque<PlacedWaiter>,
    ) {
        let mut replies = replies.into_iter();
        for entry in self.entries {
            let reply = replies.by_ref();
            let reply = if entry.index() > kept && is_command(&entry) {
                reply.next()
            } else {
                None
            };
            let waits = |(id, _): &mut PlacedWaiter| id.index <= entry.index();
            while let Some((id, waiter)) = waiters.pop_front_if(waits) {
                waiter.answer(match &reply {
                    Some(reply) if id == entry.id() => Ok(Committed {
                        id,
                        reply: reply.clone(),
                    }),
                    // Another leader put another entry here.
                    _ => Err(ProposeError::Unknown),
                });
            }
        }
    }
}

fn is_command(entry: &Entry) -> bool {
    match entry.kind() {
        EntryKind::Command => true,
        EntryKind::Noop | EntryKind::Membership => false,
    }
}

/// A reader belongs to the user, so what it gives is checked and not trusted: entries from `start`
/// on, at least one, none of them at or behind `end`.
pub(crate) fn check_read(
    start: Index,
    end: Index,
    entries: Vec<Entry>,
) -> Result<Vec<Entry>, StopReason> {
    let mut expected = start;
    for entry in &entries {
        if entry.index() != expected || expected >= end {
            return Err(bad_read(expected, &format!("gave {}", entry.id())));
        }
        expected = expected.next();
    }
    if expected == start {
        return Err(bad_read(start, "gave nothing"));
    }
    Ok(entries)
}

fn bad_read(index: Index, what: &str) -> StopReason {
    StopReason::Storage(StorageError::Damaged {
        path: "log reader".to_owned(),
        offset: index.0,
        what: format!("read of entry {index} {what}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Term;

    fn entry(index: u64, kind: EntryKind, payload: Bytes) -> Entry {
        Entry::new(LogId::new(Term(1), Index(index)), kind, payload)
    }

    #[test]
    fn only_commands_reach_the_machine_and_the_newest_membership_holds() {
        let mut page = Page::default();
        let empty = Membership::default();
        page.push(entry(1, EntryKind::Noop, Bytes::new()));
        page.push(entry(2, EntryKind::Command, Bytes::from_static(b"a")));
        assert_eq!(page.membership(), Ok(None));
        page.push(entry(3, EntryKind::Membership, Bytes::from_static(b"old")));
        page.push(entry(4, EntryKind::Membership, empty.encode()));
        let commands = page.commands_behind(Index(0));
        assert_eq!(commands.len(), 1);
        assert_eq!(commands[0].index(), Index(2));
        assert_eq!(page.membership(), Ok(Some(empty)));
        page.push(entry(5, EntryKind::Membership, Bytes::from_static(b"?")));
        assert!(page.membership().is_err());
    }

    #[test]
    fn a_page_is_full_at_its_bytes() {
        let mut page = Page::default();
        let half = Bytes::from(vec![0; PAGE_BYTES_MAX / 2]);
        assert!(!page.push(entry(1, EntryKind::Command, half.clone())));
        assert!(page.push(entry(2, EntryKind::Command, half)));
        assert_eq!(page.last().map(|id| id.index), Some(Index(2)));
    }
}
