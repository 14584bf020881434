//! When the next tick is due. Missed ticks are skipped, never delivered in a burst.

use std::time::Duration;

use tokio::time::Instant;

/// The driver's clock.
#[derive(Debug)]
pub(crate) struct Ticker {
    period: Duration,
    next: Instant,
    forgave: bool,
}

impl Ticker {
    /// The first tick is due one period from `now`.
    pub(crate) fn new(period: Duration, now: Instant) -> Self {
        Self {
            period,
            next: now + period,
            forgave: false,
        }
    }

    /// When the next tick is due.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Whether a tick is due, and plans the next one.
    ///
    /// A tick that is late by a whole period means that this process stood still. What peers said
    /// meanwhile may not have reached the inbox yet, so that tick is forgiven, and they get one
    /// more period. Never twice in a row: a node that is always late must still see time pass.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        let is_late = now - self.next >= self.period;
        if is_late {
            self.next = now + self.period;
        } else {
            self.next += self.period;
        }
        self.forgave = is_late && !self.forgave;
        !self.forgave
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(10);

    #[test]
    fn ticks_keep_their_rhythm_when_they_are_a_little_late() {
        let start = Instant::now();
        let mut ticker = Ticker::new(PERIOD, start);
        assert!(!ticker.take_due(start + PERIOD / 2));
        assert!(ticker.take_due(start + PERIOD + PERIOD / 2));
        assert_eq!(ticker.next(), start + 2 * PERIOD);
    }

    #[test]
    fn a_pause_of_many_ticks_is_forgiven_and_then_gives_one() {
        let start = Instant::now();
        let mut ticker = Ticker::new(PERIOD, start);
        let woken = start + 500 * PERIOD;
        assert!(!ticker.take_due(woken));
        assert!(!ticker.take_due(woken + PERIOD / 2));
        assert!(ticker.take_due(woken + PERIOD));
        assert!(!ticker.take_due(woken + PERIOD));
    }

    #[test]
    fn a_node_that_is_always_late_still_sees_every_second_tick() {
        let mut now = Instant::now();
        let mut ticker = Ticker::new(PERIOD, now);
        let mut ticks = 0;
        for _ in 0..10 {
            now += 3 * PERIOD;
            ticks += u32::from(ticker.take_due(now));
        }
        assert_eq!(ticks, 5);
    }
}
