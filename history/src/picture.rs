//! A picture of what a judge objects to: clients side by side, time from left to right, every
//! operation a bar with what was asked and answered, the order that was found as a line from bar to
//! bar, and the culprit in red. What is on it is chosen in `scene`.
//!
//! Time is not to scale: moments are drawn in their order, as far apart as the words need.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Expect, Op};
use crate::html::{escape, notes, page};
use crate::operation::{Completion, History, Operation};
use crate::scene::{Scene, Selection};

/// Operations that a picture shows; the others are counted.
pub const OPERATIONS_SHOWN_MAX: usize = 150;

/// Left of the first moment, for the names of the clients. Pixels, as all that follows.
const MARGIN: u64 = 90;
const TOP: u64 = 30;
const LANE_HEIGHT: u64 = 40;
const BAR_HEIGHT: u64 = 20;
const MOMENT_WIDTH_MIN: u64 = 18;
const BAR_WIDTH_MIN: u64 = 6;
const BAR_WIDTH_MAX: u64 = 260;
const CHARACTER_WIDTH: u64 = 7;
/// Between two marks of the time axis, so that they do not cover each other.
const MARK_WIDTH: u64 = 90;
/// Between two operations that follow each other in the order and have room for that.
const POINT_WIDTH: u64 = 16;
/// Below a bar, so that its words can be read.
const POINT_BELOW: u64 = 5;

const STYLE: &str = "
.grid { stroke: #eeeeee; }
.lane { stroke: #dddddd; }
.bar { fill: #cfe3f7; stroke: #5b8db8; }
.read .bar { fill: #dcedc8; stroke: #7ea35a; }
.unknown .bar { fill: #f2f2f2; stroke: #888888; stroke-dasharray: 4 3; }
.failed .bar { fill: #ffffff; stroke: #bbbbbb; stroke-dasharray: 1 2; }
.culprit .bar { fill: #f8b4ae; stroke: #c62828; stroke-width: 2.5; stroke-dasharray: none; }
.order { fill: none; stroke: #6a3fb5; stroke-opacity: 0.55; stroke-width: 1.5; }
.point { fill: #6a3fb5; }
.number { fill: #ffffff; text-anchor: middle; }
.axis { fill: #777777; }
tr.culprit td { background: #fdecea; }
";

/// Draws a scene of a history: one page of HTML. At most [`OPERATIONS_SHOWN_MAX`] operations.
#[must_use]
pub fn draw(history: &History, scene: &Scene) -> String {
    draw_at_most(history, scene, OPERATIONS_SHOWN_MAX)
}

/// As [`draw`], of at most `limit` operations.
#[must_use]
pub fn draw_at_most(history: &History, scene: &Scene, limit: usize) -> String {
    let selection = scene.select(history, limit);
    let numbers: BTreeMap<u64, usize> = scene.order.iter().copied().zip(1..).collect();
    let canvas = Canvas {
        scene,
        layout: Layout::new(&selection.shown, scene.keys.len() > 1),
        selection: &selection,
        numbers,
    };
    let mut body = format!("<p class=\"problem\">{}</p>\n", escape(&scene.problem));
    body.push_str(&notes(&remarks(history, scene, &selection)));
    body.push_str(&format!("<div class=\"scroll\">\n{}</div>\n", canvas.svg()));
    body.push_str(&canvas.table());
    page("A history that fails", STYLE, &body)
}

/// What a reader has to know of what is and is not on the picture.
fn remarks(history: &History, scene: &Scene, selection: &Selection<'_>) -> Vec<String> {
    let keys: Vec<String> = scene.keys.iter().map(ToString::to_string).collect();
    let left_out = &selection.left_out;
    let header = history.header();
    let mut remarks = vec![
        format!(
            "{} of {} operations on {}; {} further away in time are cut",
            selection.shown.len(),
            selection.of_keys,
            keys.join(", "),
            selection.cut
        ),
        format!(
            "left out: {} on other keys, {} that failed, {} reads without an answer",
            left_out.other_keys, left_out.failed, left_out.unanswered_reads
        ),
        format!("numbers: {}", scene.order_is),
        "dashed: nobody knows the outcome, so the operation stays open to the right".to_owned(),
        format!("times are from {}, and not to scale", selection.first),
    ];
    let facts = [
        ("seed", header.seed.map(|seed| seed.to_string())),
        ("commit", header.commit.clone()),
        ("config", header.config.clone()),
    ];
    let known = facts
        .into_iter()
        .filter_map(|(name, fact)| Some((name, fact?)));
    remarks.extend(known.map(|(name, fact)| format!("{name}: {fact}")));
    remarks
}

/// Where everything is.
struct Layout {
    /// Each moment.
    across: BTreeMap<u64, u64>,
    /// Each client.
    down: BTreeMap<u64, u64>,
    right: u64,
    with_keys: bool,
}

impl Layout {
    fn new(operations: &[&Operation], with_keys: bool) -> Self {
        let mut moments = BTreeSet::new();
        let mut ending: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
        for operation in operations {
            moments.insert(operation.invoked);
            if let Some(at) = operation.answered() {
                moments.insert(at);
                ending.entry(at).or_default().push(operation);
            }
        }
        let mut across: BTreeMap<u64, u64> = BTreeMap::new();
        let mut x = MARGIN;
        for moment in moments {
            for operation in ending.get(&moment).into_iter().flatten() {
                if let Some(began) = across.get(&operation.invoked) {
                    x = x.max(began + width(operation, with_keys));
                }
            }
            across.insert(moment, x);
            x += MOMENT_WIDTH_MIN;
        }
        let open = operations.iter().filter(|op| op.answered().is_none());
        let right = open.fold(x, |right, operation| {
            let began = across.get(&operation.invoked).copied().unwrap_or(MARGIN);
            right.max(began + width(operation, with_keys))
        });
        let clients: BTreeSet<u64> = operations
            .iter()
            .map(|operation| operation.client)
            .collect();
        let lanes = (0..).map(|lane| TOP + lane * LANE_HEIGHT);
        Self {
            across,
            down: clients.into_iter().zip(lanes).collect(),
            right: right + MOMENT_WIDTH_MIN,
            with_keys,
        }
    }

    /// Left edge, upper edge and width of a bar.
    fn bar(&self, operation: &Operation) -> (u64, u64, u64) {
        let left = self.across.get(&operation.invoked).copied();
        let left = left.unwrap_or(MARGIN);
        let answered = operation.answered().and_then(|at| self.across.get(&at));
        let end = match operation.completion {
            Completion::Ok { .. } => answered.copied().unwrap_or(left),
            Completion::Fail => left + width(operation, self.with_keys),
            Completion::Unknown => self.right,
        };
        let top = self.down.get(&operation.client).copied().unwrap_or(TOP);
        (left, top + 10, end.saturating_sub(left).max(BAR_WIDTH_MIN))
    }

    fn height(&self) -> u64 {
        TOP + self.down.len() as u64 * LANE_HEIGHT + 10
    }
}

fn width(operation: &Operation, with_keys: bool) -> u64 {
    let characters = words(operation, with_keys).chars().count() as u64;
    (characters * CHARACTER_WIDTH + 8).clamp(MOMENT_WIDTH_MIN, BAR_WIDTH_MAX)
}

/// What stands on a bar.
fn words(operation: &Operation, with_keys: bool) -> String {
    let asked = if with_keys {
        operation.op.to_string()
    } else {
        match &operation.op {
            Op::Put { value, .. } => format!("put {value}"),
            Op::Append { value, .. } => format!("append {value}"),
            Op::Delete { .. } => "delete".to_owned(),
            Op::Cas { expect, value, .. } => match expect {
                Expect::Absent => format!("cas absent to {value}"),
                Expect::Value(expected) => format!("cas {expected} to {value}"),
                Expect::Version(version) => format!("cas v{version} to {value}"),
            },
            Op::Get { .. } => "get".to_owned(),
        }
    };
    format!("{asked}: {}", outcome(operation))
}

fn outcome(operation: &Operation) -> String {
    match &operation.completion {
        Completion::Ok { reply, .. } => reply.to_string(),
        Completion::Fail => "failed".to_owned(),
        Completion::Unknown => "unknown".to_owned(),
    }
}

struct Canvas<'a> {
    scene: &'a Scene,
    selection: &'a Selection<'a>,
    layout: Layout,
    /// The number of an operation in the order.
    numbers: BTreeMap<u64, usize>,
}

impl Canvas<'_> {
    fn svg(&self) -> String {
        let (width, height) = (self.layout.right + 10, self.layout.height());
        let mut svg = format!(
            "<svg width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\">\n"
        );
        svg.push_str(&self.axis());
        svg.push_str(&self.lanes());
        for operation in &self.selection.shown {
            svg.push_str(&self.bar(operation));
        }
        svg.push_str(&self.order());
        svg.push_str("</svg>\n");
        svg
    }

    fn axis(&self) -> String {
        let (mut axis, bottom) = (String::new(), self.layout.height());
        let mut free_from = 0;
        for (moment, x) in &self.layout.across {
            axis.push_str(&format!(
                "<line class=\"grid\" x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\"/>\n"
            ));
            if *x >= free_from {
                let since = moment.saturating_sub(self.selection.first);
                axis.push_str(&format!(
                    "<text class=\"axis\" x=\"{x}\" y=\"16\">+{since}</text>\n"
                ));
                free_from = x + MARK_WIDTH;
            }
        }
        axis
    }

    fn lanes(&self) -> String {
        let (mut lanes, right) = (String::new(), self.layout.right);
        for (client, top) in &self.layout.down {
            let (line, text) = (top + LANE_HEIGHT, top + 25);
            lanes.push_str(&format!(
                "<line class=\"lane\" x1=\"0\" y1=\"{line}\" x2=\"{right}\" y2=\"{line}\"/>\n\
                 <text x=\"4\" y=\"{text}\">client {client}</text>\n"
            ));
        }
        lanes
    }

    fn bar(&self, operation: &Operation) -> String {
        let (x, y, width) = self.layout.bar(operation);
        let class = self.class(operation);
        let title = escape(&operation.to_string());
        let words = escape(&words(operation, self.layout.with_keys));
        // The inner picture cuts words that are longer than their bar.
        format!(
            "<g class=\"{class}\"><title>{title}</title>\
             <rect class=\"bar\" x=\"{x}\" y=\"{y}\" width=\"{width}\" \
             height=\"{BAR_HEIGHT}\" rx=\"3\"/>\
             <svg x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BAR_HEIGHT}\">\
             <text x=\"4\" y=\"14\">{words}</text></svg></g>\n"
        )
    }

    fn class(&self, operation: &Operation) -> String {
        let mut class = String::from("operation");
        if !operation.op.is_write() {
            class.push_str(" read");
        }
        match operation.completion {
            Completion::Ok { .. } => {}
            Completion::Fail => class.push_str(" failed"),
            Completion::Unknown => class.push_str(" unknown"),
        }
        if self.scene.culprits.contains(&operation.id) {
            class.push_str(" culprit");
        }
        class
    }

    /// The operations that have a number, in this order, each at a moment of its own bar.
    fn order(&self) -> String {
        let mut numbered: Vec<(usize, &Operation)> = self
            .selection
            .shown
            .iter()
            .filter_map(|operation| Some((*self.numbers.get(&operation.id)?, *operation)))
            .collect();
        numbered.sort_unstable_by_key(|(number, _)| *number);
        let (mut line, mut points) = (Vec::new(), String::new());
        let mut reached = 0;
        for (number, operation) in numbered {
            let (left, top, width) = self.layout.bar(operation);
            let x = left.max(reached + POINT_WIDTH).min(left + width);
            reached = reached.max(x);
            let y = top + BAR_HEIGHT + POINT_BELOW;
            let text = y + 4;
            line.push(format!("{x},{y}"));
            points.push_str(&format!(
                "<circle class=\"point\" cx=\"{x}\" cy=\"{y}\" r=\"8\"/>\
                 <text class=\"number\" x=\"{x}\" y=\"{text}\">{number}</text>\n"
            ));
        }
        let line = line.join(" ");
        format!("<polyline class=\"order\" points=\"{line}\"/>\n{points}")
    }

    /// The same in words, for searching and copying.
    fn table(&self) -> String {
        let mut table = String::from(
            "<table>\n<tr><th>order</th><th>op</th><th>client</th><th>from</th><th>to</th>\
             <th>asked</th><th>answered</th><th>in the log</th></tr>\n",
        );
        for operation in &self.selection.shown {
            let number = self.numbers.get(&operation.id).map(ToString::to_string);
            let answered = operation.answered().map(|at| at.to_string());
            let place = match operation.completion {
                Completion::Ok { location, .. } => location.map(|location| location.to_string()),
                Completion::Fail | Completion::Unknown => None,
            };
            let cells = [
                number.unwrap_or_default(),
                operation.id.to_string(),
                operation.client.to_string(),
                operation.invoked.to_string(),
                answered.unwrap_or_default(),
                operation.op.to_string(),
                outcome(operation),
                place.unwrap_or_default(),
            ];
            let cells = cells
                .map(|cell| format!("<td>{}</td>", escape(&cell)))
                .concat();
            let class = self.class(operation);
            table.push_str(&format!("<tr class=\"{class}\">{cells}</tr>\n"));
        }
        table.push_str("</table>\n");
        table
    }
}
