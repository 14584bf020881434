//! Authenticated, framed, multiplexed QUIC links between the processes of one cluster.
//!
//! Knows no Raft and no key-value store; it is the only crate that names quinn and rustls.
//!
//! - [`Credentials`] are a certificate, its key and the cluster's authority. They say who we are:
//!   an [`Identity`] is a cluster and a [`Role`] in it.
//! - An [`Endpoint`] is one UDP socket. It dials with [`Endpoint::connect`] and, when asked to,
//!   takes links in with [`Endpoint::accept`]. Both give a [`Link`] whose peer is authenticated:
//!   its certificate was signed by our authority, is valid now, names our cluster, and its role may
//!   speak the [`Protocol`] of the link. What fails this never becomes a link.
//! - A link carries streams, a stream carries frames: [`FrameWriter`] and [`FrameReader`].
//! - Everything that a peer can make us hold is bounded by [`LinkLimits`].
//!
//! The bytes are described in `docs/wire-format.md`.

mod credentials;
mod endpoint;
mod error;
mod frame;
mod identity;
mod limits;
mod link;
mod stream;
#[cfg(feature = "test-support")]
pub mod test_support;
mod tls;

pub use credentials::Credentials;
pub use endpoint::{Endpoint, EndpointOptions};
pub use error::{BindError, ConnectError, CredentialsError, FrameError, LinkError};
pub use frame::{FRAME_HEADER_BYTES, Frame, FrameDecoder};
pub use identity::{Identity, Role};
pub use limits::LinkLimits;
pub use link::{CLOSE_NORMAL, CLOSE_REFUSED, Link, Protocol};
pub use stream::{FrameReader, FrameWriter};
