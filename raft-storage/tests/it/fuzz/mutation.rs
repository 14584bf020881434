//! How the bytes of a fuzzer change a valid directory: a list of small changes, some of which make
//! the checksums right again, so that what is behind them is reached too.

use std::path::PathBuf;

use raft_storage::sim_disk::Image;

/// Bytes of a segment's header page; records begin behind it.
pub(super) const PAGE_BYTES: usize = 4096;
const RECORD_HEADER_BYTES: usize = 48;
/// Files do not grow above this, whatever the input says.
const FILE_BYTES_MAX: usize = 64 << 10;

/// The input, eaten from the front; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    fn wide(&mut self) -> u64 {
        (0..8).fold(0, |wide, _| wide << 8 | u64::from(self.byte()))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.number() % bound.max(1)
    }
}

/// Changes an image as the input says. Whether every checksum that is right was made by the store.
pub(super) fn mutate(image: &mut Image, input: &[u8]) -> bool {
    let mut input = Input(input);
    let mut is_honest = true;
    while !input.0.is_empty() && !image.files.is_empty() {
        let paths: Vec<PathBuf> = image.files.keys().cloned().collect();
        let path = paths[input.below(paths.len())].clone();
        let other = paths[input.below(paths.len())].clone();
        let kind = input.byte() % 12;
        let file = image.files.get_mut(&path).expect("it was listed");
        match kind {
            0 | 1 => flip(file, &mut input),
            2 => zero(file, &mut input),
            3 => splice(file, &mut input),
            4 => overwrite(file, &mut input),
            5 => resize(file, &mut input),
            6 => {
                // A copy under another's name, or under the next one.
                let bytes = file.clone();
                image.files.insert(
                    if path == other {
                        successor(&path)
                    } else {
                        other
                    },
                    bytes,
                );
            }
            7 if path != other => {
                let bytes = file.clone();
                let swapped = image.files.insert(other, bytes).expect("it was listed");
                image.files.insert(path, swapped);
            }
            8 => {
                image.files.remove(&path);
            }
            9..=11 => {
                is_honest = false;
                if file.starts_with(b"FLOTWAL\n") {
                    forge_record(file, &mut input);
                } else {
                    forge_snapshot(file, &mut input);
                }
            }
            _ => {}
        }
    }
    is_honest
}

fn successor(path: &std::path::Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = name
        .strip_suffix(".wal")
        .and_then(|digits| digits.parse::<u64>().ok());
    path.with_file_name(match number {
        Some(number) => format!("{:020}.wal", number.wrapping_add(1)),
        None => format!("copy-{name}"),
    })
}

fn flip(file: &mut [u8], input: &mut Input<'_>) {
    let position = input.below(file.len());
    let bit = input.byte() % 8;
    if let Some(byte) = file.get_mut(position) {
        *byte ^= 1 << bit;
    }
}

fn zero(file: &mut [u8], input: &mut Input<'_>) {
    let from = input.below(file.len());
    let to = file.len().min(from + input.below(4_096));
    file[from..to].fill(0);
}

fn splice(file: &mut [u8], input: &mut Input<'_>) {
    let (from, to) = (input.below(file.len()), input.below(file.len()));
    let length = input
        .below(2_048)
        .min(file.len() - from)
        .min(file.len() - to);
    file.copy_within(from..from + length, to);
}

fn overwrite(file: &mut [u8], input: &mut Input<'_>) {
    let from = input.below(file.len());
    let length = input.below(300).min(file.len() - from);
    for byte in &mut file[from..from + length] {
        *byte = input.byte();
    }
}

fn resize(file: &mut Vec<u8>, input: &mut Input<'_>) {
    let length = input.number();
    let fill = input.byte();
    file.resize(length.min(FILE_BYTES_MAX), fill);
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four"))
}

/// Changes a field of a record and makes its header's checksum right: a log that lies.
fn forge_record(file: &mut [u8], input: &mut Input<'_>) {
    if file.len() < PAGE_BYTES + RECORD_HEADER_BYTES {
        return;
    }
    let seed = crc32c::crc32c_append(crc32c::crc32c(&file[56..64]), &file[48..56]);
    let mut at = PAGE_BYTES;
    for _ in 0..input.below(24) {
        let length = u32_at(file, at + 8) as usize;
        let next = (at + RECORD_HEADER_BYTES)
            .saturating_add(length)
            .next_multiple_of(8);
        if next + RECORD_HEADER_BYTES > file.len() {
            break;
        }
        at = next;
    }
    let field = input.byte() % 9;
    let (record, behind) = file[at..].split_at_mut(RECORD_HEADER_BYTES);
    match field {
        0 => record[12] = input.byte(),
        1 => record[13] = input.byte(),
        2 => record[8..12].copy_from_slice(&input.wide().to_le_bytes()[..4]),
        3 => record[4..8].copy_from_slice(&input.wide().to_le_bytes()[..4]),
        4 => record[16..24].copy_from_slice(&input.wide().to_le_bytes()),
        5 => record[24..32].copy_from_slice(&input.wide().to_le_bytes()),
        6 => record[32..40].copy_from_slice(&input.wide().to_le_bytes()),
        7 => record[40..48].copy_from_slice(&input.wide().to_le_bytes()),
        _ => forge_heads(record, behind, input),
    }
    let checksum = crc32c::crc32c_append(seed, &record[4..]);
    record[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// Changes a word in front of the entries of a record, their count or a head, and makes the
/// checksum of those right.
fn forge_heads(record: &mut [u8], behind: &mut [u8], input: &mut Input<'_>) {
    let payload_bytes = behind.len().min(u32_at(record, 8) as usize);
    let payload = &mut behind[..payload_bytes];
    if payload.len() < 16 || !matches!(record[12], 1 | 8) {
        return;
    }
    let front_bytes = |payload: &[u8]| 8 + 8 * u64::from(u32_at(payload, 0));
    let fields = front_bytes(payload) / 4;
    let field = 4 * input.below(usize::try_from(fields).unwrap_or(usize::MAX));
    let value = match input.byte() % 3 {
        0 => u64::from(input.byte()),
        1 => input.wide(),
        // Another length or kind.
        _ => u64::from(u32_at(payload, field.min(12))) ^ 1 << (input.byte() % 32),
    };
    if let Some(bytes) = payload.get_mut(field..field + 4) {
        bytes.copy_from_slice(&value.to_le_bytes()[..4]);
    }
    let front = usize::try_from(front_bytes(payload)).unwrap_or(usize::MAX);
    let sum = crc32c::crc32c(&payload[..front.min(payload_bytes)]);
    record[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// Changes a field of a snapshot's header, first part or footer and makes that checksum right.
fn forge_snapshot(file: &mut [u8], input: &mut Input<'_>) {
    if file.len() < 96 + 16 + 40 {
        return;
    }
    let behind_header = 96 + u32_at(file, 56) as usize;
    match input.byte() % 3 {
        0 => {
            let field = [56, 64, 72, 80, 40, 48][input.below(6)];
            let value = input.wide().to_le_bytes();
            file[field..field + 8].copy_from_slice(&value);
            let end = (96 + u32_at(file, 56) as usize).min(file.len());
            let sum = crc32c::crc32c_append(crc32c::crc32c(&file[..12]), &file[16..end]);
            file[12..16].copy_from_slice(&sum.to_le_bytes());
        }
        1 => {
            let seed = u32_at(file, 12);
            let at = file.len() - 40;
            let field = at + [4, 8, 16, 24][input.below(4)];
            let value = input.wide().to_le_bytes();
            file[field..field + 8].copy_from_slice(&value);
            let sum = crc32c::crc32c_append(seed, &file[at + 4..]);
            file[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
        _ if behind_header + 16 <= file.len() => {
            let seed = u32_at(file, 12);
            let frame = behind_header;
            let value = input.wide().to_le_bytes();
            file[frame + 4..frame + 8].copy_from_slice(&value[..4]);
            let length = u32_at(file, frame + 4) as usize;
            let end = (frame + 16).saturating_add(length).min(file.len());
            let sum = crc32c::crc32c_append(seed, &file[frame + 4..end]);
            file[frame..frame + 4].copy_from_slice(&sum.to_le_bytes());
        }
        _ => {}
    }
}
