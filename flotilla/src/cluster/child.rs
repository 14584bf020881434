//! One node as a child process: its command line, its log, its pid file, and how it is ended.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::restart::Ending;

/// A log that has grown to this size is put aside when its node is started, in place of the one
/// that was put aside before.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// How much of the end of a log is searched for the reason of a node's end.
const LOG_TAIL_BYTES: u64 = 8 << 10;

/// How long a node may take to end after it was asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// The exit code that is taken where the system tells none.
const NO_CODE: i32 = -1;

/// What is needed to start a node.
#[derive(Clone, Debug)]
pub(crate) struct NodeCommand {
    /// Its id.
    pub(crate) id: u64,
    /// The incarnation that its configuration names.
    pub(crate) incarnation: u64,
    /// The program.
    pub(crate) program: PathBuf,
    /// Its configuration; log and pid file are put beside it.
    pub(crate) config: PathBuf,
}

impl NodeCommand {
    fn beside(&self, name: &str) -> PathBuf {
        self.config.with_file_name(name)
    }

    /// The last error that the node told, from its log.
    pub(crate) fn last_words(&self) -> Option<String> {
        let text = tail(&self.beside("log")).ok()?;
        let told = |line: &str| line.strip_prefix("flotilla: ").map(str::to_owned);
        text.lines().rev().find_map(told)
    }

    /// Starts it. It ends when its standard input is closed, so also when this process ends in
    /// whatever way. In a process group of its own, so that a signal from the keyboard reaches the
    /// supervisor alone.
    ///
    /// # Errors
    /// When the log cannot be opened or the program not be started.
    pub(crate) fn start(&self) -> io::Result<NodeProcess> {
        let log = open_log(&self.beside("log"))?;
        let mut process = Command::new(&self.program)
            .arg("serve")
            .arg("--config")
            .arg(&self.config)
            .arg("--stop-with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid_file = PidFile::write(self.beside("pid"), process.id().unwrap_or(0))?;
        let pipe = process.stdin.take();
        Ok(NodeProcess {
            process,
            pipe,
            _pid_file: pid_file,
        })
    }
}

/// A node that runs. Dropped, it is killed.
pub(crate) struct NodeProcess {
    process: Child,
    pipe: Option<ChildStdin>,
    _pid_file: PidFile,
}

impl NodeProcess {
    /// Its process id, as long as it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits until it has ended. Can be given up and called again.
    pub(crate) async fn ended(&mut self) -> Ending {
        self.process
            .wait()
            .await
            .map_or(Ending::Code(NO_CODE), ending)
    }

    /// Ends it without a warning (SIGKILL).
    pub(crate) fn kill(&mut self) {
        // Fails only where it has ended already.
        let _ = self.process.start_kill();
    }

    /// Asks it to end, and ends it where it does not.
    pub(crate) async fn stop(mut self) -> Ending {
        drop(self.pipe.take());
        if let Ok(ending) = timeout(STOP_PATIENCE, self.ended()).await {
            return ending;
        }
        self.kill();
        self.ended().await
    }
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Code(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::Code(NO_CODE),
    }
}

/// Tells others which process a node is; gone when the node is.
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(path: PathBuf, pid: u32) -> io::Result<Self> {
        std::fs::write(&path, format!("{pid}\n"))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // What is left behind names a process that is gone, and is replaced at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens a log to write behind its end.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    let is_full = path
        .metadata()
        .is_ok_and(|found| found.len() >= LOG_BYTES_MAX);
    if is_full {
        std::fs::rename(path, path.with_extension("old"))?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_last_error_of_the_program() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let command = NodeCommand {
            id: 1,
            incarnation: 1,
            program: PathBuf::new(),
            config: dir.path().join("node.toml"),
        };
        assert_eq!(command.last_words(), None);
        let filler = "INFO x\n".repeat(10_000);
        let text = format!("flotilla: first\n{filler}flotilla: second\nINFO done\n");
        std::fs::write(dir.path().join("log"), text).expect("written");
        assert_eq!(command.last_words().as_deref(), Some("second"));
    }

    #[test]
    fn a_log_that_is_full_is_put_aside() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        drop(open_log(&path).expect("opened"));
        let full = File::options().write(true).open(&path).expect("opened");
        full.set_len(LOG_BYTES_MAX).expect("grown");
        drop(open_log(&path).expect("opened"));
        assert_eq!(path.metadata().expect("there").len(), 0);
        let old = dir.path().join("log.old").metadata().expect("there");
        assert_eq!(old.len(), LOG_BYTES_MAX);
    }
}
