//! Waiting until a cluster can take writes.

use std::path::Path;
use std::time::Duration;

use kv_client::{ClientConfig, ClientError, KvClient};
use tokio::time::sleep;

use crate::commands::status::leader;
use crate::exit::Failure;

/// A key that is read to see whether a leader answers. It need not be there.
const PROBE_KEY: &[u8] = b"\0";

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// A cluster that takes writes.
pub(crate) struct Ready {
    /// A client of it.
    pub(crate) client: KvClient,
    /// Who leads.
    pub(crate) leader: u64,
    /// The addresses of its nodes.
    pub(crate) endpoints: Vec<String>,
}

/// Opens a client and waits as long as it takes.
///
/// # Errors
/// When the client's configuration cannot be used.
pub(crate) async fn wait_until_ready(config: &Path) -> Result<Ready, Failure> {
    let config = ClientConfig::load(config).map_err(ClientError::from)?;
    let addresses = config.endpoints.iter().map(|node| node.address.clone());
    let endpoints = addresses.collect();
    let client = KvClient::connect(config).await?;
    let leader = wait_for_leader(&client).await?;
    Ok(Ready {
        client,
        leader,
        endpoints,
    })
}

/// Waits until a linearizable read succeeds and says who leads. A leader answers one only after it
/// has committed an entry of its own term, so it can commit writes as well.
///
/// # Errors
/// When asking makes no sense, for example because the client was closed.
pub(crate) async fn wait_for_leader(client: &KvClient) -> Result<u64, Failure> {
    loop {
        match client.get(PROBE_KEY).await {
            Ok(_) => {
                if let Some(leader) = leader(&client.status().await?) {
                    return Ok(leader);
                }
            }
            Err(ClientError::Unavailable(_)) => {}
            Err(error) => return Err(error.into()),
        }
        sleep(PAUSE).await;
    }
}
