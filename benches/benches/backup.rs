//! How long does it take to bring a follower back in step that is 10,000 entries of 256 bytes away?
//! The time runs from the moment it is connected again until all of the leader's log is on its
//! disk, so it includes the wait for the leader's next heartbeat, 50 ms at most.
//!
//! - `short`: it was in step once, then it missed everything.
//! - `empty`: it has never been heard of.
//! - `diverged`: it led, and has as many entries of its own that nobody else has.

use std::time::Duration;

use benches::{Cluster, Storage};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use raft_core::NodeId;
use tokio::runtime::Runtime;

const PAYLOAD_BYTES: usize = 256;
const ENTRIES: u64 = 10_000;
const CLIENTS: u64 = 256;

#[derive(Clone, Copy)]
enum Follower {
    Short,
    Empty,
    Diverged,
}

impl Follower {
    fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Empty => "empty",
            Self::Diverged => "diverged",
        }
    }
}

/// Makes a cluster with such a follower, connects it and measures.
async fn once(storage: Storage, follower: Follower) -> Duration {
    let isolated = matches!(follower, Follower::Empty).then_some(NodeId(3));
    let cluster = Cluster::start(storage, isolated).await;
    let mut leader = cluster.leader(None).await;
    cluster.load(leader, 1, 1, PAYLOAD_BYTES).await;
    let behind = match follower {
        Follower::Empty => NodeId(3),
        Follower::Short => {
            let behind = NodeId(if leader == NodeId(3) { 2 } else { 3 });
            cluster.level(behind, leader).await;
            cluster.isolate(behind);
            behind
        }
        Follower::Diverged => {
            let deposed = leader;
            cluster.isolate(deposed);
            cluster.strand(deposed, ENTRIES, PAYLOAD_BYTES).await;
            leader = cluster.leader(Some(deposed)).await;
            deposed
        }
    };
    cluster.load(leader, ENTRIES, CLIENTS, PAYLOAD_BYTES).await;
    cluster.rejoin(behind);
    let took = cluster.level(behind, leader).await;
    cluster.stop().await;
    took
}

fn backup(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    for storage in [Storage::Memory, Storage::File] {
        let mut group = criterion.benchmark_group(format!("backup/{}", storage.name()));
        group.throughput(Throughput::Elements(ENTRIES));
        group.sample_size(10);
        group.warm_up_time(Duration::from_millis(1));
        group.measurement_time(Duration::from_secs(2));
        for follower in [Follower::Short, Follower::Empty, Follower::Diverged] {
            group.bench_function(BenchmarkId::from_parameter(follower.name()), |b| {
                b.to_async(&runtime).iter_custom(|count| async move {
                    let mut total = Duration::ZERO;
                    for _ in 0..count {
                        total += once(storage, follower).await;
                    }
                    total
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, backup);
criterion_main!(benches);
