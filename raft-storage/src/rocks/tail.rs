//! The end of RocksDB's own log. Where the power goes in the middle of a write, its last record may
//! be there in parts: RocksDB forgives one that the file is too short for, and calls one whose
//! pages are partly missing damage, because it cannot know better. Here it is known: every batch is
//! one record and is synced before the next one is begun. So a bad record is torn where no other
//! begins behind it, and damage where one does.
//!
//! ```text
//! file      blocks of 32 KiB; what a record leaves of fewer than 7 bytes is zeros
//! fragment  crc32c of what follows the length, masked, 4 | length 2 | type 1 | payload
//! type      1 a whole record, 2 its first, 3 a middle, 4 its last fragment; 0 nothing was written
//! ```

use std::path::{Path, PathBuf};

use raft_core::StorageError;

use crate::errors::{damaged, io_error};
use crate::files::{Disk, DiskFile};
use crate::inspection::name_of;

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
const WHOLE: u8 = 1;
const FIRST: u8 = 2;
const LAST: u8 = 4;
/// Types of files that are written over, which ours never are.
const RECYCLED: std::ops::RangeInclusive<u8> = 5..=8;
/// What RocksDB adds to a checksum, so that one over checksums is worth something.
const MASK_DELTA: u32 = 0xa282_ead8;

/// An unfinished last record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TornTail {
    pub(super) path: PathBuf,
    /// Where it begins.
    pub(super) offset: u64,
    /// From there to the end of the file.
    pub(super) bytes: u64,
}

/// Looks at the newest file of RocksDB's own log in `dir`. Changes nothing.
///
/// # Errors
/// `Damaged` where a record that was synced is not what was written; else what the system answers.
pub(super) fn find_torn(disk: &Disk, dir: &Path) -> Result<Option<TornTail>, StorageError> {
    let mut files = Vec::new();
    for path in disk.list(dir)? {
        let number = name_of(&path).strip_suffix(".log").map(str::parse::<u64>);
        if let Some(Ok(number)) = number
            && disk.open_to_read(&path)?.length()? > 0
        {
            files.push((number, path));
        }
    }
    files.sort_unstable();
    let Some((_, path)) = files.pop() else {
        return Ok(None);
    };
    let file = disk.open_to_read(&path)?;
    let mut blocks = Blocks::new(&file)?;
    let Some(bad) = blocks.bad_end()? else {
        return Ok(None);
    };
    if let Some(behind) = blocks.begins_behind(bad.at)? {
        let what = format!("a record is not whole, though another one begins at {behind}");
        return Err(damaged(&path, bad.record, what));
    }
    // RocksDB would leave out what is behind the first bad record of all files, not only of this.
    for (_, older) in files {
        let file = disk.open_to_read(&older)?;
        if let Some(bad) = Blocks::new(&file)?.bad_end()? {
            let what = "a record is not whole, though a later file of the log is there";
            return Err(damaged(&older, bad.record, what));
        }
    }
    let bytes = blocks.length - bad.record;
    Ok(Some(TornTail {
        path,
        offset: bad.record,
        bytes,
    }))
}

/// Where the first record that is not whole begins, and the first fragment of it that is bad.
struct Bad {
    record: u64,
    at: u64,
}

/// The file, a block at a time.
struct Blocks<'a> {
    file: &'a DiskFile,
    length: u64,
    block: Vec<u8>,
}

impl<'a> Blocks<'a> {
    fn new(file: &'a DiskFile) -> Result<Self, StorageError> {
        Ok(Self {
            length: file.length()?,
            file,
            block: Vec::new(),
        })
    }

    /// Reads the block that begins at `start`, which may be a shorter last one.
    fn read(&mut self, start: u64) -> Result<(), StorageError> {
        let left = usize::try_from(self.length - start).unwrap_or(usize::MAX);
        self.block.resize(left.min(BLOCK_BYTES), 0);
        let read = self.file.read_at(&mut self.block, start);
        read.map_err(|error| io_error("read", self.file.path(), &error))
    }

    /// The first record that is not whole, unless there is nothing but room that was made ahead.
    fn bad_end(&mut self) -> Result<Option<Bad>, StorageError> {
        let Some(bad) = self.first_bad()? else {
            return Ok(None);
        };
        let is_room = bad.at == bad.record && self.is_zeros_from(bad.at)?;
        Ok((!is_room).then_some(bad))
    }

    fn first_bad(&mut self) -> Result<Option<Bad>, StorageError> {
        // Where a record began of which more has to come.
        let mut open = None;
        for start in (0..self.length).step_by(BLOCK_BYTES) {
            self.read(start)?;
            let mut offset = 0;
            while offset < self.block.len() {
                let at = start + offset as u64;
                let record = open.unwrap_or(at);
                let rest = &self.block[offset..];
                if rest.len() < HEADER_BYTES && rest.iter().all(|byte| *byte == 0) {
                    break;
                }
                let Some((kind, bytes)) = fragment(rest) else {
                    return Ok(Some(Bad { record, at }));
                };
                if RECYCLED.contains(&kind) {
                    return Ok(None); // Not ours to judge.
                }
                // A record that begins before the one in front of it has come to its end is told by
                // whoever looks for beginnings behind that.
                let continues = kind > FIRST && kind <= LAST;
                if continues != open.is_some() {
                    return Ok(Some(Bad { record, at: record }));
                }
                open = match kind {
                    FIRST => Some(at),
                    LAST => None,
                    _ => open,
                };
                offset += bytes;
            }
        }
        Ok(open.map(|record| Bad {
            record,
            at: self.length,
        }))
    }

    /// Where a record begins behind `bad`. Its length cannot be trusted, so every place may be one.
    fn begins_behind(&mut self, bad: u64) -> Result<Option<u64>, StorageError> {
        let first = bad - bad % BLOCK_BYTES as u64;
        for start in (first..self.length).step_by(BLOCK_BYTES) {
            self.read(start)?;
            for offset in 0..self.block.len() {
                let at = start + offset as u64;
                let rest = &self.block[offset..];
                let may_begin = rest.len() > HEADER_BYTES && matches!(rest[6], WHOLE | FIRST);
                if at > bad && may_begin && fragment(rest).is_some() {
                    return Ok(Some(at));
                }
            }
        }
        Ok(None)
    }

    fn is_zeros_from(&mut self, from: u64) -> Result<bool, StorageError> {
        let first = from - from % BLOCK_BYTES as u64;
        for start in (first..self.length).step_by(BLOCK_BYTES) {
            self.read(start)?;
            let skipped = usize::try_from(from.saturating_sub(start)).unwrap_or(BLOCK_BYTES);
            if self.block.iter().skip(skipped).any(|byte| *byte != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The type of the fragment that `bytes` begin with, and how many of them are its own. None where
/// it is not whole.
fn fragment(bytes: &[u8]) -> Option<(u8, usize)> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let [c0, c1, c2, c3, l0, l1, kind] = *header;
    let end = HEADER_BYTES + usize::from(u16::from_le_bytes([l0, l1]));
    if kind == 0 {
        return None;
    }
    if RECYCLED.contains(&kind) {
        return Some((kind, end));
    }
    let crc = crc32c::crc32c(bytes.get(HEADER_BYTES - 1..end)?);
    let masked = crc.rotate_right(15).wrapping_add(MASK_DELTA);
    (masked == u32::from_le_bytes([c0, c1, c2, c3])).then_some((kind, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspection::FindingKind;
    use crate::owner::WalOwner;
    use crate::rocks::RocksLogStore;
    use crate::rocks::inspect::inspect_rocks;
    use bytes::Bytes;
    use raft_core::{
        AppendBatch, ClusterId, Entry, EntryKind, HardState, Incarnation, Index, LogId, LogStore,
        NodeId, Term,
    };
    use std::fs;

    const OWNER: WalOwner = WalOwner {
        cluster: ClusterId([7; 16]),
        node: NodeId(2),
        incarnation: Incarnation(99),
    };
    const PAGE_BYTES: usize = 4096;

    fn batch(index: u64, bytes: usize) -> AppendBatch {
        let payload = Bytes::from(vec![b'p'; bytes]);
        let id = LogId::new(Term(3), Index(index));
        AppendBatch {
            hard_state: Some(HardState {
                term: Term(3),
                vote: Some(NodeId(index)),
            }),
            entries: vec![Entry::new(id, EntryKind::Command, payload)],
            ..AppendBatch::default()
        }
    }

    /// A log of three batches: its own log's bytes, and where each batch ends in them.
    async fn written(dir: &Path, sizes: [usize; 3]) -> (PathBuf, Vec<u8>, Vec<usize>) {
        let mut store = RocksLogStore::open(dir, OWNER).unwrap();
        let own_log = || {
            let paths = Disk::default().list(dir).unwrap().into_iter();
            let mut logs = paths.filter(|path| name_of(path).ends_with(".log"));
            logs.next().unwrap()
        };
        let mut ends = Vec::new();
        for (bytes, index) in sizes.into_iter().zip(1..) {
            store.append(batch(index, bytes)).await.unwrap();
            ends.push(usize::try_from(fs::metadata(own_log()).unwrap().len()).unwrap());
        }
        let path = own_log();
        drop(store);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(Some(&bytes.len()), ends.last(), "nothing was flushed");
        (path, bytes, ends)
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for path in Disk::default().list(from).unwrap() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }

    /// What a directory with this log holds: what `check` says, then what a node loads.
    async fn last_entry(
        from: &Path,
        (name, bytes): (&Path, &[u8]),
    ) -> Result<(Index, Option<NodeId>, bool), StorageError> {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("log");
        copy(from, &dir);
        fs::write(dir.join(name.file_name().unwrap()), bytes).unwrap();
        let report = inspect_rocks(&dir, &OWNER).unwrap();
        let is_torn = report
            .findings
            .iter()
            .any(|f| f.kind == FindingKind::TornTail);
        assert!(report.findings.len() <= 1, "{:?}", report.findings);
        let mut store = RocksLogStore::open_existing(&dir, OWNER).inspect_err(|_| {
            assert!(report.findings.iter().any(|f| f.kind == FindingKind::Log));
        })?;
        let loaded = store.load().await.unwrap();
        assert_eq!(report.last, loaded.last);
        // It goes on there, and no trace of the torn record comes back.
        store
            .append(batch(loaded.last.index.0 + 1, 10))
            .await
            .unwrap();
        drop(store);
        let mut again = RocksLogStore::open_existing(&dir, OWNER).unwrap();
        let last = again.load().await.unwrap().last.index;
        assert_eq!(last, loaded.last.index.next());
        Ok((loaded.last.index, loaded.hard_state.vote, is_torn))
    }

    #[tokio::test]
    async fn a_last_record_of_which_pages_are_missing_is_torn_and_any_other_damaged() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("log");
        let (name, bytes, ends) = written(&dir, [90_000, 70_000, 100_000]).await;
        let (mut torn, mut refused) = (0, 0);
        for page in (0..bytes.len()).step_by(PAGE_BYTES) {
            let mut cut = bytes.clone();
            let end = (page + PAGE_BYTES).min(cut.len());
            cut[page..end].fill(0);
            if page < ends[1] && ends[1] < end {
                continue; // The end of one and all that tells of the other: nobody can know.
            }
            let found = last_entry(&dir, (&name, &cut)).await;
            if page >= ends[1] {
                assert_eq!(found.unwrap(), (Index(2), Some(NodeId(2)), true), "{page}");
                torn += 1;
            } else {
                let error = found.unwrap_err();
                assert!(
                    matches!(error, StorageError::Damaged { .. }),
                    "{page}: {error}"
                );
                refused += 1;
            }
        }
        assert!(torn > 20 && refused > 35, "{torn} {refused}");
    }

    /// RocksDB, told to stop at a torn end, would stop at the damage without a word.
    #[tokio::test]
    async fn a_torn_end_is_not_left_out_where_an_older_file_is_damaged() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("log");
        let (newest, bytes, ends) = written(&dir, [10, 500, 9_000]).await;
        let disk = Disk::default();
        fs::write(&newest, &bytes[..bytes.len() - 100]).unwrap();
        let older = dir.join("000001.log");
        for length in [ends[1], bytes.len()] {
            fs::write(&older, &bytes[..length]).unwrap();
            assert!(find_torn(&disk, &dir).unwrap().is_some());
            let mut bad = bytes[..length].to_vec();
            bad[ends[0] + 20] ^= 1;
            fs::write(&older, &bad).unwrap();
            let refused = find_torn(&disk, &dir).unwrap_err();
            assert!(refused.to_string().contains("000001.log"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_flip_of_a_bit_is_torn_in_the_last_record_and_damage_before() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("log");
        let (name, bytes, ends) = written(&dir, [10, 500, 33_000]).await;
        let flips = (0..ends[1])
            .step_by(7)
            .chain((ends[1]..bytes.len()).step_by(997));
        for at in flips {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            let found = last_entry(&dir, (&name, &bad)).await;
            match found {
                Ok(found) => assert_eq!((found.0, at >= ends[1]), (Index(2), true), "{at}"),
                Err(error) => assert!(at < ends[1], "{at}: {error}"),
            }
        }
    }

    #[tokio::test]
    async fn a_log_that_ends_anywhere_keeps_what_is_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("log");
        let (name, bytes, ends) = written(&dir, [10, 40_000, 500]).await;
        for length in (ends[0]..=bytes.len()).step_by(1501) {
            let whole = ends.iter().filter(|end| **end <= length).count() as u64;
            for room in [0, 5, 70_000] {
                let mut cut = bytes[..length].to_vec();
                cut.resize(length + room, 0);
                let found = last_entry(&dir, (&name, &cut)).await.unwrap();
                assert_eq!(found.0, Index(whole), "{length}, and {room} zeros");
            }
        }
    }
}
