//! The order of a snapshot transfer, the same over every transport, for both sides: an offer, an
//! answer, the parts by number, an end, a last answer. How these travel is the transport's.

use bytes::Bytes;
use raft_core::snapshot::SNAPSHOT_PART_BYTES_MAX;
use raft_core::{Envelope, Message, NodeId, SendError, SnapshotDescriptor, SnapshotReader};

/// Bytes of a part's number, before the part, and of the number of the first that is wanted.
pub(crate) const PART_NUMBER_BYTES: usize = 8;

/// The longest reason that a receiver gives; what is longer is cut.
pub(crate) const REFUSAL_BYTES_MAX: usize = 1_024;

/// A reason as it is sent.
pub(crate) fn refusal_text(why: &str) -> Bytes {
    let end = why.floor_char_boundary(REFUSAL_BYTES_MAX);
    Bytes::copy_from_slice(&why.as_bytes()[..end])
}

/// What a receiver says: once to the offer, and once at the end unless it said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It wants the parts from this one on.
    From(u64),
    /// It does not want it, or not any more.
    Refused(String),
    /// It has all of it on its disk.
    Stored,
}

/// A way to one receiver, on which the offer has left.
pub(crate) trait Pipe {
    /// Waits for the receiver's answer to the offer.
    async fn answer(&mut self) -> Result<Answer, SendError>;

    /// An answer that came without being waited for; only a refusal is of interest.
    fn early_answer(&mut self) -> Option<Answer>;

    /// Sends a part.
    async fn part(&mut self, number: u64, part: Bytes) -> Result<(), SendError>;

    /// Says that there are no more.
    async fn end(&mut self) -> Result<(), SendError>;

    /// Waits for the receiver's last answer. Its disk may take its time.
    async fn last_answer(&mut self) -> Result<Answer, SendError>;
}

/// What a sender hears that takes a snapshot for a message like others.
pub(crate) fn not_a_message() -> SendError {
    SendError::Snapshot("it travels on a stream of its own, by `send_snapshot`".to_owned())
}

/// The snapshot that an envelope offers, if `content` is that one.
pub(crate) fn offered<'a>(
    envelope: &'a Envelope,
    content: &dyn SnapshotReader,
) -> Result<&'a SnapshotDescriptor, SendError> {
    let broken = |why: String| Err(SendError::Snapshot(why));
    let Message::Snapshot(descriptor) = &envelope.message else {
        return broken(format!("a {} offers none", envelope.message.name()));
    };
    let opened = content.descriptor();
    if opened != descriptor {
        return broken(format!("{descriptor} was offered, {opened} was opened"));
    }
    Ok(descriptor)
}

/// Sends what was offered. `Ok` when the receiver has all of it on its disk.
pub(crate) async fn send(
    pipe: &mut impl Pipe,
    to: NodeId,
    descriptor: &SnapshotDescriptor,
    mut content: Box<dyn SnapshotReader>,
) -> Result<(), SendError> {
    let storage = |error: raft_core::StorageError| SendError::Snapshot(error.to_string());
    let first = match pipe.answer().await? {
        Answer::From(first) => first,
        Answer::Stored => return Ok(()),
        Answer::Refused(why) => return Err(SendError::Refused { to, why }),
    };
    let mut order = Order::new(descriptor, first)?;
    if first > 0 {
        content.seek(first).await.map_err(storage)?;
    }
    while let Some(part) = content.next_part().await.map_err(storage)? {
        if let Some(Answer::Refused(why)) = pipe.early_answer() {
            return Err(SendError::Refused { to, why });
        }
        let number = order.next;
        order.part(number, part.len())?;
        pipe.part(number, part).await?;
    }
    order.end()?;
    pipe.end().await?;
    match pipe.last_answer().await? {
        Answer::Stored => Ok(()),
        Answer::Refused(why) => Err(SendError::Refused { to, why }),
        Answer::From(part) => Err(SendError::Snapshot(format!(
            "node {to} wants part {part} behind the end"
        ))),
    }
}

/// Which part is next, and what may still come. Both sides keep to it.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    next: u64,
    parts: u64,
    /// Bytes that may still come: those of all parts, because nobody knows what the parts before
    /// the first have.
    bytes_left: u64,
}

impl Order {
    /// The parts of a snapshot from `first` on.
    pub(crate) fn new(descriptor: &SnapshotDescriptor, first: u64) -> Result<Self, SendError> {
        let (parts, bytes_left) = (descriptor.parts, descriptor.bytes);
        if first > parts {
            let why = format!("part {first} is wanted of {parts}");
            return Err(SendError::Snapshot(why));
        }
        Ok(Self {
            next: first,
            parts,
            bytes_left,
        })
    }

    /// A part comes.
    pub(crate) fn part(&mut self, number: u64, bytes: usize) -> Result<(), SendError> {
        let (next, parts, left) = (self.next, self.parts, self.bytes_left);
        let why = if number != next {
            format!("part {number} came in place of {next}")
        } else if number >= parts {
            format!("part {number} came, the snapshot has {parts}")
        } else if bytes > SNAPSHOT_PART_BYTES_MAX {
            format!("part of {bytes} bytes is above the limit of {SNAPSHOT_PART_BYTES_MAX}")
        } else if bytes as u64 > left {
            format!("part of {bytes} bytes came, the snapshot has {left} left")
        } else {
            self.next += 1;
            self.bytes_left -= bytes as u64;
            return Ok(());
        };
        Err(SendError::Snapshot(why))
    }

    /// No more parts come.
    pub(crate) fn end(&self) -> Result<(), SendError> {
        let (next, parts) = (self.next, self.parts);
        if next == parts {
            Ok(())
        } else {
            let why = format!("the end came in place of part {next} of {parts}");
            Err(SendError::Snapshot(why))
        }
    }
}

/// Where the receiver of a transfer stands.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// The offer has come.
    Offered,
    /// Parts come.
    Moving(Order),
    /// All parts have come.
    Ended,
}

impl Stage {
    /// The order in which parts come; an error before they are asked for.
    pub(crate) fn order(&mut self) -> Result<Option<&mut Order>, SendError> {
        match self {
            Self::Offered => Err(SendError::Snapshot("it was not accepted yet".to_owned())),
            Self::Moving(order) => Ok(Some(order)),
            Self::Ended => Ok(None),
        }
    }

    /// The receiver asks for the parts from `first` on.
    pub(crate) fn accept(
        &mut self,
        descriptor: &SnapshotDescriptor,
        first: u64,
    ) -> Result<(), SendError> {
        if !matches!(self, Self::Offered) {
            return Err(SendError::Snapshot("it was accepted already".to_owned()));
        }
        *self = Self::Moving(Order::new(descriptor, first)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        let descriptor = SnapshotDescriptor {
            parts: 4,
            bytes: 100,
            ..SnapshotDescriptor::default()
        };
        Order::new(&descriptor, 2).unwrap()
    }

    #[test]
    fn parts_come_one_after_the_other_up_to_the_last() {
        let mut order = order();
        assert!(order.end().is_err());
        order.part(2, 60).unwrap();
        order.part(3, 40).unwrap();
        order.end().unwrap();
    }

    #[test]
    fn what_is_out_of_order_or_too_much_is_an_error_that_names_it() {
        let refused = |number, bytes| order().part(number, bytes).unwrap_err().to_string();
        assert!(refused(1, 1).contains("part 1 came in place of 2"));
        assert!(refused(3, 1).contains("part 3 came in place of 2"));
        assert!(refused(2, 101).contains("101 bytes"));
        assert!(refused(2, SNAPSHOT_PART_BYTES_MAX + 1).contains("limit"));
        let mut full = order();
        full.part(2, 1).unwrap();
        full.part(3, 1).unwrap();
        assert!(full.part(4, 1).is_err());
        let none = SnapshotDescriptor::default();
        assert!(Order::new(&none, 1).is_err());
        Order::new(&none, 0).unwrap().end().unwrap();
    }

    #[test]
    fn a_receiver_asks_once_and_before_it_reads() {
        let mut stage = Stage::Offered;
        let descriptor = SnapshotDescriptor::default();
        assert!(stage.order().is_err());
        assert!(stage.accept(&descriptor, 1).is_err());
        stage.accept(&descriptor, 0).unwrap();
        assert!(stage.accept(&descriptor, 0).is_err());
        assert!(stage.order().unwrap().is_some());
    }
}
