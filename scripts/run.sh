#!/usr/bin/env bash
# Builds the program and starts a three-node cluster of real processes on this machine. Needs only
# cargo and a C compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in cargo gcc; do
    if ! command -v "$tool" >/dev/null; then
        echo "make run: $tool is missing; install rustup's stable Rust (https://rustup.rs) and gcc" >&2
        exit 2
    fi
done

cargo build --locked --release --package flotilla
target=${CARGO_TARGET_DIR:-target}
exec "$target/release/flotilla" cluster "$@"
