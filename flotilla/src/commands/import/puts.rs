//! Puts what the reader found: many keys at once, each until it is done. A put whose outcome is not
//! known is simply put again, because putting the same value twice is the same as putting it once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kv_client::{ClientError, KvClient};
use tokio::time::{Instant, sleep};

use super::feed::{Fed, FedReceiver, Item, Noted};
use super::progress::Progress;
use crate::commands::noted::Notes;
use crate::exit::{Exit, Failure};
use crate::output::printable;

/// How long one key is tried once the cluster has taken one: longer than any fail-over, and than
/// restarting a cluster by hand. A cluster that is down from the beginning is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first pause before a key is tried again; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// The longest pause before a key is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What came of an import.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Keys that were put.
    pub(super) keys: u64,
    /// Bytes of their values.
    pub(super) bytes: u64,
    /// What should have become a key and did not.
    pub(super) skipped: Notes,
    /// What is not meant to become a key.
    pub(super) left_out: Notes,
}

/// A put that ended.
struct Ended {
    item: Item,
    result: Result<(), Failure>,
}

/// Puts everything.
///
/// # Errors
/// When a key could not be put for [`PATIENCE`], or none could be put at all, with the exit code
/// for what is known about it.
pub(super) async fn put_all(
    client: &KvClient,
    mut fed: FedReceiver,
    progress: &Progress,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let is_reached = AtomicBool::new(false);
    let mut puts = FuturesUnordered::new();
    let mut keys = BTreeSet::<Bytes>::new();
    // A key that comes twice in a file must end with its last value, so it waits for its first.
    let mut waiting: Option<Item> = None;
    let mut open = true;
    loop {
        if let Some(item) = waiting.take_if(|item| !keys.contains(&item.key)) {
            keys.insert(item.key.clone());
            puts.push(put(client, item, &is_reached));
        }
        tokio::select! {
            ended = puts.next(), if !puts.is_empty() => {
                let Some(Ended { item, result }) = ended else { continue };
                keys.remove(&item.key);
                settle(&item, result, &mut tally, progress)?;
            }
            found = fed.next(), if open && waiting.is_none() => match found {
                Some(Fed::Item(item)) => waiting = Some(item),
                Some(Fed::Skipped(noted)) => skip(&noted, &mut tally, progress),
                Some(Fed::LeftOut(noted)) => leave_out(&noted, &mut tally, progress),
                Some(Fed::Position(bytes)) => progress.position(bytes),
                None => open = false,
            },
            else => return Ok(tally),
        }
    }
}

fn settle(
    item: &Item,
    result: Result<(), Failure>,
    tally: &mut Tally,
    progress: &Progress,
) -> Result<(), Failure> {
    match result {
        Ok(()) => {
            tally.keys += 1;
            tally.bytes += item.value.len() as u64;
            progress.key_done();
            Ok(())
        }
        Err(failure) if failure.exit() == Exit::Refused => {
            let name = printable(&item.key);
            let why = failure.line().unwrap_or_default();
            skip(&Noted { name, why }, tally, progress);
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

fn skip(noted: &Noted, tally: &mut Tally, progress: &Progress) {
    progress.key_done();
    if tally.skipped.add() {
        progress.note(&format!("skipped {}: {}", noted.name, noted.why));
    }
}

fn leave_out(noted: &Noted, tally: &mut Tally, progress: &Progress) {
    if tally.left_out.add() {
        progress.note(&format!("left out {}: {}", noted.name, noted.why));
    }
}

async fn put(client: &KvClient, item: Item, is_reached: &AtomicBool) -> Ended {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = PAUSE_MIN;
    let mut may_be_applied = false;
    loop {
        let result = client.put(item.key.clone(), item.value.clone()).await;
        let Err(error) = result else {
            is_reached.store(true, Ordering::Relaxed);
            let result = Ok(());
            return Ended { item, result };
        };
        let exit = Exit::from_code(error.exit_code());
        may_be_applied |= exit == Exit::Unknown;
        // An unknown outcome means that a node took the request, so somebody is there.
        if exit == Exit::Unknown {
            is_reached.store(true, Ordering::Relaxed);
        }
        let again = match exit {
            Exit::Unknown => true,
            Exit::Unavailable => is_reached.load(Ordering::Relaxed),
            _ => false,
        };
        if !again || Instant::now() >= deadline {
            let result = Err(failure(&item, &error, may_be_applied));
            return Ended { item, result };
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// What to say about a key that could not be put. Once an attempt has had an unknown outcome, a
/// later one that certainly did nothing does not make it known.
fn failure(item: &Item, error: &ClientError, may_be_applied: bool) -> Failure {
    let exit = match Exit::from_code(error.exit_code()) {
        Exit::Unavailable if may_be_applied => Exit::Unknown,
        Exit::Refused => return Failure::refused(error.to_string()),
        exit => exit,
    };
    let key = printable(&item.key);
    Failure::new(
        exit,
        format!("import stopped at key {key}: {error}; it is safe to run it again"),
    )
}
