//! Who belongs to the cluster while it runs: nodes that join are started, nodes that were removed
//! are stopped. The cluster itself says who is a member; the directory says which of them are here.

use std::path::Path;
use std::time::Duration;

use kv_client::{ClientConfig, ClientError, KvClient, MembersReport};
use kv_service::config::NodeConfig;
use tokio::sync::watch;
use tokio::time::sleep;

use super::supervisor::Known;
use crate::exit::Failure;

/// Between two questions to the cluster.
const EVERY: Duration = Duration::from_secs(1);

/// How long the cluster may take to answer one. The next one comes soon.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node as one of its incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Incarnate {
    /// The node.
    pub(super) id: u64,
    /// What its directory was formatted with.
    pub(super) incarnation: u64,
}

impl Incarnate {
    /// The node of a configuration.
    pub(super) fn of(node: &NodeConfig) -> Self {
        Self {
            id: node.id.0,
            incarnation: node.incarnation().0,
        }
    }
}

/// Something to be done about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is a member and does not run.
    Start(Incarnate),
    /// It runs and is not a member.
    Retire(u64),
}

/// The members, as far as somebody says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Members {
    /// Who they are.
    pub(super) nodes: Vec<Incarnate>,
    /// Whether the leader says so, and no change of them is under way. If not, it is enough to
    /// start a node, which may be the one that a majority waits for; but not to stop one.
    pub(super) is_certain: bool,
}

impl Members {
    fn of(report: &MembersReport, is_certain: bool) -> Self {
        let nodes = report.members.iter().map(|member| Incarnate {
            id: member.id,
            incarnation: member.incarnation,
        });
        Self {
            nodes: nodes.collect(),
            is_certain: is_certain && !report.is_changing,
        }
    }
}

/// Asks for the members again and again, until nobody listens. Nothing where the directory has no
/// administrator: it was made by an older version, and members of such a cluster do not change.
///
/// # Errors
/// When the administrator's configuration cannot be used.
pub(super) async fn follow(dir: &Path) -> Result<watch::Receiver<Members>, Failure> {
    let (told, listener) = watch::channel(Members::default());
    let path = dir.join("admin.toml");
    if path.exists() {
        let mut config = ClientConfig::load(&path).map_err(ClientError::from)?;
        config.timeouts.request = PATIENCE;
        let client = KvClient::connect(config).await?;
        tokio::spawn(ask(client, told));
    }
    Ok(listener)
}

async fn ask(client: KvClient, told: watch::Sender<Members>) {
    while !told.is_closed() {
        if let Some(members) = members(&client).await {
            told.send_replace(members);
        }
        sleep(EVERY).await;
    }
}

/// What the leader says; where none answers, what the node in the newest term has in its log.
async fn members(client: &KvClient) -> Option<Members> {
    if let Ok(report) = client.members().await {
        return Some(Members::of(&report, true));
    }
    let reports = client.status().await.ok()?;
    let statuses = reports.iter().filter_map(|report| report.status.as_ref());
    let newest = statuses.max_by_key(|status| (status.term, status.last_index))?;
    Some(Members::of(&newest.membership, false))
}

/// What is to be done so that the members that are here run, and nobody else.
pub(super) fn steps(here: &[Incarnate], known: &[Known], members: &Members) -> Vec<Step> {
    let is_new = |node: &Incarnate| {
        let same_id = known.iter().find(|kept| kept.id == node.id);
        // One that has ended as this incarnation had its reasons.
        same_id.is_none_or(|kept| !kept.runs && kept.incarnation != node.incarnation)
    };
    let starts = here
        .iter()
        .filter(|node| members.nodes.contains(node) && is_new(node));
    let is_stranger = |kept: &&Known| {
        let node = Incarnate {
            id: kept.id,
            incarnation: kept.incarnation,
        };
        members.is_certain && kept.runs && !members.nodes.contains(&node)
    };
    let stops = known.iter().filter(is_stranger);
    let starts = starts.map(|node| Step::Start(*node));
    starts
        .chain(stops.map(|kept| Step::Retire(kept.id)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, incarnation: u64) -> Incarnate {
        Incarnate { id, incarnation }
    }

    fn known(id: u64, incarnation: u64, runs: bool) -> Known {
        Known {
            id,
            incarnation,
            runs,
        }
    }

    fn certain(nodes: &[Incarnate]) -> Members {
        Members {
            nodes: nodes.to_vec(),
            is_certain: true,
        }
    }

    #[test]
    fn a_member_whose_directory_appears_is_started_once() {
        let here = [node(1, 11), node(2, 12)];
        let before = [known(1, 11, true)];
        assert_eq!(
            steps(&here, &before, &certain(&here)),
            [Step::Start(node(2, 12))]
        );
        let after = [known(1, 11, true), known(2, 12, true)];
        assert_eq!(steps(&here, &after, &certain(&here)), []);
        // It was asked to end, by hand.
        let ended = [known(1, 11, true), known(2, 12, false)];
        assert_eq!(steps(&here, &ended, &certain(&here)), []);
    }

    #[test]
    fn a_directory_whose_node_is_no_member_yet_is_left_alone() {
        let here = [node(1, 11), node(2, 12)];
        let before = [known(1, 11, true)];
        assert_eq!(steps(&here, &before, &certain(&[node(1, 11)])), []);
    }

    #[test]
    fn who_was_removed_is_stopped() {
        let here = [node(1, 11), node(2, 12)];
        let all = [known(1, 11, true), known(2, 12, true)];
        assert_eq!(
            steps(&here, &all, &certain(&[node(1, 11)])),
            [Step::Retire(2)]
        );
        let ended = [known(1, 11, true), known(2, 12, false)];
        assert_eq!(steps(&here, &ended, &certain(&[node(1, 11)])), []);
    }

    #[test]
    fn a_replaced_node_is_started_when_its_former_self_has_ended() {
        let members = [node(1, 11), node(2, 99)];
        let runs = [known(1, 11, true), known(2, 12, true)];
        assert_eq!(
            steps(&members, &runs, &certain(&members)),
            [Step::Retire(2)]
        );
        let ended = [known(1, 11, true), known(2, 12, false)];
        assert_eq!(
            steps(&members, &ended, &certain(&members)),
            [Step::Start(node(2, 99))]
        );
    }

    #[test]
    fn without_a_leader_nodes_are_started_and_none_is_stopped() {
        let here = [node(1, 11), node(2, 12), node(3, 13)];
        let all = [known(1, 11, true), known(3, 13, true)];
        let members = Members {
            nodes: vec![node(1, 11), node(2, 12)],
            is_certain: false,
        };
        assert_eq!(steps(&here, &all, &members), [Step::Start(node(2, 12))]);
    }
}
