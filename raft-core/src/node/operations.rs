//! The driver's table of what operators asked for and was not answered: changes of membership and
//! transfers of leadership. Bounded by the claims that every waiter holds.

use std::collections::BTreeMap;

use crate::error::{ChangeError, TransferError};
use crate::node::request::{ChangeWaiter, TransferWaiter};
use crate::protocol::{ChangeTicket, TransferTicket};
use crate::types::LogId;

/// See the file.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    tickets_given: u64,
    changes: BTreeMap<ChangeTicket, ChangeWaiter>,
    transfers: BTreeMap<TransferTicket, TransferWaiter>,
}

impl Operations {
    /// Takes in a change and names it.
    pub(crate) fn enter_change(&mut self, waiter: ChangeWaiter) -> ChangeTicket {
        self.tickets_given += 1;
        let ticket = ChangeTicket(self.tickets_given);
        self.changes.insert(ticket, waiter);
        ticket
    }

    /// Takes in a transfer and names it.
    pub(crate) fn enter_transfer(&mut self, waiter: TransferWaiter) -> TransferTicket {
        self.tickets_given += 1;
        let ticket = TransferTicket(self.tickets_given);
        self.transfers.insert(ticket, waiter);
        ticket
    }

    /// The protocol said what became of a change.
    pub(crate) fn changed(&mut self, ticket: ChangeTicket, result: Result<LogId, ChangeError>) {
        if let Some(waiter) = self.changes.remove(&ticket) {
            waiter.answer(result);
        }
    }

    /// The protocol said what became of a transfer.
    pub(crate) fn transferred(
        &mut self,
        ticket: TransferTicket,
        result: Result<(), TransferError>,
    ) {
        if let Some(waiter) = self.transfers.remove(&ticket) {
            waiter.answer(result);
        }
    }

    /// Forgets those whose clients went away, so that their room can be used again.
    pub(crate) fn sweep(&mut self) {
        self.changes.retain(|_, waiter| !waiter.is_abandoned());
        self.transfers.retain(|_, waiter| !waiter.is_abandoned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::budget::Budget;
    use crate::node::request::Waiter;
    use crate::types::{Index, Term};
    use tokio::sync::oneshot;

    #[test]
    fn each_is_answered_once_by_its_ticket_and_gives_its_room_back() {
        let budget = Budget::new("test_max", 3);
        let mut operations = Operations::default();
        let (reply, mut changed) = oneshot::channel();
        let claims = [budget.claim(1).unwrap()];
        let change = operations.enter_change(Waiter::new(reply, claims));
        let (reply, mut transferred) = oneshot::channel();
        let claims = [budget.claim(1).unwrap()];
        let transfer = operations.enter_transfer(Waiter::new(reply, claims));
        let (reply, abandoned) = oneshot::channel();
        let claims = [budget.claim(1).unwrap()];
        operations.enter_change(Waiter::new(reply, claims));
        drop(abandoned);

        operations.transferred(TransferTicket(99), Ok(()));
        let id = LogId::new(Term(1), Index(7));
        operations.changed(change, Ok(id));
        operations.changed(change, Err(ChangeError::Unknown));
        assert_eq!(changed.try_recv().unwrap(), Ok(id));
        assert!(transferred.try_recv().is_err());
        operations.transferred(transfer, Ok(()));
        assert_eq!(transferred.try_recv().unwrap(), Ok(()));
        assert_eq!(budget.used(), 1);
        operations.sweep();
        assert_eq!(budget.used(), 0);
    }
}
