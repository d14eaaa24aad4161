# Each target does all set-up that it needs, from nothing: Python >= 3.11 and make are enough.
# VENV=.venv-x and PYTHON=/path/to/python choose another virtual environment and interpreter.

VENV ?= .venv
BIN := $(VENV)/bin
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11 python)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install --quiet --constraint constraints.txt
SOURCES := learner_jax configs launch sites benchmarks tests

# Tests of one file share what is dear to make, so a file stays in one process.
WORKERS ?= auto
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
TESTS ?=
# They have both processors to themselves, before all others.
SCHEDULES := tests/protocol/test_simulation.py
WORKDIR ?= runs/demo
SECONDS ?= 60
MINUTES ?= 60

.DEFAULT_GOAL := help
.PHONY: help demo install test lint soak endurance plants fuzz mutants bench device-check bundle docs constraints clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.ready ## ten hospitals and readmission, then four laboratories and proteins: real processes (4 minutes)
	@$(BIN)/learner local --config=readmission --workdir=$(WORKDIR)
	@$(BIN)/learner local --config=proteins --workdir=$(WORKDIR)-proteins

install: $(VENV)/.ready ## the package and what it needs, into .venv

test: $(VENV)/.ready-test lint ## lint, types, and every test but the soak ones (TESTS=tests/data for a part)
	@$(if $(TESTS),,$(BIN)/python -m pytest -n 0 -q -s $(SCHEDULES))
	@$(PYTEST) $(or $(TESTS),--ignore=$(SCHEDULES))

lint: $(VENV)/.ready-test ## ruff (rules, format) and pyright
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --check .; exit 1; }
	@$(BIN)/pyright --pythonpath $(BIN)/python

soak: $(VENV)/.ready-test ## the long runs: kill -9 at random moments, a hundred rounds
	@$(BIN)/python -m pytest -m soak -n 0 $(TESTS); code=$$?; test $$code -eq 0 -o $$code -eq 5

endurance: $(VENV)/.ready-test ## an hour of faults, one a minute, on a federation of real processes (MINUTES=60; Linux)
	@$(BIN)/python -m tests.endurance --minutes=$(MINUTES)

plants: $(VENV)/.ready-test ## planted faults: each must turn its test red
	@$(BIN)/python -m tests.plants

fuzz: $(VENV)/.ready-fuzz ## coverage-guided fuzzing of header, reassembly, seals and roster (SECONDS=60 each; Linux)
	@for target in header reassembly seal roster; do \
	  $(BIN)/python -m tests.fuzz.run $$target $(SECONDS) 2>&1 | tee build/fuzz-$$target.log | grep -E "^(stat::|==|.*Error|.*ALARM)" ; \
	  grep -q "^stat::number_of_executed_units" build/fuzz-$$target.log && ! grep -q "ERROR: libFuzzer" build/fuzz-$$target.log || exit 1; \
	done

mutants: $(VENV)/.ready-test ## faults of all small kinds in protocol/, one at a time; SECONDS of them (tests/protocol/mutants.md)
	@$(BIN)/python -m tests.mutants --seconds=$(SECONDS)

bench: $(VENV)/.ready-test ## the simulator against plain loops over the same batches; one JSON line each
	@$(BIN)/python -m benchmarks.simulator

device-check: $(VENV)/.ready ## what this machine's device gives: rounds, parity, peak; one line in benchmarks/results/ (a GPU or TPU)
	@$(BIN)/python -m benchmarks.device_check --out=benchmarks/results/device_check.jsonl

bundle: $(VENV)/.ready ## wheelhouse/: all that a machine without a network installs from
	@rm -rf wheelhouse
	@$(PIP) wheel --quiet --constraint constraints.txt --wheel-dir wheelhouse .
	@cp constraints.txt wheelhouse/
	@echo "wheelhouse/ holds $$(ls wheelhouse/*.whl | wc -l | tr -d ' ') wheels for $$($(BIN)/python -V) on $$(uname -sm). On such a machine:"
	@echo "  python3 -m venv .venv && .venv/bin/pip install --no-index --find-links wheelhouse learner-jax"

docs: $(VENV)/.ready-docs ## the pages of docs/ into build/docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/docs
	@echo "build/docs/index.html"

constraints: $(VENV)/.ready ## choose versions anew for Python 3.11 to 3.13 (asks the package index)
	@$(PIP) install --quiet uv
	@{ echo "# Exact versions that were tested together, for Python 3.11 to 3.13: pip install -c constraints.txt ..."; \
	   echo "# Made by 'make constraints' from pyproject.toml and constraints.in."; \
	   $(BIN)/uv pip compile pyproject.toml --constraint constraints.in --all-extras --universal --python-version 3.11 \
	     --no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade --quiet; } > constraints.new
	@mv constraints.new constraints.txt

clean: ## what was built; neither .venv nor runs/
	@rm -rf build dist wheelhouse .pytest_cache .ruff_cache .hypothesis

# A stamp is newer than what it was made from, so that a second call of a target starts at once.
$(VENV)/.ready: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing into $(VENV) (some minutes the first time)"
	@$(INSTALL) --editable '.[cells]'
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	@echo "installing what the tests need into $(VENV)"
	@$(INSTALL) --editable '.[test,tensorboard,ehr,cells]'
	@touch $@

$(VENV)/.ready-fuzz: $(VENV)/.ready-test
	@$(INSTALL) --editable '.[fuzz]'
	@mkdir -p build
	@touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	@$(INSTALL) --editable '.[docs]'
	@touch $@

$(BIN)/python:
	@found=; bare=; for python in $(CANDIDATES); do \
	  "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then found=$$python; break; fi; \
	  bare=$${bare:-$$python}; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	  echo "$$bare has no venv module. On Debian or Ubuntu: apt-get install python3-venv; then the same make again." >&2; exit 1; \
	elif [ -z "$$found" ]; then \
	  echo "expected Python 3.11 or newer, found none among: $(CANDIDATES). Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "creating $(VENV) with $$("$$found" -V)"; \
	"$$found" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }
