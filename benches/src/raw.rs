//! What the disk can do at best: one file of a segment's length, written full once and then over
//! and over again, one write and one sync for each batch.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use tokio::sync::oneshot;

/// Bytes of the file: as a segment of the file log has by default.
const FILE_BYTES: u64 = 64 << 20;

/// A recycled file.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    at: u64,
}

impl RawFile {
    /// Makes a file in `directory` whose blocks all were written and synced.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create(directory: &Path) -> io::Result<Self> {
        let path = directory.join("raw");
        let file = File::options().write(true).create_new(true).open(path)?;
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    /// Writes a batch behind the last one, or at the front again, and makes it durable.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.at + batch.len() as u64 > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(batch, self.at)?;
        self.at += batch.len() as u64;
        self.file.sync_data()
    }
}

/// The same behind a thread of its own, as any store has it whose caller is a task: what it costs
/// to hand a batch over and to be woken when it is durable.
#[derive(Debug)]
pub struct RawThread {
    jobs: Option<SyncSender<(Bytes, oneshot::Sender<io::Result<()>>)>>,
    thread: Option<JoinHandle<()>>,
}

impl RawThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn start(mut file: RawFile) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<(Bytes, oneshot::Sender<_>)>(1);
        let thread = thread::Builder::new()
            .name("raw-writer".to_owned())
            .spawn(move || {
                for (batch, done) in queue {
                    // Whoever asked waits for it.
                    drop(done.send(file.write(&batch)));
                }
            })?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Writes a batch and makes it durable.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn write(&mut self, batch: Bytes) -> io::Result<()> {
        let (done, outcome) = oneshot::channel();
        if let Some(jobs) = &self.jobs {
            drop(jobs.try_send((batch, done)));
        }
        outcome
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

impl Drop for RawThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
