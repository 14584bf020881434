#!/usr/bin/env bash
# Everything that has to hold: set-up, lint, all tests without and with RocksDB, the pure half alone,
# the documentation. Prints how long each stage took. One profile for all of it, so that RocksDB's C++
# is compiled once.
set -euo pipefail
cd "$(dirname "$0")/.."

report=()
stage() {
    local name=$1 began=$SECONDS
    shift
    echo
    echo "== $name"
    "$@"
    report+=("$(printf '%6.1f min  %s' "$(awk "BEGIN { print ($SECONDS - $began) / 60 }")" "$name")")
}

docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
}

# The whole workspace again, so that all other features, and with them the dependencies that were
# compiled for the stage before, stay the same; but not the lab suites, which know no storage, and of
# the persistence suite only what the stage before could not run, with fewer rounds.
rocksdb() {
    local features=raft-storage/rocksdb,kv-service/rocksdb,flotilla/rocksdb,benches/rocksdb
    cargo test --locked --workspace --lib --bins --test it --features $features
    cargo test --locked --workspace --test persistence --features $features -- rocksdb::
}

# Fixed seeds, of which some reach each rare state. Those that failed once are replayed by the tests.
simulator() {
    cargo run --locked --package sim -- --seeds 1..400 --require-coverage
}

stage "set-up" ./scripts/setup.sh
stage "the pure half of raft-core alone" cargo build --locked --package raft-core --no-default-features
stage "formatting, clippy, tidy (compiles RocksDB)" ./scripts/lint.sh
stage "tests without RocksDB" cargo test --locked --workspace
stage "simulator, fixed seeds" simulator
stage "tests with RocksDB" rocksdb
stage "documentation" docs

echo
echo "all stages passed"
printf '%s\n' "${report[@]}"
