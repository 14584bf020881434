//! The mark in the directory of a node that was removed from its cluster. Such a node is never
//! started again: nobody would talk to it. A node that takes its place has another incarnation, and
//! the mark does not count for it.

use std::io;
use std::path::{Path, PathBuf};

use kv_service::config::NodeConfig;

use crate::exit::Failure;

/// The name of the mark, beside `node.toml`.
const MARK: &str = "removed";

fn mark_of(config: &Path) -> PathBuf {
    config.with_file_name(MARK)
}

/// Marks the node as removed, in the directory of its configuration.
///
/// # Errors
/// When the mark cannot be written.
pub(crate) fn mark(node: &NodeConfig) -> io::Result<()> {
    let text = format!("{}\n", node.incarnation().0);
    std::fs::write(mark_of(&node.path), text)
}

/// Whether the node was removed.
pub(crate) fn is_marked(node: &NodeConfig) -> bool {
    let found = std::fs::read_to_string(mark_of(&node.path)).unwrap_or_default();
    found.trim().parse() == Ok(node.incarnation().0)
}

/// What is said where such a node is to be started, or finds out while it runs.
pub(crate) fn failure(node: &NodeConfig) -> Failure {
    let dir = node.path.parent().unwrap_or(Path::new("."));
    Failure::usage(format!(
        "node {} was removed from the cluster and does not run any more; delete {}, and let it \
         join under a new id with `flotilla member add` where it is wanted again",
        node.id,
        dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use kv_service::init::{ClusterPlan, make_cluster};

    use super::*;

    #[test]
    fn the_mark_is_of_one_incarnation() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let plan = ClusterPlan::local(dir.path(), 2, 7400).expect("a plan that works");
        let nodes = make_cluster(&plan).expect("made").nodes;
        assert!(!is_marked(&nodes[0]));
        mark(&nodes[0]).expect("written");
        assert!(is_marked(&nodes[0]) && !is_marked(&nodes[1]));
        assert!(
            failure(&nodes[0])
                .line()
                .is_some_and(|line| line.contains("node 1 was removed"))
        );
        // The mark of a former node of the same id.
        std::fs::copy(mark_of(&nodes[0].path), mark_of(&nodes[1].path)).expect("copied");
        assert!(!is_marked(&nodes[1]));
    }
}
