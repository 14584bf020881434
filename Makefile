# The one front door: each target is one line. `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: help run test test-quick sim crash-states mutants chaos power-cuts storage-faults bench lint fmt tidy doc setup

help: ## what there is
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 20

run: ## build what is needed and start a three-node cluster on this machine
	@./scripts/run.sh

test: ## do all remaining set-up and run every test, RocksDB included
	@./scripts/test.sh

test-quick: ## the tests without RocksDB, nothing installed
	@cargo test --locked --workspace

sim: ## simulate 1,000 seeds of whole clusters with faults; `cargo run -p sim -- --help` says more
	@cargo run --locked --release --package sim -- --seeds 1..1000 --require-coverage

crash-states: ## power cuts behind every operation of a log, with more combinations than in the tests
	@CRASH_STATES=4096 cargo test --locked --release --package raft-storage --test it crash -- --nocapture

mutants: ## put known bugs into a copy of the tree; each must be noticed by its test
	@cargo xtask mutants

chaos: ## import real files while nodes are killed, paused and lose power, then compare (Linux, python3)
	@./scripts/chaos.sh
	@ROUNDS=3 ./scripts/power-cuts.sh

power-cuts: ## cut the power of real file systems under load, 20 rounds (Linux, root, ext4)
	@./scripts/power-cuts.sh

storage-faults: ## let real disks refuse under load: failed syncs, full disks (Linux, strace)
	@./scripts/storage-faults.sh

bench: ## commit throughput, backup, and the log stores against each other and the disk, by criterion
	@cargo bench --locked --package benches --features rocksdb

lint: ## formatting, clippy and tidy
	@./scripts/lint.sh

fmt: ## format the sources
	@cargo fmt --all

tidy: ## the walls of the house
	@cargo xtask tidy

doc: ## build the documentation
	@RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

setup: ## install what the tests need, or say what to install
	@./scripts/setup.sh
