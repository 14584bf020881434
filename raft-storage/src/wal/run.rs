//! Consecutive entries in the payload of one record: each encoded as everywhere, with zeros up to a
//! multiple of 8 before the next one. The payload's checksum covers their headers, which have the
//! checksums of the rest: nothing is summed twice.
//!
//! Before version 4 of the format a record had one entry, and its checksum covered all of it.

use raft_core::EntryKind;
use raft_core::entry::{ENTRY_HEADER_BYTES, EntryHead};

use super::index::Placed;
use super::record::padded;

/// The most bytes of a payload with more than one entry: damage to the header of a record costs all
/// of it.
pub(super) const RUN_BYTES_MAX: usize = 64 << 10;

/// One entry of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunEntry {
    /// Where it begins in the payload.
    pub(super) offset: usize,
    pub(super) head: EntryHead,
}

impl RunEntry {
    /// Where it ends in the payload.
    pub(super) fn end(&self) -> usize {
        self.offset + self.head.encoded_len()
    }

    /// As the index knows it, in a payload that begins at `payload` in its file.
    pub(super) fn placed(&self, payload: u64) -> Placed {
        let encoded_bytes = self.head.encoded_len();
        Placed {
            id: self.head.id,
            offset: payload + self.offset as u64,
            encoded_bytes: u32::try_from(encoded_bytes).expect("an entry is far below 4 GiB"),
            is_membership: self.head.kind == EntryKind::Membership,
        }
    }
}

/// Goes through the headers of a payload, and sums them.
#[derive(Debug)]
pub(super) struct RunWalk {
    payload_bytes: usize,
    /// Where the next entry begins.
    next: usize,
    headers_checksum: u32,
}

impl RunWalk {
    /// Over a payload of so many bytes.
    pub(super) fn over(payload_bytes: usize) -> Self {
        Self {
            payload_bytes,
            next: 0,
            headers_checksum: 0,
        }
    }

    /// Where the header of the next entry is; `None` behind the last one.
    pub(super) fn next_offset(&self) -> Option<usize> {
        (self.next < self.payload_bytes).then_some(self.next)
    }

    /// The entry with this header, which is the next one; `None` where there is no such entry.
    pub(super) fn step(&mut self, header: &[u8; ENTRY_HEADER_BYTES]) -> Option<RunEntry> {
        self.headers_checksum = crc32c::crc32c_append(self.headers_checksum, header);
        let entry = RunEntry {
            offset: self.next,
            head: EntryHead::decode(header).ok()?,
        };
        let is_alone = entry.offset == 0 && entry.end() == self.payload_bytes;
        let bytes_max = if is_alone { usize::MAX } else { RUN_BYTES_MAX };
        if entry.end() > self.payload_bytes || self.payload_bytes > bytes_max {
            return None;
        }
        self.next = match entry.end() {
            end if end == self.payload_bytes => end,
            end => Some(padded(end)).filter(|next| *next < self.payload_bytes)?,
        };
        Some(entry)
    }

    /// The checksum of all headers that were stepped over.
    pub(super) fn headers_checksum(&self) -> u32 {
        self.headers_checksum
    }
}

/// The checksum of all headers in a payload; `None` where it is no run.
pub(super) fn headers_checksum(payload: &[u8]) -> Option<u32> {
    let mut run = RunWalk::over(payload.len());
    while let Some(next) = run.next_offset() {
        run.step(payload[next..].first_chunk()?)?;
    }
    Some(run.headers_checksum())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::{Entry, Index, LogId, Term};

    use super::*;

    fn payload(lengths: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (length, index) in lengths.iter().zip(1..) {
            bytes.resize(padded(bytes.len()), 0);
            let id = LogId::new(Term(3), Index(index));
            let entry = Entry::new(id, EntryKind::Command, Bytes::from(vec![7; *length]));
            bytes.extend_from_slice(&entry.header());
            bytes.extend_from_slice(entry.payload());
        }
        bytes
    }

    #[test]
    fn all_headers_are_summed_and_nothing_else() {
        let good = payload(&[9, 0, 100, 1]);
        let starts = [0, 48, 80, 216];
        let headers = starts.map(|at| &good[at..at + ENTRY_HEADER_BYTES]).concat();
        assert_eq!(headers_checksum(&good), Some(crc32c::crc32c(&headers)));
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            let is_header = starts.iter().any(|at| (*at..at + 32).contains(&position));
            let is_same = headers_checksum(&bad) == headers_checksum(&good);
            assert_eq!(is_same, !is_header, "{position}");
        }
    }

    #[test]
    fn what_is_no_run_has_no_checksum() {
        let good = payload(&[9, 20]);
        for length in 1..good.len() {
            let is_one = length == ENTRY_HEADER_BYTES + 9;
            let sum = headers_checksum(&good[..length]);
            assert_eq!(sum.is_some(), is_one, "{length}");
        }
        let long = payload(&[RUN_BYTES_MAX]);
        assert!(headers_checksum(&long).is_some(), "one of any size");
        assert!(headers_checksum(&payload(&[1; 1_600])).is_some());
        let many = payload(&[1; 1_700]);
        assert!(many.len() > RUN_BYTES_MAX && headers_checksum(&many).is_none());
    }
}
