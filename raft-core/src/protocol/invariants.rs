//! What always holds on one node, whatever it is told: the numbered invariants of
//! `docs/protocol.md`, checked after every step in debug builds and in the simulator. What holds
//! between nodes is checked by the simulator.

use crate::protocol::{Raft, RoleState};
use crate::types::{HardState, Index, LogId, NodeId, Term};

/// What the node was before a step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Before {
    hard_state: HardState,
    commit: LogId,
    applied: Index,
    start: Index,
    /// The term in which it leads, and what it knew the others to hold.
    matched: Option<(Term, Vec<(NodeId, Index)>)>,
}

impl Raft {
    /// # Panics
    /// When an invariant does not hold: a bug of ours, or a rule that was broken from outside.
    pub(crate) fn check_invariants(&mut self) {
        self.check_points();
        self.check_leader();
        self.check_changes();
        let matched = match &self.role {
            RoleState::Leader(role) => {
                let known = role.progress.iter().map(|p| (p.id, p.matched()));
                Some((self.hard_state.term, known.collect()))
            }
            _ => None,
        };
        self.before = Before {
            hard_state: self.hard_state,
            commit: self.committed_id(),
            applied: self.applying.applied(),
            start: self.log.start().index,
            matched,
        };
    }

    fn committed_id(&self) -> LogId {
        let term = self.log.term_at(self.commit);
        LogId::new(
            term.expect("INV-4: what is committed is in the log"),
            self.commit,
        )
    }

    /// What holds at every moment.
    fn check_points(&self) {
        let (start, last) = (self.log.start(), self.log.last());
        let (applied, commit) = (self.applying.applied(), self.commit);
        assert!(
            applied <= commit,
            "INV-4: applied {applied}, committed {commit}"
        );
        assert!(
            commit <= last.index,
            "INV-4: committed {commit}, the log ends at {last}"
        );
        let handed = self.applying.handed();
        assert!(
            handed <= commit,
            "INV-4: handed over {handed}, committed {commit}"
        );
        let snapshot = self.snapshots.last();
        assert!(
            start.index <= snapshot.index,
            "INV-5: compacted {start}, snapshot {snapshot}"
        );
        assert!(
            snapshot.index <= commit,
            "INV-5: snapshot {snapshot}, committed {commit}"
        );
        assert!(
            self.log.contains(snapshot),
            "INV-5: snapshot {snapshot} is of another log"
        );
        assert!(
            start.index <= handed || !self.snapshots.is_restored(),
            "INV-16: compacted {start}, but only {handed} is on its way to the state machine"
        );
        let durable = self.log.durable();
        assert!(
            durable <= last.index,
            "INV-6: durable {durable}, the log ends at {last}"
        );
        assert!(
            last.term <= self.hard_state.term,
            "INV-7: an entry {last} of a later term"
        );
        let (since, membership) = self.configurations.current();
        assert!(
            since <= last.index,
            "INV-11: membership of {since}, the log ends at {last}"
        );
        let follows = matches!(self.role, RoleState::Follower(_));
        assert!(
            follows || !self.is_refilling(),
            "INV-17: entries are missing, but it does not follow"
        );
        let campaigns = matches!(self.role, RoleState::Candidate(_));
        let own_vote = self.hard_state.vote == Some(self.config.id);
        assert!(
            !campaigns || own_vote,
            "INV-8: a candidate votes for itself"
        );
        let is_empty = membership.is_empty();
        assert!(
            !campaigns || !is_empty,
            "INV-12: who knows no group does not campaign"
        );
    }

    /// What holds while it leads.
    fn check_leader(&self) {
        let RoleState::Leader(role) = &self.role else {
            return;
        };
        let last = self.log.last().index;
        let own = self.config.id;
        assert_eq!(
            self.hard_state.vote,
            Some(own),
            "INV-8: it voted for itself"
        );
        for p in &role.progress {
            let (id, matched, next) = (p.id, p.matched(), p.next());
            assert!(
                matched == Index(0) || !p.is_refilling(),
                "INV-18: {id} lost entries, but {matched} counts"
            );
            assert!(matched < next, "INV-9: {id} matched {matched}, next {next}");
            assert!(
                matched <= last,
                "INV-9: {id} matched {matched}, the log ends at {last}"
            );
            assert!(
                next <= last.next(),
                "INV-9: {id} next {next}, the log ends at {last}"
            );
            let limit = self.config.limits.inflight_messages_max;
            let messages = p.inflight_messages();
            assert!(
                messages <= limit,
                "INV-13: {messages} appends on the way to {id}"
            );
        }
        let members = self
            .membership()
            .iter()
            .map(|(id, _)| id)
            .filter(|id| *id != own);
        let followed = role.progress.iter().map(|p| p.id);
        assert!(members.eq(followed), "INV-10: a progress for each member");
        let open = self.configurations.uncommitted(self.commit);
        // A new leader may have inherited several, of which it does not know yet that they are
        // committed.
        let is_ready = self.has_committed_in_term();
        assert!(open <= 1 || !is_ready, "INV-11: {open} changes are open");
    }

    /// What may only change in one direction.
    fn check_changes(&self) {
        let (before, now) = (&self.before, self.hard_state);
        assert!(
            now.term >= before.hard_state.term,
            "INV-1: the term went back"
        );
        if now.term == before.hard_state.term && before.hard_state.vote.is_some() {
            assert_eq!(now.vote, before.hard_state.vote, "INV-2: one vote per term");
        }
        assert!(
            self.commit >= before.commit.index,
            "INV-3: the commit index went back"
        );
        assert!(
            self.applying.applied() >= before.applied,
            "INV-3: applied went back"
        );
        assert!(
            self.log.start().index >= before.start,
            "INV-3: the log's start went back"
        );
        if let Some(term) = self.log.term_at(before.commit.index) {
            let was = before.commit;
            assert_eq!(
                term, was.term,
                "INV-15: committed {was} is another entry now"
            );
        }
        let (Some((term, known)), RoleState::Leader(role)) = (&before.matched, &self.role) else {
            return;
        };
        for p in role.progress.iter().filter(|_| *term == now.term) {
            let was = known
                .iter()
                .find(|(id, _)| *id == p.id)
                .map(|(_, index)| *index);
            // A member that was replaced begins anew.
            let is_back = was.is_some_and(|was| p.matched() < was && p.matched() > Index(0));
            assert!(!is_back, "INV-14: what {} holds went back", p.id);
        }
    }
}
