//! `flotilla snapshot restore`: a new cluster that begins with what a file holds.

use kv_service::init::{ClusterPlan, restore_cluster};
use serde_json::json;

use super::shown::blocking;
use crate::cli::SnapshotRestoreArgs;
use crate::cluster::plan::{BASE_PORT_DEFAULT, refuse_foreign};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;

/// Runs `flotilla snapshot restore`.
///
/// # Errors
/// When the file is not whole, the plan cannot work, or the directory cannot be used. Then no
/// cluster is made.
pub(super) async fn run(args: &SnapshotRestoreArgs, output: &mut Output) -> Outcome {
    refuse_foreign(&args.dir)?;
    let plan = plan(args)?;
    let file = args.file.clone();
    let layout = blocking(move || restore_cluster(&plan, &file)).await??;
    let (cluster, nodes) = (layout.cluster.to_string(), layout.nodes.len());
    let (file, dir) = (args.file.display(), args.dir.display());
    let next = if is_local(args) {
        format!("start it: flotilla cluster --dir {dir}")
    } else {
        format!(
            "copy {dir}/node-<i> to host i and run there: \
             flotilla serve --config node-<i>/node.toml"
        )
    };
    output.line(
        || {
            json!({
                "file": file.to_string(), "cluster_id": cluster, "dir": dir.to_string(),
                "nodes": nodes,
            })
        },
        || format!("made cluster {cluster} in {dir}, which begins with {file}\n{next}"),
    )?;
    output.flush()?;
    Ok(Exit::Done)
}

/// Whether a number of nodes was given, and no addresses.
fn is_local(args: &SnapshotRestoreArgs) -> bool {
    matches!(args.nodes.as_slice(), [count] if !count.contains(':'))
}

fn plan(args: &SnapshotRestoreArgs) -> Result<ClusterPlan, Failure> {
    let mut plan = if is_local(args) {
        let count = args.nodes.first().map_or("", String::as_str);
        let count = count.parse().map_err(|_| {
            Failure::usage(format!(
                "--nodes is {count:?}, but must be how many, or host:port,host:port,..."
            ))
        })?;
        let base_port = args.base_port.unwrap_or(BASE_PORT_DEFAULT);
        ClusterPlan::local(&args.dir, count, base_port)?
    } else if args.base_port.is_some() {
        return Err(Failure::usage(
            "--base-port is for nodes on this machine; leave it out where --nodes names addresses",
        ));
    } else {
        ClusterPlan::hosts(&args.dir, &args.nodes)?
    };
    plan.storage = args.storage.into();
    plan.state = args.state.into();
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, SnapshotCommand};

    fn plan_for(options: &str) -> Result<ClusterPlan, Failure> {
        let line = format!("flotilla snapshot restore file --dir d {options}");
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("a command line");
        let Command::Snapshot(snapshot) = cli.command else {
            panic!("another command");
        };
        let SnapshotCommand::Restore(args) = snapshot.command else {
            panic!("another command");
        };
        plan(&args)
    }

    #[test]
    fn nodes_are_a_number_or_addresses() {
        let addresses = |options: &str| -> Vec<String> {
            let nodes = plan_for(options).expect("a plan").nodes;
            nodes.into_iter().map(|node| node.advertise).collect()
        };
        let here = ["127.0.0.1:7401", "127.0.0.1:7402", "127.0.0.1:7403"];
        assert_eq!(addresses(""), here);
        assert_eq!(addresses("--nodes 1 --base-port 9000"), ["127.0.0.1:9001"]);
        assert_eq!(addresses("--nodes a:1,b:2"), ["a:1", "b:2"]);
        assert_eq!(addresses("--nodes a:1"), ["a:1"]);
        for wrong in [
            "--nodes some",
            "--nodes a:1 --base-port 9000",
            "--nodes a:1,3",
        ] {
            let line = plan_for(wrong).err().and_then(|failure| failure.line());
            assert!(
                line.is_some_and(|line| line.contains("--") || line.contains("host")),
                "{wrong}"
            );
        }
    }
}
