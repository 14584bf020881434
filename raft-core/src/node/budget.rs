//! A named bound that many callers share. Whoever wants room takes a claim and holds it for as long
//! as the room is used; nobody waits here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound of so many units.
#[derive(Debug)]
pub(crate) struct Budget {
    name: &'static str,
    limit: usize,
    used: AtomicUsize,
}

/// Room that is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    budget: Arc<Budget>,
    amount: usize,
}

/// The room is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted {
    /// Name of the limit.
    pub(crate) limit_name: &'static str,
    /// Its value.
    pub(crate) limit: usize,
}

impl Budget {
    /// `name` is the setting that the bound comes from; callers see it in their error.
    pub(crate) fn new(name: &'static str, limit: usize) -> Arc<Self> {
        Arc::new(Self {
            name,
            limit,
            used: AtomicUsize::new(0),
        })
    }

    /// Room for `amount` units, or the name of the limit that is met.
    pub(crate) fn claim(self: &Arc<Self>, amount: usize) -> Result<Claim, Exhausted> {
        let fits = |used: usize| used.checked_add(amount).filter(|sum| *sum <= self.limit);
        // Relaxed: the number guards no other memory.
        match self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
        {
            Ok(_) => Ok(Claim {
                budget: Arc::clone(self),
                amount,
            }),
            Err(_) => Err(Exhausted {
                limit_name: self.name,
                limit: self.limit,
            }),
        }
    }

    /// Units in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_above_the_limit_is_refused_by_name_and_takes_nothing() {
        let budget = Budget::new("things_max", 10);
        let first = budget.claim(7).unwrap();
        let refused = budget.claim(4).unwrap_err();
        assert_eq!((refused.limit_name, refused.limit), ("things_max", 10));
        let second = budget.claim(3).unwrap();
        assert_eq!(budget.used(), 10);
        drop(first);
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn an_amount_that_overflows_is_refused() {
        let budget = Budget::new("things_max", usize::MAX);
        let _held = budget.claim(1).unwrap();
        assert!(budget.claim(usize::MAX).is_err());
    }
}
