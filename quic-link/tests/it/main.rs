//! Links between endpoints on the loopback interface.

mod admission;
mod streams;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use quic_link::test_support::Authority;
use quic_link::{
    Credentials, Endpoint, EndpointOptions, Identity, Link, LinkLimits, Protocol, Role,
};

pub(crate) const CLUSTER: [u8; 16] = [7; 16];

/// Generous, for machines that are busy with other things.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) fn limits() -> LinkLimits {
    let mut limits = LinkLimits::default();
    limits.connect_deadline = DEADLINE;
    limits.handshake_deadline = DEADLINE;
    limits
}

pub(crate) fn options(credentials: Credentials, accept: bool) -> EndpointOptions {
    EndpointOptions {
        credentials,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        accept,
        reset_key: None,
        limits: limits(),
    }
}

pub(crate) fn bind(credentials: Credentials, accept: bool) -> Endpoint {
    Endpoint::bind(options(credentials, accept)).unwrap()
}

pub(crate) fn node(id: u64) -> Identity {
    Identity {
        cluster: CLUSTER,
        role: Role::Node(id),
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("done before the deadline")
}

/// Node 1 accepts, node 2 dials. The endpoints live as long as the pair.
pub(crate) struct Pair {
    pub(crate) server: Endpoint,
    pub(crate) client: Endpoint,
    pub(crate) accepted: Link,
    pub(crate) dialled: Link,
}

pub(crate) async fn pair() -> Pair {
    let authority = Authority::new(CLUSTER);
    let server = bind(authority.credentials(Role::Node(1)), true);
    let client = bind(authority.credentials(Role::Node(2)), false);
    let dialled = within(client.connect(server.local_addr(), &node(1), Protocol::Peer))
        .await
        .unwrap();
    let accepted = within(server.accept()).await.unwrap();
    Pair {
        server,
        client,
        accepted,
        dialled,
    }
}
