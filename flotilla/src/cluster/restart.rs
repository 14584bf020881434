//! Whether, and when, a node that ended is started again. Pure: time comes in, a decision goes out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::exit::Exit;

/// The pause before the first start after a node ended; doubled with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A node that has lived this long counts as well again: its next pause is the shortest.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// Starts again within [`STARTS_WINDOW`]. A node that needs more is ill in a way that starting it
/// does not mend.
const STARTS_MAX: usize = 10;

/// The time over which starts are counted.
const STARTS_WINDOW: Duration = Duration::from_secs(60);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself, with this exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(number) => write!(f, "was ended by signal {number}"),
        }
    }
}

/// What to do about a node that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Start it again after this time.
    After(Duration),
    /// It ended in a way that another start cannot change, or nobody wants it started.
    Leave,
    /// It was started too often.
    GiveUp,
}

/// The history of one node.
#[derive(Debug)]
pub(crate) struct RestartPolicy {
    wanted: bool,
    pause: Duration,
    starts: VecDeque<Instant>,
}

impl RestartPolicy {
    /// For a node that has not been started yet. With `wanted` false it is never started again.
    pub(crate) fn new(wanted: bool) -> Self {
        Self {
            wanted,
            pause: PAUSE_MIN,
            starts: VecDeque::new(),
        }
    }

    /// Decides about a node that was started at `started` and ended at `ended`.
    pub(crate) fn ended(&mut self, ending: Ending, started: Instant, ended: Instant) -> Decision {
        let mends = match ending {
            Ending::Signal(_) => true,
            Ending::Code(code) => code == Exit::Stopped as i32,
        };
        if !self.wanted || !mends {
            return Decision::Leave;
        }
        if ended.saturating_duration_since(started) >= WELL_AFTER {
            self.pause = PAUSE_MIN;
        }
        while let Some(oldest) = self.starts.front()
            && ended.saturating_duration_since(*oldest) >= STARTS_WINDOW
        {
            self.starts.pop_front();
        }
        if self.starts.len() >= STARTS_MAX {
            return Decision::GiveUp;
        }
        self.starts.push_back(ended);
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        Decision::After(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Ending = Ending::Signal(9);

    #[test]
    fn only_a_signal_or_a_stop_of_its_own_is_mended_by_a_start() {
        let now = Instant::now();
        for (ending, again) in [
            (KILLED, true),
            (Ending::Code(70), true),
            (Ending::Code(0), false),
            (Ending::Code(2), false),
            (Ending::Code(5), false),
        ] {
            let decision = RestartPolicy::new(true).ended(ending, now, now);
            assert_eq!(decision != Decision::Leave, again, "{ending}");
            let decision = RestartPolicy::new(false).ended(ending, now, now);
            assert_eq!(decision, Decision::Leave, "{ending}");
        }
    }

    #[test]
    fn pauses_double_to_a_bound_and_begin_anew_after_a_good_life() {
        let mut now = Instant::now();
        let mut policy = RestartPolicy::new(true);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let Decision::After(pause) = policy.ended(KILLED, now, now) else {
                panic!("started again");
            };
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 5000, 5000]);
        let decision = policy.ended(KILLED, now, now + WELL_AFTER);
        assert_eq!(decision, Decision::After(PAUSE_MIN));
    }

    #[test]
    fn a_node_that_does_not_get_well_is_given_up() {
        let mut now = Instant::now();
        let mut policy = RestartPolicy::new(true);
        for _ in 0..STARTS_MAX {
            assert_ne!(policy.ended(KILLED, now, now), Decision::GiveUp);
            now += Duration::from_secs(5);
        }
        assert_eq!(policy.ended(KILLED, now, now), Decision::GiveUp);
        let later = now + STARTS_WINDOW;
        assert_ne!(policy.ended(KILLED, later, later), Decision::GiveUp);
    }
}
