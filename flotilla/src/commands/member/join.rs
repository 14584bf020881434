//! Nodes that join: `member add` and `member replace`. Their directory is made first, then the
//! cluster is told; where it refuses, what was made goes again.

use std::path::{Path, PathBuf};

use kv_client::{ClientError, KvClient, MemberChange, MembersReport};
use kv_service::config::NodeConfig;
use kv_service::init::{self, NewcomerBackends};
use serde_json::json;

use crate::cli::{MemberAddArgs, MemberReplaceArgs};
use crate::cluster::plan::{is_local, is_supervised};
use crate::commands::admin::{connect, directory, refused_by_cluster};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::removed;

/// A node that is to join.
pub(crate) struct Newcomer<'a> {
    /// Where the cluster's files are.
    pub(crate) dir: &'a Path,
    /// Its id.
    pub(crate) id: u64,
    /// Where others will reach it.
    pub(crate) address: &'a str,
    /// Where it keeps its log and its state.
    pub(crate) backends: NewcomerBackends,
}

impl Newcomer<'_> {
    /// Makes its directory, and lets it join as a learner. Can be done again after an interruption.
    ///
    /// # Errors
    /// When the directory cannot be made, or the cluster refuses.
    pub(crate) async fn join(&self, client: &KvClient) -> Result<NodeConfig, Failure> {
        let (id, address) = (self.id, self.address);
        let what = format!("cannot add node {id}");
        let refused = |error| refused_by_cluster(&what, error);
        let members = client.members().await.map_err(refused)?;
        let dir = node_dir(self.dir, id);
        let existing = NodeConfig::load(&dir.join("node.toml")).ok();
        let existing = existing.filter(|node| node.advertise == address);
        if let Some(member) = members.member(id) {
            // Where an earlier attempt got this far, nothing is left to be done.
            let is_own = |node: &NodeConfig| node.incarnation().0 == member.incarnation;
            return existing.filter(is_own).ok_or_else(|| {
                Failure::refused(format!(
                    "{what}: node {id} is already a member, at {}; choose another id, or use \
                     `flotilla member replace {id}` where its disk is lost",
                    member.address
                ))
            });
        }
        // A node that was removed does not come back under its incarnation.
        let existing = existing.filter(|node| !removed::is_marked(node));
        if existing.is_none() && dir.join("node.toml").exists() {
            return Err(Failure::usage(format!(
                "{what}: {} has another node {id}, or one that was removed; choose another id, or \
                 delete that directory where its data is of no more use",
                dir.display()
            )));
        }
        let is_made = existing.is_none();
        let node = match existing {
            Some(node) => node,
            None => init::add_member_directory(self.dir, id, address, self.backends)?,
        };
        let change = MemberChange::Add {
            id,
            incarnation: node.incarnation().0,
            address: address.to_owned(),
        };
        let changed = client.change_members(change).await;
        settle(changed, is_made, &dir).map_err(refused)?;
        Ok(node)
    }
}

/// What was made for a change that certainly did not happen goes again; after an unknown outcome it
/// may be needed.
fn settle(
    changed: Result<MembersReport, ClientError>,
    is_made: bool,
    made: &Path,
) -> Result<(), ClientError> {
    match changed {
        Ok(_) => Ok(()),
        Err(error) => {
            let is_certain = !matches!(error, ClientError::Unknown(_));
            if is_certain
                && is_made
                && let Err(why) = std::fs::remove_dir_all(made)
            {
                eprintln!("flotilla: cannot remove {}: {why}", made.display());
            }
            Err(error)
        }
    }
}

fn node_dir(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("node-{id}"))
}

/// `flotilla member add`.
///
/// # Errors
/// When the directory cannot be made, or the cluster refuses.
pub(super) async fn add(args: &MemberAddArgs, output: &mut Output) -> Outcome {
    let client = connect(&args.admin).await?;
    let newcomer = Newcomer {
        dir: directory(&args.admin),
        id: args.id,
        address: &args.address,
        backends: NewcomerBackends {
            storage: args.storage.into(),
            state: args.state.map(Into::into),
        },
    };
    let joined = newcomer.join(&client).await;
    client.close().await;
    tell(
        &joined?,
        newcomer.dir,
        "is a member now, as a learner",
        output,
    )
}

/// `flotilla member replace`.
///
/// # Errors
/// When there is data, or the directory cannot be made, or the cluster refuses.
pub(super) async fn replace(args: &MemberReplaceArgs, output: &mut Output) -> Outcome {
    let client = connect(&args.admin).await?;
    let dir = directory(&args.admin);
    let replaced = replace_by(&client, dir, args).await;
    client.close().await;
    tell(
        &replaced?,
        dir,
        "has a new incarnation, which is a learner",
        output,
    )
}

async fn replace_by(
    client: &KvClient,
    dir: &Path,
    args: &MemberReplaceArgs,
) -> Result<NodeConfig, Failure> {
    let id = args.id;
    let what = format!("cannot replace node {id}");
    let refused = |error| refused_by_cluster(&what, error);
    let members = client.members().await.map_err(refused)?;
    let Some(member) = members.member(id) else {
        return Err(Failure::refused(format!(
            "{what}: node {id} is not a member; `flotilla member add` lets a new one join"
        )));
    };
    let address = args.address.as_ref().unwrap_or(&member.address);
    let node = init::replace_member_directory(dir, id, address)?;
    let change = MemberChange::Replace {
        id,
        incarnation: node.incarnation().0,
        address: address.clone(),
    };
    let changed = client.change_members(change).await;
    settle(changed, true, &node.data).map_err(refused)?;
    Ok(node)
}

/// Says what happened, how the node is started, and what comes next.
fn tell(node: &NodeConfig, dir: &Path, what: &str, output: &mut Output) -> Outcome {
    let id = node.id;
    let command = format!("flotilla serve --config {}", quoted(&node.path));
    let is_watched = is_local(node) && is_supervised(dir);
    let object = json!({
        "id": id.0,
        "addr": node.advertise,
        "role": "learner",
        "start": command,
        "is_started_by_cluster": is_watched,
    });
    let start = if is_watched {
        let dir = dir.display();
        format!("the `flotilla cluster` that runs in {dir} starts it; where it does not: {command}")
    } else if is_local(node) {
        format!("start it: {command}")
    } else {
        let copy = node_dir(dir, id.0);
        format!(
            "start it where {} is, with {} copied there: {command}",
            node.advertise,
            copy.display()
        )
    };
    output.line(
        || object,
        || {
            format!(
                "node {id} {what}, at {}\n{start}\nwhen it has caught up: flotilla member \
                 promote {id} --wait",
                node.advertise
            )
        },
    )?;
    output.flush()?;
    Ok(Exit::Done)
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+,:@%".contains(letter);
    if text.chars().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_the_shell() {
        assert_eq!(
            quoted(Path::new("./data/node-4/node.toml")),
            "./data/node-4/node.toml"
        );
        assert_eq!(quoted(Path::new("my data/x")), "'my data/x'");
        assert_eq!(quoted(Path::new("it's")), "'it'\\''s'");
    }

    #[test]
    fn only_what_certainly_did_not_happen_is_undone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let made = node_dir(dir.path(), 4);
        let outcomes = [
            (Err(ClientError::Unknown(String::new())), true, true),
            (Ok(MembersReport::default()), true, true),
            (Err(ClientError::Refused(String::new())), false, true),
            (Err(ClientError::Refused(String::new())), true, false),
        ];
        std::fs::create_dir(&made).expect("made");
        for (outcome, is_made, stays) in outcomes {
            let is_done = outcome.is_ok();
            assert_eq!(settle(outcome, is_made, &made).is_ok(), is_done);
            assert_eq!(made.exists(), stays);
        }
    }
}
