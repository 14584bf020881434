//! A judge that is too simple to be wrong: it tries every order of every subset. It has a model of
//! its own and looks at all keys at once, so that it shares no mistake with what it is compared to.

use std::collections::BTreeMap;

use history::{ByteString, Completion, Expect, History, Location, LoggedWrite, Op, Reply};

/// All keys: what they hold, and their versions.
pub(crate) type World = BTreeMap<ByteString, (Vec<u8>, u64)>;

/// Runs an operation.
pub(crate) fn run(world: &mut World, op: &Op) -> Reply {
    let held = world.get(op.key()).cloned();
    let version = held.as_ref().map_or(0, |(_, version)| *version);
    let value = match op {
        Op::Get { .. } => {
            return held.map_or(Reply::Absent, |(value, version)| Reply::Found {
                value: value.into(),
                version,
            });
        }
        Op::Delete { key } => {
            let existed = world.remove(key).is_some();
            return Reply::Deleted { existed };
        }
        Op::Cas { expect, value, .. } => {
            let fits = match expect {
                Expect::Absent => held.is_none(),
                Expect::Version(expected) => *expected == version,
                Expect::Value(expected) => {
                    held.is_some_and(|(held, _)| held == expected.as_bytes())
                }
            };
            if !fits {
                return Reply::Mismatch { version };
            }
            value.as_bytes().to_vec()
        }
        Op::Put { value, .. } => value.as_bytes().to_vec(),
        Op::Append { value, .. } => {
            let mut longer = held.map_or(Vec::new(), |(value, _)| value);
            longer.extend_from_slice(value.as_bytes());
            longer
        }
    };
    let (version, value_bytes) = (version + 1, value.len() as u64);
    world.insert(op.key().clone(), (value, version));
    Reply::Written {
        version,
        value_bytes,
    }
}

/// An operation as this judge sees it.
#[derive(Clone)]
struct Piece<'a> {
    op: &'a Op,
    from: u64,
    end: Option<(u64, &'a Reply)>,
    /// Its place among those whose order is given.
    rank: Option<usize>,
}

/// Everything that may have taken effect, in the order that `ranks` gives to some.
fn pieces<'a>(history: &'a History, ranks: &BTreeMap<u64, usize>) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    for operation in history.operations() {
        let end = match &operation.completion {
            Completion::Ok { at, reply, .. } => Some((*at, reply)),
            Completion::Unknown => None,
            Completion::Fail => continue,
        };
        pieces.push(Piece {
            op: &operation.op,
            from: operation.invoked,
            end,
            rank: ranks.get(&operation.id).copied(),
        });
    }
    pieces
}

fn explains(world: &World, left: &[Piece<'_>], next_rank: usize) -> bool {
    if left.iter().all(|piece| piece.end.is_none()) {
        return true;
    }
    (0..left.len()).any(|position| {
        let mut rest = left.to_vec();
        let next = rest.remove(position);
        if next.rank.is_some_and(|rank| rank != next_rank) {
            return false;
        }
        let overtakes = |other: &Piece<'_>| other.end.is_some_and(|(at, _)| at < next.from);
        if rest.iter().any(overtakes) {
            return false;
        }
        let mut after = world.clone();
        let reply = run(&mut after, next.op);
        let fits = next.end.is_none_or(|(_, answer)| *answer == reply);
        fits && explains(&after, &rest, next_rank + usize::from(next.rank.is_some()))
    })
}

/// Whether there is an order of all answered operations, and of some of the open ones, that
/// respects real time and gives every answer.
pub(crate) fn linearizable(history: &History) -> bool {
    explains(&World::new(), &pieces(history, &BTreeMap::new()), 0)
}

/// The same, where the answered writes of each key are in the order of their places, and that of
/// all places respects real time.
pub(crate) fn explained_by_places(history: &History) -> bool {
    let mut places: BTreeMap<Location, (&Op, u64, u64, u64)> = BTreeMap::new();
    for operation in history.operations() {
        if let Completion::Ok {
            at,
            location: Some(location),
            ..
        } = operation.completion
        {
            let value = (&operation.op, operation.id, operation.invoked, at);
            places.insert(location, value);
        }
    }
    let order: Vec<_> = places.values().collect();
    for (position, (_, _, from, _)) in order.iter().enumerate() {
        if order[position..].iter().any(|(_, _, _, at)| at < from) {
            return false;
        }
    }
    let keys: std::collections::BTreeSet<_> = history
        .operations()
        .iter()
        .map(|operation| operation.op.key())
        .collect();
    keys.into_iter().all(|key| {
        let of_key = order.iter().filter(|(op, ..)| op.key() == key);
        let ranks = of_key.map(|(_, id, ..)| *id).zip(0..).collect();
        let mut pieces = pieces(history, &ranks);
        pieces.retain(|piece| piece.op.key() == key);
        explains(&World::new(), &pieces, 0)
    })
}

/// The same, where exactly the writes of a log took effect, in its order.
pub(crate) fn explained_by_log(history: &History, log: &[LoggedWrite]) -> bool {
    let mut ranks = BTreeMap::new();
    for entry in log {
        let rank = ranks.len();
        ranks.entry(entry.operation).or_insert(rank);
    }
    let mut pieces = pieces(history, &ranks);
    let is_write = |piece: &Piece<'_>| !matches!(piece.op, Op::Get { .. });
    if pieces
        .iter()
        .any(|piece| piece.end.is_some() && is_write(piece) && piece.rank.is_none())
    {
        return false;
    }
    pieces.retain(|piece| piece.end.is_some() || piece.rank.is_some());
    explains(&World::new(), &pieces, 0)
}
