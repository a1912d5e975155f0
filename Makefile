# `make demo` and `make test` work from a fresh clone: Linux, Python 3.11 or newer, make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo bench test lint type layers unit packages constraints clean

demo: $(VENV)/.demo
	$(BIN)/headgate demo

# About five minutes; writes docs/benchmarks.md with this machine's figures.
bench: $(VENV)/.test
	$(BIN)/python benchmarks/allocation.py --limit 10 --report docs/benchmarks.md

test: lint type layers unit packages

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.test
	$(BIN)/mypy -p headgate

layers: $(VENV)/.test
	$(BIN)/lint-imports

unit: $(VENV)/.test
	$(BIN)/pytest -n auto --dist loadfile -m 'not alone'
	$(BIN)/pytest -m alone

packages: $(VENV)/.test
	$(BIN)/python tests/packages.py
	$(BIN)/python tests/plugins.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,test]'
	touch $@ $(VENV)/.demo

# Newest versions that the tests pass with; run `make test` before committing the result.
constraints: | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager -e '.[demo,test]'
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
