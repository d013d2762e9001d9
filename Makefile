# The commands of a developer; `make` lists them. `make test` is all of CI, on a machine with Python 3.11 or newer.
SHELL := bash
.SHELLFLAGS := -Eeuo pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DEFAULT_GOAL := help

PYTHON := python3
BIN := .venv/bin
PYTEST := $(BIN)/pytest $(PYTEST_ARGS)
# Half of the unit tests' time is waiting, so there are more workers than a small machine has processors.
WORKERS := 4
UNIT_TESTS := $(PYTEST) --whole --numprocesses $(WORKERS) --dist worksteal tests/unit
# Container tests wait for pods and registries. A file shares its images and pods, so it stays with one worker.
IN_PAIRS := --numprocesses 2 --dist loadfile --no-loadscope-reorder
# .ci/run takes the times of the parts from these lines.
step = @printf '\n== %s\n' '$(1)'

.PHONY: help
help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

.PHONY: test
test: check engine unit ## everything: checks, unit, container and full tests; installs what it needs
	$(call step,container tests)
	$(PYTEST) --whole $(IN_PAIRS) tests/container tests/gpu

.PHONY: check
check: venv ## the cheap checks only: linters, types, what is generated and locked
	$(call step,checks)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	find scripts tests .ci \( -name '*.sh' -o -path .ci/run -o -path tests/fakes/nvidia-smi \) -print0 | xargs -0 $(BIN)/shellcheck
	./build.py render --check
	./build.py lint
	./build.py lock --check

.PHONY: fast
fast: check engine ## for a change under way: checks, unit tests but the slow ones, container tests marked smoke
	$(call step,unit tests)
	$(UNIT_TESTS) -m "not slow"
	$(call step,smoke tests)
	$(PYTEST) --whole -m smoke tests/container

.PHONY: unit
unit: venv ## the tests that need no engine
	$(call step,unit tests)
	$(UNIT_TESTS)

.PHONY: golden
golden: venv ## write tests/golden/ and docs/reference/ anew, to be looked at in the diff
	./build.py render --update-golden
	$(BIN)/python docs/generate.py

.PHONY: bench
bench: venv engine ## the benchmarks, each with the limit that it must keep
	$(BIN)/python bench/render.py
	$(BIN)/python bench/start.py
	$(BIN)/python bench/door.py
	$(BIN)/python bench/cold_start.py
	$(BIN)/python bench/fetch.py
	$(BIN)/python bench/rebuild.py
	$(BIN)/python bench/repush.py
	$(BIN)/python bench/push_all.py
	$(BIN)/python bench/rebake.py
	$(BIN)/python bench/update_pull.py
	$(BIN)/python bench/model_server.py
	$(BIN)/python bench/bake.py

# On a machine with an NVIDIA GPU, with an engine (GPU_ARGS="--image IMAGE") or without one (GPU_ARGS="--comfyui DIR").
# The machine may have no network, so nothing is installed: `GPU_ARGS=--check` says what is missing.
.PHONY: gpu
gpu: ## the checks of a real card; GPU_ARGS are those of tests/gpu/run.py
	$(PYTHON) tests/gpu/run.py $(GPU_ARGS)

.PHONY: clean
clean: ## remove what builds and tests left here; .venv and the caches of the engine stay
	rm -rf dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: venv
venv:
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null && [[ $$EUID -eq 0 ]] && command -v apt-get >/dev/null; then
		printf 'make: installing python3-venv, which Debian keeps apart from python3\n' >&2
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends python3-venv >&2
	fi
	$(PYTHON) -Bc 'import sys, build
	if sys.version_info < build.OLDEST: build.fail("Python 3.11 or newer is needed: make PYTHON=python3.12 test")
	build.ensure(build.DEVELOP)'

.PHONY: engine
engine:
	$(call step,engine)
	scripts/host/ensure_engine.sh --with-tests
