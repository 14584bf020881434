//! A history: events, checked and joined to operations. Reading and writing it as NDJSON is here
//! too; whether it is a good one is judged in `witness` and `linearizability`.

use std::collections::BTreeMap;
use std::fmt;

use crate::event::{Event, EventKind, Header, Op, Reply, SCHEMA};

/// Events that make sense together, and the operations that they describe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    header: Header,
    events: Vec<Event>,
    operations: Vec<Operation>,
}

/// One operation from its invocation to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its number.
    pub id: u64,
    /// The logical client.
    pub client: u64,
    /// What was asked.
    pub op: Op,
    /// When it began.
    pub invoked: u64,
    /// How it ended.
    pub completion: Completion,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// It took effect.
    Ok {
        /// When the answer was there.
        at: u64,
        /// The answer.
        reply: Reply,
        /// Where in the log, where that was told.
        location: Option<Location>,
    },
    /// It certainly took no effect.
    Fail,
    /// Nobody knows: `info`, or no completion at all.
    Unknown,
}

/// A place in the replicated log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The index of the entry.
    pub index: u64,
    /// The term of the entry.
    pub term: u64,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl Operation {
    /// When it was answered, where it was.
    #[must_use]
    pub fn answered(&self) -> Option<u64> {
        match self.completion {
            Completion::Ok { at, .. } => Some(at),
            Completion::Fail | Completion::Unknown => None,
        }
    }

    /// The answer, where there is one.
    #[must_use]
    pub fn reply(&self) -> Option<&Reply> {
        match &self.completion {
            Completion::Ok { reply, .. } => Some(reply),
            Completion::Fail | Completion::Unknown => None,
        }
    }

    /// Whether it ended before `other` began, so that everybody must see it first.
    #[must_use]
    pub fn precedes(&self, other: &Self) -> bool {
        self.answered().is_some_and(|at| at < other.invoked)
    }
}

/// One line: `op 7 (client 2, t 10..15): get "k" -> "x" v3`.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, client, from) = (self.id, self.client, self.invoked);
        write!(f, "op {id} (client {client}, t {from}..")?;
        match &self.completion {
            Completion::Ok {
                at,
                reply,
                location,
            } => {
                write!(f, "{at}): {} -> {reply}", self.op)?;
                location.map_or(Ok(()), |location| write!(f, " at {location}"))
            }
            Completion::Fail => write!(f, "): {} -> failed", self.op),
            Completion::Unknown => write!(f, "): {} -> unknown", self.op),
        }
    }
}

/// Events that are not a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// No first line.
    #[error("line 1: no header")]
    NoHeader,
    /// A line is not what it should be.
    #[error("line {line}: {what}")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// Written by another version.
    #[error("line 1: schema {0}, this program reads schema {SCHEMA}")]
    Schema(u32),
    /// An event does not fit what came before it.
    #[error("line {line}: {kind:?} of op {id}: {what}")]
    Misplaced {
        /// The line, from 1; the header is the first.
        line: usize,
        /// The event.
        kind: EventKind,
        /// Its operation.
        id: u64,
        /// What does not fit.
        what: String,
    },
}

impl History {
    /// Checks events and joins them.
    ///
    /// # Errors
    /// When they contradict each other. The first event counts as line 2.
    pub fn new(header: Header, events: Vec<Event>) -> Result<Self, HistoryError> {
        if header.schema != SCHEMA {
            return Err(HistoryError::Schema(header.schema));
        }
        let mut joiner = Joiner::default();
        for (position, event) in events.iter().enumerate() {
            joiner.take(event).map_err(|what| HistoryError::Misplaced {
                line: position + 2,
                kind: event.kind,
                id: event.id,
                what,
            })?;
        }
        Ok(Self {
            header,
            events,
            operations: joiner.operations,
        })
    }

    /// Reads NDJSON: a header, then one event per line. Empty lines are skipped.
    ///
    /// # Errors
    /// Names the first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, HistoryError> {
        let mut lines = (1..)
            .zip(text.lines())
            .filter(|(_, line)| !line.trim().is_empty());
        let (line, first) = lines.next().ok_or(HistoryError::NoHeader)?;
        let header: Header = parse_line(line, first)?;
        let mut events = Vec::new();
        let mut event_lines = Vec::new();
        for (line, text) in lines {
            events.push(parse_line(line, text)?);
            event_lines.push(line);
        }
        Self::new(header, events).map_err(|error| match error {
            HistoryError::Misplaced {
                line,
                kind,
                id,
                what,
            } => HistoryError::Misplaced {
                line: event_lines.get(line - 2).copied().unwrap_or(line),
                kind,
                id,
                what,
            },
            other => other,
        })
    }

    /// Writes NDJSON.
    #[must_use]
    pub fn to_ndjson(&self) -> String {
        let mut text = json(&self.header);
        for event in &self.events {
            text.push_str(&json(event));
        }
        text
    }

    /// What was run.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What happened, in the order in which it was written down.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The operations, in the order of their invocations' lines.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

fn parse_line<T: serde::de::DeserializeOwned>(line: usize, text: &str) -> Result<T, HistoryError> {
    serde_json::from_str(text).map_err(|error| HistoryError::Malformed {
        line,
        what: error.to_string(),
    })
}

fn json<T: serde::Serialize>(value: &T) -> String {
    let mut line = serde_json::to_string(value).expect("plain data with string keys encodes");
    line.push('\n');
    line
}

#[derive(Default)]
struct Joiner {
    operations: Vec<Operation>,
    by_id: BTreeMap<u64, Progress>,
    /// The last operation of each client.
    last_of_client: BTreeMap<u64, u64>,
}

struct Progress {
    position: usize,
    ended: Option<EventKind>,
}

impl Joiner {
    fn take(&mut self, event: &Event) -> Result<(), String> {
        match event.kind {
            EventKind::Invoke => self.invoke(event),
            EventKind::Ok | EventKind::Fail | EventKind::Info => self.complete(event),
        }
    }

    fn invoke(&mut self, event: &Event) -> Result<(), String> {
        let op = event.op.clone().ok_or("it has no op")?;
        if event.res.is_some() || event.term.is_some() || event.index.is_some() {
            return Err("it already has an answer".to_owned());
        }
        if self.by_id.contains_key(&event.id) {
            return Err("its number was used before".to_owned());
        }
        if let Some(last) = self.last_of_client.get(&event.client) {
            match self.by_id.get(last).and_then(|progress| progress.ended) {
                None => return Err(format!("client {} still waits for op {last}", event.client)),
                Some(EventKind::Info) => {
                    let client = event.client;
                    return Err(format!(
                        "client {client} was retired by the info of op {last}"
                    ));
                }
                Some(_) => {}
            }
        }
        let position = self.operations.len();
        self.operations.push(Operation {
            id: event.id,
            client: event.client,
            op,
            invoked: event.t,
            completion: Completion::Unknown,
        });
        let ended = None;
        self.by_id.insert(event.id, Progress { position, ended });
        self.last_of_client.insert(event.client, event.id);
        Ok(())
    }

    fn complete(&mut self, event: &Event) -> Result<(), String> {
        let progress = self
            .by_id
            .get_mut(&event.id)
            .ok_or("it was never invoked")?;
        let operation = &mut self.operations[progress.position];
        if let Some(kind) = progress.ended {
            return Err(format!("it ended before, with {kind:?}"));
        }
        if operation.client != event.client {
            return Err(format!("it belongs to client {}", operation.client));
        }
        if event.t < operation.invoked {
            return Err(format!(
                "it ends at {} and began at {}",
                event.t, operation.invoked
            ));
        }
        if event.op.is_some() {
            return Err("only an invoke has an op".to_owned());
        }
        operation.completion = completion(event, &operation.op)?;
        progress.ended = Some(event.kind);
        Ok(())
    }
}

fn completion(event: &Event, op: &Op) -> Result<Completion, String> {
    if event.kind != EventKind::Ok {
        return match (&event.res, event.kind) {
            (Some(_), _) => Err("only an ok has an answer".to_owned()),
            (None, EventKind::Fail) => Ok(Completion::Fail),
            (None, _) => Ok(Completion::Unknown),
        };
    }
    let reply = event.res.clone().ok_or("it has no answer")?;
    if !reply.answers(op) {
        return Err(format!("\"{reply}\" is no answer to {op}"));
    }
    let location = match (event.term, event.index) {
        (Some(term), Some(index)) => Some(Location { index, term }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err("term and index come together".to_owned());
        }
    };
    Ok(Completion::Ok {
        at: event.t,
        reply,
        location,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"schema":1,"seed":7,"commit":"abc"}"#;
    const INVOKE: &str =
        r#"{"id":1,"client":1,"type":"invoke","t":5,"op":{"f":"put","key":"k","value":"v"}}"#;
    const OK: &str = concat!(
        r#"{"id":1,"client":1,"type":"ok","t":9,"#,
        r#""res":{"r":"written","version":1,"value_bytes":1},"term":2,"index":3}"#
    );

    fn parse(lines: &[&str]) -> Result<History, HistoryError> {
        History::parse(&lines.join("\n"))
    }

    #[test]
    fn a_history_is_read_and_written_back_as_it_was() {
        let history = parse(&[HEADER, INVOKE, OK, ""]).unwrap();
        assert_eq!(history.header().seed, Some(7));
        let shown = history.operations()[0].to_string();
        let expected = r#"op 1 (client 1, t 5..9): put "k" "v" -> v1 of 1 bytes at 3@2"#;
        assert_eq!(shown, expected);
        assert_eq!(History::parse(&history.to_ndjson()).unwrap(), history);
    }

    #[test]
    fn an_operation_without_an_end_is_open() {
        let history = parse(&[HEADER, INVOKE]).unwrap();
        assert_eq!(history.operations()[0].completion, Completion::Unknown);
    }

    #[test]
    fn every_contradiction_names_its_line() {
        let get = r#"{"id":2,"client":1,"type":"invoke","t":6,"op":{"f":"get","key":"k"}}"#;
        let info = r#"{"id":1,"client":1,"type":"info","t":6}"#;
        let found = r#"{"id":2,"client":1,"type":"ok","t":9,"res":{"r":"deleted","existed":true}}"#;
        let no_op = r#"{"id":1,"client":1,"type":"invoke","t":5}"#;
        let early = r#"{"id":1,"client":1,"type":"fail","t":4}"#;
        let stranger = r#"{"id":1,"client":2,"type":"fail","t":9}"#;
        let half = OK.replace(r#","index":3"#, "");
        for (lines, expected) in [
            (vec![], "line 1: no header"),
            (
                vec![r#"{"schema":2}"#],
                "line 1: schema 2, this program reads schema 1",
            ),
            (vec![HEADER, "{"], "line 2: EOF while parsing an object"),
            (vec![HEADER, no_op], "line 2: Invoke of op 1: it has no op"),
            (vec![HEADER, OK], "line 2: Ok of op 1: it was never invoked"),
            (
                vec![HEADER, INVOKE, INVOKE],
                "line 3: Invoke of op 1: its number was used before",
            ),
            (
                vec![HEADER, INVOKE, get],
                "line 3: Invoke of op 2: client 1 still waits for op 1",
            ),
            (
                vec![HEADER, INVOKE, info, get],
                "line 4: Invoke of op 2: client 1 was retired",
            ),
            (
                vec![HEADER, "", INVOKE, OK, OK],
                "line 5: Ok of op 1: it ended before, with Ok",
            ),
            (
                vec![HEADER, INVOKE, early],
                "line 3: Fail of op 1: it ends at 4 and began at 5",
            ),
            (
                vec![HEADER, INVOKE, stranger],
                "line 3: Fail of op 1: it belongs to client 1",
            ),
            (
                vec![HEADER, INVOKE, &half],
                "line 3: Ok of op 1: term and index come together",
            ),
            (
                vec![HEADER, INVOKE, OK, get, found],
                r#"line 5: Ok of op 2: "deleted" is no answer to get "k""#,
            ),
        ] {
            let error = parse(&lines).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}\nexpected {expected}");
        }
    }
}
