# `make help` lists what there is. Everything built lies in the cache outside the checkout, so a second run, also from
# another clone, starts warm. Needed: Rust (rustup), Python 3.11 or newer and a C compiler; for the local cluster also Go,
# root and Debian 12. With PODBROKER_KUBECONFIG=<file> everything runs on that cluster, without root and without Go.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
CACHE := $(or $(PODBROKER_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/podbroker)
# What belongs to this checkout alone, so that two clones do not test each other's build.
OUT := $(CACHE)/checkouts/$(shell printf %s '$(CURDIR)' | sha256sum | cut -c1-12)
VENV := $(OUT)/venv
SITE := $(OUT)/site
RUN := $(VENV)/bin/python

# Clones share what cargo builds, and its last file has one name for all: take it before the next clone writes it. The lock is
# not the one of the cluster's program, whose build takes many minutes.
ALONE = mkdir -p $(CARGO_TARGET_DIR) && flock $(CARGO_TARGET_DIR)/take.lock

export PODBROKER_CACHE := $(CACHE)
export CARGO_TARGET_DIR ?= $(CACHE)/target
# The tests find the build here.
export PODBROKER_OUT := $(OUT)
# Our wheel is not installed into the environment that all checkouts share; it is put in front of it.
export PYTHONPATH := $(SITE):$(CURDIR)/tests
# No bytecode in the checkout.
export PYTHONDONTWRITEBYTECODE := 1
# The interpreter that the bindings are built against; without it cargo and maturin would take turns rebuilding them.
export PYO3_PYTHON := $(RUN)

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- what users run --------------------------------------------------------------------------------------------------

.PHONY: demo
demo: build wheel ## Run an Airflow task as a pod on the local cluster, its lines in the task log
	@cd tests && exec $(PYTHON) -m cluster run -- $(RUN) demo/demo.py

.PHONY: test
test: build wheel ## Run every test: Rust, bindings, provider, end to end on the cluster
	@exec $(RUN) tests/levels.py rust bindings parity manifests cluster e2e

.PHONY: unit
unit: wheel ## Run the tests that need no cluster
	@exec $(RUN) tests/levels.py rust bindings parity manifests

.PHONY: e2e
e2e: build wheel ## Run the end-to-end tests; TESTS='-k cancel' picks some
	@exec $(RUN) tests/levels.py e2e -- $(TESTS)

.PHONY: parity
parity: wheel ## Run the Kubernetes provider's own tests with our operator in the place of theirs; TESTS='-k labels' picks
	@exec $(RUN) tests/levels.py parity -- $(TESTS)

.PHONY: identity
identity: build wheel ## Run the tests of the identity chain: every link, outages, expiry
	@exec $(RUN) tests/levels.py identity -- $(TESTS)

.PHONY: faults
faults: build wheel ## Break things on the cluster and print the matrix; TESTS="-k 'etcd|kubelet'" picks rows
	@exec $(RUN) tests/levels.py faults -- $(or $(TESTS),--page $(CURDIR)/docs/faults.md)

.PHONY: kills
kills: build wheel ## End tasks of a real Airflow in every way and print the matrix; TESTS="-k 'cleared|marked'" picks rows
	@exec $(RUN) tests/levels.py kills -- $(or $(TESTS),--page $(CURDIR)/docs/kills.md)

.PHONY: compat
compat: wheel ## Run the provider's unit tests beside older Airflows and Kubernetes providers
	@exec $(RUN) tests/compatibility.py --page $(CURDIR)/docs/compatibility.md

.PHONY: bench
bench: venv ## Measure ours beside its peers and print tables; BENCH='logs scale' picks parts
	@echo "bench: building broker and Python package with optimisations"
	@mkdir -p $(OUT)/bin
	@$(ALONE) -c 'cargo build --release --locked -p podbroker -p podbroker-bench -p podbroker-mint --bins && \
		install $(CARGO_TARGET_DIR)/release/podbroker $(OUT)/bin/podbroker-release && \
		install $(CARGO_TARGET_DIR)/release/podbroker-bench $(CARGO_TARGET_DIR)/release/mint $(OUT)/bin'
	@$(call install-wheel,$(OUT)/wheel-release,$(SITE)-release,--release)
	@cd tests && PYTHONPATH=$(SITE)-release:$(CURDIR)/tests exec $(PYTHON) -m cluster run -- $(RUN) -m bench $(BENCH)

.PHONY: lint
lint: lint-rust lint-python lint-other ## Format, lints, types; warnings are errors

.PHONY: clean
clean: ## Remove what belongs to this checkout alone; the cache that all clones share stays
	@rm -rf $(OUT) target .mypy_cache .ruff_cache .pytest_cache tests/.mypy_cache
	@echo "clean: what all clones share is in $(CACHE); nothing there is needed, it only saves time"

# --- the parts -------------------------------------------------------------------------------------------------------

.PHONY: venv
venv: ## Make the Python environment of the tests; prints nothing when it is there
	@mkdir -p $(OUT); folder=$$(PYTHONPATH= $(PYTHON) tests/environment.py $(CACHE)); ln -sfn "$$folder" $(VENV)

.PHONY: build
build: ## Build the broker (debug)
	@mkdir -p $(OUT)/bin
	@$(ALONE) -c 'cargo build --locked -p podbroker --bin podbroker && \
		install $(CARGO_TARGET_DIR)/debug/podbroker $(OUT)/bin/podbroker'

.PHONY: wheel
wheel: venv ## Build the Python package (debug) and put it where the tests look
	@$(call install-wheel,$(OUT)/wheel,$(SITE),)

# $(1): where the wheel goes, $(2): where it is unpacked, $(3): more of maturin's arguments.
define install-wheel
rm -rf $(1); \
$(ALONE) -c '$(VENV)/bin/maturin build --locked --quiet $(3) --manifest-path python-bindings/Cargo.toml --out $(1)'; \
rm -rf $(2).new; $(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-index --no-compile \
	--target $(2).new $(1)/*.whl; \
rm -rf $(2); mv $(2).new $(2)
endef

.PHONY: cluster
cluster: ## A shell with a local cluster and kubectl set up; exit ends it
	@cd tests && exec $(PYTHON) -m cluster run -- $${SHELL:-bash} -i

.PHONY: lint-rust
lint-rust: venv
	@echo "lint: rustfmt"; cargo fmt --all --check
	@echo "lint: clippy"; cargo clippy --quiet --locked --workspace --all-targets -- -D warnings

.PHONY: lint-python
lint-python: wheel
	@echo "lint: ruff"; $(VENV)/bin/ruff check --quiet && $(VENV)/bin/ruff format --quiet --check --diff
	@echo "lint: mypy"; $(RUN) -m mypy
	@echo "lint: stubtest"; $(RUN) -m mypy.stubtest --concise podbroker._core

.PHONY: lint-other
lint-other:
	@echo "lint: gofmt"; if command -v gofmt >/dev/null; then \
		bad=$$(gofmt -l tests/cluster); [[ -z $$bad ]] || { echo "not formatted: $$bad"; exit 1; }; \
		else echo "lint: no gofmt here, skipped"; [[ -z $${CI:-} ]]; fi
	@echo "lint: merges"; ! git grep -nE '^(<<<<<<<|>>>>>>>) '
	@echo "lint: shell"; for script in .ci/run $$(git ls-files '*.sh'); do bash -n "$$script"; done

.PHONY: deny
deny: ## Licences, advisories and duplicates of the Rust dependencies; needs cargo-deny
	@command -v cargo-deny >/dev/null || { echo "deny: not installed; get it with: cargo install --locked cargo-deny"; exit 1; }
	@cargo deny --all-features check licenses bans sources advisories

.PHONY: buf
buf: ## Lint the contract and compare it with main; builds buf with Go once
	@cd proto && go run github.com/bufbuild/buf/cmd/buf@v1.50.0 lint

.PHONY: requirements
requirements: ## Pin tests/requirements.in anew
	@rm -rf $(OUT)/pin && $(PYTHON) -m venv $(OUT)/pin
	@$(OUT)/pin/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.in
	@{ head -1 tests/requirements.txt; $(OUT)/pin/bin/python -m pip freeze; } > $(OUT)/requirements.txt
	@mv $(OUT)/requirements.txt tests/requirements.txt; rm -rf $(OUT)/pin; git diff --stat tests/requirements.txt
