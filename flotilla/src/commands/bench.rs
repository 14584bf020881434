//! `flotilla bench`: a closed loop. Every client sends its next operation when the last is
//! answered, so the load is what the cluster takes, and latencies are those under that load.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hdrhistogram::Histogram;
use kv_client::limits::check_value_bytes;
use kv_client::{ClientError, KvClient};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::cli::{BenchArgs, BenchOp};
use crate::commands::data::connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::random::Random;

/// The longest latency that is told apart from longer ones: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// The longest warm-up.
const WARM_UP_MAX: Duration = Duration::from_secs(1);

/// The pause of a client after an error, so that a cluster that is gone is not asked in a hot loop.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// Puts that are on the way at once while the keys are made.
const FILL_INFLIGHT_MAX: usize = 256;

/// Runs `flotilla bench`.
///
/// # Errors
/// When the cluster cannot be reached, or no operation succeeded.
pub(crate) async fn run(args: &BenchArgs, output: &mut Output) -> Outcome {
    check_value_bytes(args.value_bytes).map_err(ClientError::from)?;
    let value = value_of(args.value_bytes);
    let mut connections = Vec::new();
    for _ in 0..args.conns {
        connections.push(connect(&args.client).await?);
    }
    let first = connections.first().ok_or_else(no_connection)?;
    if args.op != BenchOp::Put {
        fill(first, args.keys, &value).await?;
    } else {
        // The session is opened by the first write, which is not what is to be measured.
        first.put(key_of(0), value.clone()).await?;
    }
    let measured = measure(args, &connections, &value).await?;
    for connection in connections {
        connection.close().await;
    }
    report(args, &measured, output)
}

fn no_connection() -> Failure {
    Failure::usage("--conns is 0, but must be at least 1")
}

/// Writes every key once, so that reads find something.
async fn fill(client: &KvClient, keys: u64, value: &Bytes) -> Result<(), Failure> {
    let mut puts = stream::iter(0..keys)
        .map(|key| client.put(key_of(key), value.clone()))
        .buffer_unordered(FILL_INFLIGHT_MAX);
    while let Some(result) = puts.next().await {
        result?;
    }
    Ok(())
}

/// What was measured.
struct Measured {
    latencies: Histogram<u64>,
    errors: u64,
    last_error: Option<ClientError>,
    seconds: f64,
}

impl Measured {
    fn new() -> Result<Self, Failure> {
        let latencies = Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS)
            .map_err(|error| Failure::stopped(format!("cannot make a histogram: {error}")))?;
        Ok(Self {
            latencies,
            errors: 0,
            last_error: None,
            seconds: 0.0,
        })
    }

    fn add(&mut self, other: Self) -> Result<(), Failure> {
        self.latencies
            .add(other.latencies)
            .map_err(|error| Failure::stopped(format!("cannot add histograms: {error}")))?;
        self.errors += other.errors;
        self.last_error = other.last_error.or(self.last_error.take());
        Ok(())
    }
}

/// When counting begins and ends.
#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    to: Instant,
}

async fn measure(
    args: &BenchArgs,
    connections: &[KvClient],
    value: &Bytes,
) -> Result<Measured, Failure> {
    let length = Duration::from_secs(args.seconds);
    let from = Instant::now() + (length / 10).min(WARM_UP_MAX);
    let window = Window {
        from,
        to: from + length,
    };
    let mut clients = JoinSet::new();
    for (number, connection) in (0..args.clients).zip(connections.iter().cycle()) {
        let worker = Worker {
            client: connection.clone(),
            op: args.op,
            keys: args.keys,
            value: value.clone(),
            random: Random::of_worker(u64::from(number)),
        };
        clients.spawn(worker.run(window));
    }
    let mut all = Measured::new()?;
    while let Some(ended) = clients.join_next().await {
        let measured =
            ended.map_err(|error| Failure::stopped(format!("a client panicked: {error}")))?;
        all.add(measured?)?;
    }
    all.seconds = length.as_secs_f64();
    Ok(all)
}

/// One client of the closed loop.
struct Worker {
    client: KvClient,
    op: BenchOp,
    keys: u64,
    value: Bytes,
    random: Random,
}

impl Worker {
    /// Counts what is answered within the window.
    async fn run(mut self, window: Window) -> Result<Measured, Failure> {
        let mut measured = Measured::new()?;
        loop {
            let began = Instant::now();
            if began >= window.to {
                return Ok(measured);
            }
            let result = self.operate().await;
            let ended = Instant::now();
            let counts = ended >= window.from && ended < window.to;
            match result {
                Ok(()) if counts => {
                    let micros = u64::try_from((ended - began).as_micros()).unwrap_or(u64::MAX);
                    measured.latencies.saturating_record(micros.max(1));
                }
                Ok(()) => {}
                Err(error) => {
                    measured.errors += u64::from(ended >= window.from);
                    measured.last_error = Some(error);
                    sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }

    async fn operate(&mut self) -> Result<(), ClientError> {
        let key = key_of(self.random.below(self.keys));
        let is_write = match self.op {
            BenchOp::Put => true,
            BenchOp::Get | BenchOp::GetStale => false,
            BenchOp::Mixed => self.random.below(2) == 0,
        };
        if is_write {
            self.client.put(key, self.value.clone()).await?;
        } else if self.op == BenchOp::GetStale {
            self.client.get_stale(key).await?;
        } else {
            self.client.get(key).await?;
        }
        Ok(())
    }
}

fn key_of(number: u64) -> Bytes {
    Bytes::from(format!("bench/{number:010}"))
}

/// A value that does not compress to nothing.
fn value_of(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_u32;
    let byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(byte).take(bytes).collect()
}

fn report(args: &BenchArgs, measured: &Measured, output: &mut Output) -> Outcome {
    let latencies = &measured.latencies;
    if latencies.is_empty() {
        return Err(measured.last_error.as_ref().map_or_else(
            || Failure::new(Exit::Unavailable, "no operation was answered in time"),
            |error| Failure::new(Exit::from_code(error.exit_code()), error.to_string()),
        ));
    }
    let per_second = latencies.len() as f64 / measured.seconds;
    let at = |quantile| latencies.value_at_quantile(quantile);
    let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), latencies.max());
    let (op, clients, conns) = (args.op.name(), args.clients, args.conns);
    let (value_bytes, keys) = (args.value_bytes, args.keys);
    let (seconds, errors) = (measured.seconds, measured.errors);
    output.line(
        || {
            json!({
                "op": op, "clients": clients, "conns": conns, "value_bytes": value_bytes,
                "keys": keys, "seconds": seconds, "ops_per_s": per_second, "p50_us": p50,
                "p99_us": p99, "p999_us": p999, "max_us": max, "errors": errors,
            })
        },
        || {
            format!(
                "{op}: {clients} clients, {conns} connections, {value_bytes} bytes, {keys} keys, \
                 {seconds} s\n{per_second:.0} ops/s, p50 {}, p99 {}, p99.9 {}, max {}, \
                 {errors} errors",
                duration(p50),
                duration(p99),
                duration(p999),
                duration(max),
            )
        },
    )?;
    output.flush()?;
    if let Some(error) = &measured.last_error {
        eprintln!("flotilla: the last of {errors} errors: {error}");
    }
    Ok(Exit::Done)
}

/// Microseconds for people.
fn duration(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} us"),
        1000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(duration(999), "999 us");
        assert_eq!(duration(1500), "1.50 ms");
        assert_eq!(duration(2_500_000), "2.50 s");
    }

    #[test]
    fn the_value_has_the_size_that_was_asked_for() {
        assert_eq!(value_of(0).len(), 0);
        let value = value_of(1000);
        let zeros = value.iter().filter(|&&byte| byte == value[0]).count();
        assert_eq!(value.len(), 1000);
        assert!(zeros < 100, "{zeros} bytes are the same");
    }
}
