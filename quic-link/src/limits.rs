//! Every number that bounds what a link may take or hold, each with its reason.

use std::time::Duration;

/// The limits of an endpoint and of its links. The defaults suit nodes on one machine or one LAN,
/// and their clients.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkLimits {
    /// A link on which nothing arrives for this long is dead. Well above any election time-out, so
    /// that a short pause costs no reconnect; never infinite, so that a vanished peer is noticed.
    pub idle_timeout: Duration,
    /// An idle link sends this often. At most a third of `idle_timeout`: two may be lost.
    pub keep_alive_interval: Duration,
    /// How long a dialled link may take to come up, welcome included.
    pub connect_deadline: Duration,
    /// How long an incoming handshake may take. Frees the place of one that never ends.
    pub handshake_deadline: Duration,
    /// Incoming handshakes at a time; each costs public-key operations and some 100 KiB. From half
    /// of it on, an address must prove itself (a retry) before anything is spent on it.
    pub handshakes_max: usize,
    /// Incoming handshakes at a time from one IP address, so that one host cannot keep others out.
    pub handshakes_per_address_max: usize,
    /// Links of one endpoint; above it, newcomers are refused.
    pub links_max: usize,
    /// Accepted links that wait for [`crate::Endpoint::accept`].
    pub accept_queue_len: usize,
    /// Unread bytes that the peer of a [`crate::Protocol::Peer`] link may have us hold.
    pub peer_window_bytes: u32,
    /// The same for a client, of which there are many more.
    pub client_window_bytes: u32,
    /// The same for one stream. What a saturated stream has under way stands in queues before a
    /// frame of another stream, whatever its priority: at 300 MB/s each MiB costs it 3 ms. A
    /// stream carries at most this much per round trip, so long distances need more. A quarter of
    /// `peer_window_bytes`, so that a stream that nobody reads leaves room for the others.
    pub stream_window_bytes: u32,
    /// Bytes that we hold for the peer of a link, unsent or not acknowledged; a writer waits above it.
    pub send_window_bytes: u32,
    /// Streams of each kind that a peer may have open.
    pub streams_max: u32,
    /// The largest payload that a frame writer takes: one entry of the largest size, and what
    /// describes it. A reader has its own limit, given with each read.
    pub frame_payload_bytes_max: usize,
    /// Frames queued in a writer and not flushed, in bytes.
    pub unflushed_bytes_max: usize,
    /// Asked of the kernel for each direction of the socket; it may give less. A burst of one
    /// congestion window should fit.
    pub udp_buffer_bytes: usize,
    /// Assumed before the first measurement. QUIC's own third of a second would make the first lost
    /// packet of a reconnect cost a second; a LAN is a thousand times faster.
    pub initial_rtt: Duration,
    /// Sent before the first acknowledgement, in bytes. QUIC's own 12 KiB suits the open internet.
    pub initial_congestion_window_bytes: u64,
    /// The longest that a peer may hold back an acknowledgement. It is part of every retransmission
    /// time-out, so it bounds what the loss of the last packet costs.
    pub ack_delay_max: Duration,
    /// Where the search for a larger packet ends. Ten of them must fit the 64 KiB that the kernel
    /// takes in one call.
    pub packet_bytes_max: u16,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_millis(1_500),
            connect_deadline: Duration::from_secs(3),
            handshake_deadline: Duration::from_secs(3),
            handshakes_max: 256,
            handshakes_per_address_max: 128,
            links_max: 1_024,
            accept_queue_len: 64,
            peer_window_bytes: 8 << 20,
            client_window_bytes: 1 << 20,
            stream_window_bytes: 2 << 20,
            send_window_bytes: 8 << 20,
            streams_max: 16,
            frame_payload_bytes_max: 65 << 20,
            unflushed_bytes_max: 130 << 20,
            udp_buffer_bytes: 4 << 20,
            initial_rtt: Duration::from_millis(10),
            initial_congestion_window_bytes: 128 << 10,
            ack_delay_max: Duration::from_millis(5),
            packet_bytes_max: 6_000,
        }
    }
}
