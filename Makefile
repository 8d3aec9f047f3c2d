# Every target sets up what it needs first; a set-up that is complete costs a second.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-all lint format bench bench-learning bench-drift faults lock clean

PYTHON_BIN := .venv/bin/python
LOCK := .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	--python-version 3.11

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name what; do printf '  %-14s %s\n' "$$name" "$$what"; done

setup: ## make .venv with the pinned packages, fetch the jars of Kafka and Spark
	@sh infra/setup.sh

demo: setup ## everything on this machine, on real flights (ARGS="--for 60" ends by itself)
	@.venv/bin/stream-trainer demo $(ARGS)

test: setup ## all tests but the slow ones; starts a real Kafka and a real Spark
	$(PYTHON_BIN) -m pytest -m "not slow" $(ARGS)

test-fast: setup ## the tests that need no Java, in seconds
	$(PYTHON_BIN) -m pytest -m "not spark and not slow" $(ARGS)

test-all: setup ## all tests
	$(PYTHON_BIN) -m pytest $(ARGS)

lint: setup ## ruff and mypy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: setup ## let ruff format the code and mend what it can
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: setup ## measure what the documentation states
	$(PYTHON_BIN) -m tests.bench $(ARGS)

bench-learning: setup ## how well it learns beside others, hours, resumes (ARGS="--data FOLDER", "--quick")
	$(PYTHON_BIN) -m tests.bench.learning --report docs/learning-benchmarks.md $(ARGS)

bench-drift: setup ## how far its alerts can be trusted, beside others too, an hour, resumes
	$(PYTHON_BIN) -m tests.bench drift drift.calibration drift.power drift.vocabularies drift.together \
		drift_whole drift_cost drift_flights --report docs/benchmarks.md $(ARGS)

faults: setup ## kill everything for a while, ask everything, write what held to docs/faults.md
	$(PYTHON_BIN) -m tests.faults --report docs/faults.md $(ARGS)

lock: setup ## pin the newest versions that pyproject.toml allows, and the jars
	$(LOCK) --upgrade --extra dev pyproject.toml --output-file requirements.lock
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > requirements-uv.lock
	$(PYTHON_BIN) -m infra.jars relock

clean: ## remove .venv and what tools leave behind (not the jars, not your data)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
