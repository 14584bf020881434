//! What happens as time passes: calls are given up or tried again, and the nodes are asked who
//! leads when that is unknown or the leader is silent.

use std::time::Duration;

use tokio::time::Instant;

use super::{Effects, Router};
use crate::calls::{Answer, Place, Route};

/// The shortest time between two rounds of asking who leads.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

impl Router {
    /// Time has passed: gives up what is late, tries again what is due, and asks around where the
    /// leader is unknown or silent.
    pub(crate) fn tick(&mut self, now: Instant) -> Effects {
        let mut effects = Effects::default();
        let silence = self.timeouts.silence;
        let (mut late, mut due, mut is_lost) = (Vec::new(), Vec::new(), false);
        for (id, call) in &mut self.calls {
            if call.what.deadline <= now {
                late.push(*id);
                continue;
            }
            match (call.place, call.what.route) {
                (Place::Delayed(until), _) if until <= now => due.push(*id),
                (Place::Parked, Route::Leader) => is_lost = true,
                (Place::Sent { endpoint, at, .. }, route) if at + silence <= now => {
                    let Some(link) = self.endpoints.link_mut(endpoint) else {
                        continue;
                    };
                    link.is_silent |= link.heard_at + silence <= now;
                    match route {
                        Route::Leader => is_lost |= link.is_silent,
                        Route::Any => {
                            call.avoid = Some(endpoint);
                            due.push(*id);
                        }
                        Route::Only(_) => {}
                    }
                }
                _ => {}
            }
        }
        for id in late {
            let why = self.lateness(id, now);
            self.finish(id, Answer::Late(why), &mut effects);
        }
        for id in due {
            self.place(id);
        }
        let asked_lately = self.asked_at.is_some_and(|at| at + ASK_INTERVAL > now);
        if is_lost && !asked_lately {
            self.asked_at = Some(now);
            for endpoint in 0..self.endpoints.len() {
                self.probe(endpoint, now);
            }
        }
        effects.session_moved = self.session.take_awaited();
        effects
    }

    /// Why a call is late, for the error message.
    fn lateness(&self, id: u64, now: Instant) -> String {
        let call = self.calls.get(&id);
        let waited = call.map_or(Duration::ZERO, |call| now.duration_since(call.since));
        let last = call.and_then(|call| call.last_answer.as_deref());
        let situation = self.situation_after(last);
        format!("no answer within {} ms; {situation}", waited.as_millis())
    }

    /// What stands in the way of calls, for error messages.
    pub(crate) fn situation(&self) -> String {
        self.situation_after(None)
    }

    fn situation_after(&self, last_answer: Option<&str>) -> String {
        let (connected, known) = (self.endpoints.connected(), self.endpoints.len());
        let leader = match self.leadership.current() {
            Some(leader) => format!("node {} leads", leader.id),
            None => "no leader is known".to_owned(),
        };
        let problem = || {
            let mut nodes = self.endpoints.iter();
            nodes.find_map(|node| node.problem.as_deref())
        };
        match last_answer.or_else(problem) {
            Some(last) => format!("{connected} of {known} nodes connected, {leader}; last: {last}"),
            None => format!("{connected} of {known} nodes connected, {leader}"),
        }
    }
}
