# Needs only python3 (3.10 or newer), pip, make and git: every target installs what it lacks into .venv first.
#   PYTHON=python3.12       another interpreter
#   TORCH_OPTIONS="--index-url https://download.pytorch.org/whl/cpu"       a smaller, CPU-only torch on Linux
PYTHON ?= python3
TORCH_OPTIONS ?=
PYTEST_OPTIONS ?= -n 2
DEMO_OPTIONS ?= --jobs 2

VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/installed-core
DEV := $(VENV)/installed-dev
DOCS := $(VENV)/installed-docs
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-slow lint docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       play fresh seeds with five bundled agents and write a video of each into demo/"
	@echo "make test       the tests, without the slow ones"
	@echo "make test-slow  the slow tests"
	@echo "make lint       ruff and pyright"
	@echo "make docs       the documentation, built strictly into site/"
	@echo "make clean      remove .venv and build products"

demo: $(CORE)
	$(BIN)/grasp demo $(DEMO_OPTIONS)

test: $(DEV)
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

test-slow: $(DEV)
	$(BIN)/python -m pytest -m slow

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# The theme prints an advertisement unless it is told not to.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache

# torch comes first and pinned: asked for by another package, it may arrive in another version, with gigabytes of CUDA.
$(CORE): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("grasp_agent needs Python 3.10 or newer, got " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@rm -f $(CORE) $(DEV) $(DOCS)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  rm -rf $(VENV); \
	  $(PYTHON) -m venv $(VENV) 2>/dev/null || { \
	    echo "no ensurepip here: taking pip from $(PYTHON)"; \
	    $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	    $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }; }
	$(INSTALL) $(TORCH_OPTIONS) torch==2.13.0
	$(INSTALL) -e .
	@touch $@

$(DEV): $(CORE)
	$(INSTALL) -e ".[dev]"
	@touch $@

$(DOCS): $(CORE)
	$(INSTALL) -e ".[docs]"
	@touch $@
