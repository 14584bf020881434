//! Waiting for somebody to end the program: a signal, or the end of standard input.

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// SIGINT and SIGTERM, registered before anything is started that they should end.
pub(crate) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    /// Takes both signals over from their default, which is to end the process at once.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn register() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind)
                .map_err(|error| Failure::stopped(format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
        })
    }

    /// Waits for either; returns its name.
    pub(crate) async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Waits until the other end of standard input is closed: the parent closed it, or has ended, in
/// whatever way.
pub(crate) async fn standard_input_closed() {
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 256];
    loop {
        match input.read(&mut ignored).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
