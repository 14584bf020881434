//! Opens the state machine that a configuration names.

use raft_core::StateMachine;

use crate::config::{NodeConfig, StateKind};
use crate::identity::DataDirectory;
use crate::start_error::StartError;
use crate::state_machine::KvStateMachine;

/// A machine with what it has kept: nothing, where it is in memory.
pub(super) async fn open(
    directory: &DataDirectory,
    config: &NodeConfig,
) -> Result<Box<dyn StateMachine>, StartError> {
    match config.state {
        StateKind::Memory => Ok(Box::new(in_memory(directory))),
        StateKind::Rocksdb => open_rocksdb(directory, config).await,
    }
}

#[cfg(feature = "rocksdb")]
fn in_memory(directory: &DataDirectory) -> KvStateMachine {
    KvStateMachine::new().unpacking_at(directory.scratch_path())
}

#[cfg(not(feature = "rocksdb"))]
fn in_memory(_directory: &DataDirectory) -> KvStateMachine {
    KvStateMachine::new()
}

#[cfg(feature = "rocksdb")]
async fn open_rocksdb(
    directory: &DataDirectory,
    config: &NodeConfig,
) -> Result<Box<dyn StateMachine>, StartError> {
    use crate::durable::DurableStateMachine;
    use raft_storage::rocks_state::StateOptions;

    let (path, owner) = (
        directory.state_path(),
        super::log::as_storage_owner(directory.owner()),
    );
    let options = StateOptions {
        cache_bytes: config.state_cache_bytes_max,
    };
    // The history and the sessions are read; the runtime's threads have other nodes to serve.
    let opened = tokio::task::spawn_blocking(move || {
        let started = std::time::Instant::now();
        let machine = DurableStateMachine::open(&path, owner, options)?;
        let applied = machine.last_applied();
        let open_ms = started.elapsed().as_millis();
        tracing::info!(path = %path.display(), %applied, open_ms, "opened the state");
        Ok(machine)
    });
    let opened = opened.await;
    let opened = opened.map_err(|error| StartError::Panicked(error.to_string()))?;
    Ok(Box::new(opened.map_err(StartError::State)?))
}

#[cfg(not(feature = "rocksdb"))]
async fn open_rocksdb(
    _directory: &DataDirectory,
    _config: &NodeConfig,
) -> Result<Box<dyn StateMachine>, StartError> {
    Err(StartError::StateWithoutRocksdb)
}
