//! Who gets a link and who does not, and what it does to the others.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use quic_link::test_support::{Authority, Pem};
use quic_link::{
    BindError, ConnectError, Credentials, CredentialsError, Endpoint, Identity, Protocol, Role,
};

use crate::{CLUSTER, bind, node, options, within};

fn load(pem: &Pem) -> Result<Credentials, CredentialsError> {
    Credentials::from_pem(pem.ca.as_bytes(), pem.cert.as_bytes(), pem.key.as_bytes())
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3_600)
}

#[test]
fn certificates_that_cannot_be_used_are_refused_when_loaded() {
    let authority = Authority::new(CLUSTER);
    let other = Authority::new(CLUSTER);
    let now = SystemTime::now();
    let (from, until) = (now - hours(1), now + hours(1));
    let name = node(1).dns_name();
    let good = authority.sign(&[&name, "host.example"], from, until);
    assert_eq!(*load(&good).unwrap().identity(), node(1));

    let expired = authority.sign(
        &[&name],
        SystemTime::UNIX_EPOCH,
        SystemTime::UNIX_EPOCH + hours(1),
    );
    let error = load(&expired).unwrap_err().to_string();
    assert_eq!(error, "the certificate expired on 1970-01-01 01:00:00 UTC");

    let early = authority.sign(&[&name], until, until + hours(1));
    assert!(matches!(
        load(&early),
        Err(CredentialsError::NotYetValid { .. })
    ));

    let foreign = Pem {
        ca: other.pem(Role::Node(1)).ca,
        ..good.clone()
    };
    assert!(matches!(
        load(&foreign),
        Err(CredentialsError::NotSignedByAuthority)
    ));

    let mixed = Pem {
        key: authority.pem(Role::Node(1)).key,
        ..good.clone()
    };
    assert!(matches!(load(&mixed), Err(CredentialsError::KeyMismatch)));

    let cut = Pem {
        key: good.key[..40].into(),
        ..good.clone()
    };
    let error = load(&cut).unwrap_err().to_string();
    assert!(error.ends_with("a PEM block in it has no end"), "{error}");

    let nobody = authority.sign(&["host.example"], from, until);
    assert!(matches!(load(&nobody), Err(CredentialsError::NoIdentity)));

    for names in [
        &[name.as_str(), node(2).dns_name().as_str()][..],
        &["node-1.flotilla"][..],
    ] {
        let unclear = authority.sign(names, from, until);
        assert!(matches!(
            load(&unclear),
            Err(CredentialsError::AmbiguousIdentity(_))
        ));
    }

    for (file, broken) in [
        (
            "authority",
            Pem {
                ca: String::new(),
                ..good.clone()
            },
        ),
        (
            "certificate",
            Pem {
                cert: "x".to_owned(),
                ..good.clone()
            },
        ),
        (
            "private key",
            Pem {
                key: good.cert.clone(),
                ..good.clone()
            },
        ),
    ] {
        let error = load(&broken).unwrap_err().to_string();
        assert!(error.starts_with(file), "{error}");
    }
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let authority = Authority::new(CLUSTER);
    let server = bind(authority.credentials(Role::Node(1)), true);
    for (role, protocol) in [
        (Role::Node(2), Protocol::Peer),
        (Role::Node(2), Protocol::Client),
        (Role::Client, Protocol::Client),
        (Role::Admin, Protocol::Client),
    ] {
        let client = bind(authority.credentials(role), false);
        let dialled = within(client.connect(server.local_addr(), &node(1), protocol))
            .await
            .unwrap();
        let accepted = within(server.accept()).await.unwrap();
        assert_eq!(*dialled.peer(), node(1));
        assert_eq!(accepted.peer().role, role);
        assert_eq!(
            (dialled.protocol(), accepted.protocol()),
            (protocol, protocol)
        );
        assert_eq!(accepted.remote_addr().port(), client.local_addr().port());
    }
}

#[tokio::test]
async fn clients_and_admins_may_not_speak_as_peers() {
    let authority = Authority::new(CLUSTER);
    let server = bind(authority.credentials(Role::Node(1)), true);
    for role in [Role::Client, Role::Admin] {
        let client = bind(authority.credentials(role), false);
        let error = within(client.connect(server.local_addr(), &node(1), Protocol::Peer))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, ConnectError::Refused { why, .. }
            if why.contains("may not use the protocol of peers")),
            "{error}"
        );
    }
    assert_eq!(server.refused(), 2);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_either_side() {
    let ours = Authority::new(CLUSTER);
    let theirs = Authority::new(CLUSTER);
    let server = bind(ours.credentials(Role::Node(1)), true);
    let stranger = bind(theirs.credentials(Role::Node(2)), false);
    let error = within(stranger.connect(server.local_addr(), &node(1), Protocol::Peer))
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Certificate { .. }), "{error}");

    // It trusts our authority, but its own certificate is from elsewhere.
    let now = SystemTime::now();
    let forged = theirs.sign(&[&node(2).dns_name()], now - hours(1), now + hours(1));
    let chain = load(&forged).unwrap();
    let intruder = bind(chain.trusting(&ours.pem(Role::Client).ca), false);
    let error = within(intruder.connect(server.local_addr(), &node(1), Protocol::Peer))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ConnectError::Certificate { .. }), "{text}");
    assert!(text.contains("refused our certificate"), "{text}");
}

#[tokio::test]
async fn one_authority_for_two_clusters_does_not_join_them() {
    let other_cluster = [8; 16];
    let authority = Authority::new(CLUSTER);
    let now = SystemTime::now();
    let name = Identity {
        cluster: other_cluster,
        role: Role::Node(2),
    }
    .dns_name();
    let pem = authority.sign(&[&name], now - hours(1), now + hours(1));
    let server = bind(authority.credentials(Role::Node(1)), true);
    let client = bind(load(&pem).unwrap(), false);
    let error = within(client.connect(server.local_addr(), &node(1), Protocol::Peer))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ConnectError::Refused { why, .. }
        if why.contains("of another cluster")),
        "{error}"
    );
}

#[tokio::test]
async fn whoever_answers_must_be_who_was_dialled() {
    let authority = Authority::new(CLUSTER);
    let server = bind(authority.credentials(Role::Node(1)), true);
    let client = bind(authority.credentials(Role::Node(2)), false);
    let error = within(client.connect(server.local_addr(), &node(3), Protocol::Peer))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ConnectError::Certificate { .. }), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

#[tokio::test]
async fn a_certificate_that_has_expired_since_it_was_loaded_is_refused_by_the_peer() {
    let authority = Authority::new(CLUSTER);
    let until = SystemTime::now() + Duration::from_secs(2);
    let pem = authority.sign(&[&node(2).dns_name()], until - hours(1), until);
    let client = bind(load(&pem).unwrap(), true);
    let server = bind(authority.credentials(Role::Node(1)), true);
    while SystemTime::now() <= until + Duration::from_secs(1) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let error = within(client.connect(server.local_addr(), &node(1), Protocol::Peer))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    let error = within(server.connect(client.local_addr(), &node(2), Protocol::Peer))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test]
async fn garbage_on_the_socket_harms_nothing() {
    let authority = Authority::new(CLUSTER);
    let server = bind(authority.credentials(Role::Node(1)), true);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 1_u32;
    for size in (1..1_400).step_by(7) {
        let datagram: Vec<u8> = (0..size)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        socket.send_to(&datagram, server.local_addr()).unwrap();
    }
    let client = bind(authority.credentials(Role::Node(2)), false);
    let dialled = within(client.connect(server.local_addr(), &node(1), Protocol::Peer))
        .await
        .unwrap();
    let accepted = within(server.accept()).await.unwrap();
    let mut writer = dialled.open_uni().await.unwrap();
    writer
        .queue(1, [Bytes::from_static(b"still here")])
        .unwrap();
    within(writer.flush()).await.unwrap();
    let mut reader = within(accepted.accept_uni()).await.unwrap();
    assert!(within(reader.read(100)).await.unwrap().is_some());
}

/// A relay that lets the first datagram of each dialler through and drops everything else, so that
/// handshakes begin and never end.
#[tokio::test]
async fn handshakes_that_never_end_keep_nobody_out() {
    let authority = Authority::new(CLUSTER);
    let mut server_options = options(authority.credentials(Role::Node(1)), true);
    server_options.limits.handshakes_max = 4;
    server_options.limits.handshakes_per_address_max = 4;
    server_options.limits.handshake_deadline = Duration::from_millis(500);
    let server = Endpoint::bind(server_options).unwrap();

    let relay = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let relay_address = relay.local_addr().unwrap();
    let target = server.local_addr();
    const STALLED: usize = 12;
    let forward = async {
        let mut seen = BTreeSet::new();
        let mut buffer = [0; 2_000];
        while seen.len() < STALLED {
            let (size, from) = relay.recv_from(&mut buffer).await.unwrap();
            if from != target && seen.insert(from) {
                relay.send_to(&buffer[..size], target).await.unwrap();
            }
        }
    };
    let mut stalled = tokio::task::JoinSet::new();
    for id in 10..10 + STALLED as u64 {
        let client = bind(authority.credentials(Role::Node(id)), false);
        stalled.spawn(async move {
            let _ = client
                .connect(relay_address, &node(1), Protocol::Peer)
                .await;
        });
    }
    within(forward).await;

    let client = bind(authority.credentials(Role::Node(2)), false);
    within(async {
        // It may be turned away until the deadline has freed a place.
        while client
            .connect(server.local_addr(), &node(1), Protocol::Peer)
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(within(server.accept()).await.is_some());
    within(async {
        while server.refused() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_there_is_an_error_within_the_deadline() {
    let authority = Authority::new(CLUSTER);
    let mut client = options(authority.credentials(Role::Node(2)), false);
    client.limits.connect_deadline = Duration::from_millis(200);
    let client = Endpoint::bind(client).unwrap();
    // Bound and never read: nothing answers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = within(client.connect(silent.local_addr().unwrap(), &node(1), Protocol::Peer))
        .await
        .unwrap_err();
    assert!(
        error.to_string().ends_with("did not answer within 200 ms"),
        "{error}"
    );
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let authority = Authority::new(CLUSTER);
    let first = bind(authority.credentials(Role::Node(1)), true);
    let mut second = options(authority.credentials(Role::Node(2)), true);
    second.listen = first.local_addr();
    let error = Endpoint::bind(second).unwrap_err();
    assert!(matches!(error, BindError::InUse(address) if address == first.local_addr()));
    assert!(error.to_string().contains("already in use"));
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() {
    let authority = Authority::new(CLUSTER);
    let mut bad = options(authority.credentials(Role::Node(1)), true);
    bad.limits.keep_alive_interval = bad.limits.idle_timeout;
    let error = Endpoint::bind(bad).unwrap_err().to_string();
    assert!(error.contains("keep_alive_interval"), "{error}");
}

#[tokio::test]
async fn links_above_the_limit_are_refused() {
    let authority = Authority::new(CLUSTER);
    let mut server = options(authority.credentials(Role::Node(1)), true);
    server.limits.links_max = 1;
    let server = Endpoint::bind(server).unwrap();
    let client = bind(authority.credentials(Role::Client), false);
    let first = within(client.connect(server.local_addr(), &node(1), Protocol::Client))
        .await
        .unwrap();
    let error = within(client.connect(server.local_addr(), &node(1), Protocol::Client))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("takes no more links"), "{error}");
    assert!(!first.is_closed());
}

/// The process is killed and comes back: its socket disappears without a word, and a new endpoint
/// opens on the same port. The links of the old one must not linger until the idle time-out.
#[test]
fn a_restarted_process_with_the_same_reset_key_ends_the_old_links_at_once() {
    let authority = Authority::new(CLUSTER);
    let mut server_options = options(authority.credentials(Role::Node(1)), true);
    server_options.reset_key = Some([42; 64]);
    server_options.limits.idle_timeout = Duration::from_secs(600);
    let mut client_options = options(authority.credentials(Role::Node(2)), false);
    client_options.limits.idle_timeout = Duration::from_secs(600);

    let first_life = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let here = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = first_life
        .block_on(async { Endpoint::bind(server_options.clone()) })
        .unwrap();
    server_options.listen = server.local_addr();
    let client = here
        .block_on(async { Endpoint::bind(client_options) })
        .unwrap();
    let link = here
        .block_on(within(client.connect(
            server.local_addr(),
            &node(1),
            Protocol::Peer,
        )))
        .unwrap();
    let accepted = here.block_on(within(server.accept())).unwrap();
    // Its tasks end without another poll, so nothing more is sent.
    first_life.shutdown_timeout(crate::DEADLINE);
    drop((accepted, server));
    here.block_on(within(async {
        let _second_life = loop {
            match Endpoint::bind(server_options.clone()) {
                Ok(endpoint) => break endpoint,
                Err(BindError::InUse(_)) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        };
        let mut writer = link.open_uni().await.unwrap();
        writer
            .queue(1, [Bytes::from_static(b"are you there?")])
            .unwrap();
        writer.flush().await.unwrap();
        let why = link.closed().await;
        assert!(why.contains("restarted"), "{why}");
    }));
}
