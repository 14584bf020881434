//! The cases, one rule each.

use raft_core::{AppendBatch, Entry, HardState, Index, StorageError};

use super::model::{Checked, entries_behind, hard_state};
use super::place::Place;

fn only_hard_state(state: HardState) -> AppendBatch {
    AppendBatch {
        hard_state: Some(state),
        ..AppendBatch::default()
    }
}

fn truncation(from: u64) -> AppendBatch {
    AppendBatch {
        truncate_from: Some(Index(from)),
        ..AppendBatch::default()
    }
}

pub(super) async fn an_empty_log_loads_as_empty(place: Place) {
    let mut log = Checked::open("an empty log loads as empty", place).await;
    log.append(AppendBatch::default()).await;
    log.reopen().await;
}

pub(super) async fn every_step_survives_a_reopen(place: Place) {
    let mut log = Checked::open("every step survives a reopen", place).await;
    for step in 1..=12_u64 {
        let lengths = vec![usize::try_from(step).expect("small") * 50 - 50; 3];
        let entries = entries_behind(log.last().index, step / 3 + 1, &lengths);
        log.append(AppendBatch {
            hard_state: (step % 2 == 0).then(|| hard_state(step / 3 + 1, Some(step))),
            truncate_from: None,
            entries,
        })
        .await;
        log.compare().await;
        log.reopen().await;
    }
}

pub(super) async fn a_hard_state_alone_is_kept(place: Place) {
    let mut log = Checked::open("a hard state alone is kept", place).await;
    for state in [
        hard_state(1, None),
        hard_state(1, Some(3)),
        hard_state(2, None),
        hard_state(u64::MAX, Some(u64::MAX)),
    ] {
        log.append(only_hard_state(state)).await;
        log.reopen().await;
    }
}

pub(super) async fn a_truncation_drops_an_entry_and_all_behind_it(place: Place) {
    let mut log = Checked::open("a truncation drops an entry and all behind it", place).await;
    log.append_entries(1, &[10; 4]).await;
    log.append_entries(2, &[20; 4]).await;
    log.append_entries(4, &[30; 4]).await;
    for from in [12, 9, 8, 4, 1] {
        log.append(truncation(from)).await;
        log.compare().await;
        log.reopen().await;
    }
    log.append_entries(5, &[1]).await;
    log.reopen().await;
}

pub(super) async fn the_same_index_takes_another_term_after_a_truncation(place: Place) {
    let case = "the same index takes another term after a truncation";
    let mut log = Checked::open(case, place).await;
    log.append_entries(1, &[100, 0, 100]).await;
    for term in 2..6 {
        let entries = entries_behind(Index(2), term, &[90, 0, 90, 7]);
        log.append(AppendBatch {
            hard_state: Some(hard_state(term, Some(1))),
            truncate_from: Some(Index(3)),
            entries,
        })
        .await;
        log.compare().await;
        log.reopen().await;
    }
}

pub(super) async fn a_truncation_behind_the_end_drops_nothing(place: Place) {
    let mut log = Checked::open("a truncation behind the end drops nothing", place).await;
    log.append(truncation(1)).await;
    log.append_entries(3, &[8, 8]).await;
    for from in [3, 9] {
        let entries = entries_behind(log.last().index, 3, &[8]);
        log.append(AppendBatch {
            hard_state: None,
            truncate_from: Some(Index(from)),
            entries,
        })
        .await;
        log.reopen().await;
    }
}

pub(super) async fn reads_take_as_many_as_fit_and_at_least_one(place: Place) {
    let case = "reads take as many as fit and at least one";
    let mut log = Checked::open(case, place).await;
    log.append_entries(1, &[0, 100, 0, 5000, 100, 100, 40_000, 1])
        .await;
    let reader = log.reader();
    let lengths: Vec<usize> = log.entries.iter().map(Entry::encoded_len).collect();
    let total: usize = lengths.iter().sum();
    for from in 1..=8_usize {
        for limit in [
            0,
            1,
            31,
            32,
            33,
            163,
            164,
            165,
            5_200,
            40_500,
            total,
            usize::MAX,
        ] {
            for end in [from as u64, from as u64 + 1, 9, u64::MAX] {
                let range = Index(from as u64)..Index(end);
                let read = reader.read(range.clone(), limit).await;
                let read = read.unwrap_or_else(|error| panic!("{case}: {range:?}: {error}"));
                let wanted = usize::try_from(end.min(9)).expect("small") - from;
                let mut sum = 0;
                let fits = lengths[from - 1..]
                    .iter()
                    .take(wanted)
                    .take_while(|length| {
                        sum += **length;
                        sum <= limit
                    });
                let expected = fits.count().max(wanted.min(1));
                assert_eq!(read.len(), expected, "{case}: {range:?} in {limit} bytes");
                assert_eq!(
                    read[..],
                    log.entries[from - 1..from - 1 + expected],
                    "{case}"
                );
            }
        }
    }
}

pub(super) async fn a_read_from_outside_the_log_is_out_of_range(place: Place) {
    let case = "a read from outside the log is out of range";
    let mut log = Checked::open(case, place).await;
    for held in [0_u64, 3] {
        for from in [0, held + 1, u64::MAX - 1] {
            let read = log.reader().read(Index(from)..Index(u64::MAX), 100).await;
            let refused = matches!(
                read,
                Err(StorageError::OutOfRange { from: asked, last, .. })
                    if asked == Index(from) && last == Index(held)
            );
            assert!(refused, "{case}: from {from} of {held}: {read:?}");
        }
        log.append_entries(1, &[5; 3]).await;
    }
}

pub(super) async fn many_entries_come_back_in_order(place: Place) {
    let mut log = Checked::open("many entries come back in order", place).await;
    for batch in 0..40_u64 {
        let lengths: Vec<usize> = (0..100)
            .map(|i| usize::try_from((batch * 37 + i * 11) % 400).expect("small"))
            .collect();
        log.append_entries(batch / 7 + 1, &lengths).await;
    }
    log.compare().await;
    log.reopen().await;
    // Far back, over many files, and on from there.
    log.append(truncation(1234)).await;
    log.reopen().await;
    log.append_entries(50, &[300; 200]).await;
    log.reopen().await;
}

pub(super) async fn large_entries_come_back_whole(place: Place) {
    const MIB: usize = 1 << 20;
    let mut log = Checked::open("large entries come back whole", place).await;
    log.append_entries(1, &[10, MIB, 10, 3 * MIB + 5, MIB - 1])
        .await;
    log.compare().await;
    log.append_entries(1, &[(64 << 10) - 1, 64 << 10, (64 << 10) + 1, 0])
        .await;
    log.reopen().await;
    log.append(truncation(4)).await;
    log.append_entries(2, &[2 * MIB]).await;
    log.reopen().await;
}

pub(super) async fn an_old_hard_state_survives_much_writing(place: Place) {
    let mut log = Checked::open("an old hard state survives much writing", place).await;
    log.append(only_hard_state(hard_state(7, Some(2)))).await;
    for _ in 0..20 {
        log.append_entries(7, &[9_000; 20]).await;
    }
    log.reopen().await;
    log.append_entries(7, &[9_000; 20]).await;
    log.reopen().await;
}

pub(super) async fn readers_work_beside_appends(place: Place) {
    let case = "readers work beside appends";
    let mut log = Checked::open(case, place).await;
    log.append_entries(1, &[200; 50]).await;
    let reader = log.reader();
    let reading = tokio::spawn(async move {
        let mut reads: u64 = 0;
        loop {
            let read = reader.read(Index(1)..Index(u64::MAX), usize::MAX).await;
            let read = read.unwrap_or_else(|error| panic!("{case}: {error}"));
            for (entry, expected) in read.iter().zip(1..) {
                assert_eq!(entry.index(), Index(expected), "{case}");
            }
            reads += 1;
            if read.len() >= 650 {
                return reads;
            }
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..60 {
        log.append_entries(1, &[200; 10]).await;
    }
    let reads = reading.await;
    assert!(reads.is_ok_and(|reads| reads > 0), "{case}: a read failed");
    log.reopen().await;
}
