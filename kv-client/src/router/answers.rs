//! What the nodes say, and what it means for the calls that wait for it. When nothing is said at
//! all is the matter of `overdue`.

use kv_api::{CommandReply, NodeStatus, Notice, Outcome, Response};
use tokio::time::Instant;

use super::{Effects, RETRY, Router};
use crate::calls::{Answer, Call, Completion, Place, Route, Waiter};

impl Router {
    /// Takes what a node said, in order.
    pub(crate) fn hear(
        &mut self,
        endpoint: usize,
        responses: impl Iterator<Item = Response>,
        now: Instant,
    ) -> Effects {
        let mut effects = Effects::default();
        for Response { id, outcome } in responses {
            let Some(link) = self.endpoints.link_mut(endpoint) else {
                break;
            };
            link.heard_at = now;
            link.is_silent = false;
            match (id, outcome) {
                (0, Outcome::Notice(notice)) => self.hear_notice(endpoint, notice, &mut effects),
                (_, Outcome::Notice(_)) => {
                    effects.violation = Some(format!("request {id} was answered by a notice"));
                }
                (id, outcome) => match link.answered(id) {
                    Some(call) => self.answer(endpoint, id, call, outcome, now, &mut effects),
                    None => {
                        effects.violation = Some(format!("answer to request {id}, never made"));
                    }
                },
            }
            if effects.violation.is_some() {
                break;
            }
        }
        effects.session_moved = self.session.take_awaited();
        effects
    }

    fn hear_notice(&mut self, endpoint: usize, notice: Notice, effects: &mut Effects) {
        let leader = notice.leader.map(|(id, address)| {
            effects
                .discovered
                .extend(self.endpoints.learn(id, &address));
            id
        });
        let from = self.endpoints.at(endpoint).id;
        if self.leadership.hear(from, notice.term, leader) {
            self.follow_leader();
        }
    }

    fn hear_status(&mut self, endpoint: usize, status: &NodeStatus, effects: &mut Effects) {
        for (id, address) in &status.members {
            effects
                .discovered
                .extend(self.endpoints.learn(*id, address));
        }
        let from = self.endpoints.at(endpoint).id;
        if self.leadership.hear(from, status.term, status.leader) {
            self.follow_leader();
        }
    }

    /// A node answered a request. An answer that ends the call counts whenever it comes; one that
    /// does not is acted upon only where the call was not sent somewhere else since.
    fn answer(
        &mut self,
        endpoint: usize,
        request: u64,
        id: u64,
        outcome: Outcome,
        now: Instant,
        effects: &mut Effects,
    ) {
        if let Outcome::Status(status) = &outcome {
            self.hear_status(endpoint, status, effects);
        }
        let Some(call) = self.calls.get_mut(&id) else {
            // The caller has gone.
            if let Outcome::NotLeader(notice) = outcome {
                self.hear_notice(endpoint, notice, effects);
            }
            return;
        };
        let nothing_applied = !matches!(outcome, Outcome::Unknown(_));
        if nothing_applied {
            call.unresolved = call.unresolved.saturating_sub(1);
        }
        match outcome {
            Outcome::Applied { .. }
            | Outcome::Answer(_)
            | Outcome::Status(_)
            | Outcome::Members(_)
            | Outcome::Done
            | Outcome::SnapshotBegin(_)
            | Outcome::SnapshotPart(_)
            | Outcome::SnapshotEnd { .. } => {
                self.finish(id, Answer::Outcome(outcome), effects);
            }
            Outcome::Limit(_) | Outcome::Refused(_) => {
                if is_current(call, endpoint, request) {
                    self.finish(id, Answer::Outcome(outcome), effects);
                }
            }
            Outcome::NotLeader(notice) => {
                let node = self.endpoints.at(endpoint).id;
                call.last_answer = Some(format!("node {node} does not lead"));
                self.hear_notice(endpoint, notice, effects);
                self.turned_away(endpoint, request, id, now, true);
            }
            Outcome::Unknown(why) if !call.may_repeat() => {
                let node = self.endpoints.at(endpoint).id;
                let why = format!("node {node} said: {why}");
                self.finish(id, Answer::Lost(why), effects);
            }
            Outcome::Unavailable(why) | Outcome::Unknown(why) => {
                let node = self.endpoints.at(endpoint).id;
                call.last_answer = Some(format!("node {node} said: {why}"));
                self.turned_away(endpoint, request, id, now, false);
            }
            // Notices are told apart before.
            Outcome::Notice(_) => {}
        }
    }

    /// The node where the call was last sent did not carry it out: somewhere else at once, where
    /// there is a better place, or again after a while.
    fn turned_away(
        &mut self,
        endpoint: usize,
        request: u64,
        id: u64,
        now: Instant,
        not_leader: bool,
    ) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        if !is_current(call, endpoint, request) {
            return;
        }
        call.rejections += 1;
        call.avoid = Some(endpoint);
        let rejections = call.rejections;
        let route = call.what.route;
        let elsewhere = self.target(route, Some(endpoint)) != Some(endpoint);
        let at_once = not_leader && route == Route::Leader && elsewhere;
        let place = if at_once {
            Place::Parked
        } else {
            Place::Delayed(now + RETRY.wait(rejections, &mut self.jitter))
        };
        if let Some(call) = self.calls.get_mut(&id) {
            call.place = place;
        }
        if at_once {
            self.place(id);
        }
    }

    /// Ends a call.
    pub(super) fn finish(&mut self, id: u64, answer: Answer, effects: &mut Effects) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        if let Some(stamp) = call.what.stamp {
            self.session.release(stamp);
        }
        match call.waiter {
            Waiter::Caller(caller) => {
                let completion = Completion {
                    answer,
                    sends: call.sends,
                    unresolved: call.unresolved,
                };
                effects.completed.push((caller, completion));
            }
            Waiter::OpenSession => self.session_answered(answer),
            Waiter::Probe => {
                if let Route::Only(endpoint) = call.what.route
                    && let Some(link) = self.endpoints.link_mut(endpoint)
                {
                    link.is_probed = false;
                }
            }
        }
    }

    fn session_answered(&mut self, answer: Answer) {
        match answer {
            Answer::Outcome(Outcome::Applied { reply, .. }) => match kv_api::decode(&reply) {
                Ok(CommandReply::SessionOpened(id)) => self.session.opened(id),
                Ok(CommandReply::Refused(error)) => self.session.opening_refused(error.to_string()),
                Ok(other) => self
                    .session
                    .opening_refused(format!("unexpected reply {other:?}")),
                Err(error) => self.session.opening_refused(error.to_string()),
            },
            Answer::Outcome(Outcome::Refused(why)) => self.session.opening_refused(why),
            Answer::Outcome(other) => {
                self.session
                    .opening_refused(format!("unexpected answer {other:?}"));
            }
            Answer::Late(_) | Answer::Lost(_) | Answer::Closed => self.session.opening_failed(),
        }
    }
}

fn is_current(call: &Call, endpoint: usize, request: u64) -> bool {
    matches!(call.place, Place::Sent { endpoint: at, request: as_request, .. }
        if at == endpoint && as_request == request)
}
