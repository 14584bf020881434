//! The persistent-storage suite of the course, by name, with real files: every node is a process
//! of its own, is ended by SIGKILL, and loses its directory. What has no disk to lose is in
//! `sim/tests/labs`.
//!
//! A node whose directory was erased does not come back by itself: the operator lets a new
//! incarnation join as a learner and promotes it, as the tests do.
//!
//! Differences from the course: the network is whole (loss is what the simulator is for), waiting
//! is for conditions and not for seconds, and the limits of `DiskUse` and `AppendUse` are derived
//! anew, beside the numbers.
//!
//! With RocksDB the tests run fewer rounds. `PERSISTENCE_ROUNDS=full` makes them as many.

mod disk_use;
mod lab;
mod lost_disks;
mod mixes;
#[expect(dead_code, reason = "the tests of the program need more of it")]
#[path = "../it/program.rs"]
mod program;
mod restarts;
mod rounds;

/// Each test once per store.
macro_rules! suite {
    ($($name:ident: $test:path),* $(,)?) => {
        mod file {
            $(#[test] fn $name() { $test(crate::lab::Storage::File); })*
        }

        #[cfg(feature = "rocksdb")]
        mod rocksdb {
            $(#[test] fn $name() { $test(crate::lab::Storage::Rocksdb); })*
        }
    };
}

suite! {
    basic_persistence: crate::restarts::basic_persistence,
    one_restart: crate::restarts::one_restart,
    disk_use: crate::disk_use::disk_use,
    append_use: crate::disk_use::append_use,
    one_lost_disk: crate::lost_disks::one_lost_disk,
    one_lost_one_down: crate::lost_disks::one_lost_one_down,
    a_replaced_node_does_not_count_before_its_promotion: crate::lost_disks::not_counted,
    concurrent_crash: crate::rounds::concurrent_crash,
    simultaneous: crate::rounds::simultaneous,
    rejoin_mix_1: crate::mixes::rejoin_mix_1,
    rejoin_mix_3: crate::mixes::rejoin_mix_3,
}
