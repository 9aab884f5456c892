# Everything there is to run. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

TESTBED := tests/e2e/testbed/testbed
TESTBED_CACHE ?= /var/cache/vmmigration-testbed
# The test bed's helm and restic come first: Debian's restic is too old.
export PATH := $(TESTBED_CACHE)/bin:$(PATH)

# One feature set for all of cargo's commands: another one would build the dependencies again.
FEATURES := --features vmmigration/cel
# End-to-end tests need the test bed: built with the rest, run by tests/e2e/run.
UNIT := --workspace --exclude e2e

CHART := charts/vmmigration-operator
CONTAINER ?= docker
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
IMAGE ?= localhost/vmmigration:$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## two clouds and two clusters on this machine, and a server that moves from one to the other (MODES="Volume Image")
	DEMO_MODES="$(MODES)" tests/e2e/demo/run

.PHONY: demo-client
demo-client: ## the same, moved by the client, with a hook of this machine and one in the guest over SSH
	DEMO_MODES="$(MODES)" tests/e2e/demo/run --client

# One whole move of each kind, every command of the documentation, what the API server refuses; the rest is `make test-e2e`.
EVERYDAY := docs:: moves:: volume_mode:: platform:: rules::

# Tests of `alone` disturb everybody and run one at a time: what needs no test bed takes the core that they leave.
.PHONY: test
test: fmt-check ## check, the everyday part of the end-to-end tests and both demos, on the test bed; 25 minutes
	E2E_BESIDE="make check" tests/e2e/run alone::
	E2E_BESIDE="make demo; make demo-client" tests/e2e/run $(EVERYDAY)

.PHONY: test-e2e
test-e2e: ## the other end-to-end tests (SHARD=1/3: a third of them; TESTS=name: any by their names)
	E2E_SHARD=$(SHARD) tests/e2e/run $(or $(TESTS),$(addprefix --skip ,alone:: $(EVERYDAY)))

.PHONY: check
check: fmt-check lint unit chart-lint ## what needs no test bed: format, lints, tests, generated files, chart, samples

.PHONY: unit
unit: tools ## unit, adapter and controller tests; generated files, samples and rules (TESTS=name: only those)
	RESTIC=$$(command -v restic) cargo test $(UNIT) $(FEATURES) --all-targets --locked --no-fail-fast -- $(TESTS)

.PHONY: golden
golden: ## write anew what is decided and built (TESTS=name: only of those tests); the difference is what a change does
	GOLDEN=write cargo test -p vmmigration $(FEATURES) --locked --lib -- $(or $(TESTS),decide::)

.PHONY: test-long
test-long: ## hours: licences and bans, random sequences against the model of both clouds (SEEDS=number), fuzz, the long tests on the test bed (TESTS=name), test-busy, the demo in all modes
	$(MAKE) deny
	EXPLORE_SEEDS=$(or $(SEEDS),200000) cargo test -p vmmigration $(FEATURES) --lib --locked -- explore
	$(MAKE) fuzz
	E2E_THREADS=1 tests/e2e/run --ignored $(TESTS)
	$(MAKE) test-busy
	$(MAKE) demo MODES="Image Image"
	$(MAKE) demo-client MODES="Volume Volume"
	$(MAKE) demo MODES="Image Volume"
	$(MAKE) demo-client MODES="Volume Image"

.PHONY: test-busy
test-busy: ## the test bed from its beginning, both demos and one whole test per transfer mode, beside eight processes that want a core each
	$(TESTBED) down
	E2E_HOGS=8 E2E_BESIDE="make demo; make demo-client" tests/e2e/run image_backed retired as_block_devices hooks_gate

# The profiles are those of the other builds, and only our own code is built for the fuzzer: minutes less than cargo-fuzz.
FUZZ := target/fuzz
FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

.PHONY: fuzz
fuzz: ## search for bytes that break what is read from elsewhere, a minute for each form (SECONDS=n, TARGETS="a b")
	command -v c++ >/dev/null || apt-get install -y --no-install-recommends g++
	mkdir -p $(FUZZ) fuzz/artifacts $(addprefix fuzz/corpus/,$(FUZZ_TARGETS))
	sed -n '/^\[profile\.dev/,/^\[profile\.release/{/^\[profile\.release/!p}' Cargo.toml >$(FUZZ)/profiles.toml
	RUSTC_WRAPPER=$(CURDIR)/fuzz/instrument cargo build --locked --manifest-path fuzz/Cargo.toml --target-dir $(FUZZ) --config $(FUZZ)/profiles.toml
	failed=; for target in $(or $(TARGETS),$(FUZZ_TARGETS)); do \
	  $(FUZZ)/debug/$$target fuzz/corpus/$$target fuzz/seeds/$$target -max_total_time=$(or $(SECONDS),60) -timeout=20 \
	    -rss_limit_mb=1024 -artifact_prefix=fuzz/artifacts/$$target- -print_final_stats=1 || failed+=" $$target"; \
	done; [ -z "$$failed" ] || { echo "broken:$$failed; what broke them is in fuzz/artifacts"; exit 1; }

# Compiled once, without optimisation: that is half of the minutes, and the checks take seconds either way.
DENY_VERSION := 0.20.2

.PHONY: deny
deny: ## licences, banned and duplicate crates, sources, by cargo-deny (CHECKS=advisories: known holes, by GitHub's list)
	cargo install --locked --debug --root target/tools --target-dir target/tools/build cargo-deny@$(DENY_VERSION)
	target/tools/bin/cargo-deny check $(or $(CHECKS),bans licenses sources)

.PHONY: bench
bench: ## our movers beside nbdcopy, qemu-img, rsync, zstd and restic on shaped links; writes docs/benchmarks.md (needs root, 65 minutes)
	tests/bench/run

.PHONY: client
client: ## build kubectl-vmmigration; in a directory of PATH it is `kubectl vmmigration`
	cargo build $(FEATURES) --bin kubectl-vmmigration --locked

.PHONY: build
build: ## compile everything, tests included
	cargo test --workspace $(FEATURES) --all-targets --locked --no-run
	go build -C tests/gitops -o /dev/null .

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all

.PHONY: fmt-check
fmt-check:
	cargo fmt --all -- --check

.PHONY: lint
lint: ## clippy, warnings are errors
	cargo clippy --workspace $(FEATURES) --all-targets --locked -- -D warnings

.PHONY: crds
crds: ## write crds/, the chart's copy and docs/reference.md from the code
	cargo build -q -p vmmigration $(FEATURES) --locked
	mkdir -p crds $(CHART)/files/crds
	rm -f crds/*.yaml $(CHART)/files/crds/*.yaml
	cargo run -q -p vmmigration $(FEATURES) --locked -- crd --dir crds --reference docs/reference.md
	cp crds/*.yaml $(CHART)/files/crds/

.PHONY: screens
screens: ## write docs/screens/ from what the client draws in a terminal
	SCREENS=write cargo test -p vmmigration $(FEATURES) --test client --locked -- pictures

.PHONY: chart-lint
chart-lint: tools ## helm lint, in both modes (what the chart renders is tested by operator/tests/chart.rs)
	helm lint --strict --quiet $(CHART)
	helm lint --strict --quiet $(CHART) --set mode=movers

.PHONY: image
image: ## build the container image (IMAGE=name:tag, CONTAINER=docker|podman)
	$(CONTAINER) build -t $(IMAGE) .

DIST := target/dist

.PHONY: dist
dist: chart-lint ## what a release has besides the image (RELEASE.md): programs, chart, definitions, checksums, in target/dist
	cargo build --release --locked -p vmmigration
	rm -rf $(DIST)
	mkdir -p $(DIST)
	tar -C target/release -czf $(DIST)/vmmigration-$(VERSION)-$$(uname -m).tar.gz vmmigration kubectl-vmmigration
	target/release/vmmigration crd >$(DIST)/vmmigration-$(VERSION)-crds.yaml
	helm package $(CHART) --destination $(DIST)
	cd $(DIST) && sha256sum -- * >SHA256SUMS

.PHONY: testbed-up
testbed-up: ## install and start the test bed
	$(TESTBED) install
	$(TESTBED) up

.PHONY: testbed-down
testbed-down: ## end the test bed, with everything in it
	$(TESTBED) down

# Tests drive the real helm and the real restic. The test bed brings both; that needs root and takes minutes once.
.PHONY: tools
tools:
	@if ! command -v helm >/dev/null || [ ! -x /usr/sbin/dropbear ] || ! restic version 2>/dev/null | grep -qE '^restic 0\.(19|[2-9][0-9])'; then $(TESTBED) install; fi

.PHONY: clean
clean: ## remove what was built
	cargo clean
