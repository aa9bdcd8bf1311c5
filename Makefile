# A small closed set of commands, the same as CI's. Everything runs in .venv, which `make venv` sets up with pip.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help venv demo test test-timm check docs format clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 10

venv: .venv/.installed ## set up .venv with the versions that are tested

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: venv ## three minutes: pairs of small networks on bundled digits, with and without shaking
	$(BIN)/shakeshake demo

test: venv ## every test, under ten minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

test-timm: ## every test with the newest torch and timm, in .venv-timm (several GB)
	$(PYTHON) -m venv .venv-timm
	.venv-timm/bin/python -m pip install --quiet --editable '.[dev,timm]'
	.venv-timm/bin/python -c 'import timm, torch, transformers as t; print(torch.__version__, timm.__version__, t.__version__)'
	OMP_NUM_THREADS=1 .venv-timm/bin/python -m pytest -n auto $(PYTEST_ARGS)

check: venv ## format, lint, types and the quick tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m 'not slow'

docs: venv ## the documentation as a site, in site/; any warning fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: venv ## put the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what the commands above made, runs/ excepted
	rm -rf .venv .venv-timm build dist site src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
