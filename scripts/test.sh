#!/usr/bin/env bash
# Everything that must hold before a change is merged, fast checks first. Stops at the first stage that
# fails; says at the end how long each took.
#
# All stages use the dev profile and one target directory, so RocksDB's C++ is compiled once.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly with_rocksdb="flotilla/rocksdb,kv-service/rocksdb,raft-storage/rocksdb,benches/rocksdb"
names=()
seconds=()

stage() { # name command...
    local name="$1" start="$SECONDS" status=0
    shift
    echo
    echo "==> $name: $*"
    "$@" || status="$?"
    names+=("$name")
    seconds+=("$((SECONDS - start))")
    ((status == 0)) || exit "$status"
}

report() {
    local status="$?" stage
    echo
    echo "minutes  stage"
    for stage in "${!names[@]}"; do
        printf '%4d:%02d  %s\n' "$((seconds[stage] / 60))" "$((seconds[stage] % 60))" "${names[stage]}"
    done
    printf '%4d:%02d  in all\n' "$((SECONDS / 60))" "$((SECONDS % 60))"
    if ((status == 0)); then
        echo "test: all stages passed"
    else
        echo "test: FAILED in stage '${names[-1]:-none}'"
    fi
}
trap report EXIT

stage "setup" scripts/setup.sh
stage "format" cargo fmt --all --check
stage "tidy" cargo run --quiet --locked --package xtask -- tidy
stage "core alone" cargo build --locked -p raft-core --no-default-features
stage "lint" cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
stage "docs" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --locked
stage "tests with RocksDB" cargo test --workspace --features "$with_rocksdb" --locked --no-fail-fast
stage "tests" cargo test --workspace --locked --no-fail-fast
