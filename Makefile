# Every target sets up .venv by itself; the stamp makes the second time instant.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo demo-forecasting demo-autoscaling test test-slow lint bench verify clean

# Empty: the first that works of python3.11 (the version that is tested), 3.12, 3.13, python3.
PYTHON ?=
VENV ?= .venv
# For a machine that brings its own build of torch: make test VENV_FLAGS=--system-site-packages
VENV_FLAGS ?=
BENCH_FLAGS ?=
PYTEST_FLAGS ?=
# A file's tests stay together, since they share what they train. For one process, such as with --pdb: make test PARALLEL=
PARALLEL ?= -n logical --maxprocesses 4 --dist loadfile

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 28

$(STAMP): pyproject.toml constraints.txt
	@python="$(PYTHON)"; \
	for name in python3.11 python3.12 python3.13 python3; do \
		[ -n "$$python" ] || ! $$name -c '$(SUPPORTED)' 2>/dev/null || python=$$name; \
	done; \
	python=$${python:-python3}; \
	$$python -c '$(SUPPORTED)' 2>/dev/null || { \
		echo "predact needs Python 3.11, 3.12 or 3.13; $$python is $$($$python --version 2>&1 | head -1); choose one: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; }; \
	echo "Setting up $(VENV) with $$($$python --version); a few minutes, once ..."; \
	[ -x $(BIN)/python ] || $$python -m venv $(VENV_FLAGS) $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## train the detectors and the fusion agent on simulated traffic
	@$(BIN)/python train.py --preset fusion_demo
	@report=$$(ls -t logs/fusion_demo*/version_*/report.html 2>/dev/null | sed -n 1p || true); \
		echo "The report of this run: $${report:?no report was written below logs/}"

demo-forecasting: $(STAMP)  ## train the forecaster on a generated series
	@$(BIN)/python train.py --preset forecast_demo
	@report=$$(ls -t logs/forecast_demo*/version_*/report.html 2>/dev/null | sed -n 1p || true); \
		echo "The report of this run: $${report:?no report was written below logs/}"

demo-autoscaling: $(STAMP)  ## train an autoscaling agent briefly, and draw it beside the rules of today
	@$(BIN)/python train.py --preset autoscaling_ppo_spike --timesteps 600000 --name autoscaling_ppo_demo run.evaluate=false
	@$(BIN)/predact demo autoscaling --policy all --agent saved_models/autoscaling_ppo_demo.pth --pattern spike \
		--no-render --save logs/demo_autoscaling.gif

test: $(STAMP)  ## every test that takes seconds
	@$(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(PYTEST_FLAGS)

test-slow: $(STAMP)  ## the tests that take minutes
	@$(BIN)/python -m pytest -m slow $(PYTEST_FLAGS)

lint: $(STAMP)  ## format, style, types, direction of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: $(STAMP)  ## every number in the documents; BENCH_FLAGS=--quick for a short look
	@failed=""; for script in benchmarks/[a-z]*.py; do \
		[ -e "$$script" ] || continue; \
		echo "== $$script"; $(BIN)/python "$$script" $(BENCH_FLAGS) || failed="$$failed $$script"; \
	done; \
	[ -z "$$failed" ] || { echo "missed a bar or failed:$$failed" >&2; exit 1; }

verify: $(STAMP)  ## is everything here, and does it work
	@$(BIN)/python verify_setup.py

clean:  ## caches of the tools and build output; data, models, runs and .venv stay (see also: predact clean)
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
