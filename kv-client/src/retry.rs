//! Waiting between attempts: exponential back-off with jitter, and the little randomness that the
//! jitter needs. What is retried, and for how long, is decided in `router`.

use std::time::Duration;

/// A source of jitter. Not for secrets: it only keeps clients from knocking in step.
#[derive(Debug)]
pub(crate) struct Jitter {
    state: u64,
}

impl Jitter {
    /// Seeded by the operating system, or by the clock where that has no randomness to give.
    pub(crate) fn from_system() -> Self {
        let state = getrandom::u64().unwrap_or_else(|_| {
            let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
            since_epoch.as_nanos() as u64
        });
        Self { state }
    }

    /// A repeatable source.
    #[cfg(test)]
    pub(crate) fn seeded(state: u64) -> Self {
        Self { state }
    }

    /// The next number (SplitMix64, which is well distributed from any seed).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform from `min` to `max`, both included; `min` where `max` is smaller.
    pub(crate) fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let span = max.saturating_sub(min).as_nanos() as u64;
        let offset = self.next() % span.saturating_add(1).max(1);
        min + Duration::from_nanos(offset)
    }
}

/// How long to wait before each further attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackOff {
    /// The longest first wait.
    pub(crate) min: Duration,
    /// The longest wait of all.
    pub(crate) max: Duration,
}

impl BackOff {
    /// The wait after this many attempts that failed in a row, from 1: uniform between half of a
    /// doubling ceiling and the ceiling.
    pub(crate) fn wait(self, failures: u32, jitter: &mut Jitter) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let ceiling = self.min.saturating_mul(1 << doublings).min(self.max);
        jitter.between(ceiling / 2, ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ() {
        let back_off = BackOff {
            min: Duration::from_millis(10),
            max: Duration::from_millis(100),
        };
        let mut jitter = Jitter::seeded(7);
        let ceilings = [10, 20, 40, 80, 100, 100];
        for (failures, ceiling) in (1..).zip(ceilings) {
            let waits: Vec<Duration> = (0..50)
                .map(|_| back_off.wait(failures, &mut jitter))
                .collect();
            let ceiling = Duration::from_millis(ceiling);
            assert!(
                waits
                    .iter()
                    .all(|wait| (ceiling / 2..=ceiling).contains(wait))
            );
            assert!(waits.iter().any(|wait| *wait != waits[0]));
        }
        let forever = back_off.wait(u32::MAX, &mut jitter);
        assert!(forever <= back_off.max);
    }
}
