# Every target sets up .venv first if it must; nothing has to be installed by hand.
# Another interpreter: make PYTHON3=python3.12 test

PYTHON3 ?= python3
TESTS ?= tests
PYTHON := .venv/bin/python
INSTALLED := .venv/.installed
PEERS := .venv-peers/.installed
COMPILE := $(PYTHON) -m piptools compile --quiet --upgrade --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
COMPILED := $(wildcard keras_spectral/compiled/*.[ch]) scripts/compile_c.py

export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow examples check bench bench-ablation bench-scale bench-peers lock \
	clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

setup: $(INSTALLED)  ## make .venv with the pinned packages

$(INSTALLED): requirements.lock pyproject.toml $(COMPILED)
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed. Received: $$($(PYTHON3) --version 2>&1). Try: make PYTHON3=python3.12" >&2; exit 1; }
	@$(PYTHON3) -c 'import ensurepip, venv' \
		|| { echo "Python's venv module is needed. Try: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON3) -m venv .venv
	$(PYTHON) -m pip install --quiet --requirement requirements.lock
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED)  ## train a small network and compare its groups
	.venv/bin/keras-spectral demo

# Two workers share the cores: threads of theirs would only wait for each other.
test slow: export TF_NUM_INTRAOP_THREADS ?= 1
test slow: export OPENBLAS_NUM_THREADS ?= 1
test: $(INSTALLED)  ## the fast tests and every example in a docstring
	$(PYTHON) -m pytest -n 2 --dist worksteal --doctest-modules keras_spectral tests

slow: $(INSTALLED)  ## the tests that take more than a few seconds
	$(PYTHON) -m pytest -n 2 --dist worksteal -m slow $(TESTS)

examples: $(INSTALLED)  ## run every example on simulated data; figures in runs/examples
	printf '%s\n' examples/[0-9]*.py | xargs -n 1 -P 2 $(PYTHON)

check: $(INSTALLED)  ## format, lint, types, floors
	scripts/check

bench: $(INSTALLED)  ## the overhead of recording
	$(PYTHON) -m benchmarks.overhead

bench-ablation: $(INSTALLED)  ## the overhead with and without each compiled function
	$(PYTHON) -m benchmarks.ablation

bench-scale: $(INSTALLED)  ## how the overhead grows with width, rows, groups and layers
	$(PYTHON) -m benchmarks.scale

# .venv is for what it compiles: peers share this folder, and so the library in it.
bench-peers: $(INSTALLED) $(PEERS)  ## the overhead of other tools, in PyTorch and TensorFlow
	.venv-peers/bin/python -m benchmarks.peers

$(PEERS): benchmarks/peers/requirements.lock
	$(PYTHON3) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --requirement $<
	@touch $@

lock: export CUSTOM_COMPILE_COMMAND := make lock
lock: $(INSTALLED)  ## pin the newest packages that pyproject.toml allows
	$(COMPILE) --extra dev --extra parquet --extra cluster \
		--output-file requirements.lock pyproject.toml
	$(COMPILE) --output-file benchmarks/peers/requirements.lock \
		pyproject.toml benchmarks/peers/requirements.in
# Without the build of torch that was found here: each index has its own.
	sed -i 's/^\(torch==[0-9.]*\)+.*/\1/' benchmarks/peers/requirements.lock

clean:  ## remove .venv, .venv-peers, caches and build products
	rm -rf .venv .venv-peers dist build .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
