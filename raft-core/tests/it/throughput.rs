//! A rough measure of the driver, for comparing two versions of it. Not a check, so ignored; run
//! with `cargo test --release -p raft-core --test it -- --ignored --nocapture throughput`.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::support::Cluster;

#[ignore = "a measurement, not a check"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput() {
    for clients in [1, 16, 256, 1024] {
        let cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let started = Instant::now();
        let length = Duration::from_secs(2);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..clients {
            let handle = cluster.handle(leader).clone();
            let payload = Bytes::from(vec![1; 256]);
            tasks.spawn(async move {
                let mut count = 0_u64;
                while started.elapsed() < length {
                    handle.propose(payload.clone()).await.unwrap();
                    count += 1;
                }
                count
            });
        }
        let mut count = 0;
        while let Some(one) = tasks.join_next().await {
            count += one.unwrap();
        }
        let metrics = cluster.handle(leader).status().metrics;
        let rate = count as f64 / started.elapsed().as_secs_f64();
        let entries = metrics.entries_appended as f64 / metrics.appends as f64;
        println!(
            "{clients:5} clients: {rate:9.0} proposals/s, {entries:6.1} entries per append, \
             {} turns, {} inputs",
            metrics.turns, metrics.inputs
        );
        cluster.stop().await;
    }
}
