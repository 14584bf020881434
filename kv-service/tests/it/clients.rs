//! Goal: no client can harm a node, and every refusal says what was wrong.
//! Method: one node, one well-behaved client, and one that breaks the rules.

use std::net::UdpSocket;

use kv_api::limits::{
    CONNECTION_REQUESTS_MAX, FRAME_BYTES_MAX, KEY_BYTES_MAX, SCAN_PAGE_BYTES_MAX, VALUE_BYTES_MAX,
};
use kv_api::{Outcome, Request, RequestBody};
use kv_service::REQUEST_FRAME;
use quic_link::Protocol;

use crate::support::{Cluster, client_endpoint, eventually, put, query, soon, written};

/// What every test here ends with: nobody else noticed.
async fn assert_unharmed(cluster: &Cluster) {
    let mut client = cluster.client(1).await;
    written(&client.put("unharmed", "yes").await);
    assert_eq!(client.get("unharmed").await.unwrap().value.as_ref(), b"yes");
}

async fn one_node() -> Cluster {
    let cluster = Cluster::started(1).await;
    cluster.leader().await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_closes_the_link_that_it_came_by_and_no_other() {
    let cluster = one_node().await;
    let mut witness = cluster.client(1).await;
    written(&witness.put("key", "value").await);
    let zero = kv_api::encode(&Request {
        id: 0,
        body: RequestBody::Status,
    });
    let mut trailing = kv_api::encode(&Request {
        id: 1,
        body: RequestBody::Status,
    });
    trailing.push(0);
    for (kind, payload, part) in [
        (99, Vec::new(), "frame of kind 99"),
        (REQUEST_FRAME, Vec::new(), "empty message"),
        (REQUEST_FRAME, vec![0xff; 1000], "encoding version 255"),
        (REQUEST_FRAME, vec![1; 1000], "not a request"),
        (REQUEST_FRAME, trailing, "behind the end"),
        (REQUEST_FRAME, zero, "id 0"),
    ] {
        let why = cluster
            .client(1)
            .await
            .send_and_be_closed(kind, payload)
            .await;
        assert!(why.contains(part), "{why}");
    }
    assert!(witness.get("key").await.is_some());
    assert_unharmed(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_that_are_no_quic_are_ignored() {
    let cluster = one_node().await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in [0_usize, 1, 20, 1200, 9000] {
        let garbage: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
        socket.send_to(&garbage, cluster.config(1).listen).unwrap();
    }
    assert_unharmed(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_above_the_limit_closes_the_link() {
    let cluster = one_node().await;
    let client = cluster.client(1).await;
    let why = client
        .send_and_be_closed(REQUEST_FRAME, vec![0; FRAME_BYTES_MAX + 1])
        .await;
    assert!(why.contains(&(FRAME_BYTES_MAX + 1).to_string()), "{why}");
    assert!(why.contains(&FRAME_BYTES_MAX.to_string()), "{why}");
    assert_unharmed(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_values_above_their_limits_are_told_and_the_link_goes_on() {
    let cluster = one_node().await;
    let mut client = cluster.client(1).await;
    let long_key = "k".repeat(KEY_BYTES_MAX + 1);
    for (key, bytes, what, found) in [
        (long_key.as_str(), 1, "key", KEY_BYTES_MAX + 1),
        ("", 1, "key", 0),
        ("key", VALUE_BYTES_MAX + 1, "value", VALUE_BYTES_MAX + 1),
    ] {
        match client.put(key, vec![0; bytes]).await {
            Outcome::Limit(limit) => {
                assert_eq!((limit.what.as_str(), limit.bytes), (what, found as u64));
            }
            other => panic!("{other:?}"),
        }
    }
    match client
        .request(RequestBody::Write(b"\x01no command".to_vec().into()))
        .await
    {
        Outcome::Refused(why) => assert!(why.contains("not a command"), "{why}"),
        other => panic!("{other:?}"),
    }
    let largest = "k".repeat(KEY_BYTES_MAX);
    written(&client.put(&largest, vec![5; VALUE_BYTES_MAX]).await);
    assert_eq!(
        client.get(&largest).await.unwrap().value.len(),
        VALUE_BYTES_MAX
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_may_be_outstanding_are_all_answered() {
    let cluster = one_node().await;
    let mut client = cluster.client(1).await;
    let count = CONNECTION_REQUESTS_MAX * 2;
    let mut missing: std::collections::BTreeSet<u64> = (0..count)
        .map(|number| match number % 3 {
            0 => client.queue(put(&format!("key-{}", number % 100), "value")),
            1 => client.queue(RequestBody::Read(query("key-1"))),
            _ => client.queue(RequestBody::ReadStale(query("key-2"))),
        })
        .collect();
    client.writer.flush().await.unwrap();
    client.writer.finish();
    while !missing.is_empty() {
        let response = client.response().await;
        assert!(missing.remove(&response.id), "{response:?}");
        let good = matches!(
            response.outcome,
            Outcome::Applied { .. } | Outcome::Answer(_)
        );
        assert!(good, "{response:?}");
    }
    // The client has finished its side, so the node finishes its own.
    let end = soon("the end", client.reader.read(FRAME_BYTES_MAX))
        .await
        .unwrap();
    assert_eq!(end, None);
}

/// The answers are far more than windows and budgets hold together, so the node has to stop
/// reading.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answers_holds_up_only_itself() {
    let cluster = one_node().await;
    let mut lazy = cluster.client(1).await;
    written(&lazy.put("large", vec![1; VALUE_BYTES_MAX]).await);
    let count = 300;
    for _ in 0..count {
        lazy.queue(RequestBody::ReadStale(query("large")));
    }
    lazy.writer.flush().await.unwrap();
    assert_unharmed(&cluster).await;
    for _ in 0..count {
        match lazy.response().await.outcome {
            Outcome::Answer(bytes) => assert!(bytes.len() > SCAN_PAGE_BYTES_MAX),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_cluster_is_refused() {
    let (cluster, stranger) = (one_node().await, Cluster::made(1));
    let endpoint = client_endpoint(&stranger.layout.dir);
    let node = cluster.identity(1);
    let address = cluster.config(1).listen;
    let error = endpoint
        .connect(address, &node, Protocol::Client)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_unharmed(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_not_speak_as_a_peer() {
    let cluster = one_node().await;
    let endpoint = client_endpoint(&cluster.layout.dir);
    let node = cluster.identity(1);
    let address = cluster.config(1).listen;
    endpoint
        .connect(address, &node, Protocol::Peer)
        .await
        .unwrap_err();
    assert_unharmed(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded() {
    let mut cluster = Cluster::made(1);
    cluster.layout.nodes[0].clients.connections_max = 2;
    cluster.start(1).await;
    let mut kept = (cluster.client(1).await, cluster.client(1).await);
    kept.0.request(RequestBody::Status).await;
    kept.1.request(RequestBody::Status).await;
    let why = match cluster.dial(1).await {
        Ok((_endpoint, link)) => soon("the third is refused", link.closed()).await,
        Err(error) => error.to_string(),
    };
    assert!(why.contains("connections_max of 2"), "{why}");
    kept.0.request(RequestBody::Status).await;
    // A place is free again once a client has left.
    kept.1.link.close(0, "done");
    eventually("a place is free", async || {
        let (_endpoint, link) = cluster.dial(1).await.ok()?;
        let (mut writer, mut reader) = link.open_bi().await.ok()?;
        let request = Request {
            id: 1,
            body: RequestBody::Status,
        };
        writer
            .queue(REQUEST_FRAME, [kv_api::encode(&request).into()])
            .ok()?;
        writer.flush().await.ok()?;
        reader.read(FRAME_BYTES_MAX).await.ok()?
    })
    .await;
}
