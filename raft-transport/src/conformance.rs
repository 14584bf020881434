//! What every transport must do, as a suite that an implementation runs against itself.
//!
//! Each check gets a fresh [`Fixture`] and panics when the transport does not keep to the contract.
//! The order of messages is nowhere relied on. All waiting is for a condition, up to [`DEADLINE`].

mod members;
mod messages;
mod snapshots;
mod support;

pub use support::{DEADLINE, Fixture, Parts};

/// Runs all checks, one after the other.
///
/// # Panics
/// When the transport fails a check.
pub async fn run<F: Fixture>(fixture: impl Fn() -> F) {
    messages::run(&fixture).await;
    snapshots::run(&fixture).await;
    members::run(&fixture).await;
}
