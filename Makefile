# Two commands for newcomers: `make run` shows an answer and goes on serving, `make test` runs every test.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

.PHONY: run test unit soak lint type bench check clean

run: $(VENV)/.all
	@CCD_CLI__AUTO_INSTALL=true exec $(BIN)/ccd up --try

test: $(VENV)/.dev
	$(BIN)/python -m pytest

# All but what needs the real CLI, a real systemd or other people's clients.
unit: $(VENV)/.dev
	$(BIN)/python -m pytest --ignore tests/e2e --ignore tests/clients --ignore tests/tasks --ignore tests/systemd

# What takes longer than a commit should wait for.
soak: $(VENV)/.dev
	$(BIN)/python -m pytest -m soak -s

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(BIN)/python -m bench

check: lint type test

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A system Python may come without the part of venv that installs pip; then the outer pip fills the environment.
$(VENV)/bin/python:
	@./.ci/python-is-new-enough "$(PYTHON)"
	@echo "Setting up a virtual environment in $(VENV) …"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --without-pip $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m pip --python $(BIN)/python install --quiet pip

$(VENV)/.all: pyproject.toml | $(VENV)/bin/python
	@echo "Installing ccd and what it needs …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing ccd and what its tests need …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.all
