//! `flotilla status`: how every node is, also while there is no leader.

use kv_client::{MemberKind, MembersReport, NodeReport, NodeStatus};
use serde_json::{Value, json};

use crate::cli::StatusArgs;
use crate::commands::data::connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Output, columns, printable};

const COLUMNS: [&str; 14] = [
    "ID",
    "ADDRESS",
    "ROLE",
    "TERM",
    "COMMIT",
    "APPLIED",
    "LAG",
    "SNAPSHOT",
    "LOG START",
    "LOG",
    "DISK",
    "STORAGE",
    "STATE",
    "VERSION",
];

/// Runs `flotilla status`.
///
/// # Errors
/// When no node answers.
pub(crate) async fn run(args: &StatusArgs, output: &mut Output) -> Outcome {
    let client = connect(&args.client).await?;
    let reports = of_cluster(client.status().await?);
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

/// Who belongs to the cluster, as the leader knows it.
fn membership(reports: &[NodeReport]) -> Option<&MembersReport> {
    let leader = leader(reports)?;
    let status = statuses(reports).find(|status| status.id == leader)?;
    let members = &status.membership;
    (!members.members.is_empty()).then_some(members)
}

/// Leaves out who is configured somewhere, but is no member any more and does not answer.
pub(crate) fn of_cluster(mut reports: Vec<NodeReport>) -> Vec<NodeReport> {
    if let Some(members) = membership(&reports).cloned() {
        reports.retain(|it| it.status.is_some() || members.member(it.id).is_some());
    }
    reports
}

/// What a node is: in its own words, or, where it does not answer, as far as that is certain.
fn role<'a>(report: &'a NodeReport, members: Option<&MembersReport>) -> Option<&'a str> {
    if let Some(status) = &report.status {
        return Some(&status.role);
    }
    let kind = members?.member(report.id)?.role;
    (kind == MemberKind::Learner).then(|| kind.name())
}

/// Everything as JSON, in the words of the contract.
pub(crate) fn object(reports: &[NodeReport]) -> Value {
    let cluster = statuses(reports).next().map(|status| &status.cluster_id);
    let members = membership(reports);
    let nodes = reports.iter().map(|report| node_object(report, members));
    json!({
        "cluster_id": cluster,
        "leader": leader(reports),
        "term": newest_term(reports),
        "changing": members.map(|members| members.is_changing),
        "nodes": nodes.collect::<Vec<Value>>(),
    })
}

fn node_object(report: &NodeReport, members: Option<&MembersReport>) -> Value {
    let status = report.status.as_ref();
    let member = members.map(|members| members.member(report.id));
    json!({
        "id": report.id,
        "addr": report.address,
        "role": role(report, members),
        "member": member.map(|member| member.is_some()),
        "leaving": member.map(|member| member.is_some_and(|member| member.is_leaving)),
        "reachable": status.is_some(),
        "term": status.map(|status| status.term),
        "last_index": status.map(|status| status.last_index),
        "commit": status.map(|status| status.commit),
        "applied": status.map(|status| status.applied),
        "snapshot_index": status.map(|status| status.snapshot_index),
        "log_start": status.map(|status| status.log_start),
        "log_bytes": status.map(|status| status.log_bytes),
        "disk_bytes": status.map(|status| status.disk_bytes),
        "short_of_room": status.map(|status| status.is_short_of_room),
        "refilling": status.and_then(|status| status.refilling).map(|(term, index)| {
            json!({ "term": term, "index": index })
        }),
        "storage": status.map(|status| &status.storage),
        "state": status.map(|status| &status.state),
        "version": status.map(|status| &status.version),
    })
}

fn table(reports: &[NodeReport]) -> String {
    let commit = newest_commit(reports);
    let members = membership(reports);
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(reports.iter().map(|report| row(report, commit, members)));
    let mut lines = vec![heading(reports)];
    lines.extend(columns(&rows));
    lines.extend(members.and_then(change));
    lines.join("\n")
}

/// What is said while a change of members is under way.
fn change(members: &MembersReport) -> Option<String> {
    let leaving = members.members.iter().filter(|member| member.is_leaving);
    let leaving: Vec<String> = leaving.map(|member| member.id.to_string()).collect();
    let who = match leaving.as_slice() {
        [] => String::new(),
        ids => format!("; leaving: node {}", ids.join(", ")),
    };
    let told = format!("a change of members is under way{who}");
    members.is_changing.then_some(told)
}

fn heading(reports: &[NodeReport]) -> String {
    let cluster = statuses(reports)
        .next()
        .map_or("unknown", |status| &*status.cluster_id);
    let leader = leader(reports).map_or("no leader".to_owned(), |id| format!("leader node {id}"));
    let term = newest_term(reports);
    format!("cluster {cluster}, {leader}, term {term}")
}

fn row(
    report: &NodeReport,
    commit: u64,
    members: Option<&MembersReport>,
) -> [String; COLUMNS.len()] {
    let (id, address) = (report.id.to_string(), printable(report.address.as_bytes()));
    let role = role(report, members).map(|role| printable(role.as_bytes()));
    let Some(status) = &report.status else {
        let mut row = [const { String::new() }; COLUMNS.len()].map(|_| "-".to_owned());
        let role = role.map_or(String::new(), |role| format!(" {role}"));
        row[..3].clone_from_slice(&[id, address, format!("unreachable{role}")]);
        return row;
    };
    let is_stranger = members.is_some_and(|members| members.member(report.id).is_none());
    let stranger = if is_stranger { " (no member)" } else { "" };
    [
        id,
        address,
        format!("{}{stranger}{}", role.unwrap_or_default(), trouble(status)),
        status.term.to_string(),
        status.commit.to_string(),
        status.applied.to_string(),
        commit.saturating_sub(status.applied).to_string(),
        status.snapshot_index.to_string(),
        status.log_start.to_string(),
        size(status.log_bytes),
        size(status.disk_bytes),
        printable(status.storage.as_bytes()),
        printable(status.state.as_bytes()),
        printable(status.version.as_bytes()),
    ]
}

/// What keeps a node from doing its part.
fn trouble(status: &NodeStatus) -> String {
    let refilling = status
        .refilling
        .map(|(term, index)| format!(" (log damaged, refilling to {index}@{term})"));
    let room = status.is_short_of_room.then_some(" (disk short of room)");
    format!(
        "{}{}",
        refilling.unwrap_or_default(),
        room.unwrap_or_default()
    )
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
                "member",
                "leaving",
                "log_start",
                "reachable",
                "term",
                "last_index",
                "commit",
                "applied",
                "snapshot_index",
                "log_bytes",
                "disk_bytes",
                "short_of_room",
                "refilling",
                "storage",
                "state",
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
    fn a_node_in_trouble_says_so() {
        let mut damaged = report(1, "follower", 3);
        if let Some(status) = &mut damaged.status {
            status.refilling = Some((2, 7));
        }
        let mut full = report(2, "leader", 3);
        if let Some(status) = &mut full.status {
            status.is_short_of_room = true;
        }
        let reports = [damaged, full, silent(3)];
        let shown = table(&reports);
        assert!(
            shown.contains("follower (log damaged, refilling to 7@2)"),
            "{shown}"
        );
        assert!(shown.contains("leader (disk short of room)"), "{shown}");
        let nodes = &object(&reports)["nodes"];
        assert_eq!(nodes[0]["refilling"], json!({ "term": 2, "index": 7 }));
        assert_eq!(nodes[1]["refilling"], Value::Null);
        let short = [0, 1, 2].map(|node| nodes[node]["short_of_room"].clone());
        assert_eq!(short, [json!(false), json!(true), Value::Null]);
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

    fn member(id: u64, role: MemberKind, is_leaving: bool) -> kv_client::MemberReport {
        kv_client::MemberReport {
            id,
            incarnation: id,
            address: String::new(),
            role,
            is_leaving,
        }
    }

    #[test]
    fn learners_strangers_and_who_is_leaving_are_told() {
        let mut leads = report(1, "leader", 3);
        let status = leads.status.as_mut().expect("reachable");
        status.membership = MembersReport {
            members: vec![
                member(1, MemberKind::Voter, false),
                member(2, MemberKind::Voter, true),
                member(3, MemberKind::Learner, false),
            ],
            is_changing: true,
        };
        let all = vec![
            leads,
            report(2, "follower", 3),
            silent(3),
            silent(4),
            report(5, "follower", 2),
        ];
        let reports = of_cluster(all);
        let ids: Vec<u64> = reports.iter().map(|report| report.id).collect();
        assert_eq!(
            ids,
            [1, 2, 3, 5],
            "a former member that is gone is not told"
        );
        let object = object(&reports);
        assert_eq!(object["changing"], true);
        let of = |name: &str| -> Vec<Value> {
            let nodes = object["nodes"].as_array().expect("an array");
            nodes.iter().map(|node| node[name].clone()).collect()
        };
        assert_eq!(of("member"), [true, true, true, false]);
        assert_eq!(of("leaving"), [false, true, false, false]);
        assert_eq!(of("role")[2], "learner");
        let shown = table(&reports);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[4].contains("unreachable learner"), "{shown}");
        assert!(lines[5].contains("follower (no member)"), "{shown}");
        assert_eq!(
            lines[6],
            "a change of members is under way; leaving: node 2"
        );
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
    }
}
