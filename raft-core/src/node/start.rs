//! What a node finds when it starts, put together from its log, its snapshots and its state
//! machine. A crash may have come between a snapshot that was received and the log that was to
//! follow it; that is made good here.

use crate::config::{Config, ConfigError};
use crate::entry::Entry;
use crate::error::StorageError;
use crate::log_store::{LoadedLog, LogStore};
use crate::membership::Membership;
use crate::protocol::State;
use crate::snapshot::{SnapshotDescriptor, SnapshotMeta};
use crate::types::{Index, LogId, NodeId, Term};

/// Why a node did not start. No task is left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot work.
    #[error("settings: {0}")]
    Config(#[from] ConfigError),
    /// The log store could not be read.
    #[error("log store: {0}")]
    Storage(#[from] StorageError),
    /// The state machine has what the log does not: the two do not belong together, or the log lost
    /// entries.
    #[error(
        "the state machine has applied {applied}, which is not in the log, whose end is {last}"
    )]
    Ahead {
        /// What the machine says.
        applied: LogId,
        /// The end of the log.
        last: LogId,
    },
    /// The beginning of the log was dropped, and the snapshot that stood for it is not there.
    #[error("the log begins behind {start}, but {}", found(.newest))]
    MissingSnapshot {
        /// The last entry that was dropped.
        start: LogId,
        /// The end of the newest snapshot, where there is one.
        newest: Option<LogId>,
    },
}

fn found(newest: &Option<LogId>) -> String {
    newest.map_or_else(
        || "there is no snapshot".to_owned(),
        |last| format!("the newest snapshot ends at {last}"),
    )
}

/// See the file.
#[derive(Debug)]
pub(crate) struct Found {
    /// The log, which begins no later than `snapshot` ends.
    pub(crate) loaded: LoadedLog,
    /// The newest snapshot.
    pub(crate) snapshot: Option<SnapshotDescriptor>,
    /// What the state machine has, and the membership as of it. Where the machine has less than the
    /// newest snapshot, it is about to be restored, and that membership is of no use. Where the
    /// machine is ahead of a log that lost entries, this is the end of the log.
    pub(crate) applied: SnapshotMeta,
    /// What the machine has in truth.
    pub(crate) machine: LogId,
}

/// Loads the log, and makes sure that it goes on where the newest snapshot ends.
pub(crate) async fn find(
    config: &Config,
    store: &mut dyn LogStore,
    applied: LogId,
) -> Result<Found, StartError> {
    let mut loaded = store.load().await?;
    let snapshot = store.snapshots().latest();
    let newest = snapshot.as_ref().map(|snapshot| snapshot.meta.last);
    let start = loaded.start;
    if newest.map_or(Index(0), |last| last.index) < start.index {
        return Err(StartError::MissingSnapshot { start, newest });
    }
    let missing = newest.filter(|last| !holds(&loaded, *last));
    if let Some(last) = missing {
        tracing::warn!(%last, log = %loaded.last, "the log goes on behind the newest snapshot");
        store.reset(last).await?;
        loaded = store.load().await?;
    }
    let machine = applied;
    let is_ahead = applied.index > loaded.last.index && loaded.refill_to.is_some();
    let applied = if is_ahead { loaded.last } else { applied };
    if applied.index >= loaded.start.index && !holds(&loaded, applied) {
        let last = loaded.last;
        return Err(StartError::Ahead { applied, last });
    }
    let membership = membership_at(config, &loaded, snapshot.as_ref(), applied.index)?;
    let last = applied;
    Ok(Found {
        loaded,
        snapshot,
        applied: SnapshotMeta { last, membership },
        machine,
    })
}

/// A node whose log lost entries says so, and what will come of it.
pub(crate) fn tell_of_damage(config: &Config, state: &State) {
    let Some(to) = state.refilling else {
        return;
    };
    let last = state.last;
    tracing::warn!(
        %last,
        %to,
        "synced entries of the log are lost; until it has been refilled from the leader this node \
         does not vote, lead or acknowledge"
    );
    if is_alone(config.id, &state.membership) {
        tracing::error!(
            %to,
            "this node is the only voter, so nobody can refill its log and nobody will lead; \
             docs/operations.md says what to do about damaged data"
        );
    }
}

/// Whether nobody but this node has a vote.
fn is_alone(id: NodeId, members: &Membership) -> bool {
    let others = members.voters().filter(|voter| *voter != id);
    !members.is_empty() && others.count() == 0
}

/// Whether the log has an entry with this id, or begins behind it.
fn holds(loaded: &LoadedLog, id: LogId) -> bool {
    if id == loaded.start {
        return true;
    }
    let runs = loaded.term_runs.iter().rev();
    let term: Option<Term> = runs
        .skip_while(|(_, first)| *first > id.index)
        .map(|(term, _)| *term)
        .next();
    id.index > loaded.start.index && id.index <= loaded.last.index && term == Some(id.term)
}

/// The membership as of an entry that is not before the newest snapshot. The log wins over the
/// snapshot, and both over the settings.
fn membership_at(
    config: &Config,
    loaded: &LoadedLog,
    snapshot: Option<&SnapshotDescriptor>,
    index: Index,
) -> Result<Membership, StartError> {
    let (base, members) = match snapshot {
        Some(snapshot) => (snapshot.meta.last.index, &snapshot.meta.membership),
        None => (Index(0), &config.members),
    };
    let within = |entry: &&Entry| base < entry.index() && entry.index() <= index;
    let Some(entry) = loaded.memberships.iter().rfind(within) else {
        return Ok(members.clone());
    };
    Membership::decode(entry.payload()).map_err(|error| {
        let index = entry.index();
        StartError::Config(ConfigError::Membership { index, error })
    })
}
