//! Random changes against the model: what nobody thought of.

use raft_core::{AppendBatch, Index, LogId, Term};

use super::model::{Checked, entries_behind, hard_state};
use super::place::Place;

/// Which random run, and how long.
#[derive(Clone, Copy, Debug)]
pub struct RandomOptions {
    /// The same seed gives the same batches.
    pub seed: u64,
    /// Batches.
    pub steps: u64,
}

/// Appends random batches, with a compaction or a reset in between, and compares the store with the
/// model, with a reopen now and then.
///
/// # Panics
/// When store and model differ.
pub async fn run_random(place: Place, options: RandomOptions) {
    let mut random = Random(options.seed);
    let mut log = Checked::open("random changes", place).await;
    let mut term = 1;
    for _ in 0..options.steps {
        if random.one_in(5) {
            term += 1 + random.below(3);
        }
        match random.below(24) {
            0..3 => {
                let (start, held) = (log.start.index.0, log.last().index.0);
                let to = log.id_at(start + random.below(held + 1 - start));
                log.compact(to).await;
            }
            3 => {
                term += random.below(2);
                let (start, held) = (log.start.index.0, log.last().index.0);
                let index = start.max(1) + random.below(2 * (held + 1 - start));
                log.reset(LogId::new(Term(term), Index(index))).await;
            }
            _ => {
                let batch = random_batch(&mut random, &log, term);
                log.append(batch).await;
            }
        }
        if random.one_in(6) {
            log.compare().await;
        }
        if random.one_in(8) {
            log.reopen().await;
        }
    }
    log.reopen().await;
}

fn random_batch(random: &mut Random, log: &Checked, term: u64) -> AppendBatch {
    let (start, held) = (log.start.index.0, log.last().index.0);
    let truncate_from = random.one_in(4).then(|| {
        // Mostly a little, sometimes far.
        let depth = if random.one_in(4) { held + 2 } else { 6 };
        Index((held + 2 - random.below(depth).min(held + 1)).max(start + 1))
    });
    let kept = truncate_from.map_or(held, |from| from.previous().0.min(held));
    let count = if random.one_in(4) {
        0
    } else {
        random.below(12)
    };
    let lengths: Vec<usize> = (0..count).map(|_| random.length()).collect();
    AppendBatch {
        hard_state: random
            .one_in(3)
            .then(|| hard_state(term, random.one_in(2).then(|| random.below(5)))),
        truncate_from,
        entries: entries_behind(Index(kept), term, &lengths),
    }
}

/// SplitMix64: small, seeded, and good enough to choose test data.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Some position in a list, or its end.
    pub(super) fn position(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64 + 1)).expect("not above a length")
    }

    /// Mostly short, sometimes longer than a page, rarely longer than a small segment.
    pub(super) fn length(&mut self) -> usize {
        let bound = match self.below(20) {
            0 => 100_000,
            1..=4 => 6_000,
            _ => 200,
        };
        usize::try_from(self.below(bound)).expect("bounds are small")
    }
}
