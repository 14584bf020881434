#!/usr/bin/env bash
# Formatting, clippy with warnings as errors, and tidy.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
cargo xtask tidy
