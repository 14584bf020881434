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

    /// A suspend adds to the clock since boot, and not to the one that counts what the machine was
    /// awake. So does a namespace in which it was booted a day earlier: this runs itself in one.
    #[test]
    #[cfg(target_os = "linux")]
    fn time_that_the_machine_was_suspended_counts() {
        use std::process::Command;
        const SUSPENDED: &str = "CLOCK_TEST_SUSPENDED_SECONDS";
        const NAME: &str = "time_that_the_machine_was_suspended_counts";
        if let Ok(seconds) = std::env::var(SUSPENDED) {
            let seconds: u64 = seconds.parse().unwrap();
            let awake = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let counted = Clock::machine().nanoseconds() / 1_000_000_000;
            assert!(counted + 60 >= awake.tv_sec as u64 + seconds, "{counted} s");
            return;
        }
        let seconds = "86400";
        let mut namespace = Command::new("unshare");
        namespace.args(["--time", "--boottime", seconds, "--"]);
        namespace.arg(std::env::current_exe().unwrap());
        let ran = namespace.arg(NAME).env(SUSPENDED, seconds).output();
        // Not every system lets its users have one.
        let Ok(ran) = ran else { return };
        let told = String::from_utf8_lossy(&ran.stdout);
        if told.contains("running 1 test") {
            assert!(ran.status.success(), "{told}");
        }
    }
}
