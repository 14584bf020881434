//! Memory that begins at a multiple of a block, as writes past the page cache want it.

/// Bytes of a block: the most that a disk or a file system in use asks for.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// A buffer of a fixed length, a multiple of [`BLOCK_BYTES`], that begins at such a multiple.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    /// One block longer than asked for, so that it has a place where to begin.
    bytes: Vec<u8>,
    from: usize,
    length: usize,
}

impl AlignedBuffer {
    /// A buffer of zeros.
    pub(crate) fn new(bytes: usize) -> Self {
        let length = bytes.next_multiple_of(BLOCK_BYTES);
        let bytes = vec![0; length + BLOCK_BYTES];
        // Where an address cannot be asked for, writes past the page cache fail; nothing is wrong.
        let from = bytes.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        Self {
            bytes,
            from,
            length,
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_at_a_block_and_has_its_length() {
        for asked in [1, BLOCK_BYTES, 10 * BLOCK_BYTES + 1] {
            let mut buffer = AlignedBuffer::new(asked);
            let bytes = buffer.bytes_mut();
            assert_eq!(bytes.as_ptr() as usize % BLOCK_BYTES, 0);
            assert_eq!(bytes.len(), asked.next_multiple_of(BLOCK_BYTES));
        }
    }
}
