//! The router against nodes that are played by hand: what is sent where, step by step, without IO
//! and with made-up time.

use bytes::Bytes;
use kv_api::limits::{CONNECTION_REQUESTS_MAX, LimitExceeded, SESSION_WINDOW_MAX};
use kv_api::{CommandError, CommandReply, NodeStatus, Notice, Outcome, Response, SessionId};
use tokio::sync::oneshot::Receiver;

use super::*;
use crate::calls::Answer;

/// Three nodes, ids 1 to 3 at positions 0 to 2.
struct Played {
    router: Router,
    now: Instant,
    session_moves: usize,
}

type Waiting = Receiver<Completion>;

impl Played {
    fn new() -> Self {
        let endpoints: Vec<EndpointAddress> = (1..=3)
            .map(|id| EndpointAddress {
                id,
                address: format!("10.0.0.{id}:7400"),
            })
            .collect();
        Self {
            router: Router::new(&endpoints, Timeouts::default(), Jitter::seeded(1)),
            now: Instant::now(),
            session_moves: 0,
        }
    }

    /// All nodes connected, and node 1 leads in term 1.
    fn with_leader() -> Self {
        let mut played = Self::new();
        for endpoint in 0..3 {
            played.router.link_up(endpoint, played.now);
            assert_eq!(played.taken(endpoint).len(), 1, "the first question");
            played.notice(endpoint, 1, Some(1));
        }
        played
    }

    fn call(&mut self, route: Route, stamp: Option<SessionStamp>) -> (u64, Waiting) {
        let (sender, receiver) = oneshot::channel();
        let what = NewCall {
            route,
            lane: Lane::Quick,
            body: RequestBody::Write(Bytes::from_static(b"command")),
            deadline: self.now + Duration::from_secs(10),
            stamp,
        };
        let id = self.router.submit(what, Waiter::Caller(sender), self.now);
        (id, receiver)
    }

    fn write(&mut self) -> Waiting {
        self.call(Route::Leader, None).1
    }

    /// The ids of the requests that leave for a node now.
    fn taken(&mut self, endpoint: usize) -> Vec<u64> {
        let mut requests = Vec::new();
        for lane in [Lane::Quick, Lane::Bulk] {
            self.router
                .take_queued(endpoint, lane, self.now, &mut requests);
        }
        requests.iter().map(|outgoing| outgoing.request).collect()
    }

    fn hear(&mut self, endpoint: usize, id: u64, outcome: Outcome) -> Effects {
        let response = Response { id, outcome };
        let mut effects = self.router.hear(endpoint, [response].into_iter(), self.now);
        for (caller, completion) in effects.completed.drain(..) {
            let _ = caller.send(completion);
        }
        self.session_moves += usize::from(effects.session_moved);
        effects
    }

    fn notice(&mut self, endpoint: usize, term: u64, leader: Option<u64>) {
        let effects = self.hear(endpoint, 0, Outcome::Notice(notice(term, leader)));
        assert!(effects.discovered.is_empty() && effects.violation.is_none());
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let effects = self.router.tick(self.now);
        for (caller, completion) in effects.completed {
            let _ = caller.send(completion);
        }
        self.session_moves += usize::from(effects.session_moved);
    }
}

fn notice(term: u64, leader: Option<u64>) -> Notice {
    let leader = leader.map(|id| (id, format!("10.0.0.{id}:7400")));
    Notice { term, leader }
}

fn applied() -> Outcome {
    Outcome::Applied {
        term: 1,
        index: 1,
        reply: Bytes::new(),
    }
}

fn ended(waiting: &mut Waiting) -> Completion {
    waiting.try_recv().expect("the call has ended")
}

fn is_waiting(waiting: &mut Waiting) -> bool {
    waiting.try_recv().is_err()
}

#[test]
fn a_write_goes_to_the_leader_and_its_answer_to_the_caller() {
    let mut played = Played::with_leader();
    let mut write = played.write();
    assert!(played.taken(1).is_empty() && played.taken(2).is_empty());
    let requests = played.taken(0);
    assert_eq!(requests.len(), 1);
    played.hear(0, requests[0], applied());
    let completion = ended(&mut write);
    assert_eq!((completion.sends, completion.unresolved), (1, 0));
    assert!(matches!(
        completion.answer,
        Answer::Outcome(Outcome::Applied { .. })
    ));
}

#[test]
fn another_leader_gets_everything_unanswered_at_once_and_in_order() {
    let mut played = Played::with_leader();
    let mut writes: Vec<Waiting> = (0..5).map(|_| played.write()).collect();
    let first = played.taken(0);
    assert_eq!(first.len(), 5);
    played.hear(0, first[1], applied());
    let queued = played.write();
    played.notice(1, 2, Some(2));
    assert!(
        played.taken(0).is_empty(),
        "what was only queued moves along"
    );
    let again = played.taken(1);
    assert_eq!(again.len(), 5);
    for request in &again {
        played.hear(1, *request, applied());
    }
    ended(&mut writes[1]);
    let moved = ended(&mut writes[0]);
    assert_eq!((moved.sends, moved.unresolved), (2, 1));
    let mut queued = queued;
    assert_eq!(ended(&mut queued).sends, 1);
    // The old leader's late answers are no news.
    assert!(played.hear(0, first[0], applied()).violation.is_none());
}

#[test]
fn a_late_refusal_of_the_old_leader_does_not_disturb_the_new_attempt() {
    let mut played = Played::with_leader();
    let mut write = played.write();
    let first = played.taken(0)[0];
    played.notice(1, 2, Some(2));
    let second = played.taken(1)[0];
    played.hear(0, first, Outcome::NotLeader(notice(2, Some(2))));
    assert!(played.taken(0).is_empty() && played.taken(1).is_empty());
    played.hear(1, second, applied());
    assert_eq!(
        ended(&mut write).unresolved,
        0,
        "the first attempt had no effect"
    );
}

#[test]
fn not_leader_with_a_hint_is_followed_and_without_one_waits_for_news() {
    let mut played = Played::with_leader();
    let mut write = played.write();
    let request = played.taken(0)[0];
    played.hear(0, request, Outcome::NotLeader(notice(2, None)));
    for endpoint in 0..3 {
        assert!(played.taken(endpoint).is_empty(), "nobody leads");
    }
    played.notice(2, 3, Some(3));
    let request = played.taken(2)[0];
    played.hear(2, request, Outcome::NotLeader(notice(4, Some(2))));
    let request = played.taken(1)[0];
    played.hear(1, request, applied());
    assert_eq!(ended(&mut write).sends, 3);
}

#[test]
fn the_others_are_asked_when_nobody_leads() {
    let mut played = Played::with_leader();
    let mut write = played.write();
    let request = played.taken(0)[0];
    played.hear(0, request, Outcome::NotLeader(notice(1, None)));
    played.pass(Duration::from_millis(10));
    // The question asked when the connection was made is still unanswered: not asked twice.
    assert!((0..3).all(|endpoint| played.taken(endpoint).is_empty()));
    let status = |term, leader| {
        Outcome::Status(Box::new(NodeStatus {
            term,
            leader,
            ..NodeStatus::default()
        }))
    };
    for endpoint in 0..3 {
        played.hear(endpoint, 1, status(1, None));
    }
    played.pass(Duration::from_millis(10));
    assert!(
        (0..3).all(|endpoint| played.taken(endpoint).is_empty()),
        "not that often"
    );
    played.pass(Duration::from_millis(100));
    let asked: Vec<Vec<u64>> = (0..3).map(|endpoint| played.taken(endpoint)).collect();
    assert!(asked.iter().all(|requests| requests.len() == 1));
    played.hear(2, asked[2][0], status(2, Some(3)));
    let request = played.taken(2)[0];
    played.hear(2, request, applied());
    ended(&mut write);
}

#[test]
fn a_silent_leader_makes_the_client_ask_around() {
    let mut played = Played::with_leader();
    let status = || Outcome::Status(Box::default());
    for endpoint in 0..3 {
        played.hear(endpoint, 1, status());
    }
    let _write = played.write();
    played.taken(0);
    played.pass(Duration::from_millis(290));
    assert!(played.taken(1).is_empty());
    played.pass(Duration::from_millis(20));
    assert_eq!(played.taken(1).len(), 1);
}

#[test]
fn a_lost_connection_sends_its_calls_elsewhere() {
    let mut played = Played::with_leader();
    let mut write = played.write();
    let mut stale = played.call(Route::Any, None).1;
    assert_eq!(played.taken(0).len(), 2);
    played.router.link_down(0, "reset".to_owned());
    let requests = played.taken(1);
    assert_eq!(requests.len(), 1, "any other node answers the stale read");
    played.hear(1, requests[0], Outcome::Answer(Bytes::new()));
    ended(&mut stale);
    assert!(is_waiting(&mut write), "the others still believe in node 1");
    played.router.link_up(0, played.now);
    let requests = played.taken(0);
    assert_eq!(requests.len(), 2, "the write, and the first question");
    played.notice(2, 2, Some(3));
    let request = played.taken(2)[0];
    played.hear(2, request, applied());
    assert_eq!(ended(&mut write).unresolved, 2);
}

#[test]
fn calls_of_a_former_leader_move_when_the_new_one_becomes_reachable() {
    let mut played = Played::with_leader();
    played.router.link_down(1, "reset".to_owned());
    let mut write = played.write();
    assert_eq!(played.taken(0).len(), 1);
    played.notice(2, 2, Some(2));
    played.router.link_up(1, played.now);
    let requests = played.taken(1);
    assert_eq!(requests.len(), 2);
    for request in requests {
        played.hear(1, request, applied());
    }
    ended(&mut write);
}

#[test]
fn unavailable_is_tried_again_after_a_while() {
    let mut played = Played::with_leader();
    let mut write = played.write();
    let request = played.taken(0)[0];
    played.hear(0, request, Outcome::Unavailable("queue full".to_owned()));
    assert!(played.taken(0).is_empty());
    played.pass(Duration::from_millis(11));
    let request = played.taken(0)[0];
    played.hear(0, request, Outcome::Unknown("stepped down".to_owned()));
    played.pass(Duration::from_millis(21));
    let request = played.taken(0)[0];
    played.hear(0, request, applied());
    let completion = ended(&mut write);
    assert_eq!((completion.sends, completion.unresolved), (3, 1));
}

#[test]
fn what_was_never_taken_is_told_from_what_may_have_been() {
    let mut played = Played::with_leader();
    let mut refused = played.write();
    let mut silent = played.write();
    let requests = played.taken(0);
    played.router.link_down(1, "reset".to_owned());
    played.router.link_down(2, "reset".to_owned());
    let mut never_sent = played.write();
    played.hear(0, requests[0], Outcome::Unavailable("busy".to_owned()));
    played.pass(Duration::from_secs(10));
    let completion = ended(&mut refused);
    assert_eq!(completion.unresolved, 0);
    let Answer::Late(why) = completion.answer else {
        panic!("late");
    };
    assert!(
        why.contains("10000 ms") && why.contains("1 of 3 nodes connected"),
        "{why}"
    );
    assert!(why.contains("node 1 said: busy"), "{why}");
    assert_eq!(ended(&mut silent).unresolved, 1);
    let completion = ended(&mut never_sent);
    assert_eq!((completion.sends, completion.unresolved), (0, 0));
}

#[test]
fn limits_and_refusals_end_a_call() {
    let mut played = Played::with_leader();
    let (mut limited, mut refused) = (played.write(), played.write());
    let requests = played.taken(0);
    let limit = LimitExceeded {
        what: "value".to_owned(),
        bytes: 2,
        min: 0,
        max: 1,
    };
    played.hear(0, requests[0], Outcome::Limit(limit));
    played.hear(0, requests[1], Outcome::Refused("not permitted".to_owned()));
    assert!(matches!(
        ended(&mut limited).answer,
        Answer::Outcome(Outcome::Limit(_))
    ));
    assert!(matches!(
        ended(&mut refused).answer,
        Answer::Outcome(Outcome::Refused(_))
    ));
}

#[test]
fn a_stale_read_prefers_the_first_node_and_leaves_a_silent_one() {
    let mut played = Played::new();
    for endpoint in [1, 2] {
        played.router.link_up(endpoint, played.now);
        played.taken(endpoint);
    }
    let mut read = played.call(Route::Any, None).1;
    assert!(played.taken(2).is_empty());
    assert_eq!(played.taken(1).len(), 1);
    played.pass(Duration::from_millis(300));
    let request = played.taken(2)[0];
    played.hear(2, request, Outcome::Answer(Bytes::new()));
    ended(&mut read);
    let _next = played.call(Route::Any, None);
    assert_eq!(played.taken(2).len(), 1, "the first is still silent");
    played.notice(1, 1, Some(1));
    let _next = played.call(Route::Any, None);
    assert_eq!(played.taken(1).len(), 1, "it has spoken");
}

#[test]
fn a_node_that_breaks_the_protocol_is_told_apart() {
    let mut played = Played::with_leader();
    assert!(played.hear(0, 77, applied()).violation.is_some());
    let mut write = played.write();
    let request = played.taken(0)[0];
    let as_answer = Outcome::Notice(notice(1, Some(1)));
    assert!(played.hear(0, request, as_answer).violation.is_some());
    assert!(played.hear(0, 0, applied()).violation.is_some());
    played.hear(0, request, applied());
    ended(&mut write);
    assert!(
        played.hear(0, request, applied()).violation.is_some(),
        "answered twice"
    );
}

#[test]
fn members_are_learned_up_to_the_limit() {
    let mut played = Played::new();
    played.router.link_up(0, played.now);
    let request = played.taken(0)[0];
    let status = NodeStatus {
        members: (1..=99)
            .map(|id| (id, format!("10.0.1.{id}:7400")))
            .collect(),
        ..NodeStatus::default()
    };
    let effects = played.hear(0, request, Outcome::Status(Box::new(status)));
    let expected: Vec<usize> = (3..crate::config::ENDPOINTS_MAX).collect();
    assert_eq!(effects.discovered, expected);
    let first = played.router.endpoints().at(0);
    assert_eq!(first.advertised.as_deref(), Some("10.0.1.1:7400"));
}

#[test]
fn the_session_is_opened_once_and_its_window_is_kept() {
    let mut played = Played::with_leader();
    let deadline = played.now + Duration::from_secs(10);
    assert!(played.router.stamp(deadline, played.now).is_none());
    assert!(played.router.stamp(deadline, played.now).is_none());
    let requests = played.taken(0);
    assert_eq!(requests.len(), 1);
    let reply = kv_api::encode(&CommandReply::SessionOpened(SessionId(9))).into();
    played.hear(
        0,
        requests[0],
        Outcome::Applied {
            term: 1,
            index: 1,
            reply,
        },
    );
    assert_eq!(played.session_moves, 1);
    let mut stamps = Vec::new();
    while let Some(stamp) = played.router.stamp(deadline, played.now) {
        stamps.push(stamp);
    }
    assert_eq!(stamps.len() as u64, SESSION_WINDOW_MAX);
    let mut write = played.call(Route::Leader, Some(stamps[0])).1;
    let request = played.taken(0)[0];
    played.hear(0, request, applied());
    ended(&mut write);
    assert_eq!(played.session_moves, 2);
    assert!(played.router.stamp(deadline, played.now).is_some());
}

#[test]
fn a_refused_session_is_told_to_who_waits() {
    let mut played = Played::with_leader();
    let deadline = played.now + Duration::from_secs(10);
    assert!(played.router.stamp(deadline, played.now).is_none());
    let request = played.taken(0)[0];
    let refusal = CommandReply::Refused(CommandError::Malformed("no".to_owned()));
    let reply = kv_api::encode(&refusal).into();
    played.hear(
        0,
        request,
        Outcome::Applied {
            term: 1,
            index: 1,
            reply,
        },
    );
    assert_eq!(played.router.session().refusals(), 1);
    assert_eq!(played.session_moves, 1);
}

#[test]
fn a_cancelled_call_leaves_nothing_behind() {
    let mut played = Played::with_leader();
    let (id, _waiting) = played.call(Route::Leader, None);
    played.router.cancel(id);
    assert!(played.taken(0).is_empty());
    let (id, _waiting) = played.call(Route::Leader, None);
    let request = played.taken(0)[0];
    played.router.cancel(id);
    assert!(played.hear(0, request, applied()).violation.is_none());
}

#[test]
fn a_connection_holds_no_more_requests_than_its_limit() {
    let mut played = Played::with_leader();
    // The first question of the connection is outstanding as well.
    let writes: Vec<Waiting> = (0..CONNECTION_REQUESTS_MAX)
        .map(|_| played.write())
        .collect();
    let mut requests = Vec::new();
    loop {
        let taken = played.taken(0);
        if taken.is_empty() {
            break;
        }
        requests.extend(taken);
    }
    assert_eq!(requests.len(), CONNECTION_REQUESTS_MAX - 1);
    played.hear(0, requests[0], applied());
    assert_eq!(played.taken(0).len(), 1);
    drop(writes);
}

#[test]
fn a_change_of_the_cluster_is_sent_once() {
    let change = || RequestBody::TransferLeader { to: 3 };
    let mut played = Played::with_leader();
    let call = |played: &mut Played| {
        let (sender, receiver) = oneshot::channel();
        let what = NewCall {
            route: Route::Leader,
            lane: Lane::Quick,
            body: change(),
            deadline: played.now + Duration::from_secs(10),
            stamp: None,
        };
        let waiter = Waiter::Caller(sender);
        played.router.submit(what, waiter, played.now);
        receiver
    };
    // What was only queued moves with the leader; what was sent stays.
    let mut sent = call(&mut played);
    assert_eq!(played.taken(0).len(), 1);
    let mut queued = call(&mut played);
    played.notice(1, 2, Some(2));
    assert!(played.taken(0).is_empty());
    let request = played.taken(1);
    assert_eq!(request.len(), 1);
    assert!(is_waiting(&mut sent));
    let effects = played.router.link_down(0, "reset".to_owned());
    for (caller, completion) in effects.completed {
        let _ = caller.send(completion);
    }
    let completion = ended(&mut sent);
    assert!(matches!(&completion.answer, Answer::Lost(why) if why.contains("reset")));
    assert_eq!((completion.sends, completion.unresolved), (1, 1));
    // A node that says that it was not taken lets it go elsewhere.
    let refusal = Outcome::NotLeader(notice(3, Some(3)));
    played.hear(1, request[0], refusal);
    let request = played.taken(2);
    assert_eq!(request.len(), 1);
    played.hear(2, request[0], Outcome::Unknown("stepped down".to_owned()));
    let completion = ended(&mut queued);
    assert!(matches!(&completion.answer, Answer::Lost(why) if why.contains("stepped down")));
    assert_eq!((completion.sends, completion.unresolved), (2, 1));
}

#[test]
fn large_requests_have_a_lane_of_their_own() {
    assert_eq!(Lane::for_bytes(100), Lane::Quick);
    assert_eq!(Lane::for_bytes(1 << 20), Lane::Bulk);
}
