//! What the commands about snapshots share: how a backup is shown, and where files are used.

use kv_service::backup::Backup;
use serde_json::{Map, Value, json};

use crate::commands::status::size;
use crate::exit::Failure;

/// Files block, so they are used where that hurts nobody.
///
/// # Errors
/// When the work panics.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::stopped(format!("a task panicked: {error}")))
}

/// What a file holds, for programs.
pub(super) fn object(file: &str, backup: &Backup) -> Map<String, Value> {
    let (descriptor, last) = (&backup.descriptor, backup.descriptor.meta.last);
    let object = json!({
        "file": file,
        "cluster_id": backup.cluster.to_string(),
        "term": last.term.0,
        "index": last.index.0,
        "parts": descriptor.parts,
        "bytes": descriptor.bytes,
        "hash": descriptor.hash.to_string(),
    });
    match object {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// The same for people.
pub(super) fn words(backup: &Backup) -> String {
    let descriptor = &backup.descriptor;
    format!(
        "cluster {} up to entry {}, {}, hash {}",
        backup.cluster,
        descriptor.meta.last.index,
        size(descriptor.bytes),
        descriptor.hash
    )
}
