# Everything here sets up what it needs: a virtual environment in .venv, and the packages in it.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
SEEDS ?= 2000
INPUTS ?= 1000000
SEED ?= 1
RAY ?=
comma := ,

.PHONY: demo test test-packages bench bench-peers scale soak mutants fmt lint type docs clean

demo: .venv/.installed
	@$(BIN)/roost demo

test: .venv/.dev test-packages
	$(BIN)/python -m pytest -q

test-packages: # what the tests of cut networks need of a Debian system; where it cannot be had they are skipped
	@command -v ip >/dev/null && command -v tc >/dev/null \
	  || { test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -qq -y --no-install-recommends iproute2; } \
	  || echo "iproute2 is missing, and only root can install it: the tests of cut networks are skipped"

bench: .venv/.dev
	$(BIN)/python -m benchmarks $(if $(RAY),--ray)

bench-peers: .venv/.dev # what roost is measured beside, on a Debian system; RAY=1 for Ray, too, which is large
	@command -v erlc >/dev/null || apt-get install -y --no-install-recommends erlang-base
	@command -v redis-server >/dev/null || apt-get install -y --no-install-recommends redis-server
	@command -v nats-server >/dev/null || apt-get install -y --no-install-recommends nats-server
	$(BIN)/python -m pip install --quiet --editable '.[bench$(if $(RAY),$(comma)bench-ray)]'

scale: .venv/.dev
	$(BIN)/python -m benchmarks.scale

soak: .venv/.dev
	$(BIN)/python -m tests.sim.soak --seeds $(SEEDS)
	$(BIN)/python -m tests.wire.fuzz --inputs $(INPUTS) --seed $(SEED)

mutants: .venv/.dev # breaks the copies on purpose, and shows which test notices each break
	$(BIN)/python -m tests.mutants

fmt: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

type: .venv/.dev
	$(BIN)/mypy
	$(BIN)/pyright

docs: .venv/.dev
	$(BIN)/python scripts/check_docs.py

.venv/.made:
	@test -n "$(PYTHON)" || { echo "roost needs Python 3.11 or newer, and no python3 is on the PATH"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "roost needs Python 3.11 or newer; $(PYTHON) is older: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

.venv/.installed: pyproject.toml .venv/.made
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/.dev: pyproject.toml .venv/.made
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ .venv/.installed

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
