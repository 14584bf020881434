//! How many commands of 256 bytes a second go through three nodes, by the number of callers that
//! wait for each of theirs? In memory it is the price of the protocol and the scheduler; in files
//! every acknowledgement is synced on two disks, which here are one.

use std::time::Duration;

use benches::{Cluster, Storage};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

const PAYLOAD_BYTES: usize = 256;

fn commit(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    for storage in [Storage::Memory, Storage::File] {
        let mut group = criterion.benchmark_group(format!("commit/{}", storage.name()));
        group.throughput(Throughput::Elements(1));
        group.sample_size(10);
        group.warm_up_time(Duration::from_secs(1));
        group.measurement_time(Duration::from_secs(3));
        for clients in [1, 64, 256, 1024] {
            // A fresh cluster each: logs are never compacted here.
            let cluster = runtime.block_on(Cluster::start(storage, None));
            let leader = runtime.block_on(cluster.leader(None));
            group.bench_with_input(
                BenchmarkId::new("clients", clients),
                &clients,
                |b, clients| {
                    b.to_async(&runtime)
                        .iter_custom(|count| cluster.load(leader, count, *clients, PAYLOAD_BYTES));
                },
            );
            runtime.block_on(cluster.stop());
        }
        group.finish();
    }
}

criterion_group!(benches, commit);
criterion_main!(benches);
