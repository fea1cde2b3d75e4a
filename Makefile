# Two commands for a new machine: make demo, make test. Both set up .venv first, from the lock file.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint install-check mutation docs lock clean

setup: .venv/ready

.venv/ready: requirements-setup.lock requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-setup.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $@

demo: setup
	$(BIN)/darklens demo

# Where Python is told to cache no bytecode, each process that a test starts would compile PyTorch anew.
test: setup
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install-check: setup
	$(BIN)/python tests/installation/check.py

# The score of one package: make mutation PACKAGE=evaluation SAMPLE=200
mutation: setup
	$(BIN)/python tests/mutation.py $(PACKAGE) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

docs: setup
	$(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html

lock: setup
	$(BIN)/uv pip compile --quiet pyproject.toml --extra test --extra docs --extra lint --extra wandb \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		--python-version 3.11 -o requirements.lock

clean:
	rm -rf .venv runs docs/_build
