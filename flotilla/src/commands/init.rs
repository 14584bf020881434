//! `flotilla init`: the directories of a cluster on several machines.

use kv_service::init::{ClusterPlan, make_cluster};
use serde_json::json;

use crate::cli::InitArgs;
use crate::cluster::plan::refuse_foreign;
use crate::exit::{Exit, Outcome};
use crate::output::Output;

/// Runs `flotilla init`.
///
/// # Errors
/// When the plan cannot work or the directory cannot be used.
pub(crate) fn run(args: &InitArgs, output: &mut Output) -> Outcome {
    refuse_foreign(&args.dir)?;
    let mut plan = ClusterPlan::hosts(&args.dir, &args.nodes)?;
    plan.storage = args.storage.into();
    plan.state = args.state.into();
    let layout = make_cluster(&plan)?;
    let cluster = layout.cluster.to_string();
    let shown = args.dir.display();
    output.line(
        || {
            json!({
                "cluster_id": cluster, "dir": shown.to_string(), "nodes": args.nodes.len(),
            })
        },
        || {
            format!(
                "made cluster {cluster} in {shown}\n\
                 copy {shown}/node-<i> to host i and run there: \
                 flotilla serve --config node-<i>/node.toml\n\
                 clients need {shown}/client.toml, client.pem, client.key and ca.pem; \
                 administrators admin.toml, admin.pem and admin.key as well; \
                 keep ca.key away from all of them"
            )
        },
    )?;
    output.flush()?;
    Ok(Exit::Done)
}
