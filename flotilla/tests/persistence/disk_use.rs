//! What is written over and over does not pile up on the disks.
//!
//! The course allows 20,000 bytes on all disks. Our log is laid out in files that have their full
//! size from the beginning, so the limit is derived from the layout. For a node with storage
//! `file`, with the smallest segments and a snapshot every 4 KiB of applied entries:
//!
//! - A segment of 8,192 bytes has a page of header, a hard state (72), a start (48) and a seal
//!   (48): 3,928 bytes are left for records. The largest record here, a value of 1,000 bytes with
//!   its command and its frame, has less than 1,200, so at least 2,728 are used.
//! - At rest, entries of less than 4,096 + 1,200 bytes are behind the newest snapshot: more would
//!   have caused a new one. The smallest entries here have about 100 bytes and a frame of at most
//!   55, so their records take less than 8,300 bytes: four segments, and one more in which the
//!   first of them begins. One spare is prepared, and one file held in reserve. Seven segments:
//!   57,344 bytes.
//! - The snapshot holds four keys, the client's session and the replies that it may still ask for:
//!   less than 8 KiB where no history is kept.
//! - Identity, counter, key, locks: less than 4 KiB.
//!
//! Together 69,632 bytes, 208,896 on three nodes. Without compaction it would be more than 3 x 2 x
//! 100 x 1,200 = 720,000: half of each segment is its header page.

use crate::lab::{Lab, Storage};
use crate::program::wait_until;

/// The smallest segment that can be set.
const SEGMENT_BYTES: u64 = 8 << 10;
/// Applied entries after which a snapshot is taken.
const SNAPSHOT_LOG_BYTES: u64 = 4 << 10;
/// What an entry takes at the least, about.
const SMALLEST_ENTRY_BYTES: u64 = 100;
/// Bytes of the value that is written over.
const VALUE_BYTES: usize = 1000;
const NODES: u64 = 3;

/// See above.
const FILE_BYTES_PER_NODE: u64 = 7 * SEGMENT_BYTES + (8 << 10) + (4 << 10);

/// Nothing is kept beside a snapshot.
fn settings() -> String {
    format!(
        "[log]\nsegment_bytes = {SEGMENT_BYTES}\n\n\
         [snapshots]\nlog_bytes = {SNAPSHOT_LOG_BYTES}\nkept_bytes_max = 0\n"
    )
}

/// Bytes that all disks may hold after so many rounds, without those that the values have.
fn limit(storage: Storage, _rounds: u32) -> u64 {
    match storage {
        Storage::File => NODES * FILE_BYTES_PER_NODE,
        // RocksDB keeps its own log until its write buffer is full, so all that was written may be
        // there once, and a second time in a file of a table after a restart; beside that it has
        // its manifest, its options and its own journal.
        #[cfg(feature = "rocksdb")]
        Storage::Rocksdb => NODES * (2 * u64::from(_rounds) * 1_700 + (256 << 10)),
    }
}

/// A value of the size that differs from round to round.
fn value_of(round: u32) -> String {
    format!("{round:0VALUE_BYTES$}")
}

/// A value of 1,000 bytes is written over again and again.
pub(crate) fn disk_use(storage: Storage) {
    let rounds = storage.rounds(110, 30);
    let lab = Lab::new(NODES, storage, &settings());
    let mut small = String::new();
    lab.put("k4", "stays");
    for round in 0..rounds {
        lab.put_without_history("k2", &value_of(round));
        lab.append("k3", "x");
        small.push('x');
        assert_eq!(lab.get("k4"), "stays");
    }
    let check = |lab: &Lab| {
        assert_eq!(lab.get("k2"), value_of(rounds - 1));
        assert_eq!(
            (lab.get("k3"), lab.get("k4")),
            (small.clone(), "stays".to_owned())
        );
    };
    measure(lab, limit(storage, rounds), check);
}

/// A value grows by 1,000 bytes again and again.
pub(crate) fn append_use(storage: Storage) {
    let rounds = storage.rounds(110, 30);
    let lab = Lab::new(NODES, storage, &settings());
    let (mut grown, mut small) = (String::new(), String::new());
    for round in 0..rounds {
        let piece = value_of(round);
        lab.append_without_history("k2", &piece);
        grown += &piece;
        lab.append("k3", "x");
        small.push('x');
        assert_eq!(lab.get("k3"), small);
    }
    // The newest snapshot may have been taken just before the history went, with the value twice.
    // These are more than enough for another one.
    for _ in 0..2 * SNAPSHOT_LOG_BYTES / SMALLEST_ENTRY_BYTES {
        lab.append("k3", "x");
        small.push('x');
    }
    let check = |lab: &Lab| {
        assert_eq!(
            (lab.get("k2"), lab.get("k3")),
            (grown.clone(), small.clone())
        );
    };
    // Every node's snapshot has the value once.
    measure(
        lab,
        limit(storage, rounds) + NODES * grown.len() as u64,
        check,
    );
}

/// Running, killed and restarted.
fn measure(mut lab: Lab, limit: u64, check: impl Fn(&Lab)) {
    check(&lab);
    // Snapshots are taken beside the writes; the limit is for when they are done.
    wait_until(&format!("at most {limit} bytes"), || {
        lab.disk_bytes() <= limit
    });
    eprintln!("running: {} of {limit} bytes", lab.disk_bytes());
    for id in lab.ids() {
        lab.kill(id);
    }
    let killed = lab.disk_bytes();
    assert!(killed <= limit, "{killed} of {limit} bytes");
    for id in lab.ids() {
        lab.start(id);
    }
    check(&lab);
    wait_until(&format!("at most {limit} bytes"), || {
        lab.disk_bytes() <= limit
    });
    eprintln!("restarted: {} of {limit} bytes", lab.disk_bytes());
}
