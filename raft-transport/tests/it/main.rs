//! Both transports against the conformance suite, and what is particular to each.

mod codec;
mod memory;
mod quic;
mod quic_fixture;
mod quic_raw;
mod quic_snapshot;
