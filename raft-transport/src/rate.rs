//! How fast snapshots leave: a token bucket that several transfers share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What may leave at once after a pause, as time at the full rate. Covers the coarseness of timers.
const BURST: Duration = Duration::from_millis(20);

/// The largest slice that a transfer sends between two looks at the bucket.
const SLICE_BYTES_MAX: usize = 64 << 10;

/// A bucket. What has left is paid afterwards, so nothing is larger than the bucket.
#[derive(Debug)]
pub(crate) struct Rate {
    /// 0 is no limit.
    bytes_per_second: AtomicU64,
    /// When all that has left would have left at the rate.
    paid_until: Mutex<Option<Instant>>,
}

impl Rate {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: AtomicU64::new(bytes_per_second),
            paid_until: Mutex::new(None),
        }
    }

    /// Another rate from now on.
    pub(crate) fn set(&self, bytes_per_second: u64) {
        self.bytes_per_second
            .store(bytes_per_second, Ordering::Relaxed);
    }

    /// What to send before the next [`Rate::pay`]: little at a low rate, so that the receiver sees
    /// bytes several times a second and does not take the transfer for a dead one.
    pub(crate) fn slice_bytes(&self) -> usize {
        match self.bytes_per_second.load(Ordering::Relaxed) {
            0 => SLICE_BYTES_MAX,
            rate => usize::try_from(rate / 10)
                .unwrap_or(SLICE_BYTES_MAX)
                .clamp(1, SLICE_BYTES_MAX),
        }
    }

    /// Waits until `bytes`, which have left, and all before them are within the rate. Who gives up
    /// waiting has paid all the same.
    pub(crate) async fn pay(&self, bytes: usize) {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(rate);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let until = {
            let mut paid_until = self
                .paid_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let until = paid_until.unwrap_or(earliest).max(earliest) + cost;
            *paid_until = Some(until);
            until
        };
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn several_payers_together_keep_to_the_rate() {
        let rate = Rate::new(1_000_000);
        let start = Instant::now();
        let payer = async || {
            for _ in 0..50 {
                rate.pay(10_000).await;
            }
        };
        tokio::join!(payer(), payer());
        let took = start.elapsed().as_millis();
        assert!((970..=1_010).contains(&took), "1 MB took {took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_saves_up_no_more_than_a_burst() {
        let rate = Rate::new(1_000_000);
        rate.pay(10_000).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        let start = Instant::now();
        rate.pay(120_000).await;
        let took = start.elapsed().as_millis();
        assert!((99..=102).contains(&took), "120 kB took {took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn no_rate_is_no_limit_and_a_low_one_makes_small_slices() {
        let rate = Rate::new(0);
        let start = Instant::now();
        rate.pay(usize::MAX).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(rate.slice_bytes(), SLICE_BYTES_MAX);
        rate.set(100);
        assert_eq!(rate.slice_bytes(), 10);
        rate.set(1);
        assert_eq!(rate.slice_bytes(), 1);
    }
}
