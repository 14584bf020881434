//! One UDP socket: dialling out, and the accept loop with its bounds.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Incoming, TokioRuntime, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use crate::credentials::{Credentials, certificate_identity};
use crate::error::{BindError, ConnectError, connect_error, explain};
use crate::identity::Identity;
use crate::limits::LinkLimits;
use crate::link::{CLOSE_NORMAL, CLOSE_REFUSED, Link, Protocol};
use crate::tls;

/// The kind of the one frame on the stream with which a node welcomes who dialled it. Without it
/// the dialling side would take the link for established before its own certificate was looked at.
const WELCOME: u8 = 0;

/// How long [`Endpoint::close`] waits for its farewells to leave.
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);

/// What an endpoint is made of.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    /// Who we are.
    pub credentials: Credentials,
    /// Where to listen; with port 0 the system chooses, as clients want it.
    pub listen: SocketAddr,
    /// Whether links from others are taken.
    pub accept: bool,
    /// Random bytes that survive a restart. With them, the links of the process that ran here
    /// before end at their next packet; without them, their peers wait for the idle time-out.
    pub reset_key: Option<[u8; 64]>,
    /// The limits of the endpoint and its links.
    pub limits: LinkLimits,
}

/// One UDP socket with its links. Cheap to clone. When the last clone is dropped it accepts no
/// more; links that exist live on.
#[derive(Clone, Debug)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    quic: quinn::Endpoint,
    local_addr: SocketAddr,
    peer_config: quinn::ClientConfig,
    client_config: quinn::ClientConfig,
    limits: Arc<LinkLimits>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Link>>,
    refused: Arc<AtomicU64>,
    accept_task: Option<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(task) = &self.accept_task {
            task.abort();
        }
    }
}

impl Endpoint {
    /// Opens the socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the address is in use or not ours, and when a limit makes no sense.
    pub fn bind(options: EndpointOptions) -> Result<Self, BindError> {
        let EndpointOptions {
            credentials,
            listen,
            accept,
            reset_key,
            limits,
        } = options;
        let server_config = accept
            .then(|| tls::server_config(&credentials, &limits))
            .transpose()?;
        let endpoint_config = tls::endpoint_config(reset_key, &limits)?;
        let socket_error = |source: io::Error| BindError::Socket { listen, source };
        let socket = UdpSocket::bind(listen).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(listen),
            _ => socket_error(error),
        })?;
        enlarge_buffers(&socket, limits.udp_buffer_bytes);
        let quic = quinn::Endpoint::new(
            endpoint_config,
            server_config,
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(socket_error)?;
        let local_addr = quic.local_addr().map_err(socket_error)?;
        let peer_config = tls::client_config(&credentials, Protocol::Peer, &limits)?;
        let client_config = tls::client_config(&credentials, Protocol::Client, &limits)?;
        let limits = Arc::new(limits);
        let refused = Arc::new(AtomicU64::new(0));
        let (links, incoming) = mpsc::channel(limits.accept_queue_len.max(1));
        let accept_task = accept.then(|| {
            let acceptor = Arc::new(Acceptor {
                cluster: credentials.identity().cluster,
                limits: Arc::clone(&limits),
                links,
                under_way: Mutex::default(),
                refused: Arc::clone(&refused),
            });
            tokio::spawn(accept_loop(quic.clone(), acceptor)).abort_handle()
        });
        Ok(Self {
            inner: Arc::new(Inner {
                quic,
                local_addr,
                peer_config,
                client_config,
                limits,
                incoming: tokio::sync::Mutex::new(incoming),
                refused,
                accept_task,
            }),
        })
    }

    /// Where the socket listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr
    }

    /// Dials a node. When this returns, each side has accepted the other's certificate and the node
    /// has agreed to speak `protocol` with us.
    ///
    /// # Errors
    /// When it does not answer within the deadline, is somebody else than `expected`, or
    /// either side refuses the other. The error is one line that names the cause.
    pub async fn connect(
        &self,
        addr: SocketAddr,
        expected: &Identity,
        protocol: Protocol,
    ) -> Result<Link, ConnectError> {
        let deadline = self.inner.limits.connect_deadline;
        timeout(deadline, self.establish(addr, expected, protocol))
            .await
            .unwrap_or(Err(ConnectError::Timeout {
                address: addr,
                after: deadline,
            }))
    }

    async fn establish(
        &self,
        address: SocketAddr,
        expected: &Identity,
        protocol: Protocol,
    ) -> Result<Link, ConnectError> {
        let config = match protocol {
            Protocol::Peer => self.inner.peer_config.clone(),
            Protocol::Client => self.inner.client_config.clone(),
        };
        let connection = self
            .inner
            .quic
            .connect_with(config, address, &expected.dns_name())
            .map_err(|error| match error {
                quinn::ConnectError::EndpointStopping => ConnectError::Closed,
                other => ConnectError::Address {
                    address,
                    why: other.to_string(),
                },
            })?
            .await
            .map_err(|error| connect_error(address, &error))?;
        let found =
            peer_identity(&connection).map_err(|why| ConnectError::Certificate { address, why })?;
        if found != *expected {
            connection.close(VarInt::from_u32(CLOSE_REFUSED), b"you are somebody else");
            return Err(ConnectError::Identity {
                address,
                expected: *expected,
                found,
            });
        }
        let link = Link::new(
            connection.clone(),
            found,
            protocol,
            Arc::clone(&self.inner.limits),
        );
        let broken = |why: String| match connection.close_reason() {
            Some(error) => connect_error(address, &error),
            None => ConnectError::Broken { address, why },
        };
        let mut welcome = link
            .accept_uni()
            .await
            .map_err(|error| broken(error.to_string()))?;
        match welcome.read(0).await {
            Ok(Some(frame)) if frame.kind == WELCOME => Ok(link),
            Ok(_) => Err(broken("it did not welcome us".to_owned())),
            Err(error) => Err(broken(error.to_string())),
        }
    }

    /// The next link that somebody has dialled; `None` after [`Endpoint::close`], and at once on an
    /// endpoint that does not accept. May be cancelled.
    pub async fn accept(&self) -> Option<Link> {
        self.inner.incoming.lock().await.recv().await
    }

    /// How many incoming connections were turned away: too many at a time, a certificate or role
    /// that is not admitted, a handshake that never ended.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.inner.refused.load(Ordering::Relaxed)
    }

    /// Ends all links, tells their peers why, and accepts no more.
    pub async fn close(&self, why: &str) {
        if let Some(task) = &self.inner.accept_task {
            task.abort();
        }
        self.inner
            .quic
            .close(VarInt::from_u32(CLOSE_NORMAL), why.as_bytes());
        // The farewells are a courtesy: who misses them finds out by a reset or the idle time-out.
        let _ = timeout(CLOSE_DEADLINE, self.inner.quic.wait_idle()).await;
    }
}

/// The kernel may give less than what is asked for; links work with less, only slower under bursts.
fn enlarge_buffers(socket: &UdpSocket, bytes: usize) {
    let Ok(state) = quinn::udp::UdpSocketState::new(socket.into()) else {
        return; // Binding reports what is wrong with the socket.
    };
    for result in [
        state.set_recv_buffer_size(socket.into(), bytes),
        state.set_send_buffer_size(socket.into(), bytes),
    ] {
        if let Err(error) = result {
            tracing::debug!(%error, bytes, "the kernel did not enlarge a UDP buffer");
        }
    }
}

/// The identity in the certificate that the other side has proved to own.
fn peer_identity(connection: &Connection) -> Result<Identity, String> {
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or("the peer sent no certificate")?;
    let certificate = chain.first().ok_or("the peer sent no certificate")?;
    certificate_identity(certificate).map_err(|error| error.to_string())
}

/// What the handshakes under way share.
#[derive(Debug)]
struct Acceptor {
    cluster: [u8; 16],
    limits: Arc<LinkLimits>,
    links: mpsc::Sender<Link>,
    under_way: Mutex<BTreeMap<IpAddr, usize>>,
    refused: Arc<AtomicU64>,
}

/// One handshake's place in [`Acceptor::under_way`]; given back when dropped.
struct Place {
    acceptor: Arc<Acceptor>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.acceptor.lock_under_way();
        if let Some(count) = under_way.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.address);
            }
        }
    }
}

/// Takes connections up until the endpoint is closed. A handshake runs in a task of its own, so
/// that a slow one delays nobody; ending this task ends them all.
async fn accept_loop(quic: quinn::Endpoint, acceptor: Arc<Acceptor>) {
    let mut handshakes = JoinSet::new();
    while let Some(incoming) = quic.accept().await {
        while handshakes.try_join_next().is_some() {}
        let address = incoming.remote_address();
        if quic.open_connections() >= acceptor.limits.links_max {
            acceptor.count_refusal(address, "too many links");
            incoming.refuse();
            continue;
        }
        let under_way = acceptor.lock_under_way().values().sum::<usize>();
        if under_way >= acceptor.limits.handshakes_max / 2 && incoming.may_retry() {
            // Under load an address must show that it can receive before it costs us anything.
            // An error means that it has shown so, which `may_retry` has excluded.
            let _ = incoming.retry();
            continue;
        }
        let Some(place) = Acceptor::take_place(&acceptor, address.ip()) else {
            acceptor.count_refusal(address, "too many handshakes at a time");
            incoming.refuse();
            continue;
        };
        handshakes.spawn(handshake(incoming, place));
    }
}

async fn handshake(incoming: Incoming, place: Place) {
    let acceptor = Arc::clone(&place.acceptor);
    let address = incoming.remote_address();
    let result = timeout(
        acceptor.limits.handshake_deadline,
        acceptor.establish(incoming),
    )
    .await
    .unwrap_or_else(|_elapsed| Err("the handshake took too long".to_owned()));
    if let Err(why) = result {
        acceptor.count_refusal(address, &why);
    }
}

impl Acceptor {
    fn lock_under_way(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        // Counters stay right whatever a holder of the lock did.
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn take_place(acceptor: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut under_way = acceptor.lock_under_way();
        if under_way.values().sum::<usize>() >= acceptor.limits.handshakes_max {
            return None;
        }
        let count = under_way.entry(address).or_default();
        if *count >= acceptor.limits.handshakes_per_address_max {
            return None;
        }
        *count += 1;
        Some(Place {
            acceptor: Arc::clone(acceptor),
            address,
        })
    }

    fn count_refusal(&self, address: SocketAddr, why: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%address, why, "turned a connection away");
    }

    /// From the first packet to a link in the queue.
    async fn establish(&self, incoming: Incoming) -> Result<(), String> {
        let connection = incoming
            .accept()
            .map_err(|error| explain(&error))?
            .await
            .map_err(|error| explain(&error))?;
        let (peer, protocol) = self.admit(&connection).inspect_err(|why| {
            connection.close(VarInt::from_u32(CLOSE_REFUSED), why.as_bytes());
        })?;
        if protocol == Protocol::Client {
            connection.set_receive_window(VarInt::from_u32(self.limits.client_window_bytes));
        }
        let link = Link::new(connection, peer, protocol, Arc::clone(&self.limits));
        // A place in the queue first: who is welcomed will be served.
        let place = self
            .links
            .reserve()
            .await
            .map_err(|_closed| "the endpoint is closed".to_owned())?;
        let mut welcome = link.open_uni().await.map_err(|error| error.to_string())?;
        welcome
            .queue(WELCOME, [])
            .map_err(|error| error.to_string())?;
        welcome.flush().await.map_err(|error| error.to_string())?;
        welcome.finish();
        place.send(link);
        Ok(())
    }

    /// Whether the authenticated peer may have this link.
    fn admit(&self, connection: &Connection) -> Result<(Identity, Protocol), String> {
        let protocol = connection
            .handshake_data()
            .and_then(|any| any.downcast::<HandshakeData>().ok())
            .and_then(|data| data.protocol)
            .and_then(|name| Protocol::from_alpn(&name))
            .ok_or("no protocol was chosen")?;
        let peer = peer_identity(connection)?;
        if peer.cluster != self.cluster {
            return Err(format!("{peer} is of another cluster"));
        }
        if !protocol.admits(peer.role) {
            return Err(format!("{peer} may not use the protocol of peers"));
        }
        Ok((peer, protocol))
    }
}
