//! The change of members in the middle of the demo: a fourth node joins, is promoted, and another
//! one goes, each between two fail-overs and under load.

use super::narrator::Narrator;
use super::stage::Stage;
use crate::exit::Failure;

/// The node that joins.
const NEWCOMER: u64 = 4;

/// One step of the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The newcomer joins as a learner.
    Add,
    /// It becomes a voter.
    Promote,
    /// One that was there from the beginning goes.
    Remove,
}

/// What is done after a fail-over, of so many. With fewer fail-overs than steps, the last one is
/// followed by all that are left.
pub(super) fn steps_after(failover: u32, failovers: u32) -> Vec<Step> {
    let steps = [Step::Add, Step::Promote, Step::Remove];
    let due = (1..).map(|number: u32| number.min(failovers));
    let due_now = steps
        .into_iter()
        .zip(due)
        .filter(|(_, due)| *due == failover);
    due_now.map(|(step, _)| step).collect()
}

/// Takes a step.
///
/// # Errors
/// When the cluster refuses it, or takes very long.
pub(super) async fn take(
    step: Step,
    stage: &mut Stage,
    narrator: &Narrator,
) -> Result<(), Failure> {
    match step {
        Step::Add => {
            stage.add(NEWCOMER).await?;
            narrator.say(&format!("node {NEWCOMER} joins as a learner"));
        }
        Step::Promote => {
            stage.promote(NEWCOMER).await?;
            narrator.say(&format!("node {NEWCOMER} has caught up and votes"));
        }
        Step::Remove => {
            let leader = stage.leader().await?;
            let goes = if leader == 1 { 2 } else { 1 };
            stage.remove(goes).await?;
            narrator.say(&format!("node {goes} is not a member any more"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_taken_once_and_in_order() {
        for failovers in 1..=6 {
            let all = (1..=failovers).flat_map(|number| steps_after(number, failovers));
            let all: Vec<Step> = all.collect();
            assert_eq!(all, [Step::Add, Step::Promote, Step::Remove], "{failovers}");
        }
        assert_eq!(steps_after(1, 5), [Step::Add]);
        assert_eq!(steps_after(4, 5), []);
    }
}
