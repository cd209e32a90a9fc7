# `make demo` and `make test` are all a newcomer needs: each sets up what it uses.
SHELL := bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# The environment is made again when one of these changes.
DEPENDENCY_FILES := pyproject.toml envs/constraints.txt envs/pytorch.txt
DEPENDENCY_HASH := $(shell cat $(DEPENDENCY_FILES) 2>/dev/null | sha256sum | cut -c1-16)
STAMP := $(VENV)/.installed-$(DEPENDENCY_HASH)

.PHONY: demo test test-all check lint words format types lint-rules architecture docs reference nvml-sim schema images offline-bundle clean help

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(STAMP):
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed here; make PYTHON=… $(MAKECMDGOALS) takes another" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "LLenergyMeasure needs Python 3.11, 3.12 or 3.13; $(PYTHON) is another. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test "$(origin PYTHON)" != "command line" -o ! -x $(BIN)/python || \
		test "$$($(PYTHON) -V)" = "$$($(BIN)/python -V)" || \
		{ echo "$(VENV) has $$($(BIN)/python -V); remove it to set it up with $(PYTHON)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "No virtual environment could be made; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@if $(BIN)/python -c "import torch" 2>/dev/null; then echo "Setting up $(VENV), once: this takes some minutes …"; \
	else echo "Setting up $(VENV), once: downloads up to 3 GB, which takes some minutes. No GPU? docs/install.md names a smaller torch …"; fi
	@PIP_USE_PEP517=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint envs/constraints.txt --requirement envs/pytorch.txt --editable '.[host,pytorch,slurm,dev,docs]'
	@rm -f $(VENV)/.installed-*
	@touch $@

demo: $(STAMP) ## set up and run the default study on this machine
	@$(BIN)/llem run config/config.yaml

# Compiled code is kept, whatever the shell says: three processes and what they start read it.
test: $(STAMP) nvml-sim ## set up and run the tests
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m "not slow and not system" \
		--numprocesses 3 --dist loadfile --no-loadscope-reorder

test-all: $(STAMP) nvml-sim ## every test, the long ones too: two hours
	@$(BIN)/python -m pytest

check: $(STAMP) lint words types architecture lint-rules docs ## lint, format, words, types, layers, rules, pages

lint: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

words: $(STAMP) ## the field's words in pages, messages and docstrings
	@$(BIN)/python tools/words.py

format: $(STAMP) ## put all code into its form
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format --quiet
	@$(BIN)/snakefmt Snakefile workflow rules

types: $(STAMP)
	@$(BIN)/mypy

architecture: $(STAMP)
	@$(BIN)/lint-imports

lint-rules: $(STAMP)
	@$(BIN)/snakefmt --check Snakefile workflow rules
	@$(BIN)/snakemake --lint
	@$(BIN)/snakemake --lint --snakefile workflow/Snakefile

docs: $(STAMP) ## build the documentation into site/, any warning an error
	@$(BIN)/python tools/site_pages.py
	@$(BIN)/zensical build --clean --strict

reference: $(STAMP) ## generate the documentation's reference pages
	@$(BIN)/python docs/generate_reference.py
	@$(BIN)/python tools/engine_pages.py

nvml-sim: ## the simulated card that the tests measure against (needs a C compiler)
	@if command -v $${CC:-cc} >/dev/null; then $(MAKE) --no-print-directory -C tests/nvml_sim OUT=$(abspath build/nvml_sim); \
	else echo "no C compiler: tests against the simulated card will be skipped"; fi

schema: $(STAMP) ## generate config/study.schema.json and the typed settings
	@$(BIN)/python -m llenergymeasure.config.schema
	@$(BIN)/python tools/settings_types.py

images: $(STAMP) ## an engine's image: BACKEND=pytorch RUNNER=apptainer [BASE=…]
	@test -n "$(BACKEND)" -a -n "$(RUNNER)" || { echo "usage: make images BACKEND=pytorch|vllm|sglang|tensorrt RUNNER=apptainer|docker [BASE=FOLDER_OR_IMAGE]" >&2; exit 2; }
	@$(BIN)/python -m llenergymeasure.containers.image_build "$(BACKEND)" --runner "$(RUNNER)" $(if $(BASE),--base "$(BASE)")

offline-bundle: $(STAMP) ## one archive of wheels for a machine without a network: [PYTHON_THERE=3.12] [EXTRAS=host,zeus]
	@$(BIN)/python tools/offline_bundle.py $(if $(PYTHON_THERE),--python "$(PYTHON_THERE)") $(if $(EXTRAS),--extras "$(EXTRAS)")

clean: ## remove what was built; results stay
	@rm -rf build dist site .cache .snakemake .mypy_cache .pytest_cache .ruff_cache
