//! Golden scripts: `testscripts/*.txt` hold commands and the recorded trace of what they did. Run
//! with `UPDATE_GOLDENFILES=1` to record anew, then review the difference as text.
//!
//! Commands (node numbers are plain; `from`, `to`, `type` and `limit` choose messages):
//! `cluster N [ID="terms of its log"]`, `tick ID [COUNT]`, `campaign ID`, `propose ID VALUE`,
//! `read ID TICKET`, `deliver`, `drop`, `repeat`, `hold`, `release`, `persist ID [COUNT]`, `load
//! ID`, `crash ID [WRITES KEPT]`, `restart ID`, `isolate ID`, `cut FROM TO`, `heal`, `stabilize`,
//! `status`, `disk ID`, `unreachable FROM PEER`, `add ID` (a new node), `wipe ID`, `change ID
//! add|promote|remove|replace MEMBER` or `change ID set "VOTERS"`, `transfer ID TARGET`, `snapshots
//! ENTRIES` (when they are taken; starts all anew), `snapshot ID` (the one it takes is complete),
//! `ship [lost]` (the oldest transfer of a snapshot ends), and
//! `append TO from=ID term=T base=INDEX base_term=T terms="terms of the entries"`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};

use super::Cluster;
use super::disk::Disk;
use super::render;
use crate::entry::{Entry, EntryKind};
use crate::membership::MembershipChange;
use crate::message::{Append, Envelope, Message};
use crate::protocol::Input;
use crate::types::{Index, LogId, NodeId, Term};

#[derive(Default)]
struct Runner {
    cluster: Option<Cluster>,
    held: Vec<Envelope>,
}

/// Which messages a command is about.
struct Filter {
    from: Option<NodeId>,
    to: Option<NodeId>,
    kind: Option<String>,
    /// At most this many, oldest first.
    limit: usize,
}

impl Filter {
    fn parse(args: &mut ArgumentConsumer<'_>) -> Result<Self, Box<dyn Error>> {
        let from = args
            .take_key("from")
            .map(str::parse)
            .transpose()?
            .map(NodeId);
        let to = args.take_key("to").map(str::parse).transpose()?.map(NodeId);
        let kind = args.take_key("type").map(str::to_owned);
        let limit = args
            .take_key("limit")
            .map(str::parse)
            .transpose()?
            .unwrap_or(usize::MAX);
        Ok(Self {
            from,
            to,
            kind,
            limit,
        })
    }

    fn matches(&self, envelope: &Envelope) -> bool {
        self.from.is_none_or(|id| id == envelope.from)
            && self.to.is_none_or(|id| id == envelope.to)
            && self
                .kind
                .as_ref()
                .is_none_or(|kind| kind == envelope.message.name())
    }
}

fn node(args: &mut ArgumentConsumer<'_>) -> Result<NodeId, Box<dyn Error>> {
    Ok(NodeId(
        args.next_pos().ok_or("a node id is missing")?.parse()?,
    ))
}

fn count(args: &mut ArgumentConsumer<'_>, default: usize) -> Result<usize, Box<dyn Error>> {
    Ok(args
        .next_pos()
        .map(str::parse)
        .transpose()?
        .unwrap_or(default))
}

impl Runner {
    fn begin(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Box<dyn Error>> {
        let size = args
            .next_pos()
            .ok_or("the number of nodes is missing")?
            .parse::<u64>()?;
        let mut disks: BTreeMap<_, _> =
            (1..=size).map(|id| (NodeId(id), Disk::default())).collect();
        while let Some((id, terms)) = args.next_key() {
            let terms: Result<Vec<u64>, _> = terms.split_whitespace().map(str::parse).collect();
            disks.insert(NodeId(id.parse()?), Disk::with_terms(&terms?));
        }
        // Everybody has heard of the newest term.
        Disk::share_newest_term(&mut disks);
        self.cluster = Some(Cluster::new(disks, 1));
        Ok(())
    }

    /// Takes the chosen messages off the network, in order.
    fn take(cluster: &mut Cluster, filter: &Filter) -> Vec<Envelope> {
        let mut left = filter.limit;
        let (chosen, rest) = std::mem::take(&mut cluster.network)
            .into_iter()
            .partition(|e| {
                let chosen = left > 0 && filter.matches(e);
                left -= usize::from(chosen);
                chosen
            });
        cluster.network = rest;
        chosen
    }

    fn messages(&mut self, name: &str, filter: &Filter) -> Option<()> {
        let cluster = self.cluster.as_mut()?;
        match name {
            "deliver" => {
                for envelope in Self::take(cluster, filter) {
                    cluster.receive(envelope);
                }
            }
            "drop" => drop(Self::take(cluster, filter)),
            "repeat" => {
                let again: Vec<_> = cluster
                    .network
                    .iter()
                    .filter(|e| filter.matches(e))
                    .cloned()
                    .collect();
                cluster.network.extend(again);
            }
            "hold" => self.held.extend(Self::take(cluster, filter)),
            "release" => cluster.network.append(&mut self.held),
            _ => return None,
        }
        Some(())
    }

    fn act(
        cluster: &mut Cluster,
        name: &str,
        args: &mut ArgumentConsumer<'_>,
    ) -> Result<String, Box<dyn Error>> {
        match name {
            "tick" => {
                let id = node(args)?;
                for _ in 0..count(args, 1)? {
                    cluster.step(id, Input::Tick);
                }
            }
            "campaign" => cluster.campaign(node(args)?),
            "propose" => {
                cluster.propose(node(args)?, args.next_pos().ok_or("a value is missing")?);
            }
            "read" => cluster.read(node(args)?, count(args, 1)? as u64),
            "persist" => {
                let id = node(args)?;
                for _ in 0..count(args, usize::MAX)? {
                    if !cluster.persist(id) {
                        break;
                    }
                }
            }
            "add" => {
                let id = node(args)?;
                cluster.add_node(id);
                cluster.start(id);
            }
            "wipe" => cluster.wipe(node(args)?),
            "change" => {
                let id = node(args)?;
                let change = change(cluster, args)?;
                cluster.change(id, change);
            }
            "transfer" => cluster.transfer_to(node(args)?, node(args)?),
            "snapshots" => {
                cluster.snapshots.entries = count(args, 1)? as u64;
                cluster.restart_all();
            }
            "snapshot" => drop(cluster.finish_snapshot(node(args)?)),
            "ship" => cluster.finish_transfer(0, args.next_pos().is_none()),
            "load" => drop(cluster.load(node(args)?)),
            "crash" => cluster.crash(node(args)?, count(args, 0)?),
            "restart" => cluster.start(node(args)?),
            "damage" => {
                let id = node(args)?;
                cluster.damage(id, Index(count(args, 1)? as u64));
            }
            "append" => append(cluster, args)?,
            "unreachable" => cluster.step(node(args)?, Input::Unreachable(node(args)?)),
            "stabilize" => cluster.stabilize(),
            "cut" => drop(cluster.cut.insert((node(args)?, node(args)?))),
            "isolate" => {
                let id = node(args)?;
                for other in cluster.ids() {
                    cluster.cut.extend([(id, other), (other, id)]);
                }
            }
            "heal" => cluster.cut.clear(),
            "status" => return Ok(status(cluster)),
            "disk" => return Ok(disk(cluster, node(args)?)),
            other => return Err(format!("unknown command {other}").into()),
        }
        Ok(String::new())
    }
}

fn change(
    cluster: &Cluster,
    args: &mut ArgumentConsumer<'_>,
) -> Result<MembershipChange, Box<dyn Error>> {
    let kind = args.next_pos().ok_or("the kind of change is missing")?;
    if kind == "set" {
        let ids = args.next_pos().ok_or("the voters are missing")?;
        let ids: Result<Vec<u64>, _> = ids.split_whitespace().map(str::parse).collect();
        return Ok(super::support::set(&ids?));
    }
    let id = node(args)?;
    let incarnation = cluster.node(id).incarnation.0;
    Ok(match kind {
        "add" => super::support::add(id.0, incarnation),
        "promote" => super::support::promote(id.0),
        "remove" => super::support::remove(id.0),
        "replace" => super::support::replace(id.0, incarnation),
        other => return Err(format!("unknown change {other}").into()),
    })
}

/// Delivers an append as some leader might have sent it.
fn append(cluster: &mut Cluster, args: &mut ArgumentConsumer<'_>) -> Result<(), Box<dyn Error>> {
    let to = node(args)?;
    let mut number = |key: &str| -> Result<u64, Box<dyn Error>> {
        Ok(args
            .take_key(key)
            .ok_or_else(|| format!("{key} is missing"))?
            .parse()?)
    };
    let (from, term) = (NodeId(number("from")?), Term(number("term")?));
    let base = LogId::new(Term(number("base_term")?), Index(number("base")?));
    let terms = args.take_key("terms").unwrap_or_default();
    let terms: Result<Vec<u64>, _> = terms.split_whitespace().map(str::parse).collect();
    let entries = (base.index.0 + 1..).zip(terms?).map(|(index, term)| {
        let id = LogId::new(Term(term), Index(index));
        Entry::new(
            id,
            EntryKind::Command,
            Bytes::from(format!("{term}.{index}")),
        )
    });
    let message = Message::Append(Append {
        base,
        commit: Index(0),
        entries: entries.collect(),
    });
    cluster.receive(cluster.envelope(from, to, term, message));
    Ok(())
}

fn status(cluster: &Cluster) -> String {
    let mut out = String::new();
    for id in cluster.ids() {
        if !cluster.is_up(id) {
            writeln!(out, "n{id} down, {}", render::disk(&cluster.node(id).disk)).unwrap();
            continue;
        }
        let s = cluster.raft(id).state();
        let (role, term) = (s.role.name(), s.hard_state.term);
        let (last, durable, commit, applied) = (s.last, s.durable, s.commit, s.applied);
        writeln!(
            out,
            "n{id} {role} term {term} last {last} durable {durable} commit {commit} \
             applied {applied}"
        )
        .unwrap();
    }
    out
}

fn disk(cluster: &Cluster, id: NodeId) -> String {
    let disk = &cluster.node(id).disk;
    let mut out = render::disk(disk);
    for entry in &disk.entries {
        write!(out, "\n  {}", render::entry(entry)).unwrap();
    }
    out
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let mut output = String::new();
        if command.name == "cluster" {
            self.begin(&mut args)?;
        } else if ["deliver", "drop", "repeat", "hold", "release"].contains(&&*command.name) {
            let filter = Filter::parse(&mut args)?;
            self.messages(&command.name, &filter)
                .ok_or("`cluster` comes first")?;
        } else {
            let cluster = self.cluster.as_mut().ok_or("`cluster` comes first")?;
            output = Self::act(cluster, &command.name, &mut args)?;
        }
        args.reject_next()?;
        let trace = self
            .cluster
            .as_mut()
            .map(Cluster::take_trace)
            .unwrap_or_default();
        Ok(trace.iter().fold(output, |mut out, line| {
            writeln!(out, "{line}").unwrap();
            out
        }))
    }
}

#[test]
fn scripts_do_what_was_recorded() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/protocol/testing/testscripts");
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 7, "the scripts are there");
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Runner::default(), &path).unwrap();
    }
}
