//! The space-time diagram: nodes side by side, time downwards, messages as arrows from one node to
//! another, and what became of the nodes on their lines. What it shows is in `spacetime`.
//!
//! Time is not to scale: moments are drawn in their order, and long pauses only a little longer
//! than short ones.

use std::collections::BTreeMap;

use crate::html::{escape, notes, page};
use crate::spacetime::{Condition, Fate, Role, SpaceTime, SpaceTimeEvent, Standing};

/// Left of the first node, for the times. Pixels, as all that follows.
const MARGIN: u64 = 110;
const TOP: u64 = 40;
const NODE_WIDTH: u64 = 210;
/// Half of the line of a node.
const HALF_LINE: u64 = 5;
const MOMENT_HEIGHT: u64 = 15;
const TEXT_HEIGHT: u64 = 13;
/// From the label of a message to the next node.
const LABEL_ASIDE: u64 = 16;
/// Between two marks of the time axis.
const MARK_HEIGHT: u64 = 14;

const STYLE: &str = "
.time { fill: #777777; text-anchor: end; }
.node { font-weight: bold; text-anchor: middle; }
.grid { stroke: #f3f3f3; }
.follower { fill: #b0bec5; }
.candidate { fill: #ffb74d; }
.leader { fill: #43a047; }
.learner { fill: #ce93d8; }
.paused { fill: #fff59d; stroke: #9e9d24; stroke-dasharray: 3 2; }
.crashed { fill: #ffffff; stroke: #c62828; stroke-dasharray: 2 3; }
.message { stroke: #4a78a8; stroke-width: 1.2; }
.lost { stroke: #c62828; stroke-dasharray: 5 3; }
.underway { stroke: #777777; stroke-dasharray: 1 3; }
.cross { stroke: #c62828; stroke-width: 2; }
.head { fill: #4a78a8; }
.label { fill: #33506d; text-anchor: end; paint-order: stroke; stroke: #ffffff;
  stroke-width: 3; }
.event { fill: #1a1a1a; paint-order: stroke; stroke: #ffffff; stroke-width: 3; }
.violation { fill: #c62828; font-weight: bold; }
.everywhere { stroke: #bbbbbb; stroke-dasharray: 6 4; }
.wrong { stroke: #c62828; stroke-width: 1.5; }
";

impl SpaceTime {
    /// Draws: one page of HTML that needs nothing else. `title` and `problem` are text.
    #[must_use]
    pub fn draw(&self, title: &str, problem: &str) -> String {
        let events = self.by_end();
        let remarks = [
            format!("the last {} events; {} are cut", events.len(), self.cut()),
            "times are microseconds, downwards, and not to scale".to_owned(),
            "dashed and crossed: a message that was lost; dotted: one still on its way".to_owned(),
            "green: leader; orange: candidate; grey: follower; violet: learner; yellow: paused; \
             a red outline: crashed"
                .to_owned(),
        ];
        let diagram = Diagram::new(&events, self.before()).svg();
        let body = format!(
            "<p class=\"problem\">{}</p>\n{}<div class=\"scroll\">\n{diagram}</div>\n",
            escape(problem),
            notes(&remarks)
        );
        page(title, STYLE, &body)
    }
}

struct Diagram<'a> {
    events: &'a [&'a SpaceTimeEvent],
    before: &'a BTreeMap<u64, Standing>,
    across: BTreeMap<u64, u64>,
    /// The moments that are shown; what began before them begins at the top.
    down: BTreeMap<u64, u64>,
    bottom: u64,
    /// How many lines of text stand at a moment on a line, so that the next goes below.
    written: BTreeMap<(Option<u64>, u64), u64>,
}

impl<'a> Diagram<'a> {
    fn new(events: &'a [&'a SpaceTimeEvent], before: &'a BTreeMap<u64, Standing>) -> Self {
        let start = events.first().map_or(0, |event| event.ended());
        let mut texts: BTreeMap<u64, BTreeMap<Option<u64>, u64>> = BTreeMap::new();
        for event in events {
            if event.began() >= start {
                texts.entry(event.began()).or_default();
            }
            let at_moment = texts.entry(event.ended()).or_default();
            if let Some(line) = line_of(event) {
                *at_moment.entry(line).or_default() += 1;
            }
        }
        let (mut down, mut y) = (BTreeMap::new(), TOP + 10);
        let mut previous = start;
        for (moment, lines) in texts {
            // A pause of 1 ms adds 10 pixels, one of 1 s twice as many.
            let pause = u64::from((moment - previous).saturating_add(1).ilog2());
            y += pause;
            down.insert(moment, y);
            y += MOMENT_HEIGHT.max(lines.values().max().unwrap_or(&0) * TEXT_HEIGHT);
            previous = moment;
        }
        let columns = (0..).map(|column| MARGIN + NODE_WIDTH / 2 + column * NODE_WIDTH);
        Self {
            events,
            before,
            across: before.keys().copied().zip(columns).collect(),
            down,
            bottom: y + 20,
            written: BTreeMap::new(),
        }
    }

    fn svg(mut self) -> String {
        let width = MARGIN + self.across.len() as u64 * NODE_WIDTH;
        let height = self.bottom + 10;
        let mut svg = format!(
            "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
             <defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" \
             markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
             <path class=\"head\" d=\"M0,0 L8,4 L0,8 z\"/></marker></defs>\n"
        );
        svg.push_str(&self.times(width));
        svg.push_str(&self.lines());
        for event in self.events {
            if let SpaceTimeEvent::Message { .. } = event {
                svg.push_str(&self.message(event));
            }
        }
        for event in self.events {
            svg.push_str(&self.text(event, width));
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn times(&self, width: u64) -> String {
        let mut times = String::new();
        let mut free_from = 0;
        for (moment, y) in &self.down {
            times.push_str(&format!(
                "<line class=\"grid\" x1=\"{MARGIN}\" y1=\"{y}\" x2=\"{width}\" y2=\"{y}\"/>\n"
            ));
            if *y >= free_from {
                let (x, base) = (MARGIN - 10, y + 4);
                times.push_str(&format!(
                    "<text class=\"time\" x=\"{x}\" y=\"{base}\">{moment}</text>\n"
                ));
                free_from = y + MARK_HEIGHT;
            }
        }
        times
    }

    /// The lines of the nodes, in the colours of what they are.
    fn lines(&self) -> String {
        let mut lines = String::new();
        for (node, x) in &self.across {
            lines.push_str(&format!(
                "<text class=\"node\" x=\"{x}\" y=\"20\">node {node}</text>\n"
            ));
            let mut standing = self.before.get(node).copied().unwrap_or_default();
            let mut from = TOP;
            for event in self.events {
                let before = standing;
                if event.changes() == Some(*node) && standing.take(event) {
                    let to = self.y(event.ended());
                    lines.push_str(&segment(*x, from, to, before));
                    from = to;
                }
            }
            lines.push_str(&segment(*x, from, self.bottom, standing));
        }
        lines
    }

    fn message(&self, event: &SpaceTimeEvent) -> String {
        let SpaceTimeEvent::Message {
            from,
            to,
            sent,
            fate,
            label,
        } = event
        else {
            return String::new();
        };
        let (Some(from_x), Some(to_x)) = (self.across.get(from), self.across.get(to)) else {
            return String::new();
        };
        let (from_x, to_x) = edges(*from_x, *to_x);
        let (from_y, to_y) = (self.y(*sent), self.y(event.ended()));
        let (class, end, share) = match fate {
            Fate::Delivered(_) => ("message", " marker-end=\"url(#head)\"", 100),
            Fate::Lost(_) => ("message lost", "", 60),
            Fate::Underway => ("message underway", "", 40),
        };
        let (end_x, end_y) = (part(from_x, to_x, share), part(from_y, to_y, share));
        let label_x = beside(from_x, to_x);
        let label_y = on_the_way(label_x, (from_x, from_y), (to_x, to_y)).saturating_sub(3);
        let label = escape(label);
        let mut arrow = format!(
            "<g><title>{from} to {to}, sent at {sent}, {}: {label}</title>\
             <line class=\"{class}\" x1=\"{from_x}\" y1=\"{from_y}\" x2=\"{end_x}\" \
             y2=\"{end_y}\"{end}/>",
            fate.words()
        );
        if let Fate::Lost(_) = fate {
            let (left, right) = (end_x - 4, end_x + 4);
            let (upper, lower) = (end_y - 4, end_y + 4);
            arrow.push_str(&format!(
                "<path class=\"cross\" d=\"M{left},{upper} L{right},{lower} \
                 M{left},{lower} L{right},{upper}\"/>"
            ));
        }
        arrow.push_str(&format!(
            "<text class=\"label\" x=\"{label_x}\" y=\"{label_y}\">{label}</text></g>\n"
        ));
        arrow
    }

    /// What is said beside a line, or across all of them.
    fn text(&mut self, event: &SpaceTimeEvent, width: u64) -> String {
        let Some(node) = line_of(event) else {
            return String::new();
        };
        let (class, words) = match event {
            SpaceTimeEvent::Message { .. } => return String::new(),
            SpaceTimeEvent::Node { condition, .. } => ("event", condition.to_string()),
            SpaceTimeEvent::Role { role, term, .. } => ("event", format!("{role} of term {term}")),
            SpaceTimeEvent::Note { label, .. } => ("event", escape(label)),
            SpaceTimeEvent::Violation { label, .. } => ("event violation", escape(label)),
        };
        let at = self.y(event.ended());
        let above = self.written.entry((node, event.ended())).or_default();
        let column = node.and_then(|node| self.across.get(&node));
        // Beside the line of a node, but above the one that goes across all of them.
        let lowered = if column.is_some() { 7 } else { 0 };
        let base = at + *above * TEXT_HEIGHT + lowered - 3;
        *above += 1;
        let x = column.map_or(MARGIN, |column| column + HALF_LINE + 3);
        let mut text = String::new();
        if column.is_none() {
            let wrong = matches!(event, SpaceTimeEvent::Violation { .. });
            let line = if wrong { "wrong" } else { "everywhere" };
            text.push_str(&format!(
                "<line class=\"{line}\" x1=\"{MARGIN}\" y1=\"{at}\" x2=\"{width}\" y2=\"{at}\"/>"
            ));
        }
        text.push_str(&format!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{base}\">{words}</text>\n"
        ));
        text
    }

    fn y(&self, moment: u64) -> u64 {
        self.down.get(&moment).copied().unwrap_or(TOP)
    }
}

impl SpaceTimeEvent {
    /// The node that it makes something else of.
    fn changes(&self) -> Option<u64> {
        match self {
            Self::Node { node, .. } | Self::Role { node, .. } => Some(*node),
            Self::Message { .. } | Self::Note { .. } | Self::Violation { .. } => None,
        }
    }
}

impl Fate {
    fn words(self) -> String {
        match self {
            Self::Delivered(at) => format!("delivered at {at}"),
            Self::Lost(at) => format!("lost at {at}"),
            Self::Underway => "still on its way".to_owned(),
        }
    }
}

impl Standing {
    fn class(self) -> &'static str {
        match (self.condition, self.role) {
            (Condition::Crashed, _) => "crashed",
            (Condition::Paused, _) => "paused",
            (Condition::Running, Some((Role::Leader, _))) => "leader",
            (Condition::Running, Some((Role::Candidate, _))) => "candidate",
            (Condition::Running, Some((Role::Learner, _))) => "learner",
            (Condition::Running, Some((Role::Follower, _)) | None) => "follower",
        }
    }
}

/// The line beside which an event is said: that of a node, or all of them; none for a message.
fn line_of(event: &SpaceTimeEvent) -> Option<Option<u64>> {
    match event {
        SpaceTimeEvent::Message { .. } => None,
        SpaceTimeEvent::Node { node, .. } | SpaceTimeEvent::Role { node, .. } => Some(Some(*node)),
        SpaceTimeEvent::Note { node, .. } | SpaceTimeEvent::Violation { node, .. } => Some(*node),
    }
}

fn segment(x: u64, from: u64, to: u64, standing: Standing) -> String {
    let (left, width, height) = (x - HALF_LINE, 2 * HALF_LINE, to.saturating_sub(from));
    let role = standing
        .role
        .map(|(role, term)| format!(", {role} of term {term}"));
    let (condition, role) = (standing.condition, role.unwrap_or_default());
    format!(
        "<rect class=\"{}\" x=\"{left}\" y=\"{from}\" width=\"{width}\" height=\"{height}\">\
         <title>{condition}{role}</title></rect>\n",
        standing.class()
    )
}

/// Where an arrow from one line to another begins and ends. One to itself goes a little aside.
fn edges(from: u64, to: u64) -> (u64, u64) {
    match from.cmp(&to) {
        std::cmp::Ordering::Less => (from + HALF_LINE, to - HALF_LINE),
        std::cmp::Ordering::Greater => (from - HALF_LINE, to + HALF_LINE),
        std::cmp::Ordering::Equal => (from + HALF_LINE, to + HALF_LINE + 30),
    }
}

/// Where the label of a message stands: at the right end of the gap to which it goes, because what
/// is said of a node stands at the left end of the gap beside it.
fn beside(from: u64, to: u64) -> u64 {
    if from < to {
        to.saturating_sub(LABEL_ASIDE)
    } else {
        to + NODE_WIDTH - LABEL_ASIDE
    }
}

/// How far down a message is where it is so far across.
fn on_the_way(x: u64, (from_x, from_y): (u64, u64), (to_x, to_y): (u64, u64)) -> u64 {
    let way = from_x.abs_diff(to_x).max(1);
    part(from_y, to_y, (from_x.abs_diff(x) * 100 / way).min(100))
}

/// The point at so many hundredths of the way.
fn part(from: u64, to: u64, share: u64) -> u64 {
    (from * (100 - share) + to * share) / 100
}
