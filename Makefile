# make lab    build everything and run it on this machine
# make test   install what the tests need and run all of them
# `make help` lists the rest.
SHELL := /bin/bash
export PATH := $(CURDIR)/target/node/node_modules/.bin:$(PATH)
CARGO ?= cargo
# What `rostrum lab` is started with: make lab ARGS="--port-base 20000"
ARGS ?=

.PHONY: help lab web build test lint unit e2e bench bench-switch bench-docs bench-peers chaos fuzz simulate setup

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

lab: ## build the release binary and the web client, and run all roles on this machine
	@scripts/setup lab
	@$(MAKE) --no-print-directory build
	@exec target/release/rostrum lab $(ARGS)

build: web ## the release binary with the web client in it
	$(CARGO) build --release

web: web/dist/index.html ## the web client

web/node_modules/.package-lock.json: web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

web/dist/index.html: web/node_modules/.package-lock.json web/index.html web/vite.config.ts web/tsconfig.json $(shell find web/src -type f)
	cd web && npm run --silent build

test: ## install what the tests need and run all of them
	@scripts/setup test
	@$(MAKE) --no-print-directory lint unit e2e
	@scripts/fuzz 4

lint: ## formatting, clippy, licences and sources of dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --offline check bans licenses sources; \
	else echo 'lint: cargo-deny is not installed: licences and sources not checked (cargo install cargo-deny)'; fi

unit: web ## Rust tests
	$(CARGO) test --workspace --lib --bins --tests --quiet

e2e: web ## a meeting of phones and browsers, in a network namespace of its own
	$(CARGO) build --quiet -p rostrum
	cd web && e2e/namespace.sh node --test --test-concurrency=1 e2e/*.test.mjs

bench: ## criterion benches and the CPU cost of a forwarded packet
	$(CARGO) bench -p rostrum-benches

bench-switch: ## what a switch carries and adds; then its CPU cost beside the floor (ten minutes)
	@mkdir -p target/benchmarks
	@ulimit -n "$$(ulimit -Hn)" && $(CARGO) bench -p rostrum-benches --bench capacity
	@set -o pipefail; ulimit -n "$$(ulimit -Hn)"; \
	$(CARGO) bench -p rostrum-benches --bench forward | tee target/benchmarks/forward.txt

bench-docs: ## put the last results of bench-switch and bench-peers into docs/benchmarks.md
	$(CARGO) bench -p rostrum-benches --bench capacity -- --write docs/benchmarks.md

bench-peers: ## the same fan-out on Janus and rtpengine, side by side (ARGS=cm-1200: the cases named so)
	@scripts/setup peers
	@# hundreds of sockets for the listeners, and four for each call of rtpengine
	@ulimit -n "$$(ulimit -Hn)" && $(CARGO) bench -p rostrum-benches --bench peers -- $(ARGS)

chaos: ## break a cluster under load in every way, five times each (ARGS='--scenario kill-owner': one only)
	@scripts/setup test
	$(CARGO) build --release -p rostrum
	@mkdir -p target/chaos
	target/release/rostrum chaos --runs 5 --html target/chaos/chaos.html $(ARGS)

fuzz: ## fuzz every parser for 60 seconds each (ARGS='600 sip_uri': longer, one only)
	scripts/fuzz $(or $(ARGS),60)

simulate: ## clusters of 10,000 seeds on virtual time (ARGS="--seed 7": replay one, with its ladder)
	$(CARGO) run --quiet --release -p sim -- $(ARGS)

setup: ## install what building and testing need
	scripts/setup test
