//! What administrators ask for: once or not at all, and what is known when no answer comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kv_api::{MemberChange, MembersReport, NodeStatus, Notice, Outcome, RequestBody, SnapshotHead};
use kv_client::{ClientError, KvClient};

use crate::eventually;
use crate::fake::{FakeCluster, Reaction};

fn add() -> MemberChange {
    MemberChange::Add {
        id: 4,
        incarnation: 44,
        address: "d:1".to_owned(),
    }
}

fn is_change(body: &RequestBody) -> bool {
    matches!(body, RequestBody::ChangeMembers(_))
}

/// What the leader does with a change; everything else as usual.
fn play(cluster: &FakeCluster, node: u64, reaction: fn() -> Reaction) {
    cluster.node(node).play(move |body| {
        if is_change(body) {
            reaction()
        } else {
            Reaction::Usual
        }
    });
}

/// Starts a change and waits until the node has it.
async fn change_taken(
    cluster: &FakeCluster,
    client: &KvClient,
) -> tokio::task::JoinHandle<Result<MembersReport, ClientError>> {
    let change = tokio::spawn({
        let client = client.clone();
        async move { client.change_members(add()).await }
    });
    eventually("node 1 took the change", || {
        cluster.node(1).seen().changes == 1
    })
    .await;
    change
}

#[tokio::test]
async fn a_change_comes_back_with_the_members() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client().await;
    assert!(client.members().await.expect("members").members.is_empty());
    let report = client.change_members(add()).await.expect("changed");
    assert_eq!(report, client.members().await.expect("members"));
    assert_eq!(report.member(4).map(|it| it.incarnation), Some(44));
    assert_eq!(cluster.node(1).seen().changes, 1);
}

#[tokio::test]
async fn a_change_that_was_carried_out_without_an_answer_is_settled_by_the_members() {
    let cluster = FakeCluster::start(2).await;
    play(&cluster, 1, || Reaction::ApplyAndHangUp);
    let client = cluster.client().await;
    let change = change_taken(&cluster, &client).await;
    cluster.lead(2, 2);
    let report = change.await.expect("no panic").expect("settled");
    assert!(report.member(4).is_some());
    assert_eq!(cluster.node(2).seen().changes, 0, "never sent twice");
}

#[tokio::test]
async fn a_change_that_the_members_do_not_show_is_unknown_and_not_repeated() {
    let cluster = FakeCluster::start(2).await;
    play(&cluster, 1, || Reaction::HangUp);
    let client = cluster.impatient_client(Duration::from_millis(800)).await;
    let change = change_taken(&cluster, &client).await;
    cluster.lead(2, 2);
    let error = change.await.expect("no panic").expect_err("nobody knows");
    assert_eq!(error.exit_code(), 4, "{error}");
    assert!(
        error.to_string().contains("connection to node 1"),
        "{error}"
    );
    assert_eq!(cluster.node(2).seen().changes, 0, "never sent twice");
}

#[tokio::test]
async fn a_change_is_unsettled_while_the_members_are_changing() {
    let cluster = FakeCluster::start(2).await;
    cluster.store().members.is_changing = true;
    play(&cluster, 1, || Reaction::ApplyAndHangUp);
    let client = cluster.client().await;
    let change = change_taken(&cluster, &client).await;
    cluster.lead(2, 2);
    let looks = cluster.node(2).seen().members;
    eventually("the members were looked at several times", || {
        cluster.node(2).seen().members > looks + 3
    })
    .await;
    assert!(!change.is_finished());
    cluster.store().members.is_changing = false;
    change.await.expect("no panic").expect("settled");
}

#[tokio::test]
async fn a_change_that_was_turned_away_goes_to_the_one_that_leads() {
    let cluster = FakeCluster::start(2).await;
    let hint = (2, cluster.node(2).address.to_string());
    cluster.node(1).play(move |body| {
        let leader = Some(hint.clone());
        match is_change(body) {
            true => Reaction::Answer(Outcome::NotLeader(Notice { term: 2, leader })),
            false => Reaction::Usual,
        }
    });
    cluster.node(2).play(|body| match is_change(body) {
        true => Reaction::Apply,
        false => Reaction::Usual,
    });
    let client = cluster.client().await;
    client.change_members(add()).await.expect("changed");
    assert_eq!(cluster.store().members.members.len(), 1);
}

#[tokio::test]
async fn a_change_that_no_node_takes_is_unavailable() {
    let cluster = FakeCluster::start(1).await;
    play(&cluster, 1, || {
        Reaction::Answer(Outcome::Unavailable("not now".to_owned()))
    });
    let client = cluster.impatient_client(Duration::from_millis(300)).await;
    let error = client.change_members(add()).await.expect_err("not taken");
    assert_eq!(error.exit_code(), 3, "{error}");
    assert!(error.to_string().contains("not now"), "{error}");
}

#[tokio::test]
async fn what_is_refused_comes_back_with_the_reason() {
    let cluster = FakeCluster::start(1).await;
    cluster.node(1).play(|body| match body {
        RequestBody::Status => Reaction::Usual,
        _ => Reaction::Answer(Outcome::Refused("node 4 is already a member".to_owned())),
    });
    let client = cluster.client().await;
    let errors = [
        client.change_members(add()).await.expect_err("refused"),
        client.transfer_leader(9).await.expect_err("refused"),
        client.members().await.expect_err("refused"),
        client.save_snapshot().await.expect_err("refused"),
    ];
    for error in errors {
        assert_eq!(error.exit_code(), 5);
        assert!(error.to_string().contains("already a member"), "{error}");
    }
    let empty = MemberChange::Add {
        id: 4,
        incarnation: 1,
        address: String::new(),
    };
    let error = client.change_members(empty).await.expect_err("no address");
    assert!(matches!(error, ClientError::Limit(_)), "{error}");
}

#[tokio::test]
async fn a_transfer_ends_when_the_other_leads() {
    let cluster = FakeCluster::start(2).await;
    cluster.node(1).play(|body| match body {
        RequestBody::TransferLeader { to: 2 } => Reaction::Answer(Outcome::Done),
        _ => Reaction::Usual,
    });
    let client = cluster.client().await;
    client.transfer_leader(2).await.expect("done");
}

#[tokio::test]
async fn a_transfer_without_an_answer_is_settled_by_who_leads() {
    let cluster = FakeCluster::start(2).await;
    let handed_over = Arc::new(AtomicBool::new(false));
    let hand_over = Arc::clone(&handed_over);
    cluster.node(1).play(move |body| match body {
        RequestBody::TransferLeader { .. } => {
            hand_over.store(true, Ordering::SeqCst);
            Reaction::HangUp
        }
        _ => Reaction::Usual,
    });
    cluster.node(2).play(move |body| match body {
        RequestBody::Status if handed_over.load(Ordering::SeqCst) => {
            Reaction::Answer(Outcome::Status(Box::new(NodeStatus {
                id: 2,
                term: 2,
                leader: Some(2),
                ..NodeStatus::default()
            })))
        }
        _ => Reaction::Usual,
    });
    let client = cluster.client().await;
    client.transfer_leader(2).await.expect("node 2 leads");
}

#[tokio::test]
async fn a_transfer_without_an_answer_is_unknown_while_another_leads() {
    let cluster = FakeCluster::start(2).await;
    cluster.node(1).play(|body| match body {
        RequestBody::TransferLeader { .. } => Reaction::HangUp,
        _ => Reaction::Usual,
    });
    let client = cluster.impatient_client(Duration::from_millis(500)).await;
    let error = client.transfer_leader(2).await.expect_err("node 1 leads");
    assert_eq!(error.exit_code(), 4, "{error}");
}

fn head() -> SnapshotHead {
    SnapshotHead {
        cluster_id: "c".to_owned(),
        term: 2,
        index: 30,
        members: MembersReport::default(),
    }
}

/// Node 1 answers a snapshot with all of this.
fn sends(cluster: &FakeCluster, outcomes: Vec<Outcome>) {
    cluster.node(1).play(move |body| match body {
        RequestBody::SaveSnapshot => Reaction::Answers(outcomes.clone()),
        _ => Reaction::Usual,
    });
}

#[tokio::test]
async fn a_snapshot_comes_part_by_part() {
    let cluster = FakeCluster::start(1).await;
    let part = |byte: u8| Bytes::from(vec![byte; 100_000]);
    let parts: Vec<Bytes> = (0..50).map(part).collect();
    let mut outcomes = vec![Outcome::SnapshotBegin(head())];
    outcomes.extend(parts.iter().cloned().map(Outcome::SnapshotPart));
    let (count, bytes) = (50, 5_000_000);
    outcomes.push(Outcome::SnapshotEnd {
        parts: count,
        bytes,
    });
    sends(&cluster, outcomes);
    let client = cluster.client().await;
    let mut download = client.save_snapshot().await.expect("begun");
    assert_eq!(download.head(), &head());
    assert_eq!(download.summary(), None);
    for part in parts {
        assert_eq!(download.next_part().await.expect("a part"), Some(part));
    }
    assert_eq!(download.next_part().await.expect("the end"), None);
    let summary = download.summary().expect("whole");
    assert_eq!((summary.parts, summary.bytes), (count, bytes));
    assert_eq!(summary.head, head());
    assert_eq!(cluster.node(1).seen().links, 2, "a connection of its own");
}

#[tokio::test]
async fn a_snapshot_that_is_not_whole_is_an_error() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let part = Outcome::SnapshotPart("part".into());
    let end = |parts, bytes| Outcome::SnapshotEnd { parts, bytes };
    for last in [
        end(2, 4),
        end(1, 5),
        Outcome::Unavailable("the state cannot be read".to_owned()),
        Outcome::Done,
    ] {
        sends(
            &cluster,
            vec![Outcome::SnapshotBegin(head()), part.clone(), last],
        );
        let mut download = client.save_snapshot().await.expect("begun");
        assert!(download.next_part().await.expect("a part").is_some());
        let error = download.next_part().await.expect_err("not whole");
        assert_eq!(error.exit_code(), 3, "{error}");
        assert!(error.to_string().contains("1 parts of 4 bytes"), "{error}");
        assert_eq!(download.summary(), None);
    }
}

#[tokio::test]
async fn a_snapshot_is_begun_as_soon_as_a_node_can() {
    let cluster = FakeCluster::start(2).await;
    let mut asked = 0;
    cluster.node(1).play(move |body| match body {
        RequestBody::SaveSnapshot => {
            asked += 1;
            match asked {
                1 => Reaction::Answer(Outcome::Unavailable("busy".to_owned())),
                2 => Reaction::Answer(Outcome::NotLeader(Notice::default())),
                3 => Reaction::HangUp,
                _ => Reaction::Answers(vec![
                    Outcome::SnapshotBegin(head()),
                    Outcome::SnapshotEnd { parts: 0, bytes: 0 },
                ]),
            }
        }
        _ => Reaction::Usual,
    });
    let client = cluster.client().await;
    let mut download = client.save_snapshot().await.expect("begun");
    assert_eq!(download.next_part().await.expect("the end"), None);
    assert!(download.summary().is_some());
}

#[tokio::test]
async fn a_snapshot_that_stands_still_is_given_up() {
    let cluster = FakeCluster::start(1).await;
    sends(&cluster, vec![Outcome::SnapshotBegin(head())]);
    let client = cluster.impatient_client(Duration::from_millis(300)).await;
    let mut download = client.save_snapshot().await.expect("begun");
    let error = download.next_part().await.expect_err("nothing comes");
    assert_eq!(error.exit_code(), 3, "{error}");
    assert!(
        error.to_string().contains("nothing came for 300 ms"),
        "{error}"
    );
    sends(
        &cluster,
        vec![Outcome::Unavailable("too many images".to_owned())],
    );
    let error = client.save_snapshot().await.expect_err("never begun");
    assert_eq!(error.exit_code(), 3, "{error}");
    assert!(error.to_string().contains("too many images"), "{error}");
}
