# `make` alone lists the targets. A fresh machine needs Python >= 3.11, make and git, nothing else:
# the first target that needs it makes .venv from the hashes in requirements.lock.

PYTHON ?= python3
PART   ?= content
ARGS   ?=

BIN   := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-system lint bench generate lock build clean

help:
	@echo 'make demo          the story of an update, told by real processes'
	@echo 'make test          unit, property and integration tests, with coverage (ARGS=… for pytest)'
	@echo 'make test-system   tests against servers that pip has not (installs MinIO and versitygw)'
	@echo 'make lint          style, types, layers, the wire contract and its generated code'
	@echo 'make bench         measurements, PART=content|rollout|agent|server'
	@echo 'make generate      the Python code of proto/sealift/v1'
	@echo 'make lock          requirements.lock from pyproject.toml (ARGS=--upgrade for newer releases)'
	@echo 'make build         sdist and wheel in dist/'
	@echo 'make clean         removes what the other targets made, but .venv and .cache/system'

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { \
	  echo "Sealift is developed on Python 3.11 to 3.14, and $(PYTHON) is $$($(PYTHON) -V 2>&1 || echo missing);" \
	    'name another: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo 'This Python cannot make environments (on Debian: apt-get install python3-venv)' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m deploy.demo

test: $(STAMP)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m 'not system' $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-system: $(STAMP)
	deploy/dev/install-system.sh
	$(BIN)/python -m pytest -m system $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy proto server client tests deploy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/python deploy/dev/generate.py --check

bench: $(STAMP)
	$(BIN)/python tests/bench/$(PART).py $(ARGS)

generate: $(STAMP)
	$(BIN)/python deploy/dev/generate.py

# Not from .venv, which is made from what this writes.
lock:
	$(PYTHON) deploy/dev/lock.py $(ARGS)

build: $(STAMP)
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find proto server client tests deploy -name __pycache__ -prune -exec rm -rf {} +
