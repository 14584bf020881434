//! The keys of a log in RocksDB, and the values that are not entries. Numbers in keys are big
//! endian, so that keys sort as the numbers do.
//!
//! ```text
//! key                          value
//! 'b' group u64                where the log begins: index and term of the entry before, u64 each
//! 'e' group u64 index u64      the encoded entry
//! 'h' group u64                hard state (24 bytes)
//! 'l' group u64                last index, last term, encoded bytes of all entries: u64 each
//! 'm' group u64 index u64      nothing: the entry at this index is a membership
//! 'o'                          format version u32, cluster (16 bytes), node u64, incarnation u64
//! 't' group u64 index u64      the term that begins at this index, u64
//! ```

use raft_core::{ClusterId, GroupId, Incarnation, Index, LogId, NodeId, Term};

use crate::owner::WalOwner;

/// The version of keys and values. In version 1, which is read as well, no log had lost its
/// beginning and no entry was a membership; in version 2 all keys were in the family of the
/// entries. Another one is refused.
pub(super) const FORMAT_VERSION: u32 = 3;

/// The group that all keys are of: a store serves one group so far.
const GROUP: GroupId = GroupId(0);

pub(super) const OWNER_KEY: &[u8] = b"o";

/// The first key that stands behind all entries of all groups.
pub(super) const BEHIND_ENTRIES: &[u8] = b"f";

const INDEX_KEY_BYTES: usize = 17;

/// The key of what there is once per index.
pub(super) type IndexKey = [u8; INDEX_KEY_BYTES];

pub(super) fn entry_key(index: Index) -> IndexKey {
    index_key(b'e', index)
}

pub(super) fn run_key(first: Index) -> IndexKey {
    index_key(b't', first)
}

pub(super) fn membership_key(index: Index) -> IndexKey {
    index_key(b'm', index)
}

fn index_key(kind: u8, index: Index) -> IndexKey {
    let mut key = [0; INDEX_KEY_BYTES];
    key[..9].copy_from_slice(&group_key(kind));
    key[9..].copy_from_slice(&index.0.to_be_bytes());
    key
}

pub(super) fn start_key() -> [u8; 9] {
    group_key(b'b')
}

pub(super) fn hard_state_key() -> [u8; 9] {
    group_key(b'h')
}

pub(super) fn last_key() -> [u8; 9] {
    group_key(b'l')
}

fn group_key(kind: u8) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&GROUP.0.to_be_bytes());
    key
}

/// Whether it is the key of an entry.
pub(super) fn is_entry_key(key: &[u8]) -> bool {
    key.len() == INDEX_KEY_BYTES && key[0] == b'e'
}

/// The index at the end of an [`IndexKey`].
pub(super) fn index_of(key: &[u8]) -> Option<Index> {
    let key: &IndexKey = key.try_into().ok()?;
    let (_, index) = key.split_last_chunk::<8>()?;
    Some(Index(u64::from_be_bytes(*index)))
}

pub(super) fn encode_start(start: LogId) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&start.index.0.to_le_bytes());
    value[8..].copy_from_slice(&start.term.0.to_le_bytes());
    value
}

pub(super) fn decode_start(value: &[u8]) -> Option<LogId> {
    let (index, term) = value.split_first_chunk::<8>()?;
    let term = Term(u64::from_le_bytes(term.try_into().ok()?));
    Some(LogId::new(term, Index(u64::from_le_bytes(*index))))
}

/// Where the log ends, and how large it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogEnd {
    pub(super) last: LogId,
    pub(super) log_bytes: u64,
}

impl LogEnd {
    pub(super) fn encode(self) -> [u8; 24] {
        let mut value = [0; 24];
        value[..8].copy_from_slice(&self.last.index.0.to_le_bytes());
        value[8..16].copy_from_slice(&self.last.term.0.to_le_bytes());
        value[16..].copy_from_slice(&self.log_bytes.to_le_bytes());
        value
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let (index, rest) = value.split_first_chunk::<8>()?;
        let (term, rest) = rest.split_first_chunk::<8>()?;
        let log_bytes = u64::from_le_bytes(rest.try_into().ok()?);
        let index = Index(u64::from_le_bytes(*index));
        let term = Term(u64::from_le_bytes(*term));
        Some(Self {
            last: LogId::new(term, index),
            log_bytes,
        })
    }
}

pub(super) fn encode_term(term: Term) -> [u8; 8] {
    term.0.to_le_bytes()
}

pub(super) fn decode_term(value: &[u8]) -> Option<Term> {
    Some(Term(u64::from_le_bytes(value.try_into().ok()?)))
}

pub(super) fn encode_owner(owner: &WalOwner) -> [u8; 36] {
    let mut value = [0; 36];
    value[..4].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    value[4..20].copy_from_slice(&owner.cluster.0);
    value[20..28].copy_from_slice(&owner.node.0.to_le_bytes());
    value[28..].copy_from_slice(&owner.incarnation.0.to_le_bytes());
    value
}

/// The format version, and the owner where this version can read it.
pub(super) fn decode_owner(value: &[u8]) -> Option<(u32, Option<WalOwner>)> {
    let (version, rest) = value.split_first_chunk::<4>()?;
    let version = u32::from_le_bytes(*version);
    if !(1..=FORMAT_VERSION).contains(&version) {
        return Some((version, None));
    }
    let (cluster, rest) = rest.split_first_chunk::<16>()?;
    let (node, rest) = rest.split_first_chunk::<8>()?;
    let incarnation = u64::from_le_bytes(rest.try_into().ok()?);
    let owner = WalOwner {
        cluster: ClusterId(*cluster),
        node: NodeId(u64::from_le_bytes(*node)),
        incarnation: Incarnation(incarnation),
    };
    Some((version, Some(owner)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_like_their_indexes_and_tell_them() {
        let indexes = [0, 1, 255, 256, u64::MAX].map(Index);
        assert!(indexes.map(entry_key).is_sorted());
        assert_eq!(indexes.map(|i| index_of(&run_key(i))), indexes.map(Some));
        assert!(entry_key(Index(u64::MAX)).as_slice() < BEHIND_ENTRIES);
        assert!(is_entry_key(&entry_key(Index(0))) && !is_entry_key(&run_key(Index(0))));
        // Nothing that looks like an entry's key stands before the first one.
        assert!(start_key().as_slice() < entry_key(Index(0)).as_slice());
        assert_eq!(index_of(&start_key()), None);
    }

    #[test]
    fn values_decode_to_themselves() {
        let end = LogEnd {
            last: LogId::new(Term(3), Index(9)),
            log_bytes: 77,
        };
        assert_eq!(LogEnd::decode(&end.encode()), Some(end));
        assert_eq!(LogEnd::decode(&[0; 23]), None);
        let start = LogId::new(Term(3), Index(9));
        assert_eq!(decode_start(&encode_start(start)), Some(start));
        assert_eq!(decode_start(&[0; 15]), None);
        let owner = WalOwner {
            cluster: ClusterId([3; 16]),
            node: NodeId(4),
            incarnation: Incarnation(5),
        };
        let mut value = encode_owner(&owner);
        assert_eq!(decode_owner(&value), Some((3, Some(owner))));
        for version in [1, 2] {
            value[0] = version;
            let version = u32::from(version);
            assert_eq!(decode_owner(&value), Some((version, Some(owner))));
        }
        for version in [0, 4] {
            value[0] = version;
            assert_eq!(decode_owner(&value), Some((u32::from(version), None)));
        }
    }
}
