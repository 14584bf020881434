//! The client side of a node: the one accept loop of its endpoint, and the connections of its
//! clients. Links of peers are passed on to the transport.

use std::sync::Arc;

use quic_link::{Endpoint, Link, Protocol};
use tokio::task::{JoinError, JoinSet};

use crate::config::ClientLimits;
use crate::handler::Service;
use crate::stream::{self, ConnectionBudget, StreamError};

/// A link was closed because its client broke the rules of the protocol.
pub const CLOSE_VIOLATION: u32 = 2;

/// A link was closed because the node has as many as it may.
pub const CLOSE_BUSY: u32 = 3;

/// A link was closed because of a bug of ours.
pub const CLOSE_INTERNAL: u32 = 4;

/// Takes links until the endpoint is closed. Dropping the future ends all connections of clients.
pub(crate) async fn accept_loop(
    endpoint: Endpoint,
    service: Arc<Service>,
    limits: ClientLimits,
    on_peer: impl Fn(Link),
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            link = endpoint.accept() => match link {
                None => return,
                Some(link) if link.protocol() == Protocol::Peer => on_peer(link),
                Some(link) if connections.len() >= limits.connections_max => {
                    let limit = limits.connections_max;
                    let why = format!("connections_max of {limit} client connections is used up");
                    tracing::debug!(client = %link.remote_addr(), %why, "refused a connection");
                    link.close(CLOSE_BUSY, &why);
                }
                Some(link) => {
                    let service = Arc::clone(&service);
                    connections.spawn(serve_connection(link, service, limits.connection_bytes_max));
                }
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the task of a client connection failed");
                }
            }
        }
    }
}

/// Serves the streams of one client until its link is gone or it breaks the rules. `quic-link`
/// bounds how many streams a client may have open.
async fn serve_connection(link: Link, service: Arc<Service>, bytes_max: usize) {
    let budget = Arc::new(ConnectionBudget::new(bytes_max));
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            opened = link.accept_bi() => match opened {
                Ok(pair) => {
                    let (service, budget) = (Arc::clone(&service), Arc::clone(&budget));
                    streams.spawn(stream::serve(service, budget, link.peer().role, pair));
                }
                Err(error) => {
                    tracing::debug!(client = %link.remote_addr(), %error, "a client left");
                    return;
                }
            },
            Some(ended) = streams.join_next(), if !streams.is_empty() => {
                if !may_go_on(&link, ended) {
                    return;
                }
            }
        }
    }
}

/// Whether the link is of further use after one of its streams has ended like this.
fn may_go_on(link: &Link, ended: Result<Result<(), StreamError>, JoinError>) -> bool {
    let client = link.remote_addr();
    match ended {
        Ok(Ok(())) => true,
        Ok(Err(error)) if error.is_violation() => {
            let identity = link.peer();
            tracing::warn!(%client, %identity, %error, "closed a client's link");
            link.close(CLOSE_VIOLATION, &error.to_string());
            false
        }
        Ok(Err(error)) => {
            tracing::debug!(%client, %error, "a client's stream ended");
            true
        }
        Err(error) => {
            tracing::error!(%client, %error, "the task of a client's stream failed");
            link.close(CLOSE_INTERNAL, "internal error");
            false
        }
    }
}
