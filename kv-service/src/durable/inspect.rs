//! Reads the whole state of a stopped node as the machine would, and changes nothing.

use std::path::Path;

use raft_core::StorageError;
use raft_storage::WalOwner;
use raft_storage::inspect::{StateReport, inspect_state};
use raft_storage::rocks_state::StateOptions;

use super::load::{check_keys, load};
use crate::sessions::SessionLimits;
use crate::state_facts::StateFacts;
use crate::store::Retention;

/// What is in `dir`, and what it means where it can be read. Blocks its thread.
///
/// # Errors
/// Where the directory cannot be listed.
pub(crate) fn inspect(
    dir: &Path,
    owner: &WalOwner,
) -> Result<(StateReport, Option<StateFacts>), StorageError> {
    let (mut report, view) = inspect_state(dir, owner, &StateOptions::default())?;
    let (Some(view), Some(applied)) = (view, report.applied) else {
        return Ok((report, None));
    };
    let (retention, sessions) = (Retention::default(), SessionLimits::default());
    let read = load(&view, applied, retention, sessions).and_then(|state| {
        check_keys(&view, &state)?;
        Ok(StateFacts {
            keys: state.store.live_len(),
            revision: state.store.revision(),
            sessions: state.sessions.len() as u64,
        })
    });
    match read {
        Ok(facts) => Ok((report, Some(facts))),
        Err(error) => {
            report.add(error, dir);
            Ok((report, None))
        }
    }
}
