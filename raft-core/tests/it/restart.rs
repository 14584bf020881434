//! What a node makes of a disk when it starts: log and snapshot of whatever crash.

use bytes::Bytes;
use raft_core::{
    ConfigError, Consistency, Entry, EntryKind, HardState, Index, LogId, Membership, Node,
    ProposeError, RaftHandle, Role, SnapshotMeta, StartError, Term,
};

use crate::support::{self, Content, SharedDeeds, SharedDisk, TestMachine, eventually, soon};

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

/// A disk of the only node of its group: a log of one term, and a snapshot in another.
fn disk(term: u64, start: LogId, last: u64, snapshot: Option<LogId>) -> SharedDisk {
    let disk = SharedDisk::default();
    {
        let mut disk = disk.lock().unwrap();
        disk.hard_state = HardState {
            term: Term(term),
            vote: None,
        };
        disk.start = start;
        let entry = |index| {
            let payload = Bytes::from(format!("entry {index}"));
            Entry::new(id(term, index), EntryKind::Command, payload)
        };
        disk.entries = (start.index.0 + 1..=last).map(entry).collect();
        disk.snapshots.newest = snapshot.map(|last| {
            let membership = members();
            let mut part = last.index.0.to_be_bytes().to_vec();
            part.extend_from_slice(b"in the snapshot");
            Content::new(SnapshotMeta { last, membership }, vec![part.into()])
        });
    }
    disk
}

fn members() -> Membership {
    support::parts(SharedDisk::default()).0.members
}

async fn start(disk: &SharedDisk) -> Result<(RaftHandle, SharedDeeds), StartError> {
    start_with_state(disk, SharedDeeds::default()).await
}

async fn start_with_state(
    disk: &SharedDisk,
    deeds: SharedDeeds,
) -> Result<(RaftHandle, SharedDeeds), StartError> {
    let (config, transport, log) = support::parts(disk.clone());
    let machine = Box::new(TestMachine::new(deeds.clone(), Default::default()));
    let handle = Node::start(config, transport, Box::new(log), machine).await?;
    Ok((handle, deeds))
}

async fn starts_with(disk: SharedDisk, commands: &[&str]) {
    let (handle, deeds) = start(&disk).await.unwrap();
    let held = || {
        let deeds = deeds.lock().unwrap();
        deeds
            .commands
            .iter()
            .map(|(_, c)| c.clone())
            .collect::<Vec<_>>()
    };
    eventually("the state is there", || held() == commands).await;
    eventually("it leads", || handle.status().role == Role::Leader).await;
    handle.propose("next".into()).await.unwrap();
    let read = handle.read("".into(), Consistency::Linearizable).await;
    assert_eq!(read.unwrap(), "next");
    soon("shutdown", handle.shutdown()).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_did_not_follow_a_snapshot_is_begun_behind_it() {
    let in_snapshot = &["in the snapshot"][..];
    // Shorter, with another entry there, and of an older term than the snapshot.
    for (term, last) in [(3, 5), (3, 12), (2, 10)] {
        let disk = disk(term, LogId::ZERO, last, Some(id(4, 10)));
        starts_with(disk.clone(), in_snapshot).await;
        let disk = disk.lock().unwrap();
        assert_eq!(disk.start, id(4, 10));
        assert!(disk.hard_state.term >= Term(4));
        let terms = disk.entries.iter().map(Entry::term);
        assert!(terms.clone().count() > 0 && terms.min() > Some(Term(4)));
    }
    // The beginning was moved, the term not noted yet.
    let bare = disk(3, id(4, 10), 10, Some(id(4, 10)));
    starts_with(bare, in_snapshot).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_holds_the_end_of_the_snapshot_is_kept() {
    for start in [LogId::ZERO, id(3, 4), id(3, 8)] {
        let disk = disk(3, start, 10, Some(id(3, 8)));
        let expected = ["in the snapshot", "entry 9", "entry 10"];
        starts_with(disk.clone(), &expected).await;
        assert_eq!(disk.lock().unwrap().start, start);
    }
}

/// A machine with a disk of its own comes back anywhere between the beginning of the log and its
/// end, and is given what it lacks, each command once.
#[tokio::test(start_paused = true)]
async fn a_machine_that_kept_its_state_is_given_the_rest_of_the_log() {
    for snapshot in [None, Some(id(3, 4))] {
        let first = snapshot.map_or(0, |last| last.index.0);
        for applied in first.max(1)..=10 {
            let disk = disk(3, snapshot.unwrap_or_default(), 10, snapshot);
            let deeds = SharedDeeds::default();
            {
                let mut deeds = deeds.lock().unwrap();
                deeds.is_durable = true;
                deeds.applied = id(3, applied);
                let kept = (1..=applied).map(|i| (Index(i), Bytes::from(format!("entry {i}"))));
                deeds.commands = kept.collect();
            }
            let (handle, deeds) = start_with_state(&disk, deeds).await.unwrap();
            assert!(
                handle.status().commit.0 >= applied,
                "what is applied is committed"
            );
            handle_leads(&handle).await;
            handle.propose("next".into()).await.unwrap();
            let commands = deeds.lock().unwrap().commands.clone();
            let indexes: Vec<u64> = commands.iter().map(|(index, _)| index.0).collect();
            // The no-op of the new term is at 11.
            let expected: Vec<u64> = (1..=10).chain([12]).collect();
            assert_eq!(indexes, expected, "from {applied}");
            assert_eq!(deeds.lock().unwrap().restores, 0);
            soon("shutdown", handle.shutdown()).await;
        }
    }
}

async fn handle_leads(handle: &RaftHandle) {
    eventually("it leads", || handle.status().role == Role::Leader).await;
}

/// The newest snapshot may be newer than what the machine has on its disk.
#[tokio::test(start_paused = true)]
async fn a_machine_that_is_behind_the_newest_snapshot_becomes_that() {
    for applied in [1, 4, 7] {
        let disk = disk(3, id(3, 4), 10, Some(id(3, 8)));
        let deeds = SharedDeeds::default();
        {
            let mut deeds = deeds.lock().unwrap();
            deeds.is_durable = true;
            deeds.applied = id(3, applied);
        }
        let (handle, deeds) = start_with_state(&disk, deeds).await.unwrap();
        handle_leads(&handle).await;
        handle.propose("next".into()).await.unwrap();
        let deeds = deeds.lock().unwrap();
        let commands: Vec<_> = deeds.commands.iter().map(|(_, c)| c.clone()).collect();
        assert_eq!(commands, ["in the snapshot", "entry 9", "entry 10", "next"]);
        assert_eq!(deeds.restores, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_entries_without_saying_so_is_an_error() {
    let deeds = SharedDeeds::default();
    {
        let mut deeds = deeds.lock().unwrap();
        deeds.is_durable = true;
        deeds.applied = id(3, 11);
    }
    let disk = disk(3, LogId::ZERO, 10, None);
    let error = start_with_state(&disk, deeds).await.unwrap_err();
    let (applied, last) = (id(3, 11), id(3, 10));
    assert_eq!(error, StartError::Ahead { applied, last });
}

#[tokio::test(start_paused = true)]
async fn the_only_voter_with_a_damaged_log_never_serves() {
    let disk = disk(3, LogId::ZERO, 10, None);
    disk.lock().unwrap().damage(Index(8));
    let (handle, _) = start(&disk).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let status = handle.status();
    assert_eq!(status.refilling, Some(id(3, 10)));
    assert_eq!((status.role, status.metrics.elections), (Role::Follower, 0));
    let refused = handle.propose("next".into()).await;
    let nobody = ProposeError::NotLeader { leader: None };
    assert_eq!(refused.unwrap_err(), nobody);
    soon("shutdown", handle.shutdown()).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_begins_behind_a_missing_snapshot_is_an_error() {
    let begin = id(3, 10);
    for newest in [None, Some(id(3, 5))] {
        let error = start(&disk(3, begin, 20, newest)).await.unwrap_err();
        let expected = StartError::MissingSnapshot {
            start: begin,
            newest,
        };
        assert_eq!(error, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_term_that_was_lost_is_an_error_where_entries_say_so() {
    let disk = disk(5, id(5, 10), 20, Some(id(5, 10)));
    disk.lock().unwrap().hard_state.term = Term(2);
    let error = start(&disk).await.unwrap_err();
    let expected = ConfigError::TermBehind {
        term: Term(2),
        last: id(5, 20),
    };
    assert_eq!(error, StartError::Config(expected));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_alone_with_a_snapshot_of_others_stays_a_follower() {
    let disk = disk(3, id(3, 10), 10, Some(id(3, 10)));
    disk.lock().unwrap().snapshots.newest = {
        let (mut config, ..) = support::parts(SharedDisk::default());
        let mut others = config.members.members().clone();
        let (_, member) = others.pop_first().unwrap();
        others.insert(raft_core::NodeId(7), member);
        config.members = Membership::new(others).unwrap();
        let (last, membership) = (id(3, 10), config.members);
        Some(Content::new(SnapshotMeta { last, membership }, Vec::new()))
    };
    let (handle, _) = start(&disk).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let status = handle.status();
    assert!(!status.is_member(), "the snapshot wins over the settings");
    assert_eq!((status.role, status.metrics.elections), (Role::Follower, 0));
    soon("shutdown", handle.shutdown()).await;
}
