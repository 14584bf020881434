//! Handing leadership to a chosen voter (thesis 3.10): nothing new is taken in, the target is
//! brought in step and told to campaign at once.

use crate::error::TransferError;
use crate::message::Message;
use crate::protocol::input::TransferTicket;
use crate::protocol::{Raft, RoleState};
use crate::types::NodeId;

/// A transfer that this node was asked for.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// Nobody waits for one that the leader began by itself.
    ticket: Option<TransferTicket>,
    target: NodeId,
    /// When it is given up, in ticks of this node.
    deadline: u64,
    is_sent: bool,
}

impl Raft {
    /// Whom leadership is being handed to, while this node still leads.
    pub(crate) fn transferring_to(&self) -> Option<NodeId> {
        let leads = matches!(self.role, RoleState::Leader(_));
        let transfer = self.transfer.as_ref().filter(|_| leads)?;
        Some(transfer.target)
    }

    pub(crate) fn handle_transfer(&mut self, ticket: TransferTicket, target: NodeId) {
        self.wake();
        let outcome = self.begin_transfer(ticket, target);
        if let Some(outcome) =
            outcome.map_or_else(|error| Some(Err(error)), |done| done.then_some(Ok(())))
        {
            self.outbox.effects().transferred.push((ticket, outcome));
        }
    }

    /// Whether there is nothing to do.
    fn begin_transfer(
        &mut self,
        ticket: TransferTicket,
        target: NodeId,
    ) -> Result<bool, TransferError> {
        let leader = self.leader();
        let timing = self.config.timing;
        let RoleState::Leader(role) = &mut self.role else {
            return Err(TransferError::NotLeader { leader });
        };
        if let Some(transfer) = &self.transfer {
            return Err(TransferError::InProgress(transfer.target));
        }
        if target == self.config.id {
            return Ok(true);
        }
        if !self
            .configurations
            .current()
            .1
            .voters()
            .any(|id| id == target)
        {
            return Err(TransferError::NotAVoter(target));
        }
        let patience = u64::from(timing.election_ticks_min);
        let now = role.now;
        let lives = role
            .progress_of(target)
            .is_some_and(|p| p.is_alive(now, patience));
        if !lives {
            return Err(TransferError::Unreachable(target));
        }
        if role.progress_of(target).is_some_and(|p| p.is_refilling()) {
            return Err(TransferError::Refilling(target));
        }
        self.start_transfer(Some(ticket), target);
        Ok(false)
    }

    /// Begins to hand over to a target that can have it.
    pub(crate) fn start_transfer(&mut self, ticket: Option<TransferTicket>, target: NodeId) {
        let deadline = self.now + u64::from(self.config.timing.election_ticks_max);
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        // From here on somebody may be elected although we are heard.
        role.lease.forfeit();
        self.transfer = Some(Transfer {
            ticket,
            target,
            deadline,
            is_sent: false,
        });
    }

    fn transfer_ended(&mut self, ticket: Option<TransferTicket>, end: Result<(), TransferError>) {
        if let Some(ticket) = ticket {
            self.outbox.effects().transferred.push((ticket, end));
        }
    }

    /// A new leadership begins: whoever was to have it in an earlier term did not get it. Nobody is
    /// told to campaign in a term whose lease was not forfeited.
    pub(crate) fn forget_transfer(&mut self) {
        if let Some(Transfer { ticket, target, .. }) = self.transfer.take() {
            let (leader, ticks) = (self.config.id, self.config.timing.election_ticks_max);
            let error = TransferError::TimedOut {
                target,
                ticks,
                leader,
            };
            self.transfer_ended(ticket, Err(error));
        }
    }

    /// Tells the target to campaign as soon as it has everything.
    pub(crate) fn advance_transfer(&mut self) {
        let last = self.last().index;
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        let Some(transfer) = self.transfer.as_mut().filter(|t| !t.is_sent) else {
            return;
        };
        let target = transfer.target;
        if role.progress_of(target).is_some_and(|p| p.is_refilling()) {
            let (ticket, error) = (transfer.ticket, TransferError::Refilling(target));
            self.transfer = None;
            self.transfer_ended(ticket, Err(error));
            return;
        }
        match role.progress_of(target) {
            Some(progress) if progress.matched() == last => transfer.is_sent = true,
            _ => return,
        }
        self.send(target, Message::TimeoutNow);
    }

    /// Ends a transfer that succeeded, came to another end, or took too long.
    pub(crate) fn transfer_tick(&mut self) {
        let (leader, now, own) = (self.leader(), self.now, self.config.id);
        let is_over = |t: &mut Transfer| now >= t.deadline || leader.is_some_and(|id| id != own);
        let Some(transfer) = self.transfer.take_if(is_over) else {
            return;
        };
        let Transfer { ticket, target, .. } = transfer;
        let outcome = match leader {
            Some(leader) if leader == target => Ok(()),
            Some(leader) if leader == own => Err(TransferError::TimedOut {
                target,
                ticks: self.config.timing.election_ticks_max,
                leader,
            }),
            _ => Err(TransferError::LostToAnother(target)),
        };
        self.transfer_ended(ticket, outcome);
    }

    /// The leader wants us to lead. Only the one that we follow may say so, and only a voter does.
    pub(crate) fn handle_timeout_now(&mut self, from: NodeId) {
        let is_follower = matches!(self.role, RoleState::Follower(_));
        if is_follower && self.leader() == Some(from) && self.may_campaign() {
            self.become_candidate(true);
        }
    }
}
