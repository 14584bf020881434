//! The first frame on a link and its answer: who speaks, to whom, and in which life.
//!
//! The certificate has proved the cluster and the node already. The hello adds what a certificate
//! cannot know, because it outlives a wiped disk and a restart: the incarnations and the boot
//! counter.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use quic_link::{Identity, Role};
use raft_core::{ClusterId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

use super::options::LocalPeer;

/// The version of all that is said between peers. One that a receiver does not know is refused.
pub(super) const VERSION: u8 = 1;

/// The most that is read as a hello. Room for what later versions add.
pub(super) const HELLO_BYTES_MAX: usize = 256;

type Settings = Configuration<LittleEndian, Fixint, Limit<HELLO_BYTES_MAX>>;

fn settings() -> Settings {
    bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<HELLO_BYTES_MAX>()
}

/// See the module's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) cluster: [u8; 16],
    pub(super) from: u64,
    pub(super) from_incarnation: u64,
    pub(super) to: u64,
    pub(super) to_incarnation: u64,
    /// The speaker's.
    pub(super) boot: u64,
}

/// Why a hello is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HelloError {
    #[error("hello has version {0}, this node speaks version {VERSION}")]
    Version(u8),
    #[error("malformed hello: {0}")]
    Malformed(String),
    #[error("{0} is not a node of this cluster")]
    Certificate(Identity),
    #[error("hello of cluster {found}, this is cluster {ours}")]
    Cluster { found: ClusterId, ours: ClusterId },
    #[error("hello claims to be from node {claimed}, the certificate is of node {proved}")]
    Sender { claimed: NodeId, proved: NodeId },
    #[error("node {0} is this node; two processes run with its certificate")]
    Ourselves(NodeId),
    #[error("{0} nodes that are no members have a link already")]
    TooManyStrangers(usize),
    #[error("hello is for node {found}, this is node {ours}")]
    Receiver { found: NodeId, ours: NodeId },
    #[error("boot {found} of node {id} is over, boot {newest} is running")]
    Boot { id: NodeId, found: u64, newest: u64 },
}

impl HelloError {
    /// A short name of the kind, for reports.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Version(_) => "version",
            Self::Malformed(_) => "malformed hello",
            Self::Certificate(_) => "certificate",
            Self::Cluster { .. } => "cluster",
            Self::Sender { .. } => "sender",
            Self::Ourselves(_) => "this node",
            Self::TooManyStrangers(_) => "too many strangers",
            Self::Receiver { .. } => "receiver",
            Self::Boot { .. } => "boot",
        }
    }
}

impl Hello {
    /// What `local` says to a peer.
    pub(super) fn new(local: &LocalPeer, to: NodeId, to_incarnation: Incarnation) -> Self {
        Self {
            cluster: local.cluster.0,
            from: local.id.0,
            from_incarnation: local.incarnation.0,
            to: to.0,
            to_incarnation: to_incarnation.0,
            boot: local.boot,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bincode::serde::encode_into_std_write(self, &mut bytes, settings())
            .expect("six fields fit, and memory takes them");
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        let (&version, body) = bytes
            .split_first()
            .ok_or_else(|| HelloError::Malformed("empty".to_owned()))?;
        if version != VERSION {
            return Err(HelloError::Version(version));
        }
        let (hello, used) = bincode::serde::decode_from_slice(body, settings())
            .map_err(|error| HelloError::Malformed(error.to_string()))?;
        if used != body.len() {
            let rest = body.len() - used;
            return Err(HelloError::Malformed(format!("{rest} bytes behind it")));
        }
        Ok(hello)
    }

    /// Whether the hello is from the node that the certificate proves, and for us. Neither the
    /// incarnations nor the boot counter are judged here.
    pub(super) fn check(
        &self,
        certificate: &Identity,
        local: &LocalPeer,
    ) -> Result<NodeId, HelloError> {
        let proved = proved_node(certificate, local)?;
        let found = ClusterId(self.cluster);
        if found != local.cluster {
            let ours = local.cluster;
            return Err(HelloError::Cluster { found, ours });
        }
        let claimed = NodeId(self.from);
        if claimed != proved {
            return Err(HelloError::Sender { claimed, proved });
        }
        if NodeId(self.to) != local.id {
            return Err(HelloError::Receiver {
                found: NodeId(self.to),
                ours: local.id,
            });
        }
        if proved == local.id {
            return Err(HelloError::Ourselves(proved));
        }
        Ok(proved)
    }
}

/// The node that a certificate speaks for.
pub(super) fn proved_node(certificate: &Identity, local: &LocalPeer) -> Result<NodeId, HelloError> {
    match certificate.role {
        Role::Node(id) if certificate.cluster == local.cluster.0 => Ok(NodeId(id)),
        _ => Err(HelloError::Certificate(*certificate)),
    }
}
