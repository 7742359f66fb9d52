# `make demo` and `make test` set up .venv by themselves; all they need is Python 3.11 or newer, pip and make.

VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
READY := $(VENV)/.ready
READY_TEST := $(VENV)/.ready-test
READY_BENCH := $(VENV)/.ready-bench
READY_GPU := $(VENV)/.ready-gpu

.DEFAULT_GOAL := help
.PHONY: help demo test test-gpu bench docs notebooks lint format clean distclean

help:
	@echo "make demo    train on data larger than the workers' memory, and tell what happened"
	@echo "make test    ruff, mypy, and all tests: tests/, the examples in docstrings, the notebooks"
	@echo "make test-gpu  the tests that need a GPU, with the extra gpu; they skip themselves where there is none"
	@echo "make bench   the benchmarks"
	@echo "make docs    the documentation, to docs/_build/html;  make notebooks  execute and save them"
	@echo "make lint    ruff and mypy only;  make format  let ruff rewrite"
	@echo "make clean   remove caches and builds;  make distclean  remove $(VENV) too"

demo: $(READY)
	@$(BIN)/daskdml demo

# Half of the tests wait for clusters and would be disturbed by others; the other half computes, on two cores.
test: lint
	@status=0; \
	$(BIN)/pytest -m "not alone" -n 2 --dist worksteal --durations=15 || status=$$?; \
	$(BIN)/pytest -m alone --durations=15 tests || status=$$?; \
	exit $$status

test-gpu: $(READY_GPU)
	$(BIN)/pytest -m gpu -p no:cacheprovider tests

lint: $(READY_TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY_TEST)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY_BENCH)
	$(BIN)/python -m benchmarks

docs: $(READY_TEST)
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

notebooks: $(READY_TEST)
	for notebook in notebooks/*.ipynb; do $(BIN)/python tests/notebooks/execute.py $$notebook $$notebook || exit 1; done

# A stamp older than pyproject.toml means that the dependencies may have changed: pip looks again.
$(READY): pyproject.toml | $(BIN)/python
	@echo "installing daskdml into $(VENV)"
	@$(PIP) install --editable .
	@touch $@

$(READY_TEST): pyproject.toml | $(BIN)/python
	@echo "installing daskdml and what its tests need into $(VENV)"
	@$(PIP) install --editable '.[test,docs]'
	@touch $@ $(READY)

$(READY_BENCH): pyproject.toml | $(BIN)/python
	@echo "installing daskdml and what its benchmarks need into $(VENV)"
	@$(PIP) install --editable '.[bench]'
	@touch $@ $(READY)

$(READY_GPU): pyproject.toml | $(BIN)/python
	@echo "installing daskdml and what its tests on a GPU need into $(VENV)"
	@$(PIP) install --editable '.[test,gpu]'
	@touch $@ $(READY)

# A python found on the PATH may be a launcher for a version that is not installed: take the first that runs.
# Where ensurepip is absent (Debian without python3-venv), that python's own pip puts one into the new environment.
$(BIN)/python:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
		if $$python -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "no Python 3.11 or newer found; name one: make PYTHON=/path/to/python3" >&2; exit 1; fi; \
	echo "making $(VENV) with $$($$found --version) ($$(command -v $$found))"; \
	if $$found -c 'import ensurepip' >/dev/null 2>&1; then $$found -m venv --clear $(VENV); \
	else $$found -m venv --clear --without-pip $(VENV) && $$found -m pip --python $(BIN)/python install --quiet pip; fi \
	|| { rm -rf $(VENV); exit 1; }

clean:
	rm -rf build dist docs/_build docs/api/generated *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis dask-worker-space dask-scratch-space
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
