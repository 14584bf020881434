//! What the nodes of a run did to each other, for a space-time diagram of its end: messages,
//! crashes and pauses, roles. It knows nothing of any protocol but that nodes have roles in terms.
//! How it is drawn is in `diagram`.
//!
//! Only the last events are kept, so that a long run can be fed in as it goes.
//!
//! ```
//! use history::{Fate, Role, SpaceTime, SpaceTimeEvent};
//!
//! let mut run = SpaceTime::new(400);
//! run.push(SpaceTimeEvent::Role { node: 1, at: 150_000, role: Role::Candidate, term: 2 });
//! let (from, to, sent, label) = (1, 2, 150_000, "vote?".to_owned());
//! run.push(SpaceTimeEvent::Message { from, to, sent, fate: Fate::Delivered(151_200), label });
//! let page = run.draw("seed 7", "INV-3: two leaders in term 2");
//! assert!(page.contains("candidate of term 2"));
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// Events that a diagram may keep.
pub const EVENTS_MAX: usize = 5_000;

/// Nodes that a diagram may have; what happens to others is counted only.
pub const NODES_MAX: usize = 32;

/// Characters of a label that are kept.
pub const LABEL_CHARACTERS_MAX: usize = 60;

/// Something that happened. Nodes are numbers, times are microseconds of one clock. Events are fed
/// in as they end: a message when its fate is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpaceTimeEvent {
    /// A message.
    Message {
        /// Who sent it.
        from: u64,
        /// To whom.
        to: u64,
        /// When.
        sent: u64,
        /// What became of it.
        fate: Fate,
        /// What it says, in a word or two.
        label: String,
    },
    /// A node stops, goes on, or comes back.
    Node {
        /// Which.
        node: u64,
        /// When.
        at: u64,
        /// What it is from then on.
        condition: Condition,
    },
    /// A node takes a role.
    Role {
        /// Which.
        node: u64,
        /// When.
        at: u64,
        /// The role.
        role: Role,
        /// In this term.
        term: u64,
    },
    /// Something worth saying.
    Note {
        /// Of this node, or of all of them.
        node: Option<u64>,
        /// When.
        at: u64,
        /// What.
        label: String,
    },
    /// What the run failed of.
    Violation {
        /// At this node, or at none in particular.
        node: Option<u64>,
        /// When.
        at: u64,
        /// What is wrong.
        label: String,
    },
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was handled at this time.
    Delivered(u64),
    /// It was lost; this is when: the time of sending, or that of an arrival where nobody was.
    Lost(u64),
    /// It was still on its way when the run ended.
    Underway,
}

/// Whether a node runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// It does. After a crash it has no role until one is told.
    #[default]
    Running,
    /// It does not, but has lost nothing.
    Paused,
    /// It is gone, with what it had not made durable.
    Crashed,
}

/// What a node is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It follows.
    Follower,
    /// It asks whether it may lead.
    Candidate,
    /// It leads.
    Leader,
    /// It follows without a vote.
    Learner,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Learner => "learner",
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Crashed => "crashed",
        })
    }
}

impl SpaceTimeEvent {
    /// When it was over.
    pub(crate) fn ended(&self) -> u64 {
        match self {
            Self::Message { sent, fate, .. } => match fate {
                Fate::Delivered(at) | Fate::Lost(at) => *at.max(sent),
                Fate::Underway => *sent,
            },
            Self::Node { at, .. }
            | Self::Role { at, .. }
            | Self::Note { at, .. }
            | Self::Violation { at, .. } => *at,
        }
    }

    /// When it began.
    pub(crate) fn began(&self) -> u64 {
        match self {
            Self::Message { sent, .. } => *sent,
            other => other.ended(),
        }
    }

    fn nodes(&self) -> impl Iterator<Item = u64> {
        let nodes = match self {
            Self::Message { from, to, .. } => [Some(*from), Some(*to)],
            Self::Node { node, .. } | Self::Role { node, .. } => [Some(*node), None],
            Self::Note { node, .. } | Self::Violation { node, .. } => [*node, None],
        };
        nodes.into_iter().flatten()
    }

    fn shorten(&mut self) {
        if let Self::Message { label, .. }
        | Self::Note { label, .. }
        | Self::Violation { label, .. } = self
            && let Some((end, _)) = label.char_indices().nth(LABEL_CHARACTERS_MAX)
        {
            label.truncate(end);
            label.push_str("...");
        }
    }
}

/// What a node is at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) condition: Condition,
    pub(crate) role: Option<(Role, u64)>,
}

impl Standing {
    /// Whether the event changed it.
    pub(crate) fn take(&mut self, event: &SpaceTimeEvent) -> bool {
        let before = *self;
        match event {
            SpaceTimeEvent::Node { condition, .. } => {
                if *condition == Condition::Crashed {
                    self.role = None;
                }
                self.condition = *condition;
            }
            SpaceTimeEvent::Role { role, term, .. } => self.role = Some((*role, *term)),
            SpaceTimeEvent::Message { .. }
            | SpaceTimeEvent::Note { .. }
            | SpaceTimeEvent::Violation { .. } => {}
        }
        *self != before
    }
}

/// The last events of a run.
#[derive(Clone, Debug)]
pub struct SpaceTime {
    limit: usize,
    events: VecDeque<SpaceTimeEvent>,
    cut: u64,
    /// What the nodes were before the first event that is kept.
    before: BTreeMap<u64, Standing>,
}

impl Default for SpaceTime {
    /// Of 400 events: some screens.
    fn default() -> Self {
        Self::new(400)
    }
}

impl SpaceTime {
    /// Keeps the last `limit` events, at least 1 and at most [`EVENTS_MAX`].
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.clamp(1, EVENTS_MAX),
            events: VecDeque::new(),
            cut: 0,
            before: BTreeMap::new(),
        }
    }

    /// Something happened. What happens to more than [`NODES_MAX`] nodes is only counted.
    pub fn push(&mut self, mut event: SpaceTimeEvent) {
        let strangers = event.nodes().filter(|node| !self.before.contains_key(node));
        let strangers: BTreeSet<u64> = strangers.collect();
        if self.before.len() + strangers.len() > NODES_MAX {
            self.cut += 1;
            return;
        }
        for node in strangers {
            self.before.insert(node, Standing::default());
        }
        event.shorten();
        self.events.push_back(event);
        if self.events.len() > self.limit
            && let Some(old) = self.events.pop_front()
        {
            for node in old.nodes() {
                self.before.entry(node).or_default().take(&old);
            }
            self.cut += 1;
        }
    }

    /// How many events are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// How many events are not kept.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// The events that are kept, in the order of their ends.
    pub(crate) fn by_end(&self) -> Vec<&SpaceTimeEvent> {
        let mut events: Vec<&SpaceTimeEvent> = self.events.iter().collect();
        // Stable, so what happened at one moment stays in the order in which it was told.
        events.sort_by_key(|event| event.ended());
        events
    }

    /// What every node was before the first of them.
    pub(crate) fn before(&self) -> &BTreeMap<u64, Standing> {
        &self.before
    }
}

impl Extend<SpaceTimeEvent> for SpaceTime {
    fn extend<I: IntoIterator<Item = SpaceTimeEvent>>(&mut self, events: I) {
        for event in events {
            self.push(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(node: u64, at: u64, role: Role, term: u64) -> SpaceTimeEvent {
        SpaceTimeEvent::Role {
            node,
            at,
            role,
            term,
        }
    }

    fn note(at: u64) -> SpaceTimeEvent {
        let label = "x".repeat(500);
        SpaceTimeEvent::Note {
            node: None,
            at,
            label,
        }
    }

    #[test]
    fn only_the_last_events_are_kept_and_what_nodes_were_before_is_known() {
        let mut run = SpaceTime::new(3);
        run.push(role(1, 5, Role::Leader, 7));
        run.push(SpaceTimeEvent::Node {
            node: 2,
            at: 6,
            condition: Condition::Paused,
        });
        run.extend((10..13).map(note));
        assert_eq!((run.len(), run.cut()), (3, 2));
        assert_eq!(run.before()[&1].role, Some((Role::Leader, 7)));
        assert_eq!(run.before()[&2].condition, Condition::Paused);
    }

    #[test]
    fn a_crash_takes_the_role() {
        let mut standing = Standing::default();
        assert!(standing.take(&role(1, 5, Role::Leader, 7)));
        assert!(!standing.take(&role(1, 6, Role::Leader, 7)));
        for condition in [Condition::Paused, Condition::Running] {
            let (node, at) = (1, 7);
            assert!(standing.take(&SpaceTimeEvent::Node {
                node,
                at,
                condition
            }));
            assert_eq!(standing.role, Some((Role::Leader, 7)));
        }
        let (node, at, condition) = (1, 8, Condition::Crashed);
        assert!(standing.take(&SpaceTimeEvent::Node {
            node,
            at,
            condition
        }));
        assert_eq!(standing.role, None);
    }

    #[test]
    fn labels_nodes_and_events_are_bounded() {
        let mut run = SpaceTime::new(usize::MAX);
        run.extend((0..EVENTS_MAX as u64 + 10).map(note));
        assert_eq!((run.len(), run.cut()), (EVENTS_MAX, 10));
        for event in run.by_end() {
            let SpaceTimeEvent::Note { label, .. } = event else {
                panic!("{event:?}");
            };
            assert_eq!(label.len(), LABEL_CHARACTERS_MAX + 3);
        }
        let mut run = SpaceTime::default();
        run.extend((0..NODES_MAX as u64 + 5).map(|node| role(node, 1, Role::Follower, 1)));
        assert_eq!((run.len(), run.cut()), (NODES_MAX, 5));
    }
}
