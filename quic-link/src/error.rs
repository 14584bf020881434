//! What can go wrong, one enum per boundary, and how the lower layers' errors read in plain words.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::ConnectionError;

use crate::identity::Identity;

/// Certificate files that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file that does not hold what it should.
    #[error("{file}: {why}")]
    Pem {
        /// Which of the three files.
        file: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate was signed by somebody else.
    #[error("the certificate was not signed by this authority")]
    NotSignedByAuthority,
    /// The certificate's time is over.
    #[error("the certificate expired on {not_after}")]
    Expired {
        /// The last second of its time, in UTC.
        not_after: String,
    },
    /// The certificate's time has not begun.
    #[error("the certificate is not valid before {not_before}; is the clock right?")]
    NotYetValid {
        /// The first second of its time, in UTC.
        not_before: String,
    },
    /// The authority did not mean it for what we would use it for, or it is malformed.
    #[error("the certificate is not usable: {0}")]
    Unusable(String),
    /// Nobody is named by it.
    #[error(
        "the certificate names no member or client of a cluster (a DNS name ending in .flotilla)"
    )]
    NoIdentity,
    /// More than one identity, or one that is not well-formed.
    #[error("the certificate must name exactly one member or client of a cluster, it has {0}")]
    AmbiguousIdentity(String),
    /// The private key is of another certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
}

/// An endpoint that could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody listens there.
    #[error("UDP address {0} is already in use by another process")]
    InUse(SocketAddr),
    /// The address is not of this machine, or may not be used.
    #[error("cannot listen on UDP address {listen}: {source}")]
    Socket {
        /// The address asked for.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A limit that makes no sense.
    #[error("link limit: {0}")]
    Limit(String),
    /// The certificate is refused by the TLS library.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// A link that did not come up. One line that names the cause.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No such address for a link.
    #[error("cannot dial {address}: {why}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody answered in time.
    #[error("{address} did not answer within {} ms", after.as_millis())]
    Timeout {
        /// The address.
        address: SocketAddr,
        /// How long we waited.
        after: Duration,
    },
    /// One side did not accept the other's certificate.
    #[error("{address}: {why}")]
    Certificate {
        /// The address.
        address: SocketAddr,
        /// Which side refused, and why.
        why: String,
    },
    /// The certificate is in order but of somebody else.
    #[error("{address} is {found}, expected {expected}")]
    Identity {
        /// The address.
        address: SocketAddr,
        /// Whom we wanted.
        expected: Identity,
        /// Who answered.
        found: Identity,
    },
    /// The peer knows who we are and does not talk to us.
    #[error("{address} refused the link: {why}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// Its words.
        why: String,
    },
    /// The connection broke while it came up.
    #[error("the link to {address} broke while it came up: {why}")]
    Broken {
        /// The address.
        address: SocketAddr,
        /// How.
        why: String,
    },
    /// Our own endpoint is closed.
    #[error("the endpoint is closed")]
    Closed,
}

/// Bytes that are not a frame. The stream cannot be read further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first two bytes are others.
    #[error("frame begins with {0:04x}, not with the mark of a frame")]
    Magic(u16),
    /// Made by a newer version.
    #[error("frame has version {0}, this program reads version 1")]
    Version(u8),
    /// Larger than the reader takes.
    #[error("frame of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// The length that its header announces.
        bytes: usize,
        /// The reader's limit.
        limit: usize,
    },
    /// Damaged.
    #[error("frame has checksum {found:08x}, its header says {stored:08x}")]
    Checksum {
        /// The checksum of its bytes.
        found: u32,
        /// The one in the header.
        stored: u32,
    },
}

/// A link or a stream of it that is of no more use, or a frame that it does not take.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The frame was not queued; the stream is as it was.
    #[error("frame of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The writer's limit.
        limit: usize,
    },
    /// The frame was not queued; flush first.
    #[error("{bytes} bytes would wait to be flushed, the limit is {limit}")]
    QueueFull {
        /// What would wait.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The peer sent something that is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended within a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The peer gave up this stream.
    #[error("the peer ended the stream with code {0}")]
    StreamEnded(u64),
    /// The peer moved nothing for too long.
    #[error("nothing moved for {} ms", after.as_millis())]
    Stalled {
        /// How long was waited.
        after: Duration,
    },
    /// The stream was finished, or the link closed, on this side.
    #[error("the stream is closed")]
    StreamClosed,
    /// The link is gone.
    #[error("the link is closed: {0}")]
    Closed(String),
}

/// TLS alerts that a peer's refusal of our certificate arrives as (RFC 8446, section 6).
fn alert_text(alert: u64) -> Option<&'static str> {
    Some(match alert {
        42 => "the peer refused our certificate: malformed or not usable",
        43 => "the peer refused our certificate: unsupported",
        44 => "the peer refused our certificate: revoked",
        45 => "the peer refused our certificate: expired",
        46 => "the peer refused our certificate",
        48 => "the peer refused our certificate: not signed by its authority",
        51 => "the peer refused our certificate: bad signature",
        116 => "the peer requires a certificate",
        120 => "the peer speaks none of our protocols",
        _ => return None,
    })
}

/// The first code of the range in which QUIC carries TLS alerts (RFC 9001, section 4.8).
const CRYPTO_ERROR_FIRST: u64 = 0x100;

/// The TLS alert in a QUIC error code.
fn alert(code: quinn::TransportErrorCode) -> Option<u64> {
    let code = u64::from(code);
    (CRYPTO_ERROR_FIRST..CRYPTO_ERROR_FIRST + 0x100)
        .contains(&code)
        .then(|| code - CRYPTO_ERROR_FIRST)
}

/// Why a connection ended, in words that help somebody who does not know QUIC.
pub(crate) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "nothing was heard from the peer for too long".to_owned(),
        ConnectionError::Reset => "the peer was restarted and has forgotten the link".to_owned(),
        ConnectionError::LocallyClosed => "closed by this side".to_owned(),
        ConnectionError::VersionMismatch => "the peer speaks no version of QUIC of ours".to_owned(),
        ConnectionError::CidsExhausted => "no connection ids are left".to_owned(),
        ConnectionError::TransportError(error) => {
            if error.reason.is_empty() {
                format!("QUIC: {}", error.code)
            } else {
                error.reason.clone()
            }
        }
        ConnectionError::ConnectionClosed(close) => {
            if let Some(text) = alert(close.error_code).and_then(alert_text) {
                return text.to_owned();
            }
            if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED {
                return "the peer takes no more links at the moment".to_owned();
            }
            format!("closed by the peer: {close}")
        }
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            format!("closed by the peer: {reason} (code {})", close.error_code)
        }
    }
}

/// The same for a link that was coming up.
pub(crate) fn connect_error(address: SocketAddr, error: &ConnectionError) -> ConnectError {
    let why = explain(error);
    match error {
        ConnectionError::TransportError(inner) if alert(inner.code).is_some() => {
            ConnectError::Certificate { address, why }
        }
        ConnectionError::ConnectionClosed(inner) if alert(inner.error_code).is_some() => {
            ConnectError::Certificate { address, why }
        }
        ConnectionError::ApplicationClosed(close) => ConnectError::Refused {
            address,
            why: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::LocallyClosed => ConnectError::Closed,
        _ => ConnectError::Broken { address, why },
    }
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        Self::Closed(explain(&error))
    }
}

impl From<quinn::WriteError> for LinkError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(code) => Self::StreamEnded(code.into_inner()),
            quinn::WriteError::ConnectionLost(error) => error.into(),
            quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => {
                Self::StreamClosed
            }
        }
    }
}

impl From<quinn::ReadError> for LinkError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => Self::StreamEnded(code.into_inner()),
            quinn::ReadError::ConnectionLost(error) => error.into(),
            quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => Self::StreamClosed,
        }
    }
}
