# Every target sets up what it needs on a machine with Python >= 3.11 and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: help setup check test test-cluster test-gpu demo bench generate clean

# uv: the one on PATH, else one of our own from pip.
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
PY := .venv/bin/python
SOURCES := contract/src worker/src operator/src cli/src

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

.uv/bin/uv:
	@python3 -m venv .uv 2>/dev/null && .uv/bin/pip install -q uv || \
	  { rm -rf .uv; python3 -m pip install -q --target .uv uv; } || \
	  { echo "setup: needs Python >= 3.11 with pip or venv (Debian: apt install python3-venv)" >&2; exit 2; }

.venv/.stamp: uv.lock pyproject.toml contract/pyproject.toml worker/pyproject.toml operator/pyproject.toml cli/pyproject.toml | $(filter .uv/bin/uv,$(UV))
	@$(UV) sync --quiet --locked
	@touch $@

setup: .venv/.stamp ## .venv with all four packages, editable, and their commands

check: setup ## format, lint, types, layers, generated files
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy $(SOURCES) tools benchmarks
	.venv/bin/lint-imports
	$(PY) tools/generate.py --check

test: setup ## all that needs no cluster
	$(PY) -m pytest -m "not cluster and not gpu" --durations=10

test-cluster: setup ## a real one-node Kubernetes, or the one in KUBECONFIG
	tests/cluster/run.sh

test-gpu: setup ## needs an NVIDIA device
	$(PY) -m pytest -m gpu

demo: setup ## the main job on this machine: night, rush hour, night, in under 3 minutes
	$(PY) -m yolastic_cli demo

bench: setup ## the figures of benchmarks/RESULTS.md beside five other servers: about 100 minutes (BENCH=--quick: 10)
	UV=$(UV) $(PY) benchmarks/run.py $(BENCH)

generate: setup ## CRDs, chart parts and reference tables from the contract
	$(PY) tools/generate.py

clean: ## remove what the targets made here
	rm -rf .venv .uv runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
