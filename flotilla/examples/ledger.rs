//! Keeps a ledger outside of the store of what the store has acknowledged, and compares the two
//! later: how `scripts/power-cuts.sh` and `scripts/storage-faults.sh` know that nothing was lost.
//!
//! ```text
//! ledger write  CLIENT.TOML LEDGER ROUND SECONDS CLIENTS
//! ledger verify CLIENT.TOML LEDGER
//! ```
//!
//! Each of the clients writes one key after the other, `ledger/<round>/<client>/<number>`; with
//! every tenth it writes over a key of its own, `latest/<client>`. A line of the ledger is a key
//! and its number, written only after the acknowledgement. Writes without an acknowledgement are in
//! no ledger and may be there or not. `verify` ends with 1 where something is missing, is another
//! value, or is older than what was acknowledged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use kv_client::{ClientConfig, KvClient, ScanRange};
use tokio::sync::mpsc;
use tokio::time::Instant;

const USAGE: &str = "usage: ledger write CLIENT.TOML LEDGER ROUND SECONDS CLIENTS\n       \
                     ledger verify CLIENT.TOML LEDGER";

/// How long `verify` waits for a cluster that has just been started.
const PATIENCE: Duration = Duration::from_secs(120);
/// Acknowledgements that are on their way to the file.
const LINES_MAX: usize = 4096;
const VALUE_BYTES: usize = 256;
/// Every so many writes, one is over the client's own key.
const LATEST_EVERY: u64 = 10;
/// The pause of a client after an error, so that a cluster that is gone is not asked in a hot loop.
const PAUSE: Duration = Duration::from_millis(10);

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["write", config, ledger, round, seconds, clients] => {
            write(config, ledger, round, seconds, clients).await
        }
        ["verify", config, ledger] => verify(config, ledger).await,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ledger: {error}");
            ExitCode::from(2)
        }
    }
}

async fn connect(config: &str, patience: Duration) -> Result<KvClient, Error> {
    let mut config = ClientConfig::load(Path::new(config))?;
    config.timeouts.request = patience;
    Ok(KvClient::connect(config).await?)
}

/// The value of a key: its number, and the same bytes whenever it is asked for.
fn value_of(key: &str, number: u64) -> String {
    let mut value = format!("{number} ");
    while value.len() < VALUE_BYTES {
        value.push_str(key);
    }
    value.truncate(VALUE_BYTES);
    value
}

fn number_in(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    text.split(' ').next()?.parse().ok()
}

async fn write(
    config: &str,
    ledger: &str,
    round: &str,
    seconds: &str,
    clients: &str,
) -> Result<bool, Error> {
    let round: u64 = round.parse()?;
    let until = Instant::now() + Duration::from_secs_f64(seconds.parse()?);
    let client = connect(config, Duration::from_secs(2)).await?;
    let (lines, mut acknowledged) = mpsc::channel::<String>(LINES_MAX);
    for writer in 0..clients.parse()? {
        let (client, lines) = (client.clone(), lines.clone());
        tokio::spawn(write_until(client, lines, round, writer, until));
    }
    drop(lines);
    let mut file = File::options().create(true).append(true).open(ledger)?;
    let mut count = 0_u64;
    while let Some(line) = acknowledged.recv().await {
        file.write_all(line.as_bytes())?;
        count += 1;
    }
    println!("{count} writes acknowledged");
    Ok(true)
}

async fn write_until(
    client: KvClient,
    lines: mpsc::Sender<String>,
    round: u64,
    writer: u64,
    until: Instant,
) {
    // Higher in every round, so that an older value of a key of its own is told from a newer one.
    for number in (round * 1_000_000_000).. {
        if Instant::now() >= until {
            return;
        }
        let key = if number % LATEST_EVERY == 0 {
            format!("latest/{writer:04}")
        } else {
            format!("ledger/{round:04}/{writer:04}/{number:012}")
        };
        let value = value_of(&key, number);
        match client.put(key.clone(), value).await {
            Ok(_) => {
                if lines.send(format!("{key} {number}\n")).await.is_err() {
                    return;
                }
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn verify(config: &str, ledger: &str) -> Result<bool, Error> {
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let mut writes = 0_u64;
    for line in fs::read_to_string(ledger)?.lines() {
        let (key, number) = line.split_once(' ').ok_or("the ledger has half a line")?;
        let number = number.parse()?;
        let newest = acknowledged.entry(key.to_owned()).or_insert(number);
        *newest = number.max(*newest);
        writes += 1;
    }
    let client = connect(config, PATIENCE).await?;
    let mut found = BTreeMap::new();
    for prefix in ["ledger/", "latest/"] {
        for pair in client.scan(ScanRange::prefix(prefix)).collect().await? {
            found.insert(String::from_utf8(pair.key.to_vec())?, pair.value);
        }
    }
    let mut lost = 0_u64;
    for (key, number) in &acknowledged {
        let held = found.get(key).and_then(|value| {
            let held = number_in(value)?;
            let is_right = **value == *value_of(key, held).as_bytes();
            let is_exact = key.starts_with("ledger/");
            let is_new = held == *number || (held > *number && !is_exact);
            (is_right && is_new).then_some(held)
        });
        if held.is_none() {
            lost += 1;
            let shown = found.get(key).map(|value| number_in(value));
            println!("lost: {key}, acknowledged with {number}, found {shown:?}");
        }
    }
    let keys = acknowledged.len();
    println!("{writes} acknowledged writes of {keys} keys, {lost} lost");
    Ok(lost == 0)
}
