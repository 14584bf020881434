//! Which cluster to run: the one that is in the directory, or a new one. What is asked for must
//! agree with what is there.

use std::fs::{File, TryLockError};
use std::path::Path;

use kv_service::config::StorageKind;
use kv_service::init::{ClusterLayout, ClusterPlan, load, load_or_make};

use crate::cli::ClusterArgs;
use crate::exit::Failure;

/// Nodes of a new cluster.
const NODES_DEFAULT: usize = 3;

/// Node i of a new cluster listens on this port + i.
const BASE_PORT_DEFAULT: u16 = 7400;

/// A cluster that is ready to be started, and that nobody else starts.
pub(crate) struct Prepared {
    /// What is on the disk.
    pub(crate) layout: ClusterLayout,
    /// Whether what was acknowledged is still there after the processes ended.
    pub(crate) is_durable: bool,
    _lock: File,
}

/// Finds the cluster, or makes it.
///
/// # Errors
/// When what is there differs from what is asked for, is not whole, or is in use.
pub(crate) fn prepare(args: &ClusterArgs) -> Result<Prepared, Failure> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir)
        .map_err(|error| Failure::usage(format!("cannot make {}: {error}", dir.display())))?;
    let lock = lock(dir)?;
    let found = load(dir)?;
    let plan = plan(args, found.as_ref())?;
    let layout = load_or_make(&plan)?;
    Ok(Prepared {
        layout,
        is_durable: plan.storage.is_durable(),
        _lock: lock,
    })
}

/// What was given on the command line; where nothing was, what is there; else the defaults.
fn plan(args: &ClusterArgs, found: Option<&ClusterLayout>) -> Result<ClusterPlan, Failure> {
    let first = found.and_then(|layout| layout.nodes.first());
    let nodes = match (args.nodes, found) {
        // More than fit are refused by the plan, with the limit.
        (Some(nodes), _) => usize::try_from(nodes).unwrap_or(usize::MAX),
        (None, Some(layout)) => layout.nodes.len(),
        (None, None) => NODES_DEFAULT,
    };
    let base_port = args.base_port.or_else(|| {
        let node = first?;
        node.listen
            .port()
            .checked_sub(u16::try_from(node.id.0).ok()?)
    });
    let base_port = base_port.unwrap_or(BASE_PORT_DEFAULT);
    let mut plan = ClusterPlan::local(&args.dir, nodes, base_port)?;
    plan.storage = match (args.storage, first) {
        (Some(storage), _) => storage.into(),
        (None, Some(node)) => node.storage,
        (None, None) => plan.storage,
    };
    if plan.storage == StorageKind::Rocksdb && !cfg!(feature = "rocksdb") {
        return Err(Failure::usage(
            "storage rocksdb is not in this program: build it with `--features rocksdb`, or choose \
             storage file",
        ));
    }
    plan.transport = args.transport.into();
    Ok(plan)
}

/// One supervisor at a time: two would start every node twice.
fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join("supervisor.lock");
    let failed = |error| Failure::usage(format!("cannot lock {}: {error}", path.display()));
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::usage(format!(
            "another `flotilla cluster` runs in {}; stop it, or choose another --dir",
            dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
