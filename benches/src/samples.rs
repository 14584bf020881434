//! Times of one thing, and how two things that were measured in turns compare: a disk and a machine
//! that others use drift, and what is measured in turns drifts together.

use std::time::Duration;

/// The times that one thing took.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// One more.
    pub fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that a share of them (0 to 1) is not above; zero where there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a position in a vector, from a share of its length"
        )]
        let position = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
        sorted.get(position).copied().unwrap_or_default()
    }

    /// The middle one.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.0.iter().sum()
    }

    /// How much of the speed of `ceiling` this reaches, median to median, in percent.
    #[must_use]
    pub fn percent_of(&self, ceiling: &Self) -> f64 {
        percent(ceiling.median(), self.median())
    }

    /// The same by the total time, with all that was slow.
    #[must_use]
    pub fn percent_of_by_total(&self, ceiling: &Self) -> f64 {
        percent(ceiling.total(), self.total())
    }
}

fn percent(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() {
        return 0.0;
    }
    100.0 * part.as_secs_f64() / whole.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_shares() {
        let mut samples = Samples::default();
        assert_eq!(samples.median(), Duration::ZERO);
        for micros in [5, 1, 3, 2, 4] {
            samples.push(Duration::from_micros(micros));
        }
        assert_eq!(samples.median(), Duration::from_micros(3));
        assert_eq!(samples.quantile(1.0), Duration::from_micros(5));
        assert_eq!(samples.total(), Duration::from_micros(15));
        let mut twice = Samples::default();
        twice.push(Duration::from_micros(6));
        assert!((twice.percent_of(&samples) - 50.0).abs() < 1e-9);
    }
}
