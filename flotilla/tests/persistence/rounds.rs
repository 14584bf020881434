//! Kills that meet writes on their way, again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::lab::{Lab, Storage, assert_in_order};
use crate::program::PATIENCE;

const APPENDERS: usize = 5;
/// Between two appends of one appender.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest time from the begin of an append to the kill that it races with.
const RACE_MS_MAX: u64 = 199;

/// Numbers that differ from run to run; the seed is printed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seed = now.map_or(1, |time| time.as_nanos() as u64) | 1;
        eprintln!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        // Xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Kills a node and lets it come back, with its disk or without.
fn bounce(lab: &mut Lab, id: u64, is_erased: bool) {
    if is_erased {
        lab.kill_and_erase(id);
        lab.replace(id);
        lab.promote(id);
    } else {
        lab.kill(id);
        lab.start(id);
    }
}

/// Five clients append while each replica is killed, and then loses its disk. Each append is there
/// once, in order; the value is the same after every further kill.
pub(crate) fn concurrent_crash(storage: Storage) {
    let mut lab = Lab::new(3, storage, "");
    let stop = Arc::new(AtomicBool::new(false));
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|appender| {
            let (client, stop) = (lab.client(PATIENCE), Arc::clone(&stop));
            lab.runtime.spawn(async move {
                let mut appended = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let piece = format!("|{appender} {number}|");
                    client.append("k", piece.clone()).await.expect("answered");
                    appended.push(piece);
                    // The suite's rate of work, nothing that is waited for.
                    tokio::time::sleep(PAUSE).await;
                }
                appended
            })
        })
        .collect();
    for is_erased in [false, true] {
        for id in lab.ids() {
            bounce(&mut lab, id, is_erased);
            lab.get("k");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    for appender in appenders {
        written.push(lab.runtime.block_on(appender).expect("it ends"));
    }
    let value = lab.get("k");
    for appended in &written {
        assert!(!appended.is_empty());
        assert_in_order(&value, appended);
    }
    let pieces = written.iter().flatten().map(String::len).sum::<usize>();
    assert_eq!(value.len(), pieces, "nothing else is in it");
    for id in lab.ids() {
        lab.kill(id);
        assert_eq!(lab.get("k"), value, "without node {id}");
        lab.start(id);
    }
}

/// Every append races with a kill, half of which take the disk along. What was acknowledged is
/// there once, in order.
pub(crate) fn simultaneous(storage: Storage) {
    let mut lab = Lab::new(3, storage, "");
    let mut random = Random::new();
    let client = lab.client(PATIENCE);
    let mut appended = Vec::new();
    for round in 0..storage.rounds(50, 10) {
        let piece = format!("|{round}|");
        let (racing, sent) = (client.clone(), piece.clone());
        let append = lab
            .runtime
            .spawn(async move { racing.append("k", sent).await });
        // A race, by the definition of the test.
        let delay = Duration::from_millis(random.below(RACE_MS_MAX + 1));
        let race = async { tokio::time::sleep(delay).await };
        lab.runtime.block_on(race);
        let (id, is_erased) = (random.below(lab.size) + 1, random.below(2) == 0);
        bounce(&mut lab, id, is_erased);
        let answer = lab.runtime.block_on(append).expect("it ends");
        answer.expect("a majority is there");
        appended.push(piece);
    }
    let value = lab.get("k");
    assert_in_order(&value, &appended);
    assert_eq!(value.len(), appended.iter().map(String::len).sum::<usize>());
}
