# The front door: every target is one line.
.PHONY: help run test bench tidy lint fmt doc
.DEFAULT_GOAL := help

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

run: ## Run a cluster of three nodes on this machine (more: make run ARGS="--nodes 5")
	@scripts/setup.sh build && cargo run --release --locked -p flotilla -- cluster $(ARGS)

test: ## Everything that CI checks, with the minutes of each stage
	@scripts/test.sh

bench: ## Criterion benches: commit throughput and backup (one: make bench ARGS="--bench backup")
	@scripts/setup.sh build && cargo bench --locked -p benches $(ARGS)

tidy: ## The walls between the rooms
	@cargo run --quiet --locked --package xtask -- tidy

lint: ## Clippy, without RocksDB
	@cargo clippy --workspace --all-targets --locked -- -D warnings

fmt: ## Format
	@cargo fmt --all

doc: ## API documentation under target/doc
	@cargo doc --workspace --no-deps --locked
