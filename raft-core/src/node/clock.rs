//! The clock that leases are measured with.

use std::fmt;
use std::sync::Arc;

/// A clock that counts nanoseconds, from any start, also while the machine is suspended: a leader
/// that slept must not believe that its lease still holds. Only read where
/// [`crate::ReadPolicy::Lease`] is set.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The clock of the machine: `CLOCK_BOOTTIME` on Linux.
    #[must_use]
    pub fn machine() -> Self {
        Self::new(machine_nanoseconds)
    }

    /// Another clock, for tests. It never goes back.
    #[must_use]
    pub fn new(nanoseconds: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(nanoseconds))
    }

    pub(crate) fn nanoseconds(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.nanoseconds())
    }
}

fn machine_nanoseconds() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    // Elsewhere the monotonic clock is the one that counts through suspend, or the only one.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_the_machine_goes_forward() {
        let clock = Clock::machine();
        let first = clock.nanoseconds();
        assert!(first > 0);
        while clock.nanoseconds() == first {}
        assert!(clock.nanoseconds() > first);
    }
}
