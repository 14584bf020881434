//! The clients of the demo. Each has a connection and a session of its own, does one thing after
//! the other, and writes down what it does before it does it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use history::{Location, Op, Reply};
use kv_client::{
    ClientConfig, ClientError, CommandReply, Expect, KeyValue, KvClient, Located, ScanRange,
    WriteOp,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::journal::{End, Journal, Seat};
use super::stage::within;
use crate::exit::Failure;
use crate::random::Random;

/// Clients that run at once.
const CLIENTS: u64 = 6;

/// Keys that all clients change at the same time.
const SHARED_KEYS: u64 = 4;

/// Operations of a client after which the shared keys are left for new ones: short histories of
/// many keys are judged faster than long ones of few.
const OPERATIONS_PER_KEYS: u64 = 250;

/// Where the keys are that are written once.
const LEDGER: &str = "ledger/";

/// The pause of a client between two operations. The machine is to be busy with the nodes.
const PAUSE: Duration = Duration::from_millis(2);

/// The pause between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);

type SharedJournal = Arc<Mutex<Journal>>;

/// The clients, while they run.
pub(super) struct Workload {
    journal: SharedJournal,
    stop: watch::Sender<bool>,
    clients: JoinSet<Result<(), Failure>>,
    /// The newest generation of shared keys.
    generations: Arc<AtomicU64>,
}

impl Workload {
    /// Starts all clients.
    ///
    /// # Errors
    /// When one cannot connect.
    pub(super) async fn start(config: &ClientConfig) -> Result<Self, Failure> {
        let journal = Arc::new(Mutex::new(Journal::new()));
        let (stop, stopped) = watch::channel(false);
        let generations = Arc::new(AtomicU64::new(0));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let client = Client {
                number,
                client: KvClient::connect(config.clone()).await?,
                journal: Arc::clone(&journal),
                seat: lock(&journal).seat(),
                random: Random::of_worker(number),
                versions: BTreeMap::new(),
                operations: 0,
                generations: Arc::clone(&generations),
            };
            clients.spawn(client.run(stopped.clone()));
        }
        Ok(Self {
            journal,
            stop,
            clients,
            generations,
        })
    }

    /// Waits until a write was acknowledged after a moment; returns when.
    ///
    /// # Errors
    /// When none is for a long time.
    pub(super) async fn acknowledged_after(&self, moment: Instant) -> Result<Instant, Failure> {
        within("an acknowledged write", async {
            loop {
                let last = lock(&self.journal).last_acknowledged();
                if let Some(last) = last.filter(|last| *last > moment) {
                    return last;
                }
                sleep(LOOK).await;
            }
        })
        .await
    }

    /// A leader was killed, and writes went on after so long.
    pub(super) fn failed_over(&self, after: Duration) {
        lock(&self.journal).failed_over(after);
    }

    /// Ends all clients, then reads everything back.
    ///
    /// # Errors
    /// When a client met something that cannot be, or the store cannot be read.
    pub(super) async fn finish(mut self, client: &KvClient) -> Result<Journal, Failure> {
        self.stop.send_replace(true);
        while let Some(ended) = self.clients.join_next().await {
            ended.map_err(|error| Failure::stopped(format!("a client panicked: {error}")))??;
        }
        let generations = self.generations.load(Ordering::Relaxed);
        read_back(client, &self.journal, generations).await?;
        Ok(std::mem::replace(&mut *lock(&self.journal), Journal::new()))
    }
}

/// Reads every key that was ever changed, and compares the ledger with what is there.
async fn read_back(
    client: &KvClient,
    journal: &SharedJournal,
    generations: u64,
) -> Result<(), Failure> {
    let mut seat = lock(journal).seat();
    for generation in 0..=generations {
        for number in 0..SHARED_KEYS {
            let key = shared_key(generation, number);
            operate(client, journal, &mut seat, Todo::Get(key)).await?;
        }
    }
    let mut found = BTreeMap::new();
    let mut pages = client.scan(ScanRange::prefix(LEDGER));
    while let Some(pairs) = pages.next_page().await? {
        found.extend(pairs.into_iter().map(|pair| (pair.key, pair.value)));
    }
    lock(journal).compare(&found);
    Ok(())
}

/// One client.
struct Client {
    number: u64,
    client: KvClient,
    journal: SharedJournal,
    seat: Seat,
    random: Random,
    /// What it knows of the shared keys, to compare with; may be old.
    versions: BTreeMap<Bytes, u64>,
    operations: u64,
    generations: Arc<AtomicU64>,
}

impl Client {
    async fn run(mut self, stop: watch::Receiver<bool>) -> Result<(), Failure> {
        while !*stop.borrow() {
            let todo = self.choose();
            let key = todo.key().clone();
            let version = operate(&self.client, &self.journal, &mut self.seat, todo).await?;
            if let Some(version) = version {
                self.versions.insert(key, version);
            }
            sleep(PAUSE).await;
        }
        self.client.close().await;
        Ok(())
    }

    /// What to do next. Every value is written once only, so that a read tells which write it saw.
    fn choose(&mut self) -> Todo {
        self.operations += 1;
        let (number, operations) = (self.number, self.operations);
        let value = Bytes::from(format!("c{number}-{operations:06}"));
        let choice = self.random.below(100);
        if choice < 40 {
            let key = Bytes::from(format!("{LEDGER}{number}/{operations:06}"));
            return Todo::Write(WriteOp::Put { key, value });
        }
        let generation = operations / OPERATIONS_PER_KEYS;
        self.generations.fetch_max(generation, Ordering::Relaxed);
        if operations.is_multiple_of(OPERATIONS_PER_KEYS) {
            self.versions.clear();
        }
        let key = shared_key(generation, self.random.below(SHARED_KEYS));
        match choice {
            40..60 => Todo::Write(WriteOp::Put { key, value }),
            60..70 => Todo::Write(WriteOp::Append { key, value }),
            70..75 => Todo::Write(WriteOp::Delete { key }),
            75..85 => {
                let expect = match self.versions.get(&key) {
                    Some(0) | None => Expect::Absent,
                    Some(version) => Expect::Version(*version),
                };
                Todo::Write(WriteOp::Cas { key, expect, value })
            }
            _ => Todo::Get(key),
        }
    }
}

/// An operation that is about to be done.
enum Todo {
    Write(WriteOp),
    Get(Bytes),
}

impl Todo {
    fn key(&self) -> &Bytes {
        match self {
            Self::Write(op) => op.key(),
            Self::Get(key) => key,
        }
    }

    /// The same in the words of the history.
    fn recorded(&self) -> Op {
        match self {
            Self::Get(key) => Op::get(&**key),
            Self::Write(WriteOp::Put { key, value }) => Op::put(&**key, &**value),
            Self::Write(WriteOp::Append { key, value }) => Op::append(&**key, &**value),
            Self::Write(WriteOp::Delete { key }) => Op::delete(&**key),
            Self::Write(WriteOp::Cas { key, expect, value }) => {
                let expect = match expect {
                    Expect::Absent => history::Expect::Absent,
                    Expect::Value(expected) => history::Expect::Value((&**expected).into()),
                    Expect::Version(version) => history::Expect::Version(*version),
                };
                Op::cas(&**key, expect, &**value)
            }
        }
    }
}

/// Does one thing and writes it down. Returns the version that the key is known to have then, 0
/// where it is absent.
async fn operate(
    client: &KvClient,
    journal: &SharedJournal,
    seat: &mut Seat,
    todo: Todo,
) -> Result<Option<u64>, Failure> {
    let op = todo.recorded();
    let begun = lock(journal).begin(seat, Instant::now(), &op)?;
    let (result, entry) = match todo {
        Todo::Get(key) => (client.get(key).await.map(read_end), None),
        Todo::Write(write) => {
            let entry = match &write {
                WriteOp::Put { key, value } if key.starts_with(LEDGER.as_bytes()) => {
                    Some((key.clone(), value.clone()))
                }
                _ => None,
            };
            let located = client.write_located(write).await;
            let end = match located {
                Ok(located) => Ok(write_end(&located)?),
                Err(error) => Err(error),
            };
            (end, entry)
        }
    };
    let at = Instant::now();
    let end = match result {
        Ok(end) => end,
        Err(ClientError::Unavailable(_)) => End::Failed,
        Err(ClientError::Unknown(_)) => End::Unknown,
        Err(error) => return Err(error.into()),
    };
    let mut journal = lock(journal);
    let version = version_after(&end);
    if let (End::Answered(..), true) = (&end, op.is_write()) {
        journal.acknowledge(at);
        if let Some((key, value)) = entry {
            journal.enter(key, value);
        }
    }
    journal.end(seat, &begun, at, end)?;
    Ok(version)
}

fn read_end(found: Option<KeyValue>) -> End {
    let reply = found.map_or(Reply::Absent, |pair| Reply::Found {
        value: (&*pair.value).into(),
        version: pair.version,
    });
    End::Answered(reply, None)
}

fn write_end(located: &Located) -> Result<End, Failure> {
    let reply = match &located.reply {
        CommandReply::Written(written) => Reply::Written {
            version: written.version,
            value_bytes: written.value_bytes,
        },
        CommandReply::Deleted { existed, .. } => Reply::Deleted { existed: *existed },
        CommandReply::Mismatch { version, .. } => Reply::Mismatch { version: *version },
        other => return Err(Failure::stopped(format!("a write was answered {other:?}"))),
    };
    let (term, index) = (located.term, located.index);
    let certain = located.sends == 1;
    Ok(End::Answered(
        reply,
        certain.then_some(Location { index, term }),
    ))
}

fn version_after(end: &End) -> Option<u64> {
    match end {
        End::Answered(reply, _) => Some(match reply {
            Reply::Written { version, .. }
            | Reply::Mismatch { version }
            | Reply::Found { version, .. } => *version,
            Reply::Deleted { .. } | Reply::Absent => 0,
        }),
        End::Failed | End::Unknown => None,
    }
}

fn shared_key(generation: u64, number: u64) -> Bytes {
    Bytes::from(format!("shared/{generation:04}/{number}"))
}

/// A client that panicked while it wrote something down ends the demo, so what it left does no
/// harm.
fn lock(journal: &SharedJournal) -> MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}
