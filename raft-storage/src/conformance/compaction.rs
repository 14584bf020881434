//! The cases in which a log loses its beginning, one rule each.

use raft_core::{AppendBatch, Entry, Index, LogId, StorageError, Term};

use super::model::{Checked, hard_state};
use super::place::Place;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

pub(super) async fn drops_entries_and_keeps_the_rest(place: Place) {
    let mut log = Checked::open("compaction drops entries and keeps the rest", place).await;
    log.compact(LogId::ZERO).await;
    log.append_entries(1, &[10, 20, 30, 40]).await;
    log.append_entries(3, &[50, 60, 70, 80]).await;
    for to in [1, 1, 2, 4, 5, 7] {
        log.compact(log.id_at(to)).await;
        log.load().await;
        log.compare().await;
        log.reopen().await;
    }
    log.append_entries(3, &[90, 100]).await;
    log.append_entries(4, &[110]).await;
    log.reopen().await;
    log.append(AppendBatch {
        truncate_from: Some(Index(8)),
        ..AppendBatch::default()
    })
    .await;
    log.reopen().await;
}

pub(super) async fn of_the_whole_log_leaves_where_it_goes_on(place: Place) {
    let case = "compaction of the whole log leaves where it goes on";
    let mut log = Checked::open(case, place).await;
    for round in 0..6 {
        // In the term of the last one, and in a later one.
        log.append_entries(1 + round / 2, &[500; 7]).await;
        log.compact(log.last()).await;
        log.load().await;
        log.compare().await;
        log.reopen().await;
    }
}

pub(super) async fn of_a_log_over_many_files(place: Place) {
    let mut log = Checked::open("compaction of a log over many files", place).await;
    for round in 0..30 {
        log.append_entries(1 + round / 4, &[3_000; 9]).await;
        if round % 3 == 2 {
            let keep = 3 + round;
            log.compact(log.id_at(log.last().index.0 - keep)).await;
            log.compare().await;
            log.reopen().await;
        }
    }
    // A wrong tail that begins in a file before the newest one.
    let from = log.start.index.next();
    log.append(AppendBatch {
        truncate_from: Some(from),
        ..AppendBatch::default()
    })
    .await;
    log.append_entries(90, &[3_000; 4]).await;
    log.compact(log.id_at(from.0 + 1)).await;
    log.reopen().await;
}

pub(super) async fn keeps_term_and_vote(place: Place) {
    let mut log = Checked::open("compaction keeps term and vote", place).await;
    log.append(AppendBatch {
        hard_state: Some(hard_state(7, Some(2))),
        ..AppendBatch::default()
    })
    .await;
    for _ in 0..5 {
        log.append_entries(7, &[9_000; 10]).await;
        log.compact(log.last()).await;
        log.reopen().await;
    }
}

pub(super) async fn loads_the_memberships_that_are_left(place: Place) {
    let mut log = Checked::open("memberships that are left are loaded", place).await;
    // Those whose index ends in 3 or 8.
    log.append_entries(1, &[64; 30]).await;
    log.load().await;
    let held = |log: &Checked| log.entries.iter().map(Entry::index).collect::<Vec<_>>();
    for to in [2, 3, 12, 13] {
        log.compact(log.id_at(to)).await;
        log.load().await;
        log.reopen().await;
    }
    for from in [28, 24, 18] {
        log.append(AppendBatch {
            truncate_from: Some(Index(from)),
            ..AppendBatch::default()
        })
        .await;
        log.load().await;
        log.reopen().await;
    }
    assert_eq!(held(&log), (14..18).map(Index).collect::<Vec<_>>());
    log.append_entries(2, &[64; 12]).await;
    log.reopen().await;
    log.reset(id(2, 40)).await;
    log.load().await;
    log.reopen().await;
}

pub(super) async fn a_reset_leaves_nothing_but_term_and_vote(place: Place) {
    let case = "a reset leaves nothing but term and vote";
    let mut log = Checked::open(case, place).await;
    log.append(AppendBatch {
        hard_state: Some(hard_state(9, Some(3))),
        ..AppendBatch::default()
    })
    .await;
    // Of an empty log, beyond the end, inside, at an entry that is held, where it is already.
    for to in [id(2, 10), id(3, 100), id(3, 105), id(4, 106), id(4, 106)] {
        log.reset(to).await;
        log.load().await;
        log.compare().await;
        log.reopen().await;
        log.append_entries(to.term.0, &[700; 12]).await;
        log.reopen().await;
    }
}

pub(super) async fn a_log_goes_on_behind_a_reset(place: Place) {
    let mut log = Checked::open("a log goes on behind a reset", place).await;
    log.append_entries(1, &[4_000; 9]).await;
    log.reset(id(5, 1_000)).await;
    log.append_entries(5, &[4_000; 9]).await;
    log.reopen().await;
    log.compact(log.id_at(1_004)).await;
    log.reopen().await;
    log.append(AppendBatch {
        hard_state: Some(hard_state(6, None)),
        truncate_from: Some(Index(1_006)),
        ..AppendBatch::default()
    })
    .await;
    log.append_entries(6, &[4_000; 9]).await;
    log.compact(log.last()).await;
    log.reset(id(8, 5_000)).await;
    log.reopen().await;
}

pub(super) async fn readers_beside_it_meet_the_start(place: Place) {
    let case = "readers beside a compaction meet the start";
    let mut log = Checked::open(case, place).await;
    log.append_entries(1, &[2_000; 20]).await;
    let reader = log.reader();
    let reading = tokio::spawn(async move {
        let mut from = Index(1);
        loop {
            match reader.read(from..Index(u64::MAX), 10_000).await {
                Ok(read) => {
                    assert_eq!(read[0].index(), from, "{case}");
                    if read[0].index() >= Index(1_000) {
                        return;
                    }
                }
                Err(StorageError::OutOfRange { first, .. }) => {
                    assert!(first > from, "{case}: {first} is the first, and not {from}");
                    from = first;
                }
                Err(error) => panic!("{case}: read from {from}: {error}"),
            }
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..100 {
        log.append_entries(1, &[2_000; 10]).await;
        log.compact(log.id_at(log.last().index.0 - 10)).await;
    }
    let ended = reading.await;
    assert!(ended.is_ok(), "{case}: a read failed");
    log.reopen().await;
}
