# make demo   everything from a fresh clone: environment, install, weights, and a robot's week in a home
# make test   everything from a fresh clone: environment, install, ruff, mypy, the test suite, the wheel
# make bench  the measured tables (needs the weights; an idle machine)
# make verify-long  a week with 20 kills, and a month, in a home (needs the weights; about half an hour)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint bench verify-long clean

demo: $(STAMP)
	$(BIN)/perdure demo

test: $(STAMP) lint
	$(BIN)/python -P -m pytest -m "not weights and not gpu"
	$(BIN)/python -P tests/check_wheel.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[bench]"
	$(BIN)/perdure bench planner --threads 2 --perplexity-tokens 500 --json docs/benchmarks/planner-cpu2.json

verify-long: $(STAMP)
	$(BIN)/perdure weights fetch qwen2.5-coder-0.5b-instruct-q4_k_m
	$(BIN)/python -P -m perdure.examples.home.endure --seed 1 --days 7 --kills 20
	$(BIN)/perdure bench life --days 30 --json demo-output/life-30.json

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist demo-output .pytest_cache .mypy_cache .ruff_cache
