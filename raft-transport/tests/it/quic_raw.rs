//! A peer that does not keep to the rules, by hand.

use bytes::Bytes;
use quic_link::{
    ConnectError, Endpoint, EndpointOptions, FrameReader, FrameWriter, Identity, Link, LinkLimits,
    Protocol, Role,
};
use raft_core::NodeId;
use raft_transport::conformance::DEADLINE;
use tokio::time::timeout;

use crate::quic_fixture::{CLUSTER, Quic, incarnation};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_elapsed| panic!("not within {DEADLINE:?}: {what}"))
}

/// A peer that does not keep to the rules, by hand.
pub(crate) struct Raw {
    pub(crate) link: Link,
    pub(crate) control: FrameWriter,
    pub(crate) replies: FrameReader,
    _endpoint: Endpoint,
}

impl Raw {
    pub(crate) async fn dial(fixture: &Quic, role: Role, protocol: Protocol) -> (Endpoint, Link) {
        Self::try_dial(fixture, role, protocol).await.unwrap()
    }

    pub(crate) async fn try_dial(
        fixture: &Quic,
        role: Role,
        protocol: Protocol,
    ) -> Result<(Endpoint, Link), ConnectError> {
        let endpoint = Endpoint::bind(EndpointOptions {
            credentials: fixture.authority.credentials(role),
            listen: "127.0.0.1:0".parse().unwrap(),
            accept: false,
            reset_key: None,
            limits: LinkLimits::default(),
        })
        .unwrap();
        let expected = Identity {
            cluster: CLUSTER.0,
            role: Role::Node(1),
        };
        let link = within(
            "a link",
            endpoint.connect(fixture.address(ONE), &expected, protocol),
        )
        .await?;
        Ok((endpoint, link))
    }

    /// The bytes of a hello, written down here once more: version, cluster, from, its incarnation,
    /// to, its incarnation, boot.
    pub(crate) fn hello(from: u64, boot: u64) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&CLUSTER.0);
        for word in [
            from,
            incarnation(NodeId(from)).0,
            1,
            incarnation(ONE).0,
            boot,
        ] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) async fn greeted(fixture: &Quic) -> Self {
        let (endpoint, link) = Self::dial(fixture, Role::Node(2), Protocol::Peer).await;
        let (mut control, mut replies) = link.open_bi().await.unwrap();
        control.queue(1, [Bytes::from(Self::hello(2, 1))]).unwrap();
        within("hello", control.flush()).await.unwrap();
        let answer = within("an answer", replies.read(256))
            .await
            .unwrap()
            .unwrap();
        let mut expected = Self::hello(2, 1);
        expected[17..25].copy_from_slice(&1_u64.to_le_bytes());
        expected[25..33].copy_from_slice(&incarnation(ONE).0.to_le_bytes());
        expected[33..41].copy_from_slice(&2_u64.to_le_bytes());
        expected[41..49].copy_from_slice(&incarnation(TWO).0.to_le_bytes());
        assert_eq!((answer.kind, &answer.payload[..]), (1, &expected[..]));
        Self {
            link,
            control,
            replies,
            _endpoint: endpoint,
        }
    }

    pub(crate) async fn send(&mut self, kind: u8, bytes: Vec<u8>) {
        self.control.queue(kind, [Bytes::from(bytes)]).unwrap();
        within("sent", self.control.flush()).await.unwrap();
    }
}
