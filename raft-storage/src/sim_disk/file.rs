//! One file: what readers see, what is durable, and what a power cut may or may not leave.
//!
//! The unit that a disk writes whole is the sector. Each sector that was changed since the last
//! sync has versions; the disk may hold any of them, or the one from before, independently of all
//! other sectors. The same holds for the length.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes that a disk writes whole.
pub const SECTOR_BYTES: usize = 512;

const SECTOR: u64 = SECTOR_BYTES as u64;

/// A sector as it was after some write.
#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) bytes: Vec<u8>,
    /// Which of its bytes writes since the last sync have touched.
    pub(super) touched: Range<usize>,
    /// When it was written, counted over the whole disk.
    pub(super) at: u64,
}

/// What becomes of a write, as seen by the disk; readers see it in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    #[default]
    Kept,
    /// The disk says that it wrote it.
    Lost,
    /// It is written so many sectors further on.
    Misdirected(u64),
}

#[derive(Clone, Debug, Default)]
pub(super) struct SimFile {
    /// What readers see.
    cache: Vec<u8>,
    /// What is durable.
    disk: Vec<u8>,
    /// Sectors that were changed since the last sync, oldest version first.
    sectors: BTreeMap<u64, Vec<Version>>,
    /// Lengths since the last sync, and when each was set.
    lengths: Vec<(u64, u64)>,
}

impl SimFile {
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self {
            cache: bytes.clone(),
            disk: bytes,
            ..Self::default()
        }
    }

    pub(super) fn cache(&self) -> &[u8] {
        &self.cache
    }

    pub(super) fn sectors(&self) -> &BTreeMap<u64, Vec<Version>> {
        &self.sectors
    }

    pub(super) fn lengths(&self) -> &[(u64, u64)] {
        &self.lengths
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], at: u64, fate: Fate) {
        if bytes.is_empty() {
            return;
        }
        let from = to_usize(offset);
        let to = from + bytes.len();
        if self.cache.len() < to {
            self.cache.resize(to, 0);
            self.lengths.push((to as u64, at));
        }
        self.cache[from..to].copy_from_slice(bytes);
        let shift = match fate {
            Fate::Kept => 0,
            Fate::Misdirected(sectors) => sectors,
            Fate::Lost => return,
        };
        for sector in offset / SECTOR..(to as u64).div_ceil(SECTOR) {
            let start = to_usize(sector * SECTOR);
            let touched = from.max(start) - start..to.min(start + SECTOR_BYTES) - start;
            let bytes = sector_of(&self.cache, sector);
            self.push_version(sector + shift, bytes, touched, at);
        }
    }

    pub(super) fn set_length(&mut self, bytes: u64, at: u64) {
        let old = self.cache.len();
        let new = to_usize(bytes);
        if new == old {
            return;
        }
        self.cache.resize(new, 0);
        self.lengths.push((bytes, at));
        if new < old {
            // What is cut off reads as zeros if the file grows again.
            for sector in bytes / SECTOR..(old as u64).div_ceil(SECTOR) {
                let start = to_usize(sector * SECTOR);
                let touched = new.max(start) - start..SECTOR_BYTES;
                let bytes = sector_of(&self.cache, sector);
                self.push_version(sector, bytes, touched, at);
            }
        }
    }

    fn push_version(&mut self, sector: u64, bytes: Vec<u8>, touched: Range<usize>, at: u64) {
        let versions = self.sectors.entry(sector).or_default();
        let (before, touched_before) = match versions.last() {
            Some(last) => (last.bytes.clone(), last.touched.clone()),
            None => (sector_of(&self.disk, sector), touched.clone()),
        };
        if before != bytes {
            let touched =
                touched.start.min(touched_before.start)..touched.end.max(touched_before.end);
            versions.push(Version { bytes, touched, at });
        }
        if versions.is_empty() {
            self.sectors.remove(&sector);
        }
    }

    /// The newest version of everything becomes durable.
    pub(super) fn sync(&mut self) {
        let length = self
            .lengths
            .last()
            .map_or(self.disk.len(), |(n, _)| to_usize(*n));
        let sectors = std::mem::take(&mut self.sectors);
        let newest = sectors
            .into_iter()
            .filter_map(|(sector, mut versions)| Some((sector, versions.pop()?.bytes)));
        self.disk = assemble(&self.disk, length, newest);
        self.lengths.clear();
    }

    /// The disk refused. The system forgets that anything is to be written, and readers still see
    /// it: from then on it is taken for durable by whoever asks again.
    pub(super) fn fail_sync(&mut self) {
        self.sectors.clear();
        self.lengths.clear();
    }

    /// Readers see the disk again, but for what is still to be written.
    pub(super) fn drop_cache(&mut self) {
        let newest = self
            .sectors
            .iter()
            .filter_map(|(sector, versions)| Some((*sector, versions.last()?.bytes.clone())));
        self.cache = assemble(&self.disk, self.cache.len(), newest);
    }

    /// Changes bytes for good, behind the back of everybody.
    pub(super) fn rot(&mut self, offset: usize, mask: u8) {
        for bytes in [&mut self.cache, &mut self.disk] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= mask;
            }
        }
    }

    /// What is on the disk when so many of the lengths and of each sector's versions were written.
    pub(super) fn persisted(
        &self,
        lengths: usize,
        mut versions: impl FnMut(u64) -> usize,
        tear: Option<(u64, Tear)>,
    ) -> Vec<u8> {
        let length = match lengths.checked_sub(1) {
            Some(newest) => to_usize(self.lengths[newest].0),
            None => self.disk.len(),
        };
        let sectors = self.sectors.iter().filter_map(|(sector, held)| {
            let newest = versions(*sector).checked_sub(1)?;
            let before = match newest.checked_sub(1) {
                Some(before) => held[before].bytes.clone(),
                None => sector_of(&self.disk, *sector),
            };
            let bytes = match tear {
                Some((torn, tear)) if torn == *sector => tear.apply(&before, &held[newest]),
                _ => held[newest].bytes.clone(),
            };
            Some((*sector, bytes))
        });
        assemble(&self.disk, length, sectors)
    }
}

/// How a sector that was being written when the power went is left. Bytes that no write touched
/// keep what they had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tear {
    /// So many of its touched bytes are new, the others old.
    Front(usize),
    /// The touched bytes are neither.
    Garbage(u8),
}

impl Tear {
    fn apply(self, before: &[u8], version: &Version) -> Vec<u8> {
        let mut bytes = before.to_vec();
        let touched = version.touched.clone();
        match self {
            Self::Front(count) => {
                let end = touched.end.min(touched.start + count);
                let new = touched.start..end;
                bytes[new.clone()].copy_from_slice(&version.bytes[new]);
            }
            Self::Garbage(salt) => {
                for position in touched {
                    let byte = version.bytes[position];
                    bytes[position] = byte.wrapping_mul(31).wrapping_add(salt | 1);
                }
            }
        }
        bytes
    }
}

/// `bytes` with another length and other sectors; what is beyond the length is left out.
fn assemble(bytes: &[u8], length: usize, sectors: impl Iterator<Item = (u64, Vec<u8>)>) -> Vec<u8> {
    let mut whole = bytes.to_vec();
    whole.resize(length, 0);
    for (sector, bytes) in sectors {
        let from = to_usize(sector * SECTOR);
        if from < length {
            let to = length.min(from + SECTOR_BYTES);
            whole[from..to].copy_from_slice(&bytes[..to - from]);
        }
    }
    whole
}

/// A whole sector, with zeros behind the end of the file.
fn sector_of(bytes: &[u8], sector: u64) -> Vec<u8> {
    let from = to_usize(sector * SECTOR).min(bytes.len());
    let to = (from + SECTOR_BYTES).min(bytes.len());
    let mut whole = bytes[from..to].to_vec();
    whole.resize(SECTOR_BYTES, 0);
    whole
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("files of a simulated disk fit in memory")
}
