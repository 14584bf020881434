//! What administrators ask for: who belongs to the group, changes of that, and who is to lead.
//! Needs the certificate of an administrator; others are refused. Snapshots are in `download`.

use std::time::Duration;

use kv_api::{MemberChange, MembersReport, Outcome, RequestBody};
use tokio::time::{Instant, sleep};

use crate::calls::{Answer, Lane, NewCall, Route};
use crate::client::KvClient;
use crate::error::ClientError;

/// Between two looks at what came of a change that was not answered.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

impl KvClient {
    /// Who belongs to the group, linearizably.
    ///
    /// # Errors
    /// [`ClientError::Refused`] without the certificate of an administrator;
    /// [`ClientError::Unavailable`] when no answer came before the deadline.
    pub async fn members(&self) -> Result<MembersReport, ClientError> {
        self.members_by(self.deadline()).await
    }

    /// Changes who belongs to the group, and waits until that is committed. It is sent once, so it
    /// happens once or not at all. Where no answer comes, the members are looked at: when they are
    /// as the change wants them, that settles it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] and [`ClientError::Limit`] when the change makes no sense or is not
    /// possible now, with the reason; [`ClientError::Unavailable`] when it was certainly not begun
    /// by the deadline, [`ClientError::Unknown`] when it may have been.
    pub async fn change_members(&self, change: MemberChange) -> Result<MembersReport, ClientError> {
        change.check_limits()?;
        let deadline = self.deadline();
        let body = RequestBody::ChangeMembers(change.clone());
        match self.ask_leader(body, deadline).await {
            Ok(Outcome::Members(report)) => Ok(report),
            Ok(other) => Err(ClientError::Unknown(format!("unexpected answer {other:?}"))),
            Err(ClientError::Unknown(why)) => {
                let mut looks = Looks::until(deadline, self.timeouts().status);
                while looks.another().await {
                    match self.members_by(looks.deadline).await {
                        Ok(report) if !report.is_changing && change.holds_in(&report) => {
                            return Ok(report);
                        }
                        _ => {}
                    }
                }
                Err(ClientError::Unknown(why))
            }
            Err(error) => Err(error),
        }
    }

    /// Hands leadership to another voter, and waits until it leads.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when it cannot lead; [`ClientError::Unavailable`] when it did not
    /// take over by the deadline; [`ClientError::Unknown`] when nobody said how it ended and
    /// another node leads.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), ClientError> {
        let deadline = self.deadline();
        let body = RequestBody::TransferLeader { to };
        match self.ask_leader(body, deadline).await {
            Ok(Outcome::Done) => Ok(()),
            Ok(other) => Err(ClientError::Unknown(format!("unexpected answer {other:?}"))),
            Err(ClientError::Unknown(why)) => {
                let mut looks = Looks::until(deadline, self.timeouts().status);
                while looks.another().await {
                    if self.leads(to).await {
                        return Ok(());
                    }
                }
                Err(ClientError::Unknown(why))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether this node says that it leads, and no node knows of a later term.
    async fn leads(&self, id: u64) -> bool {
        let Ok(reports) = self.status().await else {
            return false;
        };
        let heard = reports.iter().filter_map(|report| report.status.as_ref());
        let newest = heard.clone().map(|status| status.term).max();
        heard
            .filter(|status| Some(status.term) == newest)
            .any(|status| status.id == id && status.leader == Some(id))
    }

    pub(crate) async fn members_by(&self, deadline: Instant) -> Result<MembersReport, ClientError> {
        match self.ask_leader(RequestBody::Members, deadline).await {
            Ok(Outcome::Members(report)) => Ok(report),
            Ok(other) => Err(ClientError::Unavailable(format!(
                "unexpected answer {other:?}"
            ))),
            // A question changes nothing, whatever came of it.
            Err(ClientError::Unknown(why)) => Err(ClientError::Unavailable(why)),
            Err(error) => Err(error),
        }
    }

    async fn ask_leader(
        &self,
        body: RequestBody,
        deadline: Instant,
    ) -> Result<Outcome, ClientError> {
        let shared = self.shared();
        let _room = shared.room(0, deadline).await?;
        let call = NewCall {
            route: Route::Leader,
            lane: Lane::Quick,
            body,
            deadline,
            stamp: None,
        };
        let completion = shared.call(call).await;
        let unresolved = completion.unresolved > 0;
        match completion.answer {
            Answer::Outcome(Outcome::Refused(why)) => Err(ClientError::Refused(why)),
            Answer::Outcome(Outcome::Limit(limit)) => Err(limit.into()),
            Answer::Outcome(outcome) => Ok(outcome),
            Answer::Lost(why) => Err(ClientError::Unknown(why)),
            Answer::Late(why) if unresolved => Err(ClientError::Unknown(why)),
            Answer::Late(why) => Err(ClientError::Unavailable(why)),
            Answer::Closed if unresolved => Err(ClientError::Unknown(
                "the client was closed before an answer came".to_owned(),
            )),
            Answer::Closed => Err(ClientError::Closed),
        }
    }
}

/// Looks at what came of a change, again and again until a deadline; once in any case.
struct Looks {
    deadline: Instant,
    begun: bool,
}

impl Looks {
    /// The last look has at least `least` for its answer.
    fn until(deadline: Instant, least: Duration) -> Self {
        Self {
            deadline: deadline.max(Instant::now() + least),
            begun: false,
        }
    }

    /// Waits until it is time for another one; false when it is too late.
    async fn another(&mut self) -> bool {
        if std::mem::replace(&mut self.begun, true) {
            sleep(LOOK_INTERVAL).await;
            return Instant::now() < self.deadline;
        }
        true
    }
}
