//! Clients that write down what they ask and what they are told, so that a judge can say whether
//! any acknowledged write was lost and whether any reader saw something stale.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use history::{Budget, ClientId, Header, Op, OpId, Recorder, Reply, Verdict};
use kv_client::{ClientConfig, ClientError, KvClient, ScanRange};

/// Clients at the same time.
const CLIENTS: u64 = 6;

/// Keys that all of them use at a time, and operations of a client after which there are new ones.
const SHARED_KEYS: u64 = 3;
const OPERATIONS_PER_KEYS: u64 = 200;

/// The pause of a client between two operations: the machine is to be busy with the nodes.
const PAUSE: Duration = Duration::from_millis(4);

/// How long the judge may take.
const JUDGING_MAX: Duration = Duration::from_secs(60);

/// What was written down.
struct Notes {
    recorder: Recorder,
    /// Keys that are written once, with their values, as far as that was acknowledged.
    ledger: BTreeMap<String, String>,
}

/// Clients that run in the background.
pub(crate) struct Watched {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Notes>,
}

/// What the clients came to.
pub(crate) struct Seen {
    notes: Notes,
}

impl Notes {
    /// Writes down how an operation ended. Who does not know goes on as another client.
    fn end(
        &mut self,
        seat: ClientId,
        begun: OpId,
        at: u64,
        ended: Result<Reply, ClientError>,
    ) -> ClientId {
        let noted = match ended {
            Ok(reply) => self.recorder.ok(begun, at, reply, None),
            Err(ClientError::Unavailable(_)) => self.recorder.fail(begun, at),
            Err(ClientError::Unknown(_)) => {
                return self.recorder.info(begun, at).expect("it was begun");
            }
            Err(error) => panic!("{error}"),
        };
        noted.expect("it was begun");
        seat
    }
}

impl Watched {
    /// Starts them on the cluster that this directory belongs to.
    pub(crate) fn start(dir: &Path) -> Self {
        let config = ClientConfig::load(&dir.join("client.toml")).expect("a configuration");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("a runtime")
                .block_on(all_clients(config, stopped))
        });
        Self { stop, thread }
    }

    /// Ends them.
    pub(crate) fn finish(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let notes = self.thread.join().expect("no client met an impossibility");
        Seen { notes }
    }
}

impl Seen {
    /// Every acknowledged write is there, and some order explains all that was seen.
    #[track_caller]
    pub(crate) fn judge(self, dir: &Path) {
        let config = ClientConfig::load(&dir.join("client.toml")).expect("a configuration");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let found = runtime.block_on(async {
            let client = KvClient::connect(config).await.expect("a client");
            let found = client.scan(ScanRange::prefix("once/")).collect().await;
            client.close().await;
            found.expect("it can be read")
        });
        let found: BTreeMap<_, _> = found
            .into_iter()
            .map(|pair| (pair.key, pair.value))
            .collect();
        let Notes { recorder, ledger } = self.notes;
        let is_lost = |(key, value): &(&String, &String)| {
            found.get(key.as_bytes()).map(|v| &v[..]) != Some(value.as_bytes())
        };
        let lost: Vec<_> = ledger.iter().filter(is_lost).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert!(ledger.len() > 100, "{} writes", ledger.len());
        let history = recorder.finish();
        let answered = history.operations().iter();
        let reads = answered.filter(|op| matches!(op.reply(), Some(Reply::Found { .. })));
        assert!(reads.count() > 100, "reads that found something");
        let deadline = Instant::now() + JUDGING_MAX;
        let expired = || Instant::now() >= deadline;
        let budget = Budget {
            expired: Some(&expired),
            ..Budget::default()
        };
        // What was not decided was not shown to be right.
        let verdict = history::check(&history, budget);
        assert_eq!(verdict, Verdict::Linearizable, "{verdict}");
    }
}

async fn all_clients(config: ClientConfig, stopped: Arc<AtomicBool>) -> Notes {
    let notes = Arc::new(Mutex::new(Notes {
        recorder: Recorder::new(Header::default()),
        ledger: BTreeMap::new(),
    }));
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let client = KvClient::connect(config.clone()).await.expect("a client");
        let (notes, stopped) = (Arc::clone(&notes), Arc::clone(&stopped));
        clients.spawn(one_client(number, client, notes, stopped, began));
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client panicked");
    }
    let notes = Arc::into_inner(notes).expect("all clients have ended");
    notes.into_inner().expect("nobody panicked")
}

async fn one_client(
    number: u64,
    client: KvClient,
    notes: Arc<Mutex<Notes>>,
    stopped: Arc<AtomicBool>,
    began: Instant,
) {
    let now = || u64::try_from(began.elapsed().as_nanos()).expect("not that long");
    let mut seat = notes.lock().expect("no panic").recorder.client();
    for count in 0.. {
        if stopped.load(Ordering::Relaxed) {
            break;
        }
        let value = format!("c{number}-{count}");
        let generation = count / OPERATIONS_PER_KEYS;
        let shared = format!("shared/{generation:04}/{}", (number + count) % SHARED_KEYS);
        let op = match count % 4 {
            0 => Op::put(format!("once/{value}").as_str(), value.as_str()),
            1 => Op::put(shared.as_str(), value.as_str()),
            2 => Op::append(shared.as_str(), value.as_str()),
            _ => Op::get(shared.as_str()),
        };
        let begun = notes
            .lock()
            .expect("no panic")
            .recorder
            .invoke(seat, now(), op.clone());
        let begun = begun.expect("one at a time");
        let ended = carry_out(&client, op).await;
        let at = now();
        {
            let mut held = notes.lock().expect("no panic");
            if ended.is_ok() && count % 4 == 0 {
                held.ledger.insert(format!("once/{value}"), value);
            }
            seat = held.end(seat, begun, at, ended);
        }
        tokio::time::sleep(PAUSE).await;
    }
    client.close().await;
}

async fn carry_out(client: &KvClient, op: Op) -> Result<Reply, ClientError> {
    let bytes = |text: &history::ByteString| bytes::Bytes::copy_from_slice(text.as_bytes());
    let written = match &op {
        Op::Put { key, value } => client.put(bytes(key), bytes(value)).await?,
        Op::Append { key, value } => client.append(bytes(key), bytes(value)).await?,
        Op::Get { key } => {
            let found = client.get(bytes(key)).await?;
            return Ok(found.map_or(Reply::Absent, |pair| Reply::Found {
                value: (&*pair.value).into(),
                version: pair.version,
            }));
        }
        Op::Delete { .. } | Op::Cas { .. } => unreachable!("not asked for here"),
    };
    Ok(Reply::Written {
        version: written.version,
        value_bytes: written.value_bytes,
    })
}
