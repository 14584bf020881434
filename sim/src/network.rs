//! What becomes of a message: lost, late, twice, or held back, per directed link. Decides and
//! counts; the world delivers.

use raft_core::{Envelope, Message, NodeId};

use crate::options::NetworkOptions;
use crate::prng::Prng;
use crate::queue::Microseconds;

/// Ids are below this.
pub(crate) const IDS_MAX: usize = 16;

/// Messages of the past that are kept for replays, and as many acknowledgements.
const PAST_MESSAGES_MAX: usize = 256;

/// What a network does to messages on top of its options, as the course's labs know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabSwitches {
    /// Up to 26 ms late, and one of ten is lost, requests and replies alike.
    pub unreliable: bool,
    /// Two of three replies are 200 to 2,200 ms late.
    pub long_reordering: bool,
    /// Whoever talks to somebody unreachable hears so after up to 7 s instead of up to 100 ms.
    pub long_delays: bool,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives; the sender may hear of that at some time.
    Lost {
        /// When the sender hears of it.
        reported_at: Option<Microseconds>,
    },
    /// It arrives, perhaps twice.
    Arrives {
        /// When.
        at: Microseconds,
        /// When once more.
        again: Option<Microseconds>,
    },
}

/// Messages and bytes that were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages, delivered or not.
    pub messages: u64,
    /// Their bytes: entries, and a flat 64 for everything else of a message.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    is_cut: bool,
    clogged_until: Microseconds,
}

/// All links.
#[derive(Debug)]
pub struct Network {
    /// As options and switches say; a suite may change both at any time.
    pub options: NetworkOptions,
    /// See [`LabSwitches`].
    pub lab: LabSwitches,
    links: Vec<Link>,
    is_disconnected: [bool; IDS_MAX],
    sent_by: [Traffic; IDS_MAX],
    past: Vec<Envelope>,
    /// Acknowledgements of the past, of which a late one is the most dangerous.
    past_acks: Vec<Envelope>,
    keeps_past: bool,
    prng: Prng,
}

fn place(id: NodeId) -> usize {
    let place = usize::try_from(id.0).expect("ids are small");
    assert!(place < IDS_MAX, "node {id} is above the limit of {IDS_MAX}");
    place
}

fn is_reply(message: &Message) -> bool {
    match message {
        Message::PreVoteReply(_)
        | Message::VoteReply(_)
        | Message::AppendReply(_)
        | Message::RefillReply(_)
        | Message::HeartbeatReply(_)
        | Message::ReadIndexReply(_) => true,
        Message::PreVote(_)
        | Message::Vote(_)
        | Message::Append(_)
        | Message::Heartbeat(_)
        | Message::Snapshot(_)
        | Message::TimeoutNow
        | Message::ReadIndex(_) => false,
    }
}

impl Network {
    /// A network without cuts. `keeps_past` keeps old messages for replays.
    #[must_use]
    pub fn new(options: NetworkOptions, seed: u64, keeps_past: bool) -> Self {
        Self {
            options,
            lab: LabSwitches::default(),
            links: vec![Link::default(); IDS_MAX * IDS_MAX],
            is_disconnected: [false; IDS_MAX],
            sent_by: [Traffic::default(); IDS_MAX],
            past: Vec::new(),
            past_acks: Vec::new(),
            keeps_past,
            prng: Prng::new(seed, "network"),
        }
    }

    fn link(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        &mut self.links[place(from) * IDS_MAX + place(to)]
    }

    /// Cuts one direction of a link.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.link(from, to).is_cut = true;
    }

    /// Repairs one direction of a link.
    pub fn repair(&mut self, from: NodeId, to: NodeId) {
        self.link(from, to).is_cut = false;
    }

    /// Ends all cuts; disconnected nodes stay so.
    pub fn repair_all(&mut self) {
        self.links.iter_mut().for_each(|link| link.is_cut = false);
    }

    /// No more losses, repetitions, late messages and clogs.
    pub fn end_faults(&mut self) {
        self.lab = LabSwitches::default();
        self.options.loss = 0;
        self.options.duplicate = 0;
        self.options.late = 0;
        for link in &mut self.links {
            link.clogged_until = 0;
        }
    }

    /// Holds back whatever is sent over a link until this moment.
    pub fn clog(&mut self, from: NodeId, to: NodeId, until: Microseconds) {
        self.link(from, to).clogged_until = until;
    }

    /// Cuts a node off from everybody, in both directions.
    pub fn disconnect(&mut self, id: NodeId) {
        self.is_disconnected[place(id)] = true;
    }

    /// Ends [`Network::disconnect`].
    pub fn connect(&mut self, id: NodeId) {
        self.is_disconnected[place(id)] = false;
    }

    /// Whether a node is disconnected as a whole.
    #[must_use]
    pub fn is_connected(&self, id: NodeId) -> bool {
        !self.is_disconnected[place(id)]
    }

    /// Whether messages get through, if nothing else happens to them.
    #[must_use]
    pub fn passes(&self, from: NodeId, to: NodeId) -> bool {
        let is_cut = self.links[place(from) * IDS_MAX + place(to)].is_cut;
        !is_cut && self.is_connected(from) && self.is_connected(to)
    }

    /// What a node has sent so far.
    #[must_use]
    pub fn sent_by(&self, id: NodeId) -> Traffic {
        self.sent_by[place(id)]
    }

    /// What all nodes have sent so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let mut sum = Traffic::default();
        for sent in &self.sent_by {
            sum.messages += sent.messages;
            sum.bytes += sent.bytes;
        }
        sum
    }

    /// Decides about a message that is sent now.
    pub fn send(&mut self, now: Microseconds, envelope: &Envelope) -> Fate {
        let sent = &mut self.sent_by[place(envelope.from)];
        sent.messages += 1;
        sent.bytes += 64 + envelope.message.entry_bytes() as u64;
        self.remember(envelope);
        if !self.passes(envelope.from, envelope.to) {
            return self.unreachable(now);
        }
        let options = self.options;
        let lost = options.loss + if self.lab.unreliable { 100 } else { 0 };
        if self.prng.chance(lost) {
            return self.unreachable(now);
        }
        let mut at = now + self.delay(&envelope.message);
        let clogged_until = self.link(envelope.from, envelope.to).clogged_until;
        if clogged_until > now {
            // In order, all at once: the queue of whoever comes back from a stall.
            at = clogged_until;
        }
        let again = self
            .prng
            .chance(options.duplicate)
            .then(|| at + self.prng.between(0, options.delay_max * 3));
        Fate::Arrives { at, again }
    }

    /// A message that the world could not deliver.
    pub fn unreachable(&mut self, now: Microseconds) -> Fate {
        let latest = if self.lab.long_delays {
            7_000_000
        } else {
            100_000
        };
        let reported = self.prng.chance(self.options.reported);
        let reported_at = reported.then(|| now + self.prng.skewed(0, latest));
        Fate::Lost { reported_at }
    }

    fn delay(&mut self, message: &Message) -> Microseconds {
        let options = self.options;
        let mut delay = self.prng.between(options.delay_min, options.delay_max);
        if self.prng.chance(options.late) {
            delay += self.prng.between(0, options.late_max);
        }
        if self.lab.unreliable {
            delay += self.prng.between(0, 26_000);
        }
        if self.lab.long_reordering && is_reply(message) && self.prng.chance(667) {
            let longest = self.prng.between(1, 2_000);
            delay += 200_000 + self.prng.between(0, longest - 1) * 1_000;
        }
        delay
    }

    /// Some message from the past, to be delivered once more.
    pub fn replay(&mut self) -> Option<Envelope> {
        let count = self.past.len() as u64;
        let position = usize::try_from(self.prng.below(count)).expect("below a length");
        self.past.get(position).cloned()
    }

    /// An acknowledgement from the past to this node, to be delivered once more.
    pub(crate) fn replay_ack(&mut self, to: NodeId) -> Option<Envelope> {
        let acks = self.past_acks.iter().filter(|ack| ack.to == to);
        let acks: Vec<_> = acks.collect();
        let position = usize::try_from(self.prng.below(acks.len() as u64));
        acks.get(position.expect("below a length"))
            .copied()
            .cloned()
    }

    fn remember(&mut self, envelope: &Envelope) {
        if self.keeps_past {
            let past = match envelope.message {
                Message::AppendReply(_) | Message::RefillReply(_) => &mut self.past_acks,
                _ => &mut self.past,
            };
            keep_some(past, envelope, &mut self.prng);
        }
    }
}

/// Old ones stay for long, so that some are from terms long gone.
fn keep_some(past: &mut Vec<Envelope>, envelope: &Envelope, prng: &mut Prng) {
    if past.len() < PAST_MESSAGES_MAX {
        past.push(envelope.clone());
    } else if prng.chance(100) {
        let position = usize::try_from(prng.below(PAST_MESSAGES_MAX as u64));
        past[position.expect("below a length")] = envelope.clone();
    }
}

#[cfg(test)]
mod tests {
    use raft_core::message::Heartbeat;
    use raft_core::{ClusterId, GroupId, Incarnation, Index, Term};

    use super::*;

    fn envelope(from: u64, to: u64) -> Envelope {
        Envelope {
            cluster: ClusterId([7; 16]),
            group: GroupId(0),
            from: NodeId(from),
            from_incarnation: Incarnation(from),
            to: NodeId(to),
            to_incarnation: Incarnation(to),
            term: Term(1),
            message: Message::Heartbeat(Heartbeat {
                commit: Index(0),
                round: 0,
                is_last: false,
            }),
        }
    }

    fn network(loss: u64, duplicate: u64) -> Network {
        let options = NetworkOptions {
            delay_min: 10,
            delay_max: 20,
            loss,
            duplicate,
            late: 0,
            late_max: 0,
            reported: 1_000,
        };
        Network::new(options, 1, true)
    }

    fn arrives(network: &mut Network, from: u64, to: u64) -> bool {
        matches!(network.send(0, &envelope(from, to)), Fate::Arrives { .. })
    }

    #[test]
    fn a_cut_is_of_one_direction_and_ends() {
        let mut network = network(0, 0);
        network.cut(NodeId(1), NodeId(2));
        assert!(!arrives(&mut network, 1, 2));
        assert!(arrives(&mut network, 2, 1) && arrives(&mut network, 1, 3));
        network.repair(NodeId(1), NodeId(2));
        assert!(arrives(&mut network, 1, 2));
        network.disconnect(NodeId(2));
        assert!(!arrives(&mut network, 1, 2) && !arrives(&mut network, 2, 1));
        network.connect(NodeId(2));
        assert!(arrives(&mut network, 1, 2));
        assert_eq!(network.sent_by(NodeId(1)).messages, 5);
        assert_eq!(network.traffic().bytes, 64 * 7);
    }

    #[test]
    fn loss_and_repetition_are_as_frequent_as_the_options_say() {
        let mut network = network(100, 200);
        let (mut lost, mut twice) = (0, 0);
        for _ in 0..10_000 {
            match network.send(0, &envelope(1, 2)) {
                Fate::Lost { reported_at } => {
                    assert!(reported_at.is_some());
                    lost += 1;
                }
                Fate::Arrives { at, again } => {
                    assert!((10..=20).contains(&at));
                    twice += u64::from(again.is_some());
                }
            }
        }
        assert!((900..1_100).contains(&lost), "{lost} lost");
        assert!((1_600..2_000).contains(&twice), "{twice} came twice");
    }

    #[test]
    fn a_clogged_link_lets_everything_go_at_once() {
        let mut network = network(0, 0);
        network.clog(NodeId(1), NodeId(2), 1_000);
        let fate = network.send(500, &envelope(1, 2));
        let expected = Fate::Arrives {
            at: 1_000,
            again: None,
        };
        assert_eq!(fate, expected);
        assert!(
            matches!(network.send(1_000, &envelope(1, 2)), Fate::Arrives { at, .. } if at > 1_000)
        );
        assert!(network.replay().is_some());
    }

    #[test]
    fn the_switches_of_the_labs_do_what_they_say() {
        let mut network = network(0, 0);
        network.lab.unreliable = true;
        let fates: Vec<_> = (0..10_000)
            .map(|_| network.send(0, &envelope(1, 2)))
            .collect();
        let lost = fates
            .iter()
            .filter(|f| matches!(f, Fate::Lost { .. }))
            .count();
        assert!((900..1_100).contains(&lost), "{lost} lost");
        let longest = fates.iter().filter_map(|fate| match fate {
            Fate::Arrives { at, .. } => Some(*at),
            Fate::Lost { .. } => None,
        });
        assert!((25_000..=26_020).contains(&longest.max().expect("some arrive")));
    }
}
