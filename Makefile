# One command for each thing one does here; `make` lists them. All take PYTHON=…, the interpreter (3.11 or newer) to work with.
#
# Every interpreter has an environment of its own in .venvs/<version>, with the project installed from a wheel: what is tested is what
# a user installs. Empty files in it say what is up to date (.pip, .dependencies, .wheel, …), so that nothing is installed twice.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test system-tools test-optimized test-versions test-core test-full coverage lint format conformance bench bench-micro chaos clean

PYTHON ?= python3
PORT ?= 8000

VERSION := $(shell $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) and print("%d.%d" % sys.version_info[:2])')
ifeq ($(VERSION),)
    $(error Python 3.11 or newer is needed, and $(PYTHON) is not: make PYTHON=/path/to/one)
endif
VENV := .venvs/$(VERSION)
IN := $(VENV)/bin
NODE := .venvs/node
export NODE_PATH := $(CURDIR)/$(NODE)/node_modules
PIP := python -m pip --quiet --disable-pip-version-check

# -P keeps the working tree out of sys.path: `import termserver` finds the wheel.
PYTEST := $(IN)/python -P -m pytest
# Parameters that come out of sets have to be in the same order in every process of pytest-xdist.
IN_PARALLEL := PYTHONHASHSEED=0
CORE := $(wildcard tests/wire tests/asgi tests/net tests/observe tests/process tests/test_*.py)
PURE := */site-packages/termserver/wire/*,*/site-packages/termserver/asgi/*
SOURCES := $(shell find termserver -not -path '*/__pycache__*')

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed  ## Install and serve the example on http://127.0.0.1:$PORT/ (PORT=8000)
	cd examples/chat && ../../.venv/bin/python manage.py demo
	@printf '\n  Open  http://127.0.0.1:$(PORT)/  and log in as  admin  or, in a second window,  guest  (passwords: the same).  Ctrl-C ends it.\n\n'
	@cd examples/chat && exec ../../.venv/bin/termserver chat.asgi:application --bind 127.0.0.1:$(PORT)

.venv/.installed: pyproject.toml examples/chat/requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/$(PIP) install --upgrade pip
	.venv/bin/$(PIP) install --editable . --requirement examples/chat/requirements.txt
	@touch $@

# Lint comes first and the full suite last: its closing line ends the output.
test: system-tools lint test-optimized test-versions test-full  ## Everything that has to pass, on all interpreters found; continuous integration runs this

system-tools:
	scripts/system-tools.sh

test-optimized: $(VENV)/.wheel  ## Core tests under python -O, where assert statements of the package are gone
	$(IN_PARALLEL) $(IN)/python -O -P -m pytest -q -n auto -W 'ignore:assertions not in test modules:pytest.PytestConfigWarning' $(CORE)

test-versions:  ## Core tests on every other interpreter found
	@scripts/interpreters.sh | while read -r version python; do \
	    [[ $$version == $(VERSION) ]] || $(MAKE) --no-print-directory test-core PYTHON="$$python" </dev/null; \
	done

test-core: $(VENV)/.wheel  ## Core tests: no outside programs, a minute at most
	$(IN_PARALLEL) $(PYTEST) -q -n auto $(CORE)

test-full: $(VENV)/.wheel $(NODE)/.installed  ## The full suite; wire and asgi have to be covered to 100 %
	$(IN_PARALLEL) $(PYTEST) -q -n auto --dist loadgroup --cov termserver --cov-report= tests
	@$(IN)/coverage report --include '$(PURE)' --fail-under 100 >.coverage-report || { cat .coverage-report; exit 1; }

coverage: $(VENV)/.wheel  ## What the core tests cover: a summary, and pages in htmlcov/
	$(IN)/python -P -m coverage run -m pytest -q $(CORE)
	$(IN)/coverage html --quiet
	$(IN)/coverage report --skip-covered

lint: $(VENV)/.lint  ## ruff and mypy
	$(IN)/ruff check
	$(IN)/ruff format --check
	$(IN)/mypy --strict termserver

format: $(VENV)/.lint  ## Let ruff format and repair what it can
	$(IN)/ruff format
	$(IN)/ruff check --fix

# Without -P: the runner's modules stand beside it, and the working tree is not on its path.
conformance: $(VENV)/.wheel  ## Autobahn|Testsuite against termserver's WebSockets: docs/conformance.md (needs CPython 2.7)
	$(IN)/python tests/conformance/autobahn.py $(OPTIONS)

bench:  ## termserver and its peers under load: a table and a plot (OPTIONS='--help' says what there is to choose)
	$(PYTHON) -m benchmarks.load $(OPTIONS)

bench-micro: $(VENV)/.wheel  ## Hot functions, each with the claim made of it
	$(IN)/python -m benchmarks.micro $(OPTIONS)

chaos: $(VENV)/.wheel  ## Workers reloaded, killed and starved under load: a table of what that cost (OPTIONS='--part reload')
	$(IN)/python -m benchmarks.chaos $(OPTIONS)

clean:  ## Remove everything that is not in git but for the example's database
	rm -rf .venv .venvs dist build htmlcov .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.pip:
	$(PYTHON) -m venv $(VENV)
	$(IN)/$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

dist/.wheel: pyproject.toml README.md LICENSE $(SOURCES) | $(VENV)/.pip
	rm -rf dist
	$(IN)/$(PIP) wheel --no-deps --wheel-dir dist .
	@touch $@

$(VENV)/.dependencies: pyproject.toml examples/chat/requirements.txt $(VENV)/.pip | dist/.wheel
	$(IN)/$(PIP) install dist/*.whl --group test --requirement examples/chat/requirements.txt
	@touch $@

$(VENV)/.wheel: dist/.wheel $(VENV)/.dependencies
	$(IN)/$(PIP) install --force-reinstall --no-deps dist/*.whl
	@touch $@

# Clients from npm; where there is no npm, the tests that need them are skipped.
$(NODE)/.installed: tests/e2e/node/package.json
	mkdir -p $(NODE)
	cp $< $(NODE)
	if command -v npm >/dev/null; then cd $(NODE) && npm install --silent --no-audit --no-fund --no-package-lock; fi
	@touch $@

$(VENV)/.lint: pyproject.toml $(VENV)/.wheel
	$(IN)/$(PIP) install --group lint
	@touch $@
