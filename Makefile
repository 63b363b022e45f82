PYTHON := .venv/bin/python
BIN := .venv/bin
# What must be installed to run, and to work on it. Either is made once per version of its lock.
RUN := .venv/.run-installed
DEV := .venv/.dev-installed
WHATSMEOW := .venv/.whatsmeow-installed

# The tests of a run are shared among processes, in the order given here: see
# tests/support/sharing.py. What keeps a whole Waypost running goes last.
SHARED := --numprocesses=auto --dist=loadgroup --no-loadscope-reorder

# Measures how long outages are borne, so nothing else may keep the processors busy.
OWNERSHIP := tests/whatsapp_suite/test_ownership.py

.DEFAULT_GOAL := help
.PHONY: help run whatsmeow demo whatsapp up down test test-fast test-whatsapp fault bench fuzz \
	bench-whatsapp fmt lint types validate migrate revision docs docs-check check

help: ## Show this.
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 18

run: $(RUN) ## Everything in one process: PostgreSQL included, no phone needed.
	$(PYTHON) -m services

whatsmeow: $(WHATSMEOW) ## Add linked devices (real WhatsApp accounts) to what 'make run' offers.

demo: $(DEV) ## Send a message through a running Waypost and watch it arrive.
	$(PYTHON) docs/examples/demo.py http://127.0.0.1:$${WAYPOST_PORT:-8080}

whatsapp: $(DEV) ## WhatsApp to play with, without a phone: a server, a contact, a paired Waypost.
	$(PYTHON) -m tests.whatsapp.by_hand

up: $(RUN) ## The five services as processes; needs DATABASE_URL and AMQP_URL.
	deploy/up.sh

down: ## Stop what 'make up' has started.
	deploy/down.sh

test: $(DEV) ## What the README promises: all suites but those that break things on purpose.
	$(PYTHON) -m pytest $(SHARED) tests/unit tests/contract tests/integration tests/api tests/e2e

test-fast: $(DEV) ## Unit and contract tests, in memory.
	$(PYTHON) -m pytest tests/unit tests/contract -k 'not rabbitmq'

test-whatsapp: $(DEV) ## Linked devices against a local WhatsApp; needs Node 20 and libmagic.
	$(PYTHON) -m tests.support.whatsapp_needs
	$(PYTHON) -m pytest $(SHARED) tests/whatsapp_suite --ignore=$(OWNERSHIP)
	$(PYTHON) -m pytest $(OWNERSHIP)

fault: $(DEV) ## What is lost or doubled when something dies.
	$(PYTHON) -m pytest tests/fault

fuzz: $(DEV) ## Fifty thousand requests of noise: nothing breaks, nothing leaks.
	$(PYTHON) -m tests.api.fuzz

bench: $(DEV) ## Measure throughput and latency.
	$(PYTHON) -m tests.load.bench

bench-whatsapp: $(DEV) ## Measure what linked devices cost, against a local WhatsApp.
	$(PYTHON) -m tests.load.linked_devices

fmt: $(DEV) ## Format and fix what can be fixed.
	$(BIN)/ruff check --fix-only . && $(BIN)/ruff format .

lint: $(DEV) ## Style, spelling, and who may import whom.
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell && $(BIN)/lint-imports

types: $(DEV) ## Check types.
	$(BIN)/mypy

validate: $(DEV) ## Check what deploys: image, compose file, manifests.
	deploy/validate.sh

migrate: $(RUN) ## Bring the database at DATABASE_URL to the current schema.
	$(PYTHON) -m shared.db.migrate

revision: $(DEV) ## Draft a migration from the tables: make revision m="what it does".
	$(PYTHON) -m shared.db.migrate revision "$(m)"

docs-check: $(DEV) ## Whether the generated pages are current.
	$(PYTHON) docs/generate.py --check

docs: $(DEV) ## Write the generated pages anew.
	$(PYTHON) docs/generate.py

check: lint types validate docs-check test test-whatsapp fault ## What CI runs: all the above, and every suite.

$(RUN): requirements.lock
	deploy/install.sh $< $@

$(WHATSMEOW): requirements-whatsmeow.lock
	deploy/install.sh $< $@

$(DEV): requirements-dev.lock
	deploy/install.sh $< $@
