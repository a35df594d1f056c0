# Thin: each target sets up .venv from the locks when it is missing or older than they are.
PYTHON ?= python3
BIN := .venv/bin
LOCKS := envs/cpu.lock envs/report.lock envs/dev.lock

.PHONY: FORCE demo docs image image-check image-test test test-all lint locks
.DELETE_ON_ERROR:

demo: .venv/ready ## the demo study: offline, CPU, minutes
	$(BIN)/snakemake --configfile config/demo.yaml --cores all
	@echo "Open results/report.html"

test: .venv/ready ## the fast tests
	$(BIN)/pytest -q -n auto -m "not slow"

test-all: .venv/ready ## the slow ones too
	$(BIN)/pytest -q -n auto -m "not slow"
	$(BIN)/pytest -q -n auto --dist loadfile -m slow

lint: .venv/ready ## style, import contracts, workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/snakefmt --check Snakefile workflow rules # it calls shfmt
	$(BIN)/snakemake --lint --configfile config/demo.yaml

docs: .venv/docs-ready ## the site, built strictly into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs/methods.md: .venv/ready FORCE ## write the page of methods anew
	$(BIN)/rankwise methods --page >$@.new
	mv $@.new $@

image: ## the image of envs/gpu.lock, by docker, podman or buildah
	docker/build.sh

image-test: ## the image on Debian with the CPU's locks: the demo and the fast tests inside; writes docker/test.md
	docker/test.sh

image-check: .venv/ready ## linters of the image and of the forge's workflows; the GPU's lock against the package index
	docker/check.sh

locks: .venv/ready ## write the lock files anew
	PATH="$(abspath $(BIN)):$$PATH" envs/lock.sh

.venv/ready: $(LOCKS) pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Rankwise needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(LOCKS:%=-r %)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Its pins are constrained by the other locks, so it adds packages and changes none.
.venv/docs-ready: .venv/ready envs/docs.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r envs/docs.lock
	touch $@
