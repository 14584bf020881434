//! `flotilla transfer-leader`: another node leads.

use serde_json::json;

use crate::cli::TransferLeaderArgs;
use crate::commands::admin::{connect, refused_by_cluster};
use crate::exit::{Exit, Outcome};
use crate::output::Output;

/// Runs `flotilla transfer-leader`.
///
/// # Errors
/// When the node cannot lead or did not take over.
pub(crate) async fn run(args: &TransferLeaderArgs, output: &mut Output) -> Outcome {
    let (client, id) = (connect(&args.admin).await?, args.id);
    let transferred = client.transfer_leader(id).await;
    client.close().await;
    transferred.map_err(|error| {
        refused_by_cluster(&format!("cannot hand leadership to node {id}"), error)
    })?;
    output.line(|| json!({ "leader": id }), || format!("node {id} leads"))?;
    output.flush()?;
    Ok(Exit::Done)
}
