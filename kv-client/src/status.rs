//! How the nodes are: every known one is asked, and who does not answer is reported as such.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use kv_api::{NodeStatus, Outcome, RequestBody};
use tokio::time::Instant;

use crate::calls::{Answer, Lane, NewCall, Route};
use crate::client::KvClient;
use crate::error::ClientError;

/// How one node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The node.
    pub id: u64,
    /// Where the client knows it to be.
    pub address: String,
    /// What it says about itself; none where it could not be reached.
    pub status: Option<NodeStatus>,
    /// Why it could not be reached, where that is known.
    pub problem: Option<String>,
}

impl KvClient {
    /// Asks every known node how it is; one that does not answer within [`crate::Timeouts::status`]
    /// is reported as unreachable. In the order of the ids.
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    pub async fn status(&self) -> Result<Vec<NodeReport>, ClientError> {
        let deadline = Instant::now() + self.timeouts().status;
        let shared = self.shared();
        if shared.with_router(|router| router.is_closed()) {
            return Err(ClientError::Closed);
        }
        let mut reports = BTreeMap::new();
        // The answers may name further members, which are asked as well.
        loop {
            let known = shared.with_router(|router| router.endpoints().len());
            let asked = reports.len();
            if asked == known || (asked > 0 && Instant::now() >= deadline) {
                break;
            }
            let answers = join_all((asked..known).map(|node| self.node_status(node, deadline)));
            for (node, status) in (asked..known).zip(answers.await) {
                reports.insert(node, status?);
            }
        }
        let mut reports: Vec<NodeReport> = reports
            .into_iter()
            .map(|(endpoint, status)| self.report(endpoint, status))
            .collect();
        reports.sort_by_key(|report| report.id);
        Ok(reports)
    }

    async fn node_status(
        &self,
        endpoint: usize,
        deadline: Instant,
    ) -> Result<Option<NodeStatus>, ClientError> {
        let call = NewCall {
            route: Route::Only(endpoint),
            lane: Lane::Quick,
            body: RequestBody::Status,
            deadline,
            stamp: None,
        };
        // It takes no room: a full client must still be able to look what is the matter.
        match self.shared().call(call).await.answer {
            Answer::Outcome(Outcome::Status(status)) => Ok(Some(*status)),
            Answer::Closed => Err(ClientError::Closed),
            Answer::Outcome(_) | Answer::Late(_) | Answer::Lost(_) => Ok(None),
        }
    }

    fn report(&self, endpoint: usize, status: Option<NodeStatus>) -> NodeReport {
        self.shared().with_router(|router| {
            let node = router.endpoints().at(endpoint);
            let problem = match (&status, &node.problem) {
                (Some(_), _) => None,
                (None, Some(problem)) => Some(problem.clone()),
                (None, None) => Some("no answer".to_owned()),
            };
            NodeReport {
                id: node.id,
                address: node.address.clone(),
                status,
                problem,
            }
        })
    }
}
