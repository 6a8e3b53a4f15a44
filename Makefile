# Everything that a newcomer needs: Python 3.11+, git, make. uv is fetched where it is missing.
export UV_COMPILE_BYTECODE := 1

UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
PYTHON := .venv/bin/python
TESTS := $(PYTHON) -m pytest -n 2 --dist loadfile

.PHONY: setup quickstart test fast lint clean

setup: .venv/.synced

.venv/.synced: pyproject.toml
	@test -x "$(UV)" || python3 -m pip install --quiet --disable-pip-version-check --target .tools uv
	$(UV) sync --quiet
	@touch $@

quickstart: setup
	$(PYTHON) -m experiments quickstart

test: lint
	$(TESTS)

fast: lint
	$(TESTS) -m "not slow"

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/mypy

clean:
	rm -rf .venv .tools .cache outputs build dist
