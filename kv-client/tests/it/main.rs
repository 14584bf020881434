//! The client against nodes that are played, over real links.

mod admin;
mod fake;

use std::time::{Duration, Instant};

use bytes::Bytes;
use fake::{FakeCluster, Reaction, is_stamped};
use kv_api::limits::{LimitExceeded, VALUE_BYTES_MAX};
use kv_api::{NodeStatus, Notice, Outcome, RequestBody};
use kv_client::{
    CasOutcome, ClientError, CommandReply, ConfigError, Deleted, Expect, KvClient, ScanRange,
    WriteOp,
};

/// Waits for something that the test cannot be told of.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn every_operation_reaches_the_store() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client().await;
    let written = client.put("a", "1").await.expect("put");
    assert_eq!(
        (written.revision, written.version, written.value_bytes),
        (1, 1, 1)
    );
    assert_eq!(
        client.append("a", "2").await.expect("append").value_bytes,
        2
    );
    let found = client.get("a").await.expect("get").expect("present");
    assert_eq!(found.value, "12");
    assert!(client.get("b").await.expect("get").is_none());
    let set = client.cas("a", Expect::Version(2), "3").await.expect("cas");
    assert!(matches!(set, CasOutcome::Written(written) if written.version == 3));
    let other = client.cas("a", Expect::Absent, "4").await.expect("cas");
    assert_eq!(
        other,
        CasOutcome::Mismatch {
            version: 3,
            revision: 3
        }
    );
    assert_eq!(client.compact(2).await.expect("compact"), 2);
    let located = client
        .write_located(WriteOp::Put {
            key: "b".into(),
            value: "5".into(),
        })
        .await
        .expect("put");
    assert_eq!((located.term, located.index, located.sends), (1, 4, 1));
    assert!(matches!(located.reply, CommandReply::Written(_)));
    let deleted = client.delete("b").await.expect("delete");
    assert_eq!(
        deleted,
        Deleted {
            existed: true,
            revision: 5
        }
    );
    assert_eq!(cluster.store().sessions, 1, "one process, one session");
    let sequences: Vec<u64> = cluster
        .store()
        .stamps
        .iter()
        .map(|stamp| stamp.sequence)
        .collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 6]);
    client.close().await;
}

#[tokio::test]
async fn a_scan_goes_on_page_by_page_to_the_end_of_its_range() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    for key in ["a/1", "b/1", "b/2", "b/3", "b/4", "b/5", "c/1"] {
        client.put(key, "value").await.expect("put");
    }
    let mut scan = client.scan(ScanRange::prefix("b/"));
    let mut pages = Vec::new();
    while let Some(page) = scan.next_page().await.expect("page") {
        pages.push(page.len());
    }
    assert_eq!(pages, [2, 2, 1]);
    assert_eq!(scan.revision(), Some(7));
    let range = ScanRange {
        limit: Some(3),
        ..ScanRange::default()
    };
    let keys: Vec<Bytes> = client
        .scan(range)
        .collect()
        .await
        .expect("scan")
        .into_iter()
        .map(|found| found.key)
        .collect();
    assert_eq!(keys, ["a/1", "b/1", "b/2"]);
}

#[tokio::test]
async fn a_node_that_does_not_lead_names_the_one_that_does() {
    let cluster = FakeCluster::start(3).await;
    // Everybody believes in node 1, which knows better.
    let hint = (3, cluster.node(3).address.to_string());
    let mut refusals = 0;
    cluster.node(1).play(move |body| match body {
        RequestBody::Write(_) => {
            refusals += 1;
            assert_eq!(refusals, 1, "asked again although it said no");
            let leader = Some(hint.clone());
            Reaction::Answer(Outcome::NotLeader(Notice { term: 2, leader }))
        }
        _ => Reaction::Ignore,
    });
    // Node 3 does not say so itself: only the hint leads there.
    cluster.node(3).play(|body| match body {
        RequestBody::Write(_) => Reaction::Apply,
        _ => Reaction::Ignore,
    });
    let client = cluster.client().await;
    client.put("a", "1").await.expect("put");
    assert_eq!(cluster.store().values.len(), 1);
}

#[tokio::test]
async fn a_write_that_was_taken_when_the_connection_broke_is_repeated_with_its_stamp() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    client.append("a", "1").await.expect("append");
    cluster.node(1).play(|body| {
        if is_stamped(body) {
            Reaction::ApplyAndHangUp
        } else {
            Reaction::Usual
        }
    });
    let append = tokio::spawn({
        let client = client.clone();
        async move { client.append("a", "2").await }
    });
    eventually("node 1 took the write", || {
        cluster.store().stamps.len() >= 2
    })
    .await;
    cluster.lead(2, 2);
    let written = append.await.expect("no panic").expect("append");
    assert_eq!(written.value_bytes, 2);
    let store = cluster.store();
    assert_eq!(store.values[&Bytes::from("a")].value, "12", "once");
    assert!(store.stamps.len() >= 3, "repeated");
    let (first, last) = (store.stamps[1], store.stamps[store.stamps.len() - 1]);
    assert_eq!(
        (first.session, first.sequence),
        (last.session, last.sequence)
    );
}

#[tokio::test]
async fn a_write_that_is_never_answered_ends_as_unknown() {
    let cluster = FakeCluster::start(1).await;
    cluster.node(1).play(|body| {
        if is_stamped(body) {
            Reaction::ApplySilently
        } else {
            Reaction::Usual
        }
    });
    let client = cluster.impatient_client(Duration::from_secs(2)).await;
    let error = client.put("a", "1").await.expect_err("no answer");
    assert!(matches!(error, ClientError::Unknown(_)), "{error}");
    assert_eq!(error.exit_code(), 4);
    assert_eq!(cluster.store().values.len(), 1, "it was applied indeed");
    // The client goes on with the same session.
    cluster.node(1).play(|_| Reaction::Usual);
    client.put("a", "2").await.expect("put");
    assert_eq!(cluster.store().sessions, 1);
}

#[tokio::test]
async fn a_read_that_is_never_answered_ends_as_unavailable() {
    let cluster = FakeCluster::start(1).await;
    cluster.node(1).play(|_| Reaction::Ignore);
    let client = cluster.impatient_client(Duration::from_millis(300)).await;
    let error = client.get("a").await.expect_err("no answer");
    assert!(matches!(error, ClientError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_write_that_no_node_took_ends_as_unavailable() {
    let cluster = FakeCluster::start(2).await;
    for node in &cluster.nodes {
        node.play(|body| match body {
            RequestBody::Write(_) => Reaction::Answer(Outcome::Unavailable("starting".into())),
            _ => Reaction::Usual,
        });
    }
    let client = cluster.impatient_client(Duration::from_millis(500)).await;
    let error = client.put("a", "1").await.expect_err("nobody takes it");
    assert!(matches!(error, ClientError::Unavailable(_)), "{error}");
    assert_eq!(error.exit_code(), 3);
    // The session opens, then the writes find nobody.
    for node in &cluster.nodes {
        node.say(2, None);
        node.play(|_| Reaction::Usual);
    }
    let error = client.put("a", "1").await.expect_err("nobody leads");
    assert!(
        matches!(&error, ClientError::Unavailable(why) if why.contains("no leader")),
        "{error}"
    );
    cluster.lead(3, 2);
    client.put("a", "1").await.expect("put");
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_says_so() {
    let cluster = FakeCluster::start(1).await;
    cluster.node(1).stop().await;
    let client = cluster.impatient_client(Duration::from_millis(1500)).await;
    let error = client.put("a", "1").await.expect_err("nobody there");
    let ClientError::Unavailable(why) = &error else {
        panic!("{error}");
    };
    assert!(why.contains("0 of 1 nodes connected"), "{why}");
}

#[tokio::test]
async fn the_notice_of_a_new_leader_sends_what_waits_there() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client().await;
    client.put("a", "0").await.expect("put");
    // Node 1 falls silent with eight writes and a read in its hands.
    cluster.node(1).play(|_| Reaction::Ignore);
    let before = cluster.node(1).seen().writes;
    let writes: Vec<_> = (0..8)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.put(format!("key {number}"), "1").await })
        })
        .collect();
    let read = tokio::spawn({
        let client = client.clone();
        async move { client.get("a").await }
    });
    eventually("node 1 has the calls", || {
        let seen = cluster.node(1).seen();
        seen.writes == before + 8 && seen.reads == 1
    })
    .await;
    cluster
        .node(2)
        .say(2, Some((2, cluster.node(2).address.to_string())));
    for write in writes {
        write.await.expect("no panic").expect("put");
    }
    assert!(read.await.expect("no panic").expect("get").is_some());
    assert_eq!(cluster.node(2).seen().writes, 8);
}

#[tokio::test]
async fn sizes_are_checked_before_anything_is_sent() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let large = Bytes::from(vec![0; VALUE_BYTES_MAX + 1]);
    let errors = [
        client.put("", "value").await.expect_err("empty key"),
        client
            .put("a", large.clone())
            .await
            .expect_err("value too large"),
        client
            .append("a", large.clone())
            .await
            .expect_err("value too large"),
        client
            .cas("a", Expect::Value(large), "")
            .await
            .expect_err("value too large"),
        client.get(vec![0; 4097]).await.expect_err("key too large"),
    ];
    for error in errors {
        assert!(matches!(error, ClientError::Limit(_)), "{error}");
        assert_eq!(error.exit_code(), 5);
    }
    let seen = cluster.node(1).seen();
    assert_eq!((seen.writes, seen.reads), (0, 0));
}

#[tokio::test]
async fn what_the_service_refuses_is_not_tried_again() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    client.put("a", "1").await.expect("put");
    let mut answers = vec![
        Outcome::Refused("read only".to_owned()),
        Outcome::Limit(LimitExceeded {
            what: "command".to_owned(),
            bytes: 9,
            min: 0,
            max: 8,
        }),
    ];
    cluster.node(1).play(move |body| {
        let is_command = matches!(body, RequestBody::Write(_));
        match answers.pop().filter(|_| is_command) {
            Some(answer) => Reaction::Answer(answer),
            None => Reaction::Usual,
        }
    });
    let limit = client.put("a", "2").await.expect_err("refused");
    assert!(
        matches!(&limit, ClientError::Limit(limit) if limit.max == 8),
        "{limit}"
    );
    let refused = client.put("a", "3").await.expect_err("refused");
    assert!(
        matches!(&refused, ClientError::Refused(why) if why == "read only"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_expired_session_is_replaced_when_nothing_can_have_been_applied() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    client.put("a", "1").await.expect("put");
    cluster.store().expired_to = 1;
    client.put("a", "2").await.expect("put in a new session");
    let store = cluster.store();
    assert_eq!(store.sessions, 2);
    assert_eq!(store.values[&Bytes::from("a")].value, "2");
}

#[tokio::test]
async fn a_session_that_expires_between_attempts_leaves_the_outcome_unknown() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    client.append("a", "1").await.expect("append");
    cluster.node(1).play(|body| {
        if is_stamped(body) {
            Reaction::ApplySilently
        } else {
            Reaction::Usual
        }
    });
    let append = tokio::spawn({
        let client = client.clone();
        async move { client.append("a", "2").await }
    });
    eventually("node 1 applied it", || cluster.store().revision == 2).await;
    cluster.store().expired_to = 1;
    cluster.lead(2, 2);
    let error = append.await.expect("no panic").expect_err("not known");
    assert!(matches!(error, ClientError::Unknown(_)), "{error}");
    assert_eq!(
        cluster.store().values[&Bytes::from("a")].value,
        "12",
        "not twice"
    );
    client
        .append("a", "3")
        .await
        .expect("append in a new session");
}

#[tokio::test]
async fn a_service_that_forgets_every_session_is_given_up() {
    let cluster = FakeCluster::start(1).await;
    cluster.store().expired_to = u64::MAX;
    let client = cluster.client().await;
    let error = client.put("a", "1").await.expect_err("never in a session");
    assert!(matches!(error, ClientError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn garbage_ends_the_connection_and_not_the_client() {
    let garbage = [
        (2, Bytes::from_static(b"")),
        (2, Bytes::from_static(b"\x01not a response")),
        (2, Bytes::from_static(b"\xff")),
        (9, Bytes::from_static(b"\x01")),
        (
            2,
            kv_api::encode(&kv_api::Response {
                id: 1 << 40,
                outcome: Outcome::Answer(Bytes::new()),
            })
            .into(),
        ),
    ];
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    for (round, (kind, payload)) in garbage.into_iter().enumerate() {
        client.put("a", format!("{round}")).await.expect("put");
        let links = cluster.node(1).seen().links;
        let mut frame = Some(Reaction::Frame(kind, payload));
        cluster
            .node(1)
            .play(move |_| frame.take().unwrap_or(Reaction::Usual));
        let found = client.get("a").await.expect("get").expect("present");
        assert_eq!(found.value, format!("{round}"));
        assert!(cluster.node(1).seen().links > links, "a new connection");
    }
}

#[tokio::test]
async fn a_reply_that_makes_no_sense_is_unknown_for_a_write_and_unavailable_for_a_read() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    client.put("a", "1").await.expect("put");
    cluster.node(1).play(|body| match body {
        RequestBody::Write(_) => Reaction::Answer(Outcome::Applied {
            term: 1,
            index: 1,
            reply: Bytes::from_static(b"?"),
        }),
        RequestBody::Read(_) => Reaction::Answer(Outcome::Answer(Bytes::from_static(b"?"))),
        _ => Reaction::Usual,
    });
    let error = client.put("a", "2").await.expect_err("nonsense");
    assert!(matches!(error, ClientError::Unknown(_)), "{error}");
    let error = client.get("a").await.expect_err("nonsense");
    assert!(matches!(error, ClientError::Unavailable(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_writers_share_two_streams_of_one_connection() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let writers: Vec<_> = (0..1000)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    client
                        .put(format!("key {writer}"), format!("{round}"))
                        .await?;
                }
                Ok::<_, ClientError>(())
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no panic").expect("puts");
    }
    let seen = cluster.node(1).seen();
    assert_eq!(seen.links, 1);
    assert!(seen.streams <= 2, "{} streams", seen.streams);
    assert!(seen.batch_max > 10, "{} requests at once", seen.batch_max);
    let store = cluster.store();
    assert_eq!((store.values.len(), store.revision), (1000, 10_000));
    let newest = store.stamps.iter().map(|stamp| stamp.sequence).max();
    assert_eq!(newest, Some(10_000));
    let last = store.stamps.last().expect("many");
    assert!(
        last.unanswered_from > 9_000,
        "answered calls are acknowledged"
    );
}

#[tokio::test]
async fn large_values_travel_whole() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let value = Bytes::from(vec![42; VALUE_BYTES_MAX]);
    let puts = (0..12).map(|number| client.put(format!("{number}"), value.clone()));
    for put in futures_util::future::join_all(puts).await {
        assert_eq!(put.expect("put").value_bytes, VALUE_BYTES_MAX as u64);
    }
    let found = client.get("11").await.expect("get").expect("present");
    assert_eq!(found.value, value);
}

#[tokio::test]
async fn a_stale_read_needs_no_leader_and_no_certain_node() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    client.put("a", "1").await.expect("put");
    for node in &cluster.nodes {
        node.say(2, None);
    }
    cluster.node(1).stop().await;
    let found = client.get_stale("a").await.expect("get").expect("present");
    assert_eq!(found.value, "1");
    assert_eq!(cluster.node(2).seen().reads, 1);
}

#[tokio::test]
async fn status_reports_every_node_and_who_is_unreachable() {
    let cluster = FakeCluster::start(3).await;
    cluster.node(2).stop().await;
    let client = cluster.client().await;
    client.put("a", "1").await.expect("put");
    let reports = client.status().await.expect("status");
    let reached: Vec<(u64, bool)> = reports
        .iter()
        .map(|report| (report.id, report.status.is_some()))
        .collect();
    assert_eq!(reached, [(1, true), (2, false), (3, true)]);
    assert!(reports[1].problem.is_some());
    let leader = |status: &NodeStatus| status.leader;
    assert_eq!(reports[2].status.as_ref().and_then(leader), Some(1));
}

#[tokio::test]
async fn members_that_are_not_configured_are_learned() {
    let cluster = FakeCluster::start(3).await;
    let mut config = cluster.config();
    config.endpoints.truncate(1);
    cluster.lead(2, 3);
    let client = KvClient::connect(config).await.expect("good settings");
    client.put("a", "1").await.expect("put");
    eventually("all are connected", || {
        cluster.nodes.iter().all(|node| node.seen().links == 1)
    })
    .await;
    assert_eq!(client.status().await.expect("status").len(), 3);
}

#[tokio::test]
async fn a_node_that_comes_back_is_found_again() {
    let mut cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    client.put("a", "1").await.expect("put");
    cluster.restart(1).await;
    client.put("a", "2").await.expect("put");
    assert_eq!(cluster.store().values[&Bytes::from("a")].value, "2");
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_its_place_in_the_window() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    client.put("a", "1").await.expect("put");
    cluster.node(1).play(|body| {
        if is_stamped(body) {
            Reaction::Ignore
        } else {
            Reaction::Usual
        }
    });
    let abandoned = tokio::spawn({
        let client = client.clone();
        async move { client.put("a", "2").await }
    });
    eventually("the node has it", || cluster.node(1).seen().writes == 3).await;
    abandoned.abort();
    assert!(abandoned.await.expect_err("aborted").is_cancelled());
    cluster.node(1).play(|_| Reaction::Usual);
    client.put("a", "3").await.expect("put");
    let last = *cluster.store().stamps.last().expect("one");
    assert_eq!((last.sequence, last.unanswered_from), (3, 3));
}

#[tokio::test]
async fn closing_waits_for_calls_and_ends_later_ones() {
    let cluster = FakeCluster::start(2).await;
    let client = cluster.client().await;
    client.put("a", "1").await.expect("put");
    cluster.node(1).play(|_| Reaction::Ignore);
    let before = cluster.node(1).seen().writes;
    let pending = tokio::spawn({
        let client = client.clone();
        async move { client.put("a", "2").await }
    });
    eventually("node 1 has it", || cluster.node(1).seen().writes > before).await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close().await }
    });
    cluster.lead(2, 2);
    pending
        .await
        .expect("no panic")
        .expect("the call made before");
    closing.await.expect("no panic");
    for error in [
        client.put("a", "3").await.expect_err("closed"),
        client.get("a").await.map(|_| ()).expect_err("closed"),
        client.get_stale("a").await.map(|_| ()).expect_err("closed"),
        client.status().await.map(|_| ()).expect_err("closed"),
    ] {
        assert!(matches!(error, ClientError::Closed), "{error}");
    }
    client.close().await;
}

#[tokio::test]
async fn credentials_of_another_cluster_are_refused_at_once() {
    let cluster = FakeCluster::start(1).await;
    let mut config = cluster.config();
    config.cluster = [8; 16];
    let error = KvClient::connect(config)
        .await
        .expect_err("another cluster");
    assert!(
        matches!(error, ClientError::Config(ConfigError::OtherCluster { .. })),
        "{error}"
    );
    assert_eq!(error.exit_code(), 2);
    let mut config = cluster.config();
    config.key = b"no key".to_vec();
    let error = KvClient::connect(config).await.expect_err("no key");
    assert!(
        matches!(error, ClientError::Config(ConfigError::Credentials(_))),
        "{error}"
    );
}
