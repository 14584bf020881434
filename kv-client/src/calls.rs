//! Plain data about calls on their way: what is asked, where it may go, where it is, and what came
//! of it. What happens to them is in `router`.

use kv_api::{Outcome, RequestBody, SessionStamp};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Which node may answer a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The leader.
    Leader,
    /// Any connected node; the first in the configured order is preferred.
    Any,
    /// This endpoint.
    Only(usize),
}

/// Streams per connection; see [`Lane`].
pub(crate) const LANES: usize = 2;

/// Requests from this size on travel on the lane for large frames.
const BULK_BYTES_MIN: usize = 32 << 10;

/// One of the streams of a connection. Large frames have their own, so that a small request never
/// waits behind a megabyte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Small requests with small answers.
    Quick,
    /// Large values and scans.
    Bulk,
}

impl Lane {
    /// The lane for a request of this size with a small answer.
    pub(crate) fn for_bytes(bytes: usize) -> Self {
        if bytes < BULK_BYTES_MIN {
            Self::Quick
        } else {
            Self::Bulk
        }
    }

    /// Its place in an array of [`LANES`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Quick => 0,
            Self::Bulk => 1,
        }
    }
}

/// A call as it is handed in.
#[derive(Debug)]
pub(crate) struct NewCall {
    /// Who may answer it.
    pub(crate) route: Route,
    /// The stream it travels on.
    pub(crate) lane: Lane,
    /// What is asked. Cloning it only counts references.
    pub(crate) body: RequestBody,
    /// When to give up.
    pub(crate) deadline: Instant,
    /// The stamp inside the body, for writes in a session.
    pub(crate) stamp: Option<SessionStamp>,
}

/// Who waits for the answer.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A caller of the client.
    Caller(oneshot::Sender<Completion>),
    /// The router itself, for a session.
    OpenSession,
    /// The router itself, for news of who leads.
    Probe,
}

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// No node that may answer it is connected, or nobody leads.
    Parked,
    /// Waits to be tried again.
    Delayed(Instant),
    /// In the queue of this endpoint; no byte of it was sent there.
    Queued(usize),
    /// Sent.
    Sent {
        /// Where to.
        endpoint: usize,
        /// Under which request id.
        request: u64,
        /// When.
        at: Instant,
    },
}

/// A call on its way.
#[derive(Debug)]
pub(crate) struct Call {
    /// What was handed in.
    pub(crate) what: NewCall,
    /// Who waits for the answer.
    pub(crate) waiter: Waiter,
    /// Where it is.
    pub(crate) place: Place,
    /// When it was handed in.
    pub(crate) since: Instant,
    /// How often it was sent.
    pub(crate) sends: u32,
    /// How many of these times may still have an effect: no answer said that nothing was applied.
    pub(crate) unresolved: u32,
    /// How often in a row it was turned away, for the back-off.
    pub(crate) rejections: u32,
    /// Where it was turned away or not answered the last time.
    pub(crate) avoid: Option<usize>,
    /// What the last answer said that did not end the call.
    pub(crate) last_answer: Option<String>,
}

impl Call {
    /// Whether it may be sent again while an earlier sending of it may still have an effect. A
    /// change of the cluster may not: nothing in it lets a repetition be recognised, and what it
    /// asks for may have been done and undone since.
    pub(crate) fn may_repeat(&self) -> bool {
        !matches!(
            self.what.body,
            RequestBody::ChangeMembers(_) | RequestBody::TransferLeader { .. }
        )
    }

    /// Whether it has to wait for the answer of the node where it is.
    pub(crate) fn is_pinned(&self) -> bool {
        matches!(self.place, Place::Sent { .. }) && !self.may_repeat()
    }
}

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Completion {
    /// Its answer.
    pub(crate) answer: Answer,
    /// How often it was sent.
    pub(crate) sends: u32,
    /// How many sendings, besides the one that was answered, may still have an effect.
    pub(crate) unresolved: u32,
}

impl Completion {
    /// What comes of a call that was never begun because the client is closed.
    pub(crate) fn closed() -> Self {
        Self {
            answer: Answer::Closed,
            sends: 0,
            unresolved: 0,
        }
    }
}

/// The end of a call.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A node's last word: applied, answered, over a limit, or refused.
    Outcome(Outcome),
    /// The deadline passed. What is known about why.
    Late(String),
    /// It was sent, no answer will come, and it may not be repeated. What is known about why.
    Lost(String),
    /// The client was closed.
    Closed,
}
