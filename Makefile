PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow check docs bench calibrate clean

demo: $(STAMP)
	$(BIN)/python -m heterodyne.cli.demo demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow and not slurm'

test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

check: $(STAMP) docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright
	$(BIN)/python -m pytest tests/test_budgets.py

docs: $(STAMP)
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs

bench: $(STAMP)
	$(BIN)/python -m benchmarks

calibrate: $(STAMP)
	$(BIN)/python -m benchmarks.calibrate

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .ruff_cache
