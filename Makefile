# The commands of this repository; `make help` lists them. Needs CPython 3.11–3.13 with venv and pip; installs its own uv.

UV_VERSION := 0.13.9
# A uv of the same series on the path is used if there is one; otherwise the first command installs it.
UV ?= $(or $(shell uv --version 2>/dev/null | grep -q '^uv 0\.13\.' && command -v uv),$(CURDIR)/.uv/$(UV_VERSION)/bin/uv)
# The first Python that runs: some of these names may be shims without a Python behind them.
UV_PYTHON ?= $(firstword $(shell for python in python3 python3.13 python3.12 python3.11; do $$python -c \
	'import sys; (3, 11) <= sys.version_info < (3, 14) and sys.implementation.name == "cpython" and print(sys.executable)' \
	2>/dev/null; done))
NO_PYTHON := CPython 3.11, 3.12 or 3.13 is needed, and none is on the path
UV_PYTHON_DOWNLOADS := never
# uv's usual cache folder, or one in the repository if that is not writable.
UV_CACHE_DIR ?= $(shell cache=$${XDG_CACHE_HOME:-$${HOME:+$$HOME/.cache}}; \
	test -n "$$cache" && mkdir -p "$$cache/uv" 2>/dev/null && test -w "$$cache/uv" && echo "$$cache/uv" || echo "$(CURDIR)/.uv/cache")
UV := $(UV)
UV_PYTHON := $(UV_PYTHON)
UV_CACHE_DIR := $(UV_CACHE_DIR)
# Bytecode is compiled at installation (uv) and for our own sources (compileall): stack and tests start many processes,
# and some machines disable bytecode files.
UV_COMPILE_BYTECODE ?= 1
export UV UV_PYTHON UV_PYTHON_DOWNLOADS UV_CACHE_DIR UV_COMPILE_BYTECODE
unexport VIRTUAL_ENV

DIST ?= dist
BIN := $(or $(UV_PROJECT_ENVIRONMENT),.venv)/bin
# More than there are cores, because the tests of servers and faults wait half of the time.
PROCESSES ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$(( cores < 6 ? cores * 2 : 8 )))
SOURCES := $(wildcard packages/*/src apps/*/src tools/*/src)
empty :=
PATHS := $(subst $(empty) ,:,$(SOURCES))

.PHONY: help sync dev admin test prove bench peers lint reference docs images sbom clients package new-package release clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

dev: sync ## run the local stack until Ctrl-C
	@$(BIN)/tequipy-devstack run

admin: sync ## create an admin in the running stack: make admin EMAIL=you@example.com
	@$(BIN)/tequipy-devstack admin "$(EMAIL)"

# By files, so that one process starts the servers of a file; pytest 9.2 ignores the groups of xdist 3.8.
# Test files are compiled once, and not by each process of each run, also on machines that disable bytecode files.
test: sync ## run every test in parallel; ARGS="-k name" selects
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -m "not prove" -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

prove: sync ## run the long proofs and print their figures; QUICK=1: only those that take seconds
	$(BIN)/pytest -m "prove$(if $(QUICK), and quick)" -n 0 -s $(ARGS)

bench: sync peers ## run each file of benchmarks/; ONLY=comparison runs one, ARGS="--rounds 3" is for it
	@set -e; for benchmark in $(or $(ONLY:%=benchmarks/%.py),$(filter-out benchmarks/report.py,$(wildcard benchmarks/*.py))); do \
		$(BIN)/python $$benchmark $(ARGS); \
	done

# In an environment of their own, because they need other versions of libraries than this project.
peers: $(UV) ## install the libraries that `make bench` compares with
	@env -u UV_PROJECT_ENVIRONMENT $(UV) sync --locked --quiet --project benchmarks/peers/environment

lint: sync ## check style, types, dependencies between the packages, lock files, and the OpenAPI document
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	# Both at once, because the installation of the linters waits for the network.
	.ci/contract/lint & contract=$$!; MYPYPATH=$(PATHS):benchmarks:benchmarks/peers:docs/site $(BIN)/mypy --explicit-package-bases packages apps tools tests benchmarks docs/site; types=$$?; wait $$contract && exit $$types
	$(BIN)/lint-imports
	$(UV) lock --check
	$(UV) lock --check --project benchmarks/peers/environment
	$(UV) lock --check --project clients/python
	$(BIN)/python .ci/breaking-changes

reference: sync ## write docs/reference/settings.md and packages/*/public-api.txt from the code
	$(BIN)/python .ci/reference
	$(BIN)/python .ci/public-api

# In an environment of its own: the packages and all that they import, whose docstrings are read, and Sphinx.
docs: $(UV) ## build the site of the documentation into dist/site
	@env UV_PROJECT_ENVIRONMENT=.uv/docs $(UV) sync --locked --quiet --group docs
	.uv/docs/bin/sphinx-build --quiet --fail-on-warning --keep-going -j 2 -d $(DIST)/site-trees -c docs/site . $(DIST)/site
	@echo "$(DIST)/site/index.html"

images: $(UV) ## install the contents of both images into empty folders, and start them
	.ci/replay-image tequipy-api tequipy_api serve celery
	.ci/replay-image tequipy-worker tequipy_worker run fastapi

sbom: $(UV) ## write what each image contains into dist/, as CycloneDX 1.5; EXTRAS="--extra otel" as in the build
	@mkdir -p $(DIST)
	@set -e; for app in api worker; do \
		$(UV) export --quiet --locked --format cyclonedx1.5 --no-dev --package tequipy-$$app $(EXTRAS) \
			--output-file $(DIST)/tequipy-$$app.cdx.json >/dev/null; \
		echo "$(DIST)/tequipy-$$app.cdx.json"; \
	done

clients: $(UV) ## generate both clients from the HTTP contract, check them, and build them into dist/
	@UV="$(UV)" DIST="$(DIST)" clients/build --check

package: $(UV) ## build every package into dist/
	$(UV) build --all-packages

new-package: sync ## make a feature package: make new-package NAME=billing
	@UV="$(UV)" $(BIN)/tequipy-devstack new-package "$(NAME)"

release: sync ## set the version of all packages: make release VERSION=0.2.0
	$(BIN)/python .ci/release $(VERSION)

clean: ## remove the environment, the caches and the local stack's data
	@test ! -e .dev/lock || flock --nonblock .dev/lock true || { echo "a stack runs on .dev: stop it first" >&2; exit 1; }
	rm -rf .dev .venv */*/.venv docs/reference/generated benchmarks/peers/environment/.venv clients/typescript/node_modules clients/typescript/build clients/typescript/dist .ci/contract/node_modules .uv dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

sync: $(UV)
	@$(if $(UV_PYTHON),,$(error $(NO_PYTHON)))$(UV) sync --locked --quiet
	@$(BIN)/python -m compileall -q $(SOURCES)

$(CURDIR)/.uv/$(UV_VERSION)/bin/uv:
	$(or $(UV_PYTHON),$(error $(NO_PYTHON))) -m venv --clear .uv/$(UV_VERSION)
	.uv/$(UV_VERSION)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
