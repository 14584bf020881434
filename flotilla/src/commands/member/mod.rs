//! `flotilla member`: who belongs to the cluster, and changes of that. How a node is made that
//! joins is in `join`, where clients find the members in `endpoints`.

mod endpoints;
pub(crate) mod join;

use std::time::Duration;

use kv_client::{ClientError, KvClient, MemberChange, MemberKind, MemberReport, MembersReport};
use kv_service::config::NodeConfig;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cli::{AdminArgs, MemberCommand, MemberListArgs, MemberPromoteArgs, MemberRemoveArgs};
use crate::commands::admin::{connect, directory, refused_by_cluster};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Output, columns, printable};
use crate::removed;

/// Between two attempts to promote a learner that is waited for.
const RETRY: Duration = Duration::from_millis(200);

/// Runs `flotilla member`.
///
/// # Errors
/// When the cluster refuses, or does not answer.
pub(crate) async fn run(command: &MemberCommand, output: &mut Output) -> Outcome {
    match command {
        MemberCommand::List(args) => list(args, output).await,
        MemberCommand::Add(args) => join::add(args, output).await,
        MemberCommand::Promote(args) => promote(args, output).await,
        MemberCommand::Remove(args) => remove(args, output).await,
        MemberCommand::Replace(args) => join::replace(args, output).await,
    }
}

async fn list(args: &MemberListArgs, output: &mut Output) -> Outcome {
    let client = connect(&args.admin).await?;
    let report = client.members().await;
    client.close().await;
    let report = report.map_err(|error| refused_by_cluster("cannot list the members", error))?;
    output.line(|| object(&report), || table(&report))?;
    output.flush()?;
    Ok(Exit::Done)
}

fn object(report: &MembersReport) -> Value {
    let members: Vec<Value> = report.members.iter().map(member_object).collect();
    json!({ "changing": report.is_changing, "members": members })
}

fn member_object(member: &MemberReport) -> Value {
    json!({
        "id": member.id,
        "addr": member.address,
        "role": member.role.name(),
        "leaving": member.is_leaving,
        // As text, because many readers of JSON round large numbers.
        "incarnation": member.incarnation.to_string(),
    })
}

fn table(report: &MembersReport) -> String {
    let mut rows = vec![["ID", "ADDRESS", "ROLE", ""].map(str::to_owned)];
    rows.extend(report.members.iter().map(|member| {
        let leaving = if member.is_leaving { "leaving" } else { "" };
        [
            member.id.to_string(),
            printable(member.address.as_bytes()),
            member.role.name().to_owned(),
            leaving.to_owned(),
        ]
    }));
    let mut lines = columns(&rows);
    if report.is_changing {
        lines.push("a change of members is under way".to_owned());
    }
    lines.join("\n")
}

async fn promote(args: &MemberPromoteArgs, output: &mut Output) -> Outcome {
    let (client, id) = (connect(&args.admin).await?, args.id);
    let promoted = if args.wait {
        let tell = |refusal: &ClientError| {
            eprintln!("flotilla: waiting until node {id} can be promoted: {refusal}");
        };
        promote_when_possible(&client, id, tell).await
    } else {
        client.change_members(MemberChange::Promote { id }).await
    };
    client.close().await;
    let members = promoted
        .map_err(|error| refused_by_cluster(&format!("cannot promote node {id}"), error))?;
    endpoints::update(&args.admin, &members);
    output.line(
        || json!({ "id": id, "role": "voter" }),
        || format!("node {id} is a voter now"),
    )?;
    output.flush()?;
    Ok(Exit::Done)
}

/// Promotes a learner as soon as the leader agrees. As long as the node is a learner, a refusal
/// means that it lags, or that something else is under way: both pass. The first one is told.
///
/// # Errors
/// When the node is no learner, or the cluster does not answer.
pub(crate) async fn promote_when_possible(
    client: &KvClient,
    id: u64,
    tell: impl FnOnce(&ClientError),
) -> Result<MembersReport, ClientError> {
    let mut tell = Some(tell);
    loop {
        let refusal = match client.change_members(MemberChange::Promote { id }).await {
            Err(error @ ClientError::Refused(_)) => error,
            settled => return settled,
        };
        let report = client.members().await?;
        let role = report.member(id).map(|member| member.role);
        if role != Some(MemberKind::Learner) {
            return Err(refusal);
        }
        if let Some(tell) = tell.take() {
            tell(&refusal);
        }
        sleep(RETRY).await;
    }
}

async fn remove(args: &MemberRemoveArgs, output: &mut Output) -> Outcome {
    let (client, id) = (connect(&args.admin).await?, args.id);
    let removed = remove_by(&client, &args.admin, id).await;
    client.close().await;
    let here = removed?;
    let then = match &here {
        Some(node) => {
            let dir = node.path.with_file_name("");
            format!("; {} is of no more use", dir.display())
        }
        None => "; stop it where it runs, and delete its directory".to_owned(),
    };
    output.line(
        || json!({ "id": id, "removed": true }),
        || format!("node {id} is not a member any more{then}"),
    )?;
    output.flush()?;
    Ok(Exit::Done)
}

/// Removes a member. Where its directory is here, it is marked, so that nobody starts it again.
async fn remove_by(
    client: &KvClient,
    admin: &AdminArgs,
    id: u64,
) -> Result<Option<NodeConfig>, Failure> {
    let refused = |error| refused_by_cluster(&format!("cannot remove node {id}"), error);
    let before = client.members().await.map_err(refused)?;
    let incarnation = before.member(id).map(|member| member.incarnation);
    let change = MemberChange::Remove { id };
    let members = client.change_members(change).await.map_err(refused)?;
    endpoints::update(admin, &members);
    let path = directory(admin).join(format!("node-{id}/node.toml"));
    let found = NodeConfig::load(&path).ok();
    let here = found.filter(|node| Some(node.incarnation().0) == incarnation);
    if let Some(node) = &here
        && let Err(error) = removed::mark(node)
    {
        // It was removed all the same; a supervisor stops it by what the cluster says.
        eprintln!(
            "flotilla: cannot mark {} as removed: {error}",
            path.display()
        );
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, role: MemberKind, is_leaving: bool) -> MemberReport {
        MemberReport {
            id,
            incarnation: u64::MAX >> 1,
            address: format!("host{id}:7400"),
            role,
            is_leaving,
        }
    }

    #[test]
    fn the_list_names_learners_and_who_is_leaving() {
        let report = MembersReport {
            members: vec![
                member(1, MemberKind::Voter, true),
                member(12, MemberKind::Learner, false),
            ],
            is_changing: true,
        };
        let shown = table(&report);
        let lines: Vec<&str> = shown.lines().collect();
        let words = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(lines[1]), ["1", "host1:7400", "voter", "leaving"]);
        assert_eq!(words(lines[2]), ["12", "host12:7400", "learner"]);
        assert!(lines[3].contains("under way"), "{shown}");
        let expected = json!({
            "changing": true,
            "members": [
                {"id": 1, "addr": "host1:7400", "role": "voter", "leaving": true,
                 "incarnation": "9223372036854775807"},
                {"id": 12, "addr": "host12:7400", "role": "learner", "leaving": false,
                 "incarnation": "9223372036854775807"},
            ],
        });
        assert_eq!(object(&report), expected);
    }
}
