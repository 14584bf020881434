//! `flotilla status`: how every node is, also while there is no leader.

use kv_client::NodeReport;
use kv_client::NodeStatus;
use serde_json::{Value, json};

use crate::cli::StatusArgs;
use crate::commands::data::connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Output, printable};

const COLUMNS: [&str; 12] = [
    "ID", "ADDRESS", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "SNAPSHOT", "LOG", "DISK",
    "STORAGE", "VERSION",
];

/// Runs `flotilla status`.
///
/// # Errors
/// When no node answers.
pub(crate) async fn run(args: &StatusArgs, output: &mut Output) -> Outcome {
    let client = connect(&args.client).await?;
    let reports = client.status().await?;
    client.close().await;
    output.line(|| object(&reports), || table(&reports))?;
    output.flush()?;
    if reports.iter().any(|report| report.status.is_some()) {
        return Ok(Exit::Done);
    }
    let addresses: Vec<&str> = reports.iter().map(|report| &*report.address).collect();
    let message = format!("no node answers at {}", addresses.join(", "));
    Err(Failure::new(Exit::Unavailable, message))
}

/// The nodes that answered.
fn statuses(reports: &[NodeReport]) -> impl Iterator<Item = &NodeStatus> {
    reports.iter().filter_map(|report| report.status.as_ref())
}

/// Who leads: of those who say that they do, the one in the newest term. An older one is cut off
/// and does not know yet.
pub(crate) fn leader(reports: &[NodeReport]) -> Option<u64> {
    statuses(reports)
        .filter(|status| status.role == "leader")
        .max_by_key(|status| status.term)
        .map(|status| status.id)
}

/// The newest term that any node knows.
pub(crate) fn newest_term(reports: &[NodeReport]) -> u64 {
    statuses(reports)
        .map(|status| status.term)
        .max()
        .unwrap_or(0)
}

/// The newest commit index that any node knows.
pub(crate) fn newest_commit(reports: &[NodeReport]) -> u64 {
    statuses(reports)
        .map(|status| status.commit)
        .max()
        .unwrap_or(0)
}

/// Everything as JSON, in the words of the contract.
pub(crate) fn object(reports: &[NodeReport]) -> Value {
    let cluster = statuses(reports).next().map(|status| &status.cluster_id);
    let nodes: Vec<Value> = reports.iter().map(node_object).collect();
    json!({
        "cluster_id": cluster,
        "leader": leader(reports),
        "term": newest_term(reports),
        "nodes": nodes,
    })
}

fn node_object(report: &NodeReport) -> Value {
    let status = report.status.as_ref();
    json!({
        "id": report.id,
        "addr": report.address,
        "role": status.map(|status| &status.role),
        "reachable": status.is_some(),
        "term": status.map(|status| status.term),
        "last_index": status.map(|status| status.last_index),
        "commit": status.map(|status| status.commit),
        "applied": status.map(|status| status.applied),
        "snapshot_index": status.map(|status| status.snapshot_index),
        "log_bytes": status.map(|status| status.log_bytes),
        "disk_bytes": status.map(|status| status.disk_bytes),
        "storage": status.map(|status| &status.storage),
        "version": status.map(|status| &status.version),
    })
}

fn table(reports: &[NodeReport]) -> String {
    let commit = newest_commit(reports);
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(reports.iter().map(|report| row(report, commit)));
    let mut widths = [0; COLUMNS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut lines = vec![heading(reports)];
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

fn heading(reports: &[NodeReport]) -> String {
    let cluster = statuses(reports)
        .next()
        .map_or("unknown", |status| &*status.cluster_id);
    let leader = leader(reports).map_or("no leader".to_owned(), |id| format!("leader node {id}"));
    let term = newest_term(reports);
    format!("cluster {cluster}, {leader}, term {term}")
}

fn row(report: &NodeReport, commit: u64) -> [String; COLUMNS.len()] {
    let (id, address) = (report.id.to_string(), printable(report.address.as_bytes()));
    let Some(status) = &report.status else {
        let mut row = [const { String::new() }; COLUMNS.len()].map(|_| "-".to_owned());
        row[..3].clone_from_slice(&[id, address, "unreachable".to_owned()]);
        return row;
    };
    [
        id,
        address,
        printable(status.role.as_bytes()),
        status.term.to_string(),
        status.commit.to_string(),
        status.applied.to_string(),
        commit.saturating_sub(status.applied).to_string(),
        status.snapshot_index.to_string(),
        size(status.log_bytes),
        size(status.disk_bytes),
        printable(status.storage.as_bytes()),
        printable(status.version.as_bytes()),
    ]
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = units[0];
    for larger in &units[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: u64, role: &str, term: u64) -> NodeReport {
        let status = NodeStatus {
            id,
            role: role.to_owned(),
            term,
            commit: 10 * term,
            applied: 10 * term - id,
            cluster_id: "ab".to_owned(),
            ..NodeStatus::default()
        };
        NodeReport {
            id,
            address: format!("127.0.0.1:{id}"),
            status: Some(status),
            problem: None,
        }
    }

    fn silent(id: u64) -> NodeReport {
        NodeReport {
            id,
            address: format!("127.0.0.1:{id}"),
            status: None,
            problem: Some("refused".to_owned()),
        }
    }

    #[test]
    fn of_two_leaders_the_newer_one_leads() {
        let reports = [report(1, "leader", 3), report(2, "leader", 4), silent(3)];
        assert_eq!(leader(&reports), Some(2));
        assert_eq!(leader(&[report(1, "follower", 3), silent(2)]), None);
    }

    #[test]
    fn the_object_has_the_names_of_the_contract() {
        let object = object(&[report(1, "leader", 3), silent(2)]);
        assert_eq!(object["cluster_id"], "ab");
        assert_eq!((&object["leader"], &object["term"]), (&json!(1), &json!(3)));
        let nodes = object["nodes"].as_array().expect("an array");
        for node in nodes {
            let names: Vec<&str> = node
                .as_object()
                .expect("an object")
                .keys()
                .map(String::as_str)
                .collect();
            let mut expected = vec![
                "id",
                "addr",
                "role",
                "reachable",
                "term",
                "last_index",
                "commit",
                "applied",
                "snapshot_index",
                "log_bytes",
                "disk_bytes",
                "storage",
                "version",
            ];
            expected.sort_unstable();
            assert_eq!(names, expected);
        }
        assert_eq!(nodes[0]["reachable"], true);
        assert_eq!(nodes[1]["reachable"], false);
        assert_eq!(nodes[1]["role"], Value::Null);
    }

    #[test]
    fn the_table_marks_who_is_unreachable_and_who_lags() {
        let shown = table(&[report(1, "leader", 3), report(2, "follower", 2), silent(3)]);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "cluster ab, leader node 1, term 3");
        let cells: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(
            cells[..7],
            ["2", "127.0.0.1:2", "follower", "2", "20", "18", "12"]
        );
        assert!(lines[4].contains("unreachable"), "{shown}");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
    }
}
