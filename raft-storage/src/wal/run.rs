//! Consecutive entries in the payload of one record. All are of one term, and the record's id is
//! that of the last one, so that each needs to say only its kind, its length and its checksum. That
//! is its *head*. In front stand how many there are and the heads of all, then their payloads, each
//! at a multiple of 8. The record's checksum covers what is in front, which has the checksums of
//! the rest: nothing is summed twice.
//!
//! Versions 4 and 5 of the format had the encoded header of each entry before its payload, and a
//! checksum of all headers. Before version 4 a record had one such entry, and its checksum covered
//! all of it.

use raft_core::entry::ENTRY_HEADER_BYTES;
use raft_core::{Entry, EntryHead, EntryKind, Index, LogId};

use super::record::{RecordHeader, RunLayout, padded, u32_at, u64_at};

/// The most bytes of a payload with more than one entry: damage to the header of a record costs all
/// of it.
pub(super) const RUN_BYTES_MAX: usize = 64 << 10;
/// Bytes of a payload that tell what is in it, where it has more than [`RUN_BYTES_MAX`].
pub(super) const FRONT_BYTES: usize = ENTRY_HEADER_BYTES;
/// Bytes of the head of an entry.
pub(super) const HEAD_BYTES: usize = 8;

/// How many entries there are, and 4 zeros.
const COUNT_BYTES: usize = 8;
/// The bits of a length in a head; the others are the kind.
const LENGTH_BITS: u32 = 28;

/// One entry of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunEntry {
    pub(super) head: EntryHead,
    /// Where its payload begins in that of the record.
    pub(super) offset: usize,
}

/// Why a record has no entries to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRun {
    /// They do not match the record's checksum, or are none that any version writes.
    Damaged,
    /// They match, and there is one of which this version does not know what it is.
    Newer,
}

/// Bytes of a record's payload that has only this entry.
pub(super) fn bytes_alone(entry: &Entry) -> usize {
    front_bytes(1) + entry.payload().len()
}

/// How many of these entries a payload of at most `bytes_max` can have, if any, and the bytes that
/// it has then. More than one only where they are of one term and fit in [`RUN_BYTES_MAX`].
pub(super) fn run_length(entries: &[Entry], bytes_max: usize) -> (usize, usize) {
    let (mut count, mut payloads) = (0, 0);
    let term = entries.first().map(Entry::term);
    for entry in entries {
        let with_it = padded(payloads) + entry.payload().len();
        let bytes = front_bytes(count + 1) + with_it;
        let goes_on = count == 0 || (bytes <= RUN_BYTES_MAX && Some(entry.term()) == term);
        if bytes > bytes_max || !goes_on {
            break;
        }
        count += 1;
        payloads = with_it;
    }
    (count, front_bytes(count) + payloads)
}

/// Bytes before the payloads of so many entries.
fn front_bytes(count: usize) -> usize {
    COUNT_BYTES + count * HEAD_BYTES
}

/// What stands in front of the payload of one entry that is alone in a record.
pub(super) fn front_alone(entry: &Entry) -> [u8; COUNT_BYTES + HEAD_BYTES] {
    let mut front = [0; COUNT_BYTES + HEAD_BYTES];
    write_front(&mut front, std::slice::from_ref(entry));
    front
}

/// Writes entries, as many as [`run_length`] says, to `payload`, which has that length and zeros up
/// to a multiple of 8. The checksum of the record's payload.
pub(super) fn write(payload: &mut [u8], entries: &[Entry]) -> u32 {
    let (front, mut rest) = payload.split_at_mut(front_bytes(entries.len()));
    // Two short loops: one that does all of it takes longer.
    write_front(front, entries);
    for entry in entries {
        let bytes = entry.payload();
        let (slot, behind) = rest.split_at_mut(padded(bytes.len()));
        rest = behind;
        let (body, zeros) = slot.split_at_mut(bytes.len());
        body.copy_from_slice(bytes);
        zeros.fill(0);
    }
    crc32c::crc32c(front)
}

fn write_front(front: &mut [u8], entries: &[Entry]) {
    let (count, heads) = front.split_at_mut(COUNT_BYTES);
    count.copy_from_slice(&(entries.len() as u64).to_le_bytes());
    for (entry, head) in entries.iter().zip(heads.chunks_exact_mut(HEAD_BYTES)) {
        let kind = u64::from(entry.kind().to_byte()) << LENGTH_BITS;
        let word = entry.payload().len() as u64 | kind | u64::from(entry.checksum()) << 32;
        head.copy_from_slice(&word.to_le_bytes());
    }
}

/// The entries of a record, of which `front` has the payload, or [`FRONT_BYTES`] of it where it has
/// more than [`RUN_BYTES_MAX`]. Their payloads are not looked at, but by the layout where the
/// checksum covers all of a payload, which the caller must see to.
pub(super) fn read(
    header: &RecordHeader,
    layout: RunLayout,
    front: &[u8],
    entries: &mut Vec<RunEntry>,
) -> Result<(), NoRun> {
    let payload_bytes = header.payload_bytes as usize;
    entries.clear();
    match layout {
        RunLayout::One => entries.extend(encoded_entry(front, 0)),
        RunLayout::Headers => read_headers(header, front, entries).ok_or(NoRun::Damaged)?,
        RunLayout::Heads => {
            let heads = checked_heads(header, front).ok_or(NoRun::Damaged)?;
            read_heads(header.id, heads, entries).ok_or(NoRun::Newer)?;
        }
    }
    let last = entries.last().ok_or(NoRun::Damaged)?;
    let is_all = last.offset + last.head.payload_bytes == payload_bytes;
    let fits = entries.len() == 1 || payload_bytes <= RUN_BYTES_MAX;
    (is_all && fits).then_some(()).ok_or(NoRun::Damaged)
}

/// The heads at the front of a payload, of entries that can all be before the record's last one.
fn checked_heads<'a>(header: &RecordHeader, front: &'a [u8]) -> Option<&'a [u8]> {
    let (count_bytes, heads) = front.split_at_checked(COUNT_BYTES)?;
    let count = usize::try_from(u64_at(count_bytes, 0)).ok()?;
    let heads = heads.get(..count.checked_mul(HEAD_BYTES)?)?;
    let is_whole = crc32c::crc32c(&front[..front_bytes(count)]) == header.payload_checksum;
    (is_whole && count as u64 <= header.id.index.0).then_some(heads)
}

fn read_heads(last: LogId, heads: &[u8], entries: &mut Vec<RunEntry>) -> Option<()> {
    let count = heads.len() / HEAD_BYTES;
    let before = last.index.0 - count as u64;
    let mut end = front_bytes(count);
    for (head, number) in heads.chunks_exact(HEAD_BYTES).zip(1..=count as u64) {
        let word = u32_at(head, 0);
        let kind = EntryKind::from_byte(u8::try_from(word >> LENGTH_BITS).ok()?)?;
        let length = word & ((1 << LENGTH_BITS) - 1);
        let id = LogId::new(last.term, Index(before + number));
        let head = EntryHead::from_fields(id, kind, length as usize, u32_at(head, 4)).ok()?;
        let offset = padded(end);
        end = offset + head.payload_bytes;
        entries.push(RunEntry { head, offset });
    }
    Some(())
}

/// As versions 4 and 5 wrote them.
fn read_headers(header: &RecordHeader, front: &[u8], entries: &mut Vec<RunEntry>) -> Option<()> {
    let payload_bytes = header.payload_bytes as usize;
    let (mut next, mut checksum) = (0, 0);
    while next < payload_bytes {
        let entry = encoded_entry(front, next)?;
        checksum = crc32c::crc32c_append(checksum, &front[next..entry.offset]);
        let end = entry.offset + entry.head.payload_bytes;
        entries.push(entry);
        next = if end == payload_bytes {
            end
        } else {
            padded(end)
        };
    }
    (checksum == header.payload_checksum).then_some(())
}

/// The entry whose encoded header stands at `offset`.
fn encoded_entry(front: &[u8], offset: usize) -> Option<RunEntry> {
    let header = front.get(offset..)?.first_chunk()?;
    let head = EntryHead::decode(header).ok()?;
    let offset = offset + ENTRY_HEADER_BYTES;
    Some(RunEntry { head, offset })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::entry::ENTRY_PAYLOAD_BYTES_MAX;
    use raft_core::{GroupId, Term};

    use super::super::record::RecordKind;
    use super::*;

    fn entries(lengths: &[usize]) -> Vec<Entry> {
        let entry = |(length, index): (&usize, u64)| {
            let kind = match length {
                0 => EntryKind::Noop,
                _ => EntryKind::Command,
            };
            let id = LogId::new(Term(3), Index(index));
            Entry::new(id, kind, Bytes::from(vec![7; *length]))
        };
        lengths.iter().zip(5..).map(entry).collect()
    }

    fn header(payload: &[u8], payload_checksum: u32, last: &Entry) -> RecordHeader {
        RecordHeader {
            kind: RecordKind::Entry,
            group: GroupId(0),
            states: 0,
            batch_end: true,
            payload_bytes: u32::try_from(payload.len()).unwrap(),
            payload_checksum,
            id: last.id(),
            synced_to: 0,
        }
    }

    /// A record with these entries, as it is written.
    fn written(entries: &[Entry]) -> (RecordHeader, Vec<u8>) {
        let (count, bytes) = run_length(entries, usize::MAX);
        assert_eq!(count, entries.len());
        let mut payload = vec![0xee; padded(bytes)];
        let checksum = write(&mut payload, entries);
        payload.truncate(bytes);
        (header(&payload, checksum, &entries[count - 1]), payload)
    }

    /// The same as versions 4 and 5 wrote it.
    fn written_with_headers(entries: &[Entry]) -> (RecordHeader, Vec<u8>) {
        let (mut payload, mut headers) = (Vec::new(), Vec::new());
        for entry in entries {
            payload.resize(padded(payload.len()), 0);
            payload.extend_from_slice(&entry.header());
            payload.extend_from_slice(entry.payload());
            headers.extend_from_slice(&entry.header());
        }
        let last = entries.last().unwrap();
        (header(&payload, crc32c::crc32c(&headers), last), payload)
    }

    type Record = (RecordHeader, Vec<u8>);
    type Write = fn(&[Entry]) -> Record;

    /// The layouts of several entries.
    const LAYOUTS: [(RunLayout, Write); 2] = [
        (RunLayout::Heads, written),
        (RunLayout::Headers, written_with_headers),
    ];

    /// What is read of a record, with the payloads.
    fn found(layout: RunLayout, (header, payload): &Record) -> Result<Vec<Entry>, NoRun> {
        let mut found = Vec::new();
        let front = match payload.len() > RUN_BYTES_MAX {
            true => &payload[..FRONT_BYTES],
            false => payload,
        };
        read(header, layout, front, &mut found)?;
        let entry = |entry: &RunEntry| {
            let body = &payload[entry.offset..][..entry.head.payload_bytes];
            let entry = Entry::from_head(&entry.head, Bytes::copy_from_slice(body));
            entry.map_err(|_| NoRun::Damaged)
        };
        found.iter().map(entry).collect()
    }

    const LENGTHS: [&[usize]; 5] = [
        &[0],
        &[9, 0, 100, 1],
        &[0, 0, 0],
        &[256; 200],
        &[RUN_BYTES_MAX],
    ];

    #[test]
    fn what_was_written_is_read_in_either_layout() {
        for (layout, write) in LAYOUTS {
            for lengths in LENGTHS {
                let entries = entries(lengths);
                assert_eq!(found(layout, &write(&entries)), Ok(entries));
            }
        }
    }

    /// Version 4 put them in one record at first.
    #[test]
    fn entries_of_several_terms_are_read_where_each_has_its_header() {
        let mut entries = entries(&[3, 0, 2]);
        entries[2] = Entry::new(LogId::new(Term(4), Index(7)), EntryKind::Noop, Bytes::new());
        let record = written_with_headers(&entries);
        assert_eq!(found(RunLayout::Headers, &record), Ok(entries));
    }

    #[test]
    fn every_flip_is_noticed_but_in_the_zeros_between() {
        let entries = entries(&[9, 0, 100, 1]);
        let zeros = [
            vec![(40 + 9)..56, (56 + 100)..160],
            vec![(32 + 9)..48, (112 + 100)..216],
        ];
        for ((layout, write), zeros) in LAYOUTS.into_iter().zip(zeros) {
            let record = write(&entries);
            for position in 0..record.1.len() {
                let mut bad = record.clone();
                bad.1[position] ^= 1;
                let is_padding = zeros.iter().any(|zeros| zeros.contains(&position));
                assert_eq!(found(layout, &bad).is_ok(), is_padding, "{position}");
            }
        }
    }

    #[test]
    fn a_record_cut_short_or_of_many_entries_above_the_limit_is_refused() {
        let entries = entries(&[9, 20]);
        for (layout, write) in LAYOUTS {
            let (good, payload) = write(&entries);
            for length in 0..payload.len() {
                let cut = &payload[..length];
                let record = (
                    header(cut, good.payload_checksum, &entries[1]),
                    cut.to_vec(),
                );
                assert_eq!(found(layout, &record), Err(NoRun::Damaged), "{length}");
            }
        }
        let entries = self::entries(&[0, RUN_BYTES_MAX]);
        let mut payload = vec![0; front_bytes(2) + RUN_BYTES_MAX];
        let sum = write(&mut payload, &entries);
        let with_heads = (header(&payload, sum, &entries[1]), payload);
        for (layout, (header, payload)) in [
            (RunLayout::Heads, with_heads),
            (RunLayout::Headers, written_with_headers(&entries)),
        ] {
            let refused = read(&header, layout, &payload, &mut Vec::new());
            assert_eq!(refused, Err(NoRun::Damaged), "{layout:?}");
        }
    }

    /// A record with these words in front, under a right checksum, that ends at this index.
    fn forged(words: &[u64], index: u64) -> Result<Vec<Entry>, NoRun> {
        let payload: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let sum = crc32c::crc32c(&payload);
        let id = LogId::new(Term(3), Index(index));
        let last = Entry::new(id, EntryKind::Noop, Bytes::new());
        found(RunLayout::Heads, &(header(&payload, sum, &last), payload))
    }

    #[test]
    fn heads_that_nobody_wrote_are_refused_whatever_their_checksum() {
        let noop = |index| {
            let id = LogId::new(Term(3), Index(index));
            let entry = Entry::new(id, EntryKind::Noop, Bytes::new());
            1 << LENGTH_BITS | u64::from(entry.checksum()) << 32
        };
        assert_eq!(forged(&[1, noop(8)], 8).unwrap().len(), 1);
        assert_eq!(forged(&[1, noop(u64::MAX)], u64::MAX).unwrap().len(), 1);
        // Of another place in the log, and of one before its beginning.
        assert_eq!(forged(&[1, noop(8)], 9), Err(NoRun::Damaged));
        assert_eq!(forged(&[2, noop(0), noop(1)], 1), Err(NoRun::Damaged));
        // A count that is none, or that the record has no room for.
        for count in [0, 2, 1 << 32 | 1, u64::MAX] {
            for index in [8, u64::MAX] {
                let refused = forged(&[count, noop(8)], index);
                assert_eq!(refused, Err(NoRun::Damaged), "{count} {index}");
            }
        }
        // Lengths that do not fill the record, or go beyond it.
        assert_eq!(forged(&[1, noop(8), 0], 8), Err(NoRun::Damaged));
        assert_eq!(forged(&[1, noop(8) | 9], 8), Err(NoRun::Damaged));
        // What a newer version may know: a kind, and a length above the limit.
        let above = ENTRY_PAYLOAD_BYTES_MAX as u64 + 1;
        for head in [0, 4 << LENGTH_BITS, 15 << LENGTH_BITS, noop(8) | above] {
            assert_eq!(forged(&[1, head], 8), Err(NoRun::Newer), "{head:x}");
        }
    }

    #[test]
    fn a_run_is_of_one_term_and_bounded() {
        let small = entries(&[1; 5_000]);
        let (count, bytes) = run_length(&small, usize::MAX);
        // 8 of a head and 8 of a payload, but for the last one.
        assert_eq!((count, bytes), (RUN_BYTES_MAX / 16 - 1, RUN_BYTES_MAX - 15));
        assert_eq!(run_length(&small, 16 + 8 + 8 + 1), (2, 8 + 16 + 8 + 1));
        assert_eq!(run_length(&small, 8 + 8).0, 0);
        let large = entries(&[RUN_BYTES_MAX, 1]);
        assert_eq!(run_length(&large, usize::MAX), (1, bytes_alone(&large[0])));
        let mut terms = entries(&[1, 1, 1]);
        terms[2] = Entry::new(LogId::new(Term(4), Index(7)), EntryKind::Noop, Bytes::new());
        assert_eq!(run_length(&terms, usize::MAX).0, 2);
    }
}
