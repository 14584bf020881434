//! Which cluster to run: the one that is in the directory, or a new one. What is asked for must
//! agree with what is there.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use kv_service::config::{NodeConfig, StateKind, StorageKind};
use kv_service::init::{ClusterLayout, ClusterPlan, NodePlan, load, load_or_make};

use crate::cli::ClusterArgs;
use crate::exit::Failure;
use crate::removed;

/// Nodes of a new cluster.
const NODES_DEFAULT: usize = 3;

/// Node i of a new cluster listens on this port + i.
pub(crate) const BASE_PORT_DEFAULT: u16 = 7400;

/// What this program leaves in a directory before a cluster is whole.
const OURS: [&str; 3] = [LOCK, ".making", "lost+found"];

/// Where one of these is, a cluster is or was, and it is told what of it is missing.
const OF_A_CLUSTER: [&str; 5] = [
    "client.toml",
    "client.pem",
    "client.key",
    "ca.pem",
    "ca.key",
];

/// Keeps a second supervisor out.
const LOCK: &str = "supervisor.lock";

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
/// When what is there differs from what is asked for, is not whole, is in use, or is something
/// else than a cluster.
pub(crate) fn prepare(args: &ClusterArgs) -> Result<Prepared, Failure> {
    let dir = &args.dir;
    refuse_foreign(dir)?;
    std::fs::create_dir_all(dir)
        .map_err(|error| Failure::usage(format!("cannot make {}: {error}", dir.display())))?;
    let lock = lock(dir)?;
    let found = load(dir)?;
    if let Some(layout) = &found {
        refuse_remote(layout)?;
    }
    let plan = match &found {
        Some(layout) => plan_of(args, layout)?,
        None => new_plan(args)?,
    };
    if plan.storage == StorageKind::Rocksdb && !cfg!(feature = "rocksdb") {
        return Err(Failure::usage(
            "storage rocksdb is not in this program: build it with `--features rocksdb`, or choose \
             storage file",
        ));
    }
    if plan.state == StateKind::Rocksdb && !cfg!(feature = "rocksdb") {
        return Err(Failure::usage(
            "state rocksdb is not in this program: build it with `--features rocksdb`, or choose \
             state memory",
        ));
    }
    let mut layout = load_or_make(&plan)?;
    let is_durable = plan.storage.is_durable();
    // Nodes in memory begin anew, all of them, and with them their membership.
    layout
        .nodes
        .retain(|node| is_local(node) && !(is_durable && removed::is_marked(node)));
    if layout.nodes.is_empty() {
        return Err(Failure::usage(format!(
            "all nodes in {} were removed from their cluster; delete the directory, or choose \
             another --dir",
            dir.display()
        )));
    }
    Ok(Prepared {
        layout,
        is_durable,
        _lock: lock,
    })
}

/// Refuses a directory that has something in it, but no cluster: it belongs to somebody else.
///
/// # Errors
/// When it does, or cannot be read.
pub(crate) fn refuse_foreign(dir: &Path) -> Result<(), Failure> {
    let listed = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        listed => listed.and_then(Iterator::collect::<Result<Vec<_>, _>>),
    };
    let entries = listed
        .map_err(|error| Failure::usage(format!("cannot list {}: {error}", dir.display())))?;
    let names = entries.iter().map(std::fs::DirEntry::file_name);
    let mut strangers: Vec<_> = names
        .filter(|name| !OURS.iter().any(|it| name == it))
        .collect();
    strangers.sort();
    let is_cluster = strangers.iter().any(|name| {
        let name = name.to_string_lossy();
        OF_A_CLUSTER.contains(&&*name) || name.starts_with("node-")
    });
    match strangers.first() {
        Some(name) if !is_cluster => Err(Failure::usage(format!(
            "{} has no cluster, but is not empty ({}); choose an empty directory, or a new one",
            dir.display(),
            name.display()
        ))),
        _ => Ok(()),
    }
}

/// Whether others reach the node on this machine only. One that is reached elsewhere was made here
/// to be copied there, and must not run at two places.
pub(crate) fn is_local(node: &NodeConfig) -> bool {
    let host = node.advertise.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    host == "localhost" || host.parse().is_ok_and(is_loopback)
}

/// A cluster of other machines is not run on this one.
fn refuse_remote(layout: &ClusterLayout) -> Result<(), Failure> {
    match layout.nodes.first() {
        Some(node) if !layout.nodes.iter().any(is_local) => Err(Failure::usage(format!(
            "the cluster in {} is of other machines: node {} is at {}; copy each node-<i> to its \
             machine and run `flotilla serve --config node-<i>/node.toml` there",
            layout.dir.display(),
            node.id,
            node.advertise
        ))),
        _ => Ok(()),
    }
}

/// What was given on the command line; where nothing was, the defaults.
fn new_plan(args: &ClusterArgs) -> Result<ClusterPlan, Failure> {
    // More than fit are refused by the plan, with the limit.
    let nodes = args.nodes.map_or(NODES_DEFAULT, |nodes| {
        usize::try_from(nodes).unwrap_or(usize::MAX)
    });
    let base_port = args.base_port.unwrap_or(BASE_PORT_DEFAULT);
    let mut plan = ClusterPlan::local(&args.dir, nodes, base_port)?;
    plan.storage = args.storage.map_or(plan.storage, Into::into);
    plan.state = args.state.map_or(plan.state, Into::into);
    plan.transport = args.transport.into();
    Ok(plan)
}

/// The plan that comes to what is there. Nothing that is asked for may differ from it.
fn plan_of(args: &ClusterArgs, found: &ClusterLayout) -> Result<ClusterPlan, Failure> {
    let different = |what: &str, found: String, asked: String| {
        let dir = args.dir.display();
        Err(Failure::usage(format!(
            "the cluster in {dir} has {what} {found}, not {asked}; leave the option out, or choose \
             another --dir"
        )))
    };
    let Some(first) = found.nodes.first() else {
        return new_plan(args);
    };
    // A cluster that has grown or shrunk may be started as it was made.
    let made = found.nodes.iter().map(|node| node.members.members().len());
    let (made, now) = (made.max().unwrap_or(0), found.nodes.len());
    if let Some(asked) = args.nodes
        && ![made as u64, now as u64].contains(&asked)
    {
        return different("nodes:", now.to_string(), asked.to_string());
    }
    let base_port = u64::from(first.listen.port()).checked_sub(first.id.0);
    if let Some(asked) = args.base_port
        && base_port != Some(u64::from(asked))
    {
        let found = base_port.map_or("none".to_owned(), |port| port.to_string());
        return different("base port", found, asked.to_string());
    }
    if let Some(asked) = args.storage.map(StorageKind::from)
        && asked != first.storage
    {
        return different(
            "storage",
            first.storage.name().to_owned(),
            asked.name().to_owned(),
        );
    }
    if let Some(asked) = args.state.map(StateKind::from)
        && asked != first.state
    {
        let (found, asked) = (first.state.name(), asked.name());
        return different("state", found.to_owned(), asked.to_owned());
    }
    let node = |node: &NodeConfig| NodePlan {
        id: node.id.0,
        listen: node.listen,
        advertise: node.advertise.clone(),
    };
    Ok(ClusterPlan {
        dir: args.dir.clone(),
        nodes: found.nodes.iter().map(node).collect(),
        storage: first.storage,
        state: first.state,
        transport: args.transport.into(),
    })
}

/// One supervisor at a time: two would start every node twice.
fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join(LOCK);
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

/// Whether a supervisor runs the cluster in this directory now.
pub(crate) fn is_supervised(dir: &Path) -> bool {
    File::open(dir.join(LOCK))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Transport;

    fn args(dir: &Path) -> ClusterArgs {
        ClusterArgs {
            nodes: None,
            dir: dir.to_owned(),
            base_port: None,
            storage: None,
            state: None,
            transport: Transport::Quic,
            no_restart: false,
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("thesis.txt"), "").expect("written");
        let failure = prepare(&args(dir.path())).err().expect("refused");
        let line = failure.line().expect("a line");
        assert!(
            line.contains("thesis.txt") && line.contains("empty"),
            "{line}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
        // What a crash at the first start left behind is no stranger.
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join(".making")).expect("made");
        prepare(&args(dir.path())).map(drop).expect("made");
    }

    #[test]
    fn a_cluster_of_other_machines_is_not_run_here() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let hosts = [
            "127.0.0.1:7400",
            "localhost:7401",
            "[::1]:7402",
            "db1.example:7403",
        ];
        let plan = ClusterPlan::hosts(dir.path(), &hosts.map(str::to_owned)).expect("a plan");
        let nodes = kv_service::init::make_cluster(&plan).expect("made").nodes;
        let local: Vec<bool> = nodes.iter().map(is_local).collect();
        assert_eq!(local, [true, true, true, false]);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let plan = ClusterPlan::hosts(dir.path(), &[hosts[3].to_owned()]).expect("a plan");
        kv_service::init::make_cluster(&plan).expect("made");
        let line = prepare(&args(dir.path()))
            .err()
            .and_then(|failure| failure.line());
        assert!(line.is_some_and(|line| line.contains("db1.example:7403")));
    }

    #[test]
    fn a_cluster_that_has_shrunk_is_found_with_who_is_left() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut args = args(dir.path());
        let made = prepare(&args).expect("made");
        removed::mark(&made.layout.nodes[0]).expect("marked");
        drop(made);
        // By its old number and by its new one; not by any other.
        for (asked, is_there) in [(None, true), (Some(3), true), (Some(5), false)] {
            args.nodes = asked;
            let found = prepare(&args).map(|found| found.layout.nodes.len());
            assert_eq!(found.ok(), is_there.then_some(2), "{asked:?}");
        }
        args.nodes = None;
        args.base_port = Some(9000);
        let line = prepare(&args).err().and_then(|failure| failure.line());
        assert!(line.is_some_and(|line| line.contains("7400") && line.contains("9000")));
    }
}
