//! The client's decisions: which call goes to which node, what an answer means for it, when it is
//! sent again, and when it is given up. No IO: time is an argument, and what has to be done outside
//! comes back as [`Effects`].
//!
//! ```text
//!            +--------- turned away ----------> Delayed --+
//!            |                                            | back-off over
//!   Parked --+--> Queued ---> Sent ---> answered          |
//!     ^  a node that may answer  | connection lost,       |
//!     |  is known and connected  | another leader         |
//!     +--------------------------+------------------------+
//! ```
//!
//! A call is sent again only where that cannot apply it twice: reads, stamped writes, and commands
//! that are harmless when repeated. The rest, changes of the cluster, stay where they were sent;
//! when no answer can come from there, they end as lost.

mod answers;
mod overdue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kv_api::{Command, RequestBody, SessionId, SessionStamp};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::calls::{Answer, Call, Completion, LANES, Lane, NewCall, Place, Route, Waiter};
use crate::config::{EndpointAddress, Timeouts};
use crate::endpoints::{Endpoints, LinkState};
use crate::leader::Leadership;
use crate::retry::{BackOff, Jitter};
use crate::session::Session;

/// Waits after a node turned a call away: short at first, because a full queue empties in
/// milliseconds; bounded, because a new leader is told by a notice anyway.
const RETRY: BackOff = BackOff {
    min: Duration::from_millis(10),
    max: Duration::from_millis(500),
};

/// Bytes of request bodies that are written before the stream is flushed.
const FLUSH_BYTES_MAX: usize = 256 << 10;

/// What has to be done after a step, outside the lock.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Callers to be told.
    pub(crate) completed: Vec<(oneshot::Sender<Completion>, Completion)>,
    /// Nodes that were learned of and have to be connected to.
    pub(crate) discovered: Vec<usize>,
    /// Whoever waits for the session should try again.
    pub(crate) session_moved: bool,
    /// The node broke the protocol: its connection must end.
    pub(crate) violation: Option<String>,
}

/// A request on its way to a stream.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Its id on the connection.
    pub(crate) request: u64,
    /// What is asked.
    pub(crate) body: RequestBody,
}

/// All calls and everything that decides about them.
#[derive(Debug)]
pub(crate) struct Router {
    endpoints: Endpoints,
    leadership: Leadership,
    session: Session,
    /// In the order in which they were made, which is the order in which they are sent again.
    calls: BTreeMap<u64, Call>,
    newest_call: u64,
    jitter: Jitter,
    timeouts: Timeouts,
    asked_at: Option<Instant>,
    closed: bool,
    stopped: bool,
}

impl Router {
    pub(crate) fn new(endpoints: &[EndpointAddress], timeouts: Timeouts, jitter: Jitter) -> Self {
        Self {
            endpoints: Endpoints::new(endpoints),
            leadership: Leadership::default(),
            session: Session::new(),
            calls: BTreeMap::new(),
            newest_call: 0,
            jitter,
            timeouts,
            asked_at: None,
            closed: false,
            stopped: false,
        }
    }

    /// The nodes.
    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The session.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// The jitter, for waits that are decided elsewhere.
    pub(crate) fn jitter(&mut self) -> &mut Jitter {
        &mut self.jitter
    }

    /// Where the node is that leads, if it is connected.
    pub(crate) fn leader_endpoint(&self) -> Option<usize> {
        self.target(Route::Leader, None)
    }

    /// No call is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }

    /// No further call is begun.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Ends all calls, because nothing will move them any more.
    pub(crate) fn stop(&mut self) -> Effects {
        self.closed = true;
        self.stopped = true;
        let mut effects = Effects::default();
        let calls: Vec<u64> = self.calls.keys().copied().collect();
        for id in calls {
            self.finish(id, Answer::Closed, &mut effects);
        }
        effects.session_moved = true;
        effects
    }

    /// Whether calls that were begun before the client was closed have to end too.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether the client was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Numbers a write. Where there is no session yet, one is asked for; none means: wait until the
    /// session moves, then try again.
    pub(crate) fn stamp(&mut self, deadline: Instant, now: Instant) -> Option<SessionStamp> {
        let stamp = self.session.stamp();
        if stamp.is_none() && self.session.begin_opening() {
            let open = NewCall {
                route: Route::Leader,
                lane: Lane::Quick,
                body: RequestBody::Write(kv_api::encode(&Command::OpenSession).into()),
                deadline,
                stamp: None,
            };
            self.submit(open, Waiter::OpenSession, now);
        }
        stamp
    }

    /// A write was answered that its session is not known.
    pub(crate) fn session_expired(&mut self, session: SessionId) {
        self.session.expired(session);
    }

    /// Takes a call in and sends it on its way. Returns its number.
    pub(crate) fn submit(&mut self, what: NewCall, waiter: Waiter, now: Instant) -> u64 {
        self.newest_call += 1;
        let id = self.newest_call;
        let call = Call {
            what,
            waiter,
            place: Place::Parked,
            since: now,
            sends: 0,
            unresolved: 0,
            rejections: 0,
            avoid: None,
            last_answer: None,
        };
        self.calls.insert(id, call);
        self.place(id);
        id
    }

    /// Nobody waits for this call any more.
    pub(crate) fn cancel(&mut self, id: u64) -> Effects {
        let mut effects = Effects::default();
        let Some(call) = self.calls.remove(&id) else {
            return effects;
        };
        if let Place::Queued(endpoint) = call.place
            && let Some(link) = self.endpoints.link_mut(endpoint)
        {
            link.retain_queued(|queued| queued != id);
        }
        if let Some(stamp) = call.what.stamp {
            self.session.release(stamp);
        }
        effects.session_moved = self.session.take_awaited();
        effects
    }

    /// A connection was made. What wakes the writer of each of its lanes; the first request, a
    /// question for news, is queued already.
    pub(crate) fn link_up(&mut self, endpoint: usize, now: Instant) -> [Arc<Notify>; LANES] {
        let link = LinkState::new(now);
        let ready = link.ready();
        let node = self.endpoints.at_mut(endpoint);
        node.link = Some(link);
        node.problem = None;
        self.probe(endpoint, now);
        self.place_parked();
        // Calls that were sent to a former leader have waited for the current one to be reachable.
        self.follow_leader();
        ready
    }

    /// A connection was lost, or could not be made.
    pub(crate) fn link_down(&mut self, endpoint: usize, why: String) -> Effects {
        let mut effects = Effects::default();
        let node = self.endpoints.at_mut(endpoint);
        let lost = format!("the connection to node {} was lost: {why}", node.id);
        node.problem = Some(why);
        if node.link.take().is_none() {
            return effects;
        }
        let id = node.id;
        self.leadership.forget(id);
        let (mut stranded, mut unanswered) = (Vec::new(), Vec::new());
        self.calls.retain(|id, call| {
            let is_here = match call.place {
                Place::Queued(at) | Place::Sent { endpoint: at, .. } => at == endpoint,
                Place::Parked | Place::Delayed(_) => false,
            };
            let is_probe = matches!(call.waiter, Waiter::Probe);
            if is_here && call.is_pinned() {
                unanswered.push(*id);
            } else if is_here && !is_probe {
                call.place = Place::Parked;
                call.avoid = Some(endpoint);
                stranded.push(*id);
            }
            !(is_probe && call.what.route == Route::Only(endpoint))
        });
        for call in unanswered {
            self.finish(call, Answer::Lost(lost.clone()), &mut effects);
        }
        for call in stranded {
            self.place(call);
        }
        self.follow_leader();
        effects
    }

    /// Takes the requests that are to be written next on a lane; empty when there are none.
    pub(crate) fn take_queued(
        &mut self,
        endpoint: usize,
        lane: Lane,
        now: Instant,
        requests: &mut Vec<Outgoing>,
    ) {
        let mut bytes = 0;
        while bytes < FLUSH_BYTES_MAX {
            let Some(link) = self.endpoints.link_mut(endpoint) else {
                return;
            };
            let Some(id) = link.next_queued(lane) else {
                return;
            };
            let Some(call) = self.calls.get_mut(&id) else {
                continue;
            };
            // It was sent somewhere else since.
            if call.place != Place::Queued(endpoint) {
                continue;
            }
            let request = link.sent(id);
            call.place = Place::Sent {
                endpoint,
                request,
                at: now,
            };
            call.sends += 1;
            call.unresolved += 1;
            let body = call.what.body.clone();
            bytes += body_bytes(&body);
            requests.push(Outgoing { request, body });
        }
    }

    /// Asks a connected node for news, unless it was asked and has not answered.
    fn probe(&mut self, endpoint: usize, now: Instant) {
        let Some(link) = self.endpoints.link_mut(endpoint) else {
            return;
        };
        if std::mem::replace(&mut link.is_probed, true) {
            return;
        }
        let question = NewCall {
            route: Route::Only(endpoint),
            lane: Lane::Quick,
            body: RequestBody::Status,
            deadline: now + self.timeouts.status,
            stamp: None,
        };
        self.submit(question, Waiter::Probe, now);
    }

    /// The connected node that a call should go to now.
    fn target(&self, route: Route, avoid: Option<usize>) -> Option<usize> {
        match route {
            Route::Leader => self
                .leadership
                .current()
                .and_then(|leader| self.endpoints.position(leader.id)),
            Route::Any => self.endpoints.first_connected(avoid),
            Route::Only(endpoint) => Some(endpoint),
        }
        .filter(|endpoint| self.endpoints.at(*endpoint).link.is_some())
    }

    /// Puts a call where it should be now. One that is there already is left alone.
    fn place(&mut self, id: u64) {
        let Some(call) = self.calls.get(&id) else {
            return;
        };
        if call.is_pinned() {
            return;
        }
        let target = self.target(call.what.route, call.avoid);
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        match (call.place, target) {
            (Place::Queued(at) | Place::Sent { endpoint: at, .. }, Some(to)) if at == to => {}
            (_, Some(to)) => {
                call.place = Place::Queued(to);
                let lane = call.what.lane;
                if let Some(link) = self.endpoints.link_mut(to) {
                    link.queue(lane, id);
                }
            }
            // An answer may still come from where it was sent.
            (Place::Sent { .. } | Place::Queued(_), None) => {}
            (Place::Parked | Place::Delayed(_), None) => call.place = Place::Parked,
        }
    }

    fn place_parked(&mut self) {
        let parked: Vec<u64> = self
            .calls
            .iter()
            .filter_map(|(id, call)| (call.place == Place::Parked).then_some(*id))
            .collect();
        for id in parked {
            self.place(id);
        }
    }

    /// Sends every call that only the leader can answer to the current one, unless it is there.
    fn follow_leader(&mut self) {
        if self.target(Route::Leader, None).is_none() {
            return;
        }
        let calls: Vec<u64> = self
            .calls
            .iter()
            .filter_map(|(id, call)| (call.what.route == Route::Leader).then_some(*id))
            .collect();
        for id in calls {
            self.place(id);
        }
        let calls = &self.calls;
        for endpoint in 0..self.endpoints.len() {
            if let Some(link) = self.endpoints.link_mut(endpoint) {
                link.retain_queued(|id| {
                    calls
                        .get(&id)
                        .is_some_and(|call| call.place == Place::Queued(endpoint))
                });
            }
        }
    }
}

fn body_bytes(body: &RequestBody) -> usize {
    match body {
        RequestBody::Write(bytes) | RequestBody::Read(bytes) | RequestBody::ReadStale(bytes) => {
            bytes.len()
        }
        RequestBody::Status
        | RequestBody::Members
        | RequestBody::ChangeMembers(_)
        | RequestBody::TransferLeader { .. }
        | RequestBody::SaveSnapshot => 0,
    }
}

#[cfg(test)]
mod tests;
