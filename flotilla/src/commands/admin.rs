//! What the commands share that operate a cluster: the administrator's connection, and how refusals
//! are told.

use std::path::Path;

use kv_client::{ClientConfig, ClientError, KvClient};

use crate::cli::AdminArgs;
use crate::exit::{Exit, Failure};

/// Opens a client as the administrator's configuration says.
///
/// # Errors
/// When the configuration cannot be read or used.
pub(crate) async fn connect(args: &AdminArgs) -> Result<KvClient, Failure> {
    let path = &args.config;
    if !path.exists() {
        return Err(Failure::usage(format!(
            "no administrator's configuration at {}: name the admin.toml that `flotilla cluster` \
             or `flotilla init` made, with -c or FLOTILLA_ADMIN_CONFIG",
            path.display()
        )));
    }
    let config = ClientConfig::load(path).map_err(ClientError::from)?;
    Ok(KvClient::connect(config).await?)
}

/// Where the cluster's files are: beside the administrator's configuration.
pub(crate) fn directory(args: &AdminArgs) -> &Path {
    match args.config.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Puts what was tried in front of what the cluster said about it.
pub(crate) fn refused_by_cluster(what: &str, error: ClientError) -> Failure {
    let exit = Exit::from_code(error.exit_code());
    Failure::new(exit, format!("{what}: {error}"))
}
