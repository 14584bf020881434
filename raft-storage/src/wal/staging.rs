//! Bytes on their way to the end of a segment: put together in memory, written in few calls. Where
//! the file wants whole blocks, a block that is not full is written with zeros behind it, kept, and
//! written again with what comes next. Behind each write there are zeros, which say that it ends
//! there: the file may hold anything else.

use raft_core::StorageError;

use crate::errors::io_error;
use crate::files::{AlignedBuffer, BLOCK_BYTES, DiskFile};

/// Bytes in memory.
const BUFFER_BYTES: usize = 2 << 20;
/// Bytes that are put together before they are written without waiting for the rest of a batch; the
/// zeros behind them fit as well.
pub(super) const STAGED_BYTES_MAX: usize = BUFFER_BYTES - BLOCK_BYTES;
/// The fewest zeros behind a write, unless the file ends: as many as no record begins with.
const END_BYTES: usize = 8;

/// The end of a file that is appended to.
#[derive(Debug)]
pub(super) struct Staging {
    buffer: AlignedBuffer,
    /// Of the file; nothing is written behind them.
    file_bytes: u64,
    /// Where in the file the buffer begins: at the start of a block.
    start: u64,
    /// Bytes in the buffer.
    length: usize,
    /// How many of them were written.
    written: usize,
}

impl Staging {
    /// Behind the first `end` of the bytes of a file, which `found` has.
    pub(super) fn behind(
        end: u64,
        file_bytes: u64,
        file: &DiskFile,
        found: &DiskFile,
    ) -> Result<Self, StorageError> {
        let start = end - end % file.block_bytes() as u64;
        let mut staging = Self {
            start,
            length: usize::try_from(end - start).expect("less than a block"),
            ..Self::at_start_of(file, file_bytes)
        };
        let block = &mut staging.buffer.bytes_mut()[..staging.length];
        found
            .read_at(block, start)
            .map_err(|error| io_error("read", found.path(), &error))?;
        staging.written = staging.length;
        Ok(staging)
    }

    /// At the start of a file.
    pub(super) fn at_start_of(file: &DiskFile, file_bytes: u64) -> Self {
        let buffer = match file.block_bytes() {
            1 => AlignedBuffer::new(BUFFER_BYTES),
            _ => AlignedBuffer::for_disk(BUFFER_BYTES),
        };
        Self {
            buffer,
            file_bytes,
            start: 0,
            length: 0,
            written: 0,
        }
    }

    /// Where the next byte goes.
    pub(super) fn end(&self) -> u64 {
        self.start + self.length as u64
    }

    /// Room for so many bytes, less than [`STAGED_BYTES_MAX`] by a block, which the caller fills.
    pub(super) fn reserve(
        &mut self,
        bytes: usize,
        file: &DiskFile,
    ) -> Result<&mut [u8], StorageError> {
        if self.length + bytes > STAGED_BYTES_MAX {
            self.write(file)?;
        }
        let from = self.length;
        self.length += bytes;
        Ok(&mut self.buffer.bytes_mut()[from..self.length])
    }

    /// Adds bytes, as many as there are.
    pub(super) fn push(&mut self, mut bytes: &[u8], file: &DiskFile) -> Result<(), StorageError> {
        while !bytes.is_empty() {
            if self.length == STAGED_BYTES_MAX {
                self.write(file)?;
            }
            let room = &mut self.buffer.bytes_mut()[self.length..STAGED_BYTES_MAX];
            let (piece, rest) = bytes.split_at(bytes.len().min(room.len()));
            room[..piece.len()].copy_from_slice(piece);
            self.length += piece.len();
            bytes = rest;
        }
        Ok(())
    }

    /// Adds zeros up to a place in the file that is a multiple of 8, and less than 8 away.
    pub(super) fn pad(&mut self, to: u64, file: &DiskFile) -> Result<(), StorageError> {
        let zeros = usize::try_from(to.saturating_sub(self.end())).unwrap_or(0);
        self.push(&[0; 8][..zeros.min(8)], file)
    }

    /// Puts other bytes in the place of those at `offset`, which are staged and not written.
    pub(super) fn patch(&mut self, offset: u64, bytes: &[u8]) {
        let from = usize::try_from(offset - self.start).expect("in the buffer");
        debug_assert!(from >= self.written);
        self.buffer.bytes_mut()[from..from + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes what was not written yet.
    pub(super) fn write(&mut self, file: &DiskFile) -> Result<(), StorageError> {
        if self.written == self.length {
            return Ok(());
        }
        let block = file.block_bytes();
        let from = self.written - self.written % block;
        let to = (self.length + END_BYTES).next_multiple_of(block);
        let in_file = usize::try_from(self.file_bytes - self.start).unwrap_or(usize::MAX);
        let to = to.min(in_file).max(self.length);
        let buffer = self.buffer.bytes_mut();
        buffer[self.length..to].fill(0);
        file.write_at(&buffer[from..to], self.start + from as u64)?;
        // Only a block that is not full is needed again.
        let whole = self.length - self.length % block;
        buffer.copy_within(whole..self.length, 0);
        self.start += whole as u64;
        self.length -= whole;
        self.written = self.length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::files::FileHandle;

    const FILE_BYTES: usize = 24 << 20;

    /// Bytes in memory that are written in blocks of this length only.
    #[derive(Clone, Debug)]
    struct Blocks(Arc<Mutex<Vec<u8>>>, usize);

    impl FileHandle for Blocks {
        fn length(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().len() as u64)
        }

        fn block_bytes(&self) -> usize {
            self.1
        }

        fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            let from = usize::try_from(offset).unwrap();
            bytes.copy_from_slice(&self.0.lock().unwrap()[from..from + bytes.len()]);
            Ok(())
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let from = usize::try_from(offset).unwrap();
            for place in [from, bytes.len(), bytes.as_ptr() as usize] {
                assert_eq!(place % self.1, 0, "not whole blocks");
            }
            self.0.lock().unwrap()[from..from + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn set_length(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn drop_cache(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Pushes, reserves and patches of many lengths, written now and then, and taken up anew.
    #[test]
    fn what_is_staged_stands_in_the_file_whatever_its_blocks() {
        for block in [1, 512, 4096] {
            // Of another life of the file.
            let stored = Arc::new(Mutex::new(vec![0xee; FILE_BYTES]));
            let handle = Box::new(Blocks(Arc::clone(&stored), block));
            let file = DiskFile::of("open", Path::new("file"), Ok(handle)).unwrap();
            let mut staging = Staging::at_start_of(&file, FILE_BYTES as u64);
            let mut expected = Vec::new();
            for (round, fill) in (0_usize..240).zip((1_u8..=255).cycle()) {
                let length = match round % 40 {
                    39 => 3 * STAGED_BYTES_MAX / 2,
                    5 => 70_000,
                    _ => round * 53 % 5_000,
                };
                let begun = staging.end();
                if round % 3 == 0 && length < 70_000 {
                    let space = staging.reserve(length.max(8), &file).unwrap();
                    space.fill(fill);
                    staging.patch(begun, &[!fill; 8]);
                    expected.extend([!fill; 8]);
                    expected.extend(vec![fill; length.max(8) - 8]);
                } else {
                    staging.push(&vec![fill; length], &file).unwrap();
                    expected.extend(vec![fill; length]);
                }
                staging
                    .pad(staging.end().next_multiple_of(8), &file)
                    .unwrap();
                expected.resize(expected.len().next_multiple_of(8), 0);
                assert_eq!(staging.end(), expected.len() as u64);
                if round % 2 == 0 {
                    staging.write(&file).unwrap();
                    let stored = stored.lock().unwrap();
                    let (written, behind) = stored.split_at(expected.len());
                    assert!(written == expected, "{block}, {round}");
                    assert_eq!(behind[..END_BYTES], [0; END_BYTES], "{block}, {round}");
                }
                if round % 10 == 0 {
                    staging =
                        Staging::behind(staging.end(), FILE_BYTES as u64, &file, &file).unwrap();
                }
            }
        }
    }
}
