//! One authenticated connection to a peer, and the protocols that may be spoken on it.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{Connection, VarInt};

use crate::error::{LinkError, explain};
use crate::identity::{Identity, Role};
use crate::limits::LinkLimits;
use crate::stream::{FrameReader, FrameWriter};

/// Closed because it is not needed any more.
pub const CLOSE_NORMAL: u32 = 0;

/// Closed because the peer may not have this link.
pub const CLOSE_REFUSED: u32 = 1;

/// What is spoken on a link. Chosen by the side that dials, in the TLS handshake (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Between nodes: `flotilla-peer/1`. Only a [`Role::Node`] may dial it.
    Peer,
    /// From clients to nodes: `flotilla-client/1`. Every role of the cluster may dial it.
    Client,
}

impl Protocol {
    pub(crate) const ALL: [Self; 2] = [Self::Peer, Self::Client];

    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Peer => b"flotilla-peer/1",
            Self::Client => b"flotilla-client/1",
        }
    }

    pub(crate) fn from_alpn(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.alpn() == name)
    }

    /// Whether a node takes this protocol from a peer with `role`.
    pub(crate) fn admits(self, role: Role) -> bool {
        match self {
            Self::Peer => matches!(role, Role::Node(_)),
            Self::Client => true,
        }
    }
}

/// A connection whose peer is known. Cheap to clone; it lives until it is closed, breaks, or the
/// last clone and the last stream of it are dropped.
#[derive(Clone, Debug)]
pub struct Link {
    connection: Connection,
    peer: Identity,
    protocol: Protocol,
    limits: Arc<LinkLimits>,
}

impl Link {
    pub(crate) fn new(
        connection: Connection,
        peer: Identity,
        protocol: Protocol,
        limits: Arc<LinkLimits>,
    ) -> Self {
        Self {
            connection,
            peer,
            protocol,
            limits,
        }
    }

    /// Who is on the other side, by its certificate.
    #[must_use]
    pub fn peer(&self) -> &Identity {
        &self.peer
    }

    /// What is spoken.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Where the peer is.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Opens a stream to the peer, who sees it with the first frame. Waits while the peer has as
    /// many open as it allows.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn open_uni(&self) -> Result<FrameWriter, LinkError> {
        let stream = self.connection.open_uni().await?;
        Ok(FrameWriter::new(stream, &self.limits))
    }

    /// The next stream that the peer has opened.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn accept_uni(&self) -> Result<FrameReader, LinkError> {
        Ok(FrameReader::new(self.connection.accept_uni().await?))
    }

    /// Opens a stream in both directions; as [`Link::open_uni`].
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn open_bi(&self) -> Result<(FrameWriter, FrameReader), LinkError> {
        let (send, receive) = self.connection.open_bi().await?;
        Ok((
            FrameWriter::new(send, &self.limits),
            FrameReader::new(receive),
        ))
    }

    /// The next stream in both directions that the peer has opened.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn accept_bi(&self) -> Result<(FrameWriter, FrameReader), LinkError> {
        let (send, receive) = self.connection.accept_bi().await?;
        Ok((
            FrameWriter::new(send, &self.limits),
            FrameReader::new(receive),
        ))
    }

    /// Ends the link at once. The peer learns the code and the words; what was not delivered is
    /// lost.
    pub fn close(&self, code: u32, why: &str) {
        self.connection
            .close(VarInt::from_u32(code), why.as_bytes());
    }

    /// Waits until the link is gone, and says why.
    pub async fn closed(&self) -> String {
        explain(&self.connection.closed().await)
    }

    /// Whether the link is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// The measured time of a round trip.
    #[must_use]
    pub fn round_trip_time(&self) -> std::time::Duration {
        self.connection.rtt()
    }
}
