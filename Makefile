# The virtual environment is made anew whenever a lock file, the Python or its place changes: the
# stamps stand for the installed sets. `make lock` is the only target that changes the pins.
VENV := .venv
PYTHON ?= $(shell test -x $(VENV)/bin/python3 && echo $(VENV)/bin/python3 || echo python3)
KEY := $(shell printf '%s %s' "$(CURDIR)" "$$($(PYTHON) -c 'import sys; print(sys.base_prefix, sys.version)' 2>&1)" | cksum | cut -d' ' -f1)
RUN := $(VENV)/run-time-$(KEY).stamp
DEV := $(VENV)/dev-$(KEY).stamp
PIP := python -m pip --disable-pip-version-check install --requirement
# Which build of PyTorch: default is what pip finds, cpu the one without CUDA. Where nothing is given,
# it is cpu on Linux without an NVIDIA GPU.
TORCH ?=
export TORCH
CPU_BUILDS := https://download.pytorch.org/whl/cpu
OUTER_PATH := $(PATH)
export PATH := $(CURDIR)/$(VENV)/bin:$(OUTER_PATH)

.DEFAULT_GOAL := help
.NOTPARALLEL:

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

$(RUN): requirements.lock
	@# By the path without the environment's own: PYTHON=python3 may be another than is in there.
	@PATH="$(OUTER_PATH)"; echo "making $(VENV) with $(PYTHON)"; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")' && \
	$(PYTHON) -m venv --clear $(VENV)
	@# Older ones say nothing for minutes while they install PyTorch.
	python -m pip --disable-pip-version-check install --quiet 'pip>=25.1'
	@$(MAKE) --no-print-directory torch
	$(PIP) requirements.lock
	@touch $@
	@echo "$(VENV) is made; in each terminal, first: source $(VENV)/bin/activate"

# The lock's plain version is met by the CPU build, so that pip leaves it as it is. One try with a
# short time-out, for torch alone: pip asks an index that is out of reach again for each package.
.PHONY: torch
torch:
	@why="as TORCH says"; take="$$TORCH"; \
	if [ -z "$$take" ]; then \
		if [ "$$(uname -s)" != Linux ]; then take=default why="this is no Linux"; \
		elif command -v nvidia-smi >/dev/null; then take=default why="nvidia-smi is here"; \
		else take=cpu why="no nvidia-smi is here"; fi; \
	fi; \
	size="about 3 GB on Linux"; \
	case "$$take" in \
	default) echo "PyTorch: what pip finds, $$size, as it may bring CUDA ($$why)" ;; \
	cpu) echo "PyTorch: the CPU build, about 200 MB ($$why; TORCH=default takes the other)"; \
		python -m pip --disable-pip-version-check install --quiet --no-deps --timeout 5 --retries 0 \
			--index-url $(CPU_BUILDS) "$$(grep '^torch==' requirements.lock)" 2>/dev/null || \
		echo "PyTorch: no CPU build from $(CPU_BUILDS); takes what pip finds, $$size" ;; \
	*) echo "TORCH must be default or cpu (given: $$TORCH)" >&2; exit 2 ;; \
	esac

$(DEV): requirements-dev.lock $(RUN)
	$(PIP) requirements-dev.lock
	@touch $@

.PHONY: install
install: $(RUN) ## make .venv with the packages of requirements.lock

.PHONY: repro
repro: $(RUN) ## run the stages that changed and show the metrics
	@python -m tools.check
	dvc repro
	dvc metrics show

.PHONY: report
report: $(RUN) ## make the report and say where its page is
	dvc repro report
	@python -c 'import pathlib; print("Open", pathlib.Path("metrics/report/index.html").resolve().as_uri())'

.PHONY: restore
restore: $(RUN) ## make a damaged file anew: make restore FILE=models/model.safetensors
	@python -m tools.restore "$$FILE"

.PHONY: verify
verify: $(RUN) ## prove in a clone that this machine computes the committed results
	@python -m tools.verify

.PHONY: test-fast
test-fast: $(DEV) ## run the tests that need no pipeline, server or browser
	pytest --numprocesses 2 -m fast

.PHONY: test
test: $(DEV) ## run all tests
	@# Three, as a third of the time is waiting. One test at a time is given out, so that they end
	@# at about the same time.
	pytest --numprocesses 3 --maxschedchunk 1 -r s

.PHONY: mutants
mutants: $(DEV) ## put each fault of tests/mutants.py into a copy; a test must see it
	python -m tests.mutants

.PHONY: lint
lint: $(DEV) ## check style, format and types; the page's scripts, if npm is here
	ruff check
	ruff format --check
	@# Where Windows or macOS lacks something of the standard library, mypy says so here.
	for platform in linux darwin win32; do \
		mypy --platform $$platform --cache-dir .mypy_cache/$$platform || exit; done
	@python -m tools.lint_page

.PHONY: bench
bench: $(DEV) ## measure the pipeline against what else one would use
	python -m benchmarks.bench

.PHONY: lock
lock: $(DEV) ## resolve the direct dependencies in pyproject.toml anew and pin everything
	pip-compile $(COMPILE) --output-file requirements.lock pyproject.toml
	@# A plain torch version lets each platform take its own build.
	sed -i.bak 's/^\(torch==[0-9.]*\)+.*/\1/' requirements.lock
	pip-compile $(COMPILE) --extra dev --constraint requirements.lock \
		--output-file requirements-dev.lock pyproject.toml
	sed -i.bak 's/^\(torch==[0-9.]*\)+.*/\1/' requirements-dev.lock
	rm -f requirements.lock.bak requirements-dev.lock.bak
	python -m tools.pins

COMPILE := --quiet --upgrade --strip-extras --allow-unsafe --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.PHONY: clean
clean: ## remove .venv, all outputs and the tools' caches; make repro brings them back
	rm -rf $(VENV) .checkpoints data models metrics/compare metrics/plots metrics/report dvc_plots
	rm -rf benchmarks/results.json
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find . -name __pycache__ -prune -exec rm -rf {} +
