//! The file system of the machine: each operation is one call of the standard library, or two.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
use super::BLOCK_BYTES;
use super::file_system::{FileHandle, FileSystem, LockGuard};

/// The machine's own files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine;

impl FileSystem for Machine {
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Box::new(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Box::new(file))
    }

    #[cfg(target_os = "linux")]
    fn open_direct(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        use std::os::unix::fs::OpenOptionsExt;

        let flags = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let mut options = File::options();
        match options.write(true).custom_flags(flags).open(path) {
            Ok(file) if takes_blocks(&file) => Ok(Box::new(Direct(file))),
            // A file system that has no such writes.
            Err(error) if !is_unsupported(&error) => Err(error),
            _ => self.open(path),
        }
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        Ok(Box::new(File::open(path)?))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        fs::exists(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let found = fs::read_dir(dir)?;
        found.map(|found| Ok(found?.path())).collect()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    #[cfg(target_os = "linux")]
    fn free_bytes(&self, dir: &Path) -> Option<u64> {
        let room = rustix::fs::statvfs(dir).ok()?;
        Some(room.f_bavail.saturating_mul(room.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        let mut options = File::options();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.try_lock()?;
        Ok(Box::new(file))
    }
}

impl FileHandle for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn drop_cache(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(self, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }
}

/// Whether this is how a system says that it has no direct writes, or not such ones.
#[cfg(target_os = "linux")]
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
}

/// Whether whole blocks can be written past the page cache, as far as the system tells.
#[cfg(target_os = "linux")]
fn takes_blocks(file: &File) -> bool {
    use rustix::fs::{AtFlags, StatxFlags, statx};

    let asked = StatxFlags::DIOALIGN;
    let told = statx(file, c"", AtFlags::EMPTY_PATH, asked);
    // Older kernels do not tell; nothing in use asks for more than a block.
    told.map_or(true, |told| {
        let fits = |bytes: u32| (1..=BLOCK_BYTES).contains(&(bytes as usize));
        !StatxFlags::from_bits_retain(told.stx_mask).contains(asked)
            || (fits(told.stx_dio_mem_align) && fits(told.stx_dio_offset_align))
    })
}

/// A file whose writes go past the page cache.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Direct(File);

#[cfg(target_os = "linux")]
impl FileHandle for Direct {
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.0.write_all_at(bytes, offset) {
            // Refused as such, before anything was written: the file system opens files so and
            // does not write them so, or wants larger blocks. From here on as any other file.
            Err(error) if is_unsupported(&error) => {
                tracing::warn!(%error, "a log is written through the page cache");
                let flags = rustix::fs::fcntl_getfl(&self.0)?;
                rustix::fs::fcntl_setfl(&self.0, flags - rustix::fs::OFlags::DIRECT)?;
                self.0.write_all_at(bytes, offset)
            }
            written => written,
        }
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.0.drop_cache()
    }
}

/// The lock of an open file ends with it.
impl LockGuard for File {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::super::AlignedBuffer;
    use super::*;

    /// On the disk of the machine, whatever file system that is.
    #[test]
    fn a_direct_write_that_is_refused_as_such_goes_through_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![0; 2 * BLOCK_BYTES]).unwrap();
        let file = Machine.open_direct(&path).unwrap();
        println!("blocks of {} bytes", file.block_bytes());
        let mut block = AlignedBuffer::new(BLOCK_BYTES);
        block.bytes_mut().fill(1);
        file.write_at(block.bytes_mut(), 0).unwrap();
        // Not at a block, as if the file system wanted larger ones.
        file.write_at(&[2; 5], 10).unwrap();
        file.write_at(block.bytes_mut(), BLOCK_BYTES as u64)
            .unwrap();
        file.sync().unwrap();
        let mut expected = vec![1; 2 * BLOCK_BYTES];
        expected[10..15].fill(2);
        assert_eq!(fs::read(&path).unwrap(), expected);
    }
}
