# The whole workflow. Only python3 and make need to be there; everything else goes into .venv.
PYTHON ?= python3
SOAK_SECONDS ?= 600
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install run test check bench soak lock wheel clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## prepare .venv from requirements.lock (PYTHON=python3.12 to choose one)

$(STAMP): requirements.lock pyproject.toml .ci/environment.py
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not on the PATH; marketdash needs Python 3.11 or newer." >&2; exit 1; }
	@$(PYTHON) .ci/environment.py

run: $(STAMP) ## serve the dashboard (ARGS="--help" for its options)
	@$(BIN)/marketdash serve $(ARGS)

test: $(STAMP) ## run the tests, browser tests included (PYTEST_ARGS="-k replay")
	@.ci/install_browser.sh
	@$(BIN)/python -m pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

check: $(STAMP) ## check formatting, lint, types and layers
	@$(BIN)/ruff format --check --quiet . || { echo "Not formatted; this does it: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: $(STAMP) ## measure, and write benchmarks/latest.json (ONLY=name for one of them)
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

soak: $(STAMP) ## run for SOAK_SECONDS and watch memory, latency and threads
	@SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -m soak --timeout=$$(($(SOAK_SECONDS) * 2 + 300)) $(PYTEST_ARGS)

lock: ## remake requirements.lock from pyproject.toml (LOCK_ARGS=--upgrade for newer versions)
	@$(PYTHON) .ci/environment.py lock $(LOCK_ARGS)

wheel: $(STAMP) ## build the wheel into dist/
	@$(BIN)/hatchling build -t wheel

clean: ## remove builds and caches; .venv stays
	@rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./.venv -prune -o -path ./.git -prune -o -type d -name __pycache__ -print | xargs rm -rf
