//! quic-link
