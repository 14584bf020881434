//! Changes of membership by joint consensus (paper section 6, thesis 4.3): one at a time, in effect
//! from the entry on that carries it, and finished by whoever leads.

use crate::config::{Config, ConfigError};
use crate::entry::{Entry, EntryKind};
use crate::error::ChangeError;
use crate::log_store::LoadedLog;
use crate::membership::{MemberRole, Membership, MembershipChange};
use crate::message::Message;
use crate::protocol::configurations::Configurations;
use crate::protocol::input::ChangeTicket;
use crate::protocol::progress::Progress;
use crate::protocol::quorum::Electorate;
use crate::protocol::{Raft, RoleState};
use crate::snapshot::SnapshotDescriptor;
use crate::types::{Index, NodeId};

/// The memberships that a loaded log holds. The log wins over the bootstrapped list.
pub(crate) fn load(
    config: &Config,
    loaded: &LoadedLog,
    snapshot: Option<&SnapshotDescriptor>,
) -> Result<Configurations, ConfigError> {
    let at_start = snapshot.filter(|_| loaded.start.index > Index(0));
    let mut list = match at_start {
        // What the snapshot says holds from its end on; before it, entries of the log may differ,
        // but all of them are committed and applied.
        Some(snapshot) => {
            let last = snapshot.meta.last.index;
            Configurations::new(last, snapshot.meta.membership.clone())
        }
        None => {
            if loaded.memberships.is_empty() {
                config.validate_bootstrap()?;
            }
            Configurations::new(Index(0), config.members.clone())
        }
    };
    for entry in &loaded.memberships {
        let index = entry.index();
        let membership = Membership::decode(entry.payload())
            .map_err(|error| ConfigError::Membership { index, error })?;
        if index > list.current().0 {
            list.append(index, membership);
        }
    }
    Ok(list)
}

/// What an entry says about membership. Whatever reaches the log was checked before.
pub(crate) fn membership_of(entry: &Entry) -> Option<Membership> {
    let is_membership = entry.kind() == EntryKind::Membership;
    is_membership.then(|| {
        Membership::decode(entry.payload()).expect("memberships are checked when they come in")
    })
}

impl Raft {
    /// The membership in effect.
    pub(crate) fn membership(&self) -> &Membership {
        self.configurations.current().1
    }

    /// Whether this node votes: as the incarnation that it is.
    pub(crate) fn is_voter(&self) -> bool {
        self.is_voter_in(self.membership())
    }

    /// Under which id this node counts itself: none where it does not vote. A list that names
    /// another incarnation under our id does not mean us.
    pub(crate) fn own_voice(&self) -> Option<NodeId> {
        self.is_voter().then_some(self.config.id)
    }

    fn is_voter_in(&self, membership: &Membership) -> bool {
        let id = self.config.id;
        let member = membership.get(id);
        let is_known = member.is_some_and(|m| m.incarnation == self.config.incarnation);
        is_known && membership.is_voter(id)
    }

    /// Whether this node may ask for votes. A voter may; and so may one that is removed by an entry
    /// which is not committed yet: perhaps nobody else has that entry, and without it nobody else
    /// can win (thesis 4.2.2). Its own vote counts only where it is a voter. One whose log lost
    /// entries may not, whoever asks it to.
    pub(crate) fn may_campaign(&self) -> bool {
        let is_open = self.configurations.current().0 > self.commit;
        let was_voter = || self.is_voter_in(self.configurations.at(self.commit));
        let is_free = self.vote_embargo == 0 && !self.is_refilling();
        is_free && (self.is_voter() || (is_open && was_voter()))
    }

    /// Another membership is in effect.
    pub(crate) fn members_changed(&mut self) {
        self.electorate = Electorate::of(self.membership());
        let membership = self.membership().clone();
        let left = self.sync_progress(&membership);
        self.members_left(left);
        self.outbox.effects().members_changed = Some(self.talks_to());
    }

    /// A leader keeps one progress per member and life of its disk. Gives those that it has no
    /// member for any more.
    fn sync_progress(&mut self, membership: &Membership) -> Vec<Progress> {
        let own = self.config.id;
        let next = self.last().index.next();
        let RoleState::Leader(role) = &mut self.role else {
            return Vec::new();
        };
        let mut known = std::mem::take(&mut role.progress);
        for (id, member) in membership.iter().filter(|(id, _)| *id != own) {
            let same = |p: &Progress| p.id == id && p.incarnation == member.incarnation;
            role.progress.push(match known.iter().position(same) {
                Some(position) => known.swap_remove(position),
                None => Progress::added(id, member.incarnation, next, role.now),
            });
        }
        known
    }

    pub(crate) fn handle_change(&mut self, ticket: ChangeTicket, change: &MembershipChange) {
        self.wake();
        match self.begin_change(change) {
            Ok(()) => {
                if let RoleState::Leader(role) = &mut self.role {
                    role.change = Some(ticket);
                }
            }
            Err(error) => self.outbox.effects().changed.push((ticket, Err(error))),
        }
    }

    fn begin_change(&mut self, change: &MembershipChange) -> Result<(), ChangeError> {
        let leader = self.leader();
        if !matches!(self.role, RoleState::Leader(_)) {
            return Err(ChangeError::NotLeader { leader });
        }
        if let Some(target) = self.transferring_to() {
            return Err(ChangeError::Transferring(target));
        }
        // Before an entry of the own term is committed a change of an earlier leader may still be
        // on its way to being committed (Ongaro 2015).
        if !self.has_committed_in_term() {
            return Err(ChangeError::NotReady);
        }
        let (since, current) = self.configurations.current();
        if since > self.commit || current.is_joint() {
            return Err(ChangeError::InProgress { since });
        }
        let target = current.after(change)?;
        self.check_new_voters(&target)?;
        let next = current.towards(target);
        self.append_as_leader(EntryKind::Membership, next.encode());
        Ok(())
    }

    /// New voters have what is committed, and enough voters answer for the new majority to commit:
    /// else the group would stand still as soon as the change is in effect (thesis 4.2.1).
    fn check_new_voters(&self, target: &Membership) -> Result<(), ChangeError> {
        let RoleState::Leader(role) = &self.role else {
            return Ok(());
        };
        let own = (self.config.id, self.config.incarnation);
        let is_own = |id: NodeId| target.get(id).is_some_and(|m| (id, m.incarnation) == own);
        let progress_of = |id: NodeId| {
            let incarnation = target.get(id).map(|member| member.incarnation);
            let progress = role.progress.iter().find(|p| p.id == id)?;
            (Some(progress.incarnation) == incarnation).then_some(progress)
        };
        let needed = role.commit_before;
        for id in target.voters().filter(|id| !is_own(*id)) {
            let is_new = self.membership().members().get(&id).is_none_or(|member| {
                member.role != MemberRole::Voter
                    || Some(member.incarnation) != target.get(id).map(|m| m.incarnation)
            });
            let matched = progress_of(id).map_or(Index(0), Progress::matched);
            if is_new && matched < needed {
                return Err(ChangeError::Lagging {
                    id,
                    matched,
                    needed,
                });
            }
        }
        let patience = u64::from(self.config.timing.election_ticks_max);
        let answers = |id: NodeId| {
            let counts = |p: &Progress| p.is_alive(role.now, patience) && !p.is_refilling();
            is_own(id) || progress_of(id).is_some_and(counts)
        };
        if Electorate::of(target).is_quorum(answers) {
            return Ok(());
        }
        let silent = target.voters().filter(|id| !answers(*id)).collect();
        Err(ChangeError::NoQuorum { silent })
    }

    /// Leaves a joint membership once it is committed, whoever began it; then tells who asked, and
    /// a leader that is not part of the result goes.
    pub(crate) fn advance_membership(&mut self) {
        let (since, current) = self.configurations.current();
        let is_leader = matches!(self.role, RoleState::Leader(_));
        if !is_leader || since > self.commit {
            return;
        }
        if current.is_joint() {
            let settled = current.settled().encode();
            self.append_as_leader(EntryKind::Membership, settled);
            return;
        }
        let done = self.log.term_at(since).map(|_| self.log.id_at(since));
        if let RoleState::Leader(role) = &mut self.role
            && let Some(ticket) = role.change.take()
        {
            let done = done.unwrap_or_else(|| self.log.start());
            self.outbox.effects().changed.push((ticket, Ok(done)));
        }
        if !self.is_voter() {
            self.hand_over_and_leave();
        }
    }

    /// This leader was removed, and all that matter know. The best of them leads at once.
    fn hand_over_and_leave(&mut self) {
        self.broadcast_heartbeat();
        let patience = u64::from(self.config.timing.election_ticks_min);
        let RoleState::Leader(role) = &self.role else {
            return;
        };
        let voters: Vec<_> = self.membership().voters().collect();
        let candidates = role.progress.iter();
        let candidates = candidates.filter(|p| voters.contains(&p.id) && !p.is_refilling());
        let best = candidates.max_by_key(|p| {
            let lives = p.is_alive(role.now, patience);
            (lives, p.matched(), p.heard_at)
        });
        if let Some(successor) = best.map(|p| p.id) {
            self.send(successor, Message::TimeoutNow);
        }
        self.become_follower(None);
    }

    /// Leadership ends: a change that was begun may still be finished by somebody else.
    pub(crate) fn forget_change(&mut self) {
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        if let Some(ticket) = role.change.take() {
            let unknown = (ticket, Err(ChangeError::Unknown));
            self.outbox.effects().changed.push(unknown);
        }
    }
}
