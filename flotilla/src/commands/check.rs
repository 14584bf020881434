//! `flotilla check`: reads everything that a stopped node has on its disk and says what is there,
//! what is damaged and where, and what that means. Changes nothing.

use std::path::Path;

use kv_service::config::{NodeConfig, StateKind};
use kv_service::inspect::{
    FileKind, FileReport, Inspection, Problem, SegmentReport, inspect, inspect_data,
};
use serde_json::{Value, json};

use crate::cli::CheckArgs;
use crate::commands::snapshot::blocking;
use crate::commands::status::size;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Output, columns};

/// The name of a node's configuration in its directory.
const CONFIG: &str = "node.toml";
/// What makes a directory a data directory.
const IDENTITY: &str = "identity.toml";

/// Runs `flotilla check`.
///
/// # Errors
/// "No" where the node cannot be started as it is; usage where there is no node in the directory,
/// or it runs.
pub(crate) async fn run(args: &CheckArgs, output: &mut Output) -> Outcome {
    let dir = args.dir.clone();
    let inspection = blocking(move || look_at(&dir)).await??;
    output.line(|| object(&inspection), || words(&inspection))?;
    output.flush()?;
    let harmful = inspection
        .problems
        .iter()
        .filter(|it| !it.meaning.is_harmless());
    let harmful: Vec<&Problem> = harmful.collect();
    let Some(first) = harmful.first() else {
        return Ok(Exit::Done);
    };
    let rest = match harmful.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    Err(Failure::new(
        Exit::No,
        format!(
            "{} at {}: {}{rest}; {}",
            first.path.display(),
            first.offset,
            first.what,
            first.meaning
        ),
    ))
}

/// The directory of a node, or its data directory.
fn look_at(dir: &Path) -> Result<Inspection, Failure> {
    let config = dir.join(CONFIG);
    let inspection = if config.exists() {
        let config = NodeConfig::load(&config).map_err(|it| Failure::usage(it.to_string()))?;
        inspect(&config)
    } else if dir.join(IDENTITY).exists() {
        inspect_data(dir)
    } else {
        return Err(Failure::usage(format!(
            "{} has neither {CONFIG} nor {IDENTITY}: name the directory of a node, such as \
             ./flotilla-data/node-1",
            dir.display()
        )));
    };
    inspection.map_err(|error| Failure::usage(error.to_string()))
}

/// The path of a file as it is seen from the data directory.
fn inside<'a>(inspection: &Inspection, path: &'a Path) -> std::path::Display<'a> {
    path.strip_prefix(&inspection.path)
        .unwrap_or(path)
        .display()
}

fn files(inspection: &Inspection) -> impl Iterator<Item = &FileReport> {
    inspection
        .log
        .files
        .iter()
        .chain(&inspection.snapshots.files)
        .chain(&inspection.state_files.files)
}

fn object(inspection: &Inspection) -> Value {
    let Inspection { owner, log, .. } = inspection;
    let snapshot = inspection.snapshots.latest.as_ref();
    let snapshot = snapshot.map(|latest| {
        json!({
            "index": latest.meta.last.index.0, "term": latest.meta.last.term.0,
            "parts": latest.parts, "bytes": latest.bytes, "hash": latest.hash.to_string(),
        })
    });
    let file = |file: &FileReport| {
        json!({
            "path": inside(inspection, &file.path).to_string(),
            "bytes": file.bytes,
            "kind": kind(&file.kind),
        })
    };
    let problem = |problem: &Problem| {
        json!({
            "path": inside(inspection, &problem.path).to_string(),
            "offset": problem.offset,
            "what": problem.what,
            "meaning": problem.meaning.name(),
            "harmless": problem.meaning.is_harmless(),
            "do": problem.meaning.to_string(),
        })
    };
    let voters: Vec<u64> = inspection.membership.voters().map(|id| id.0).collect();
    json!({
        "data": inspection.path.display().to_string(),
        "cluster_id": owner.cluster.to_string(),
        "node": owner.node.0,
        // As text, because many readers of JSON round large numbers.
        "incarnation": owner.incarnation.0.to_string(),
        "storage": inspection.storage.name(),
        "state": state_object(inspection),
        "starts": inspection.boot,
        "term": log.hard_state.map(|it| it.term.0),
        "vote": log.hard_state.and_then(|it| it.vote).map(|id| id.0),
        "start_index": log.start.index.0,
        "start_term": log.start.term.0,
        "last_index": log.last.index.0,
        "refill_to": log.refill_to.map(|to| to.index.0),
        "last_term": log.last.term.0,
        "entry_bytes": log.entry_bytes,
        "records": log.records,
        "voters": voters,
        "snapshot": snapshot,
        "files": files(inspection).map(file).collect::<Vec<_>>(),
        "findings": inspection.problems.iter().map(problem).collect::<Vec<_>>(),
        "clean": inspection.is_clean(),
    })
}

fn state_object(inspection: &Inspection) -> Value {
    let (files, facts) = (&inspection.state_files, inspection.state_facts);
    json!({
        "kind": inspection.state.name(),
        "applied_index": files.applied.map(|applied| applied.index.0),
        "applied_term": files.applied.map(|applied| applied.term.0),
        "records": files.records,
        "keys": facts.map(|facts| facts.keys),
        "revision": facts.map(|facts| facts.revision),
        "sessions": facts.map(|facts| facts.sessions),
    })
}

fn words(inspection: &Inspection) -> String {
    let mut lines = facts(inspection);
    let rows: Vec<[String; 3]> = files(inspection)
        .map(|file| {
            let path = inside(inspection, &file.path).to_string();
            [path, size(file.bytes), described(&file.kind)]
        })
        .collect();
    lines.extend(columns(&rows).into_iter().map(|line| format!("  {line}")));
    for problem in &inspection.problems {
        let label = if problem.meaning.is_harmless() {
            "note"
        } else {
            "damaged"
        };
        lines.push(format!(
            "{label}: {} at {}: {}",
            inside(inspection, &problem.path),
            problem.offset,
            problem.what
        ));
        lines.push(format!("  {}", problem.meaning));
    }
    lines.push(if inspection.is_clean() {
        "clean: everything was read, and every checksum is right".to_owned()
    } else {
        "not clean: the node cannot go on with this as it is".to_owned()
    });
    lines.join("\n")
}

fn facts(inspection: &Inspection) -> Vec<String> {
    let Inspection { owner, log, .. } = inspection;
    let starts = match inspection.boot {
        Some(boot) => format!("starts so far: {boot}"),
        None => "its starts cannot be counted".to_owned(),
    };
    let term = match log.hard_state {
        Some(state) => match state.vote {
            Some(vote) => format!("{}, voted for node {vote}", state.term),
            None => format!("{}, no vote", state.term),
        },
        None => "not known".to_owned(),
    };
    let entries = if log.last == log.start {
        format!("no entries, begins behind {}", log.start)
    } else {
        format!(
            "entries {} to {}, {} in {} records",
            log.start.index.next(),
            log.last,
            size(log.entry_bytes),
            log.records
        )
    };
    let snapshot = match &inspection.snapshots.latest {
        Some(latest) => format!(
            "up to entry {}, {}, hash {}",
            latest.meta.last,
            size(latest.bytes),
            latest.hash
        ),
        None => "none".to_owned(),
    };
    let voters = inspection.membership.voters();
    let voters: Vec<String> = voters.map(|id| id.to_string()).collect();
    vec![
        format!(
            "{}: node {} of cluster {}, incarnation {}",
            inspection.path.display(),
            owner.node,
            owner.cluster,
            owner.incarnation.0
        ),
        format!("storage   {}, {starts}", inspection.storage.name()),
        format!("term      {term}"),
        format!("log       {entries}"),
        format!("snapshot  {snapshot}"),
        format!("state     {}", state_words(inspection)),
        format!("voters    {}", voters.join(", ")),
    ]
}

fn state_words(inspection: &Inspection) -> String {
    let name = inspection.state.name();
    let files = &inspection.state_files;
    match (inspection.state_facts, files.applied) {
        (Some(facts), Some(applied)) => format!(
            "{name}, as of entry {applied}: revision {}, {} keys, {} sessions, {} records",
            facts.revision, facts.keys, facts.sessions, files.records
        ),
        _ if inspection.state == StateKind::Memory => format!("{name}, made again at every start"),
        (_, Some(applied)) => format!("{name}, as of entry {applied}, not readable"),
        (_, None) => format!("{name}, none that can be read"),
    }
}

fn kind(kind: &FileKind) -> Value {
    let name = match kind {
        FileKind::Segment(segment) => return segment_object(segment),
        FileKind::Spare => "spare",
        FileKind::TornCopy => "torn-copy",
        FileKind::DamagedCopy => "damaged-copy",
        FileKind::Snapshot => "snapshot",
        FileKind::Incoming => "incoming",
        FileKind::Temporary => "temporary",
        FileKind::Lock => "lock",
        FileKind::Database => "database",
        FileKind::Other => "other",
    };
    json!({ "name": name })
}

fn segment_object(segment: &SegmentReport) -> Value {
    let entries = segment
        .entries
        .map(|(first, last)| [first.index.0, last.index.0]);
    json!({
        "name": "segment",
        "sequence": segment.sequence,
        "version": segment.version,
        "records": segment.records,
        "used_bytes": segment.used_bytes,
        "entries": entries,
        "sealed": segment.is_sealed,
    })
}

fn described(kind: &FileKind) -> String {
    match kind {
        FileKind::Segment(segment) => {
            let entries = match segment.entries {
                Some((first, last)) => format!("entries {} to {}", first.index, last.index),
                None => "no entries".to_owned(),
            };
            let sealed = if segment.is_sealed { ", sealed" } else { "" };
            format!(
                "version {}, {} records, {entries}, {} used{sealed}",
                segment.version,
                segment.records,
                size(segment.used_bytes)
            )
        }
        FileKind::Spare => "prepared for the next segment".to_owned(),
        FileKind::DamagedCopy => "damaged segment that was put aside".to_owned(),
        FileKind::TornCopy => "copy of a torn tail that was cut".to_owned(),
        FileKind::Snapshot => "snapshot".to_owned(),
        FileKind::Incoming => "snapshot that is being received".to_owned(),
        FileKind::Temporary => "left by a crash".to_owned(),
        FileKind::Lock => "lock".to_owned(),
        FileKind::Database => "RocksDB".to_owned(),
        FileKind::Other => "not ours, left alone".to_owned(),
    }
}
