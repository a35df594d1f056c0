# Each target first builds .venv from the lock files if it is missing or older than one of them.
PYTHON ?= python3
BIN := .venv/bin
LOCKS := envs/cpu.lock envs/eval.lock envs/report.lock envs/dev.lock

.PHONY: FORCE audit demo language-demo docs gpu-check image image-check image-test test test-all lint locks mend
.DELETE_ON_ERROR:

demo: .venv/ready ## run the demo study: offline, on a CPU, in minutes
	$(BIN)/snakemake --configfile config/demo.yaml --cores all
	@echo "Open results/demo/report.html"

language-demo: .venv/ready ## run the demo of a language model: offline, on a CPU, in minutes
	$(BIN)/snakemake --configfile config/language_demo.yaml --cores all
	@echo "Open results/language_demo/report.html"

test: .venv/ready ## run the fast tests
	$(BIN)/pytest -q -n auto --dist loadfile -m "not slow"

test-all: .venv/ready ## run the fast and the slow tests
	$(BIN)/pytest -q -n auto --dist loadfile -m "not slow"
	$(BIN)/pytest -q -n auto --dist loadfile -m slow

# This target alone uses the machine's own packages: a machine with a GPU may have no package index.
gpu-check: ## check predictions on this machine's GPU in nine minutes, with its own python3; REHEARSE=1: on a CPU
	PYTHONPATH="$(CURDIR)/src:$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) -m benchmarks.gpu_check $(if $(REHEARSE),--rehearse) $(OPTIONS)

lint: .venv/ready ## check style, import contracts and workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/snakefmt --check Snakefile workflow rules # snakefmt calls shfmt, so PATH needs it
	$(BIN)/snakemake --lint --configfile config/demo.yaml

docs: .venv/docs-ready ## build the site into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs/methods.md: .venv/ready FORCE ## regenerate the page of methods
	$(BIN)/rankwise methods --page >$@.new
	mv $@.new $@

image: ## build the image of envs/gpu.lock with docker, podman or buildah
	docker/build.sh

image-test: ## run the demo and the fast tests in an image of Debian with the CPU locks; writes docker/test.md
	docker/test.sh

image-check: .venv/ready ## lint the image and the workflows of .github; compare the GPU lock with the package index
	docker/check.sh

# Its tools are in an environment of their own, because they need other versions of some packages.
audit: .venv/audit/ready ## known vulnerabilities, licences and bill of materials of the locked packages
	$(BIN)/python3 envs/audit_locks.py .venv/audit/bin

locks: .venv/ready ## regenerate the lock files
	PATH="$(abspath $(BIN)):$$PATH" envs/lock.sh

# An environment that was moved or copied with its clone is made ready for its new place, in a second.
ifneq ($(wildcard .venv/ready),)
ifneq ($(shell cat .venv/place 2>/dev/null),$(CURDIR))
MEND := mend
endif
endif

mend:
	$(BIN)/python3 envs/relocatable.py .venv

.venv/ready: $(LOCKS) pyproject.toml | $(MEND)
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Rankwise needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(LOCKS:%=-r %)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python3 envs/relocatable.py .venv
	touch $@

.venv/audit/ready: envs/audit.lock | .venv/ready
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet --disable-pip-version-check --no-deps -r envs/audit.lock
	touch $@

# docs.lock is resolved under the pins of the other locks, so it adds packages and changes none.
.venv/docs-ready: .venv/ready envs/docs.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r envs/docs.lock
	$(BIN)/python3 envs/relocatable.py .venv
	touch $@
