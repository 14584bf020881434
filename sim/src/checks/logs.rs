//! Log Matching (paper figure 3) by induction: equal index and term means equal content and the
//! same term before it, whoever wrote it.

use raft_core::{Entry, NodeId, Term};

use crate::violation::{Violation, require};

/// Every entry that anybody ever wrote, by index.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    by_index: Vec<Vec<Known>>,
}

#[derive(Debug)]
struct Known {
    entry: Entry,
    before: Term,
}

impl Logs {
    pub(super) fn written(
        &mut self,
        id: NodeId,
        entry: &Entry,
        before: Term,
    ) -> Result<(), Violation> {
        let position = usize::try_from(entry.index().previous().0).expect("logs fit into memory");
        if self.by_index.len() <= position {
            self.by_index.resize_with(position + 1, Vec::new);
        }
        let known = &mut self.by_index[position];
        match known
            .iter()
            .find(|known| known.entry.term() == entry.term())
        {
            None => known.push(Known {
                entry: entry.clone(),
                before,
            }),
            Some(known) => {
                require(known.entry == *entry && known.before == before, 25, || {
                    format!(
                        "n{id} writes {} behind term {before}; elsewhere it is behind term {}{}",
                        entry.id(),
                        known.before,
                        if known.entry == *entry {
                            ""
                        } else {
                            " and another one"
                        }
                    )
                })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::{EntryKind, Index, LogId};

    use super::*;

    fn entry(term: u64, index: u64, payload: &'static str) -> Entry {
        let id = LogId::new(Term(term), Index(index));
        Entry::new(id, EntryKind::Command, Bytes::from(payload))
    }

    #[test]
    fn one_id_means_one_entry_behind_one_past() {
        let mut logs = Logs::default();
        let mut write = |entry, before| logs.written(NodeId(1), &entry, Term(before));
        assert_eq!(write(entry(1, 1, "a"), 0), Ok(()));
        assert_eq!(write(entry(1, 1, "a"), 0), Ok(()));
        assert_eq!(write(entry(2, 1, "b"), 0), Ok(()), "of another term");
        assert_eq!(write(entry(2, 2, "c"), 2), Ok(()));
        let other = write(entry(1, 1, "x"), 0).expect_err("another payload");
        let past = write(entry(2, 2, "c"), 1).expect_err("another past");
        assert_eq!((other.invariant, past.invariant), (25, 25));
    }
}
