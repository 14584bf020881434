//! What `cluster` prints while it runs: events as lines of their own, and how the cluster is, on
//! one line that is kept up to date on a terminal and repeated every few seconds elsewhere.

use std::io;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kv_client::NodeReport;
use serde_json::{Value, json};

use crate::commands::status::{leader, newest_commit, newest_term, object};
use crate::output::{Output, is_terminal};

/// Between two looks at the cluster where a terminal shows them.
const EVERY_ON_TERMINAL: Duration = Duration::from_secs(1);

/// Between two looks elsewhere.
const EVERY_ELSEWHERE: Duration = Duration::from_secs(5);

/// The screen.
pub(crate) struct Screen<'a> {
    output: &'a mut Output,
    live: Option<ProgressBar>,
    last: Option<(Instant, u64)>,
}

impl<'a> Screen<'a> {
    /// Begins.
    pub(crate) fn new(output: &'a mut Output) -> Self {
        let live = (is_terminal() && !output.is_json()).then(|| {
            let style = ProgressStyle::with_template("{msg}").expect("the template is well-formed");
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            bar.with_style(style)
        });
        Self {
            output,
            live,
            last: None,
        }
    }

    /// How long to wait between two looks at the cluster.
    pub(crate) fn every(&self) -> Duration {
        if self.live.is_some() {
            EVERY_ON_TERMINAL
        } else {
            EVERY_ELSEWHERE
        }
    }

    /// Prints a line that stays. A reader that is gone does not end the cluster.
    pub(crate) fn line(&mut self, object: impl FnOnce() -> Value, words: impl FnOnce() -> String) {
        let output = &mut *self.output;
        let print = || -> io::Result<()> {
            output.line(object, words)?;
            output.flush()
        };
        // With a bar on the screen, the line goes above it.
        let _ = match &self.live {
            Some(bar) => bar.suspend(print),
            None => print(),
        };
    }

    /// Shows how the cluster is now.
    pub(crate) fn status(&mut self, reports: &[NodeReport]) {
        let now = Instant::now();
        let commit = newest_commit(reports);
        let rate = self.last.map(|(then, before)| {
            let seconds = now.duration_since(then).as_secs_f64();
            commit.saturating_sub(before) as f64 / seconds.max(1e-3)
        });
        self.last = Some((now, commit));
        let words = words(reports, rate);
        match &self.live {
            Some(bar) => {
                bar.set_message(words);
                bar.tick();
            }
            None => self.line(|| json!({ "status": object(reports) }), || words),
        }
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.live {
            bar.finish_and_clear();
        }
    }
}

fn words(reports: &[NodeReport], rate: Option<f64>) -> String {
    let leader = leader(reports).map_or("no leader".to_owned(), |id| format!("leader node {id}"));
    let (term, commit) = (newest_term(reports), newest_commit(reports));
    let rate = rate.map_or(String::new(), |rate| format!(" (+{rate:.0}/s)"));
    let reachable = reports.iter().filter(|report| report.status.is_some());
    let (reachable, all) = (reachable.count(), reports.len());
    let missing: Vec<String> = reports
        .iter()
        .filter(|report| report.status.is_none())
        .map(|report| report.id.to_string())
        .collect();
    let missing = match missing.len() {
        0 => String::new(),
        _ => format!(" (unreachable: {})", missing.join(", ")),
    };
    format!("{leader}, term {term}, commit {commit}{rate}, {reachable} of {all} nodes{missing}")
}

#[cfg(test)]
mod tests {
    use kv_client::NodeStatus;

    use super::*;

    #[test]
    fn the_line_names_leader_and_missing_nodes() {
        let status = NodeStatus {
            id: 1,
            role: "leader".to_owned(),
            term: 3,
            commit: 100,
            ..NodeStatus::default()
        };
        let report = |id, status| NodeReport {
            id,
            address: String::new(),
            status,
            problem: None,
        };
        let reports = [report(1, Some(status)), report(2, None)];
        let expected = "leader node 1, term 3, commit 100 (+7/s), 1 of 2 nodes (unreachable: 2)";
        assert_eq!(words(&reports, Some(7.0)), expected);
        let expected = "no leader, term 0, commit 0, 0 of 1 nodes (unreachable: 2)";
        assert_eq!(words(&reports[1..], None), expected);
    }
}
