//! What the demo comes to, by two judges that know nothing of each other: the order of the
//! replicated log, and a search that sees only what clients saw.

use std::time::{Duration, Instant};

use history::{Budget, History, Scene, picture, witness};
use serde_json::{Value, json};

use super::journal::Journal;

/// How long the search may take.
const SEARCH_MAX: Duration = Duration::from_secs(60);

/// What the demo comes to.
pub(super) struct Verdict {
    acknowledged: u64,
    operations: usize,
    /// From the kill of each leader to the next acknowledged write, the shortest first.
    failovers: Vec<Duration>,
    longest_pause: Duration,
    lost: u64,
    linearizable: bool,
    /// What is wrong, if anything is.
    pub(super) problems: Vec<String>,
    /// What clients saw.
    pub(super) history: History,
    /// A page of HTML that shows where it goes wrong.
    pub(super) picture: Option<String>,
}

/// Judges. Takes its time, so not to be called where others wait.
pub(super) fn judge(journal: Journal) -> Verdict {
    let record = journal.finish();
    let mut failovers = record.failovers;
    failovers.sort_unstable();
    let mut problems = Vec::new();
    if record.lost > 0 {
        problems.push(format!("{} acknowledged writes are lost", record.lost));
    }
    if record.acknowledged == 0 {
        problems.push("no write was acknowledged".to_owned());
    }
    let mut linearizable = true;
    let mut picture = None;
    if let Err(error) = witness::check(&record.placed) {
        linearizable = false;
        let scene = Scene::of_witness(&record.placed, &error);
        picture = scene.map(|scene| picture::draw(&record.placed, &scene));
        problems.push(error.to_string());
    }
    let deadline = Instant::now() + SEARCH_MAX;
    let expired = || Instant::now() >= deadline;
    let budget = Budget {
        expired: Some(&expired),
        ..Budget::default()
    };
    // What could not be decided was not shown to be right.
    let verdict = history::check(&record.seen, budget);
    let scene = match &verdict {
        history::Verdict::Linearizable => None,
        // What clients saw for themselves is easier to follow than what the log says.
        history::Verdict::Illegal(violation) => Some(Scene::of_violation(violation)),
        history::Verdict::Unknown(exhausted) => {
            picture.is_none().then(|| Scene::of_exhausted(exhausted))
        }
    };
    if let Some(scene) = scene {
        picture = Some(picture::draw(&record.seen, &scene));
    }
    if verdict != history::Verdict::Linearizable {
        linearizable = false;
        problems.push(verdict.to_string());
    }
    Verdict {
        acknowledged: record.acknowledged,
        operations: record.seen.operations().len(),
        failovers,
        longest_pause: record.longest_pause,
        lost: record.lost,
        linearizable,
        problems,
        history: record.seen,
        picture,
    }
}

impl Verdict {
    /// Whether everything is as promised.
    pub(super) fn is_good(&self) -> bool {
        self.problems.is_empty() && self.lost == 0 && self.linearizable
    }

    /// The time within which half of the fail-overs were over (nearest rank).
    fn half_within(&self) -> Duration {
        let middle = self.failovers.len().saturating_sub(1) / 2;
        self.failovers.get(middle).copied().unwrap_or_default()
    }

    /// The time that the slowest fail-over took.
    fn slowest(&self) -> Duration {
        self.failovers.last().copied().unwrap_or_default()
    }

    /// The verdict as JSON.
    pub(super) fn object(&self) -> Value {
        json!({
            "acked": self.acknowledged,
            "lost": self.lost,
            "failovers": self.failovers.len(),
            "longest_pause_ms": milliseconds(self.longest_pause),
            "failover_p50_ms": milliseconds(self.half_within()),
            "failover_max_ms": milliseconds(self.slowest()),
            "linearizable": self.linearizable,
        })
    }

    /// The verdict for people.
    pub(super) fn table(&self) -> String {
        let answer = if self.linearizable { "yes" } else { "no" };
        let rows = [
            ("operations", self.operations.to_string()),
            ("writes acknowledged", self.acknowledged.to_string()),
            ("fail-overs", self.failovers.len().to_string()),
            (
                "half of them within",
                format!("{} ms", milliseconds(self.half_within())),
            ),
            (
                "longest pause",
                format!("{} ms", milliseconds(self.longest_pause)),
            ),
            ("lost", self.lost.to_string()),
            ("linearizable", answer.to_owned()),
        ];
        let lines: Vec<String> = rows
            .iter()
            .map(|(name, value)| format!("{name:<20} {value:>10}"))
            .collect();
        lines.join("\n")
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use history::{Op, Reply};

    use super::super::journal::End;
    use super::*;

    fn journal(read: Reply) -> Journal {
        let mut journal = Journal::new();
        let mut seat = journal.seat();
        let location = history::Location { index: 1, term: 1 };
        let written = Reply::Written {
            version: 1,
            value_bytes: 1,
        };
        for (op, end) in [
            (Op::put("k", "v"), End::Answered(written, Some(location))),
            (Op::get("k"), End::Answered(read, None)),
        ] {
            // The clock must move: what ends when another begins overlaps it.
            let began = Instant::now() + Duration::from_millis(1);
            let begun = journal.begin(&seat, began, &op).expect("new");
            let ended = began + Duration::from_millis(1);
            journal.end(&mut seat, &begun, ended, end).expect("begun");
            std::thread::sleep(Duration::from_millis(5));
        }
        journal.acknowledge(Instant::now());
        for millis in [90, 30, 250, 60] {
            journal.failed_over(Duration::from_millis(millis));
        }
        journal.compare(&std::collections::BTreeMap::new());
        journal
    }

    #[test]
    fn a_right_history_is_good() {
        let value = "v".into();
        let verdict = judge(journal(Reply::Found { value, version: 1 }));
        assert!(verdict.is_good(), "{:?}", verdict.problems);
        assert_eq!(verdict.picture, None);
        let expected = json!({
            "acked": 1, "lost": 0, "failovers": 4, "longest_pause_ms": 0, "linearizable": true,
            "failover_p50_ms": 60, "failover_max_ms": 250,
        });
        assert_eq!(verdict.object(), expected);
        assert!(verdict.table().contains("lost                          0"));
    }

    #[test]
    fn a_write_that_is_not_seen_is_found_by_both_judges() {
        let verdict = judge(journal(Reply::Absent));
        assert!(!verdict.is_good());
        assert_eq!(verdict.problems.len(), 2, "{:?}", verdict.problems);
        assert_eq!(verdict.object()["linearizable"], false);
        let picture = verdict.picture.expect("the judges say where it goes wrong");
        assert!(picture.contains("not linearizable: key"), "{picture}");
    }
}
