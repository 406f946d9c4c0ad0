# The virtual environment is made once for each state of the lock files: the stamps stand for
# the installed sets. `make lock` is the only target that changes the pins.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/run-time.stamp
DEV := $(VENV)/dev.stamp
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

$(RUN): requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv --clear $(VENV)
	pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@touch $@

$(DEV): requirements-dev.lock $(RUN)
	pip install --quiet --disable-pip-version-check --requirement requirements-dev.lock
	@touch $@

.PHONY: install
install: $(RUN) ## make .venv with what the pipeline needs, exactly as locked

.PHONY: repro
repro: $(RUN) ## run the stages that changed and show the metrics
	dvc repro
	dvc metrics show

.PHONY: report
report: $(RUN) ## make the report and say where its page is
	dvc repro --quiet report
	@echo "Open file://$(CURDIR)/metrics/report/index.html"

.PHONY: predict
predict: $(RUN) ## read the digit in pictures: make predict IMAGE="a.png b.jpg"
	@test -n "$(IMAGE)" || { echo 'Say which pictures: make predict IMAGE="a.png b.jpg"'; exit 2; }
	@python -m tools.predict $(IMAGE)

.PHONY: test
test: $(DEV) ## run the whole test suite
	pytest --numprocesses 2 -r s

.PHONY: check-graph
check-graph: $(RUN) ## check that dvc.yaml lists exactly what the stages import and take
	python -m tools.check_graph

.PHONY: torture
torture: $(DEV) ## kill stages and DVC at random moments, 50 times a stage
	dvc repro --quiet
	python -m tools.torture $(TORTURE)

.PHONY: verify
verify: $(RUN) ## prove in a clone that this machine computes the committed results
	python -m tools.verify

.PHONY: lint
lint: $(DEV) check-graph ## check style, format and the graph
	ruff check
	ruff format --check

.PHONY: bench
bench: $(DEV) ## measure the pipeline against the tutorials' loops, in under three minutes
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

COMPILE := --quiet --upgrade --strip-extras --allow-unsafe --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
