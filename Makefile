# Every target sets up what it needs on a machine with Python >= 3.11 and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: help setup check test test-cluster test-gpu bench-gpu demo bench generate clean

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
	$(PY) -m pytest -n 2 -m "not alone and not cluster and not gpu" --durations=10
	$(PY) -m pytest -m alone --durations=10

test-cluster: setup ## a real one-node Kubernetes, or the one in KUBECONFIG
	tests/cluster/run.sh

# Where there is a device: an environment with its runtime (1.5 GB, once), or GPU_PY=… with onnxruntime-gpu, onnx, pytest and
# pytest-timeout, and then nothing is downloaded. Without a device the tests skip.
GPU_PY := $(if $(wildcard /dev/nvidiactl),.venv-gpu/bin/python,$(PY))
GPU_SETUP = $(if $(filter .venv-gpu/%,$(GPU_PY)),.venv-gpu/.stamp,$(if $(filter $(PY),$(GPU_PY)),setup))
GPU_PATH := PYTHONPATH=contract/src:worker/src

.venv-gpu/.stamp: uv.lock contract/pyproject.toml worker/pyproject.toml | $(filter .uv/bin/uv,$(UV))
	@UV_PROJECT_ENVIRONMENT=.venv-gpu $(UV) sync --quiet --locked --no-dev --package yolastic-worker --extra cuda
	@$(UV) pip install --quiet --python .venv-gpu/bin/python pytest pytest-timeout
	@touch $@

test-gpu: $(GPU_SETUP) ## needs an NVIDIA device
	$(GPU_PATH) $(GPU_PY) -m pytest -m gpu tests/gpu

bench-gpu: $(GPU_SETUP) ## the figures of benchmarks/RESULTS-gpu.md; needs an NVIDIA device and models (benchmarks/gpu.py --prepare)
	$(GPU_PATH) $(GPU_PY) benchmarks/gpu.py $(BENCH)

demo: setup ## the main job on this machine: night, rush hour, night, in under 3 minutes
	$(PY) -m yolastic_cli demo

bench: setup ## the figures of benchmarks/RESULTS.md beside five other servers: about 110 minutes (BENCH=--quick: 35)
	UV=$(UV) $(PY) benchmarks/run.py $(BENCH)

generate: setup ## CRDs, chart parts and reference tables from the contract
	$(PY) tools/generate.py

clean: ## remove what the targets made here
	rm -rf .venv .venv-gpu .uv runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
