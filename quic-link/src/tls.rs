//! How links are secured and tuned: the TLS and QUIC settings of an endpoint, made from credentials
//! and limits.
//!
//! TLS 1.3 only, both sides authenticated, no early data (it could be replayed), no resumption
//! (each link checks the certificates again), no migration (a peer that moves dials anew).

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig,
    IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use ring::rand::SecureRandom;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use crate::credentials::{Credentials, provider};
use crate::error::BindError;
use crate::limits::LinkLimits;
use crate::link::Protocol;

/// Packets that a peer may receive before it acknowledges. Two, QUIC's own, makes one packet in
/// three an acknowledgement when entries stream.
const ACK_EVERY_PACKETS: u32 = 8;

/// Bytes that packets of handshakes not yet taken up may occupy, each and all together. A client
/// hello with a certificate fits into a few packets.
const INCOMING_BUFFER_BYTES: u64 = 64 << 10;
const INCOMING_BUFFERS_BYTES: u64 = 4 << 20;

fn tls_error(error: impl std::fmt::Display) -> BindError {
    BindError::Tls(error.to_string())
}

fn roots(credentials: &Credentials) -> Result<Arc<RootCertStore>, BindError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(credentials.authority().clone())
        .map_err(tls_error)?;
    Ok(Arc::new(roots))
}

/// The settings of a link that is dialled for `protocol`.
pub(crate) fn client_config(
    credentials: &Credentials,
    protocol: Protocol,
    limits: &LinkLimits,
) -> Result<ClientConfig, BindError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(credentials)?, provider())
        .build()
        .map_err(tls_error)?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(credentials.chain().to_vec(), credentials.key())
        .map_err(tls_error)?;
    tls.alpn_protocols = vec![protocol.alpn().to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_early_data = false;
    let crypto = QuicClientConfig::try_from(tls).map_err(tls_error)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport_config(limits)?));
    Ok(config)
}

/// The settings of all links that come in.
pub(crate) fn server_config(
    credentials: &Credentials,
    limits: &LinkLimits,
) -> Result<ServerConfig, BindError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(credentials)?, provider())
        .build()
        .map_err(tls_error)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls_error)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain().to_vec(), credentials.key())
        .map_err(tls_error)?;
    tls.alpn_protocols = Protocol::ALL
        .iter()
        .map(|protocol| protocol.alpn().to_vec())
        .collect();
    tls.max_early_data_size = 0;
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    let crypto = QuicServerConfig::try_from(tls).map_err(tls_error)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport_config(limits)?))
        .migration(false)
        .max_incoming(limits.handshakes_max)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFERS_BYTES);
    Ok(config)
}

/// The settings of the socket. With the `reset_key` of the process before it, an endpoint ends the
/// links of that process at their next packet; without it, their peers wait for the idle time-out.
pub(crate) fn endpoint_config(
    reset_key: Option<[u8; 64]>,
    limits: &LinkLimits,
) -> Result<EndpointConfig, BindError> {
    let mut config = match reset_key {
        None => EndpointConfig::default(),
        Some(bytes) => {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &bytes);
            let mut config = EndpointConfig::new(Arc::new(key));
            config.cid_generator(|| Box::new(RandomIds));
            config
        }
    };
    config
        .max_udp_payload_size(limits.packet_bytes_max)
        .map_err(|error| BindError::Limit(format!("packet_bytes_max: {error}")))?;
    Ok(config)
}

/// Connection ids without a mark of the process that made them. The library's own generator marks
/// its ids with a random key, and an endpoint answers only marked ids with a reset: after a restart
/// it would stay silent.
#[derive(Debug)]
struct RandomIds;

/// As long as the ids of the library's own generator.
const CONNECTION_ID_BYTES: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        ring::rand::SystemRandom::new()
            .fill(&mut id)
            .expect("the system has randomness, TLS depends on it too");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn transport_config(limits: &LinkLimits) -> Result<TransportConfig, BindError> {
    let idle_timeout = IdleTimeout::try_from(limits.idle_timeout)
        .map_err(|error| BindError::Limit(format!("idle_timeout: {error}")))?;
    if limits.keep_alive_interval * 3 > limits.idle_timeout {
        return Err(BindError::Limit(format!(
            "keep_alive_interval of {:?} is above a third of idle_timeout, {:?}",
            limits.keep_alive_interval, limits.idle_timeout
        )));
    }
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(limits.packet_bytes_max);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(limits.initial_congestion_window_bytes);
    let mut acks = AckFrequencyConfig::default();
    acks.max_ack_delay(Some(limits.ack_delay_max))
        .ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY_PACKETS));
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(idle_timeout))
        .keep_alive_interval(Some(limits.keep_alive_interval))
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams_max))
        .max_concurrent_uni_streams(VarInt::from_u32(limits.streams_max))
        .receive_window(VarInt::from_u32(limits.peer_window_bytes))
        .stream_receive_window(VarInt::from_u32(limits.stream_window_bytes))
        .send_window(u64::from(limits.send_window_bytes))
        .datagram_receive_buffer_size(None)
        .initial_rtt(limits.initial_rtt)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(congestion))
        .enable_segmentation_offload(true);
    Ok(config)
}
