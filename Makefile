# make demo: set up, then run the main job on the embedded data.   make test: set up, then run the tests.
# make site: the documentation as a site, below site/.
# TORCH names the torch requirement to install, e.g. TORCH=torch==2.13.0 for a CPU wheel from the configured find-links.
# WORKERS: processes that share the tests, one a core unless said.
# pip's configured find-links and certificate are handed on to uv.
PYTHON ?= python3.11
TORCH ?=
WORKERS ?= auto
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
pip_setting = $(shell $(PYTHON) -m pip config list 2>/dev/null | sed -n "s/^[a-z:]*\.$(1)='\(.*\)'$$/\1/p" | tail -n 1)
LINKS := $(or $(PIP_FIND_LINKS),$(call pip_setting,find-links))
CERT := $(or $(SSL_CERT_FILE),$(PIP_CERT),$(call pip_setting,cert))
UV := $(if $(LINKS),UV_FIND_LINKS="$(LINKS)") $(if $(CERT),SSL_CERT_FILE="$(CERT)") $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
# CHECKED: glibc's own check of the heap, so that a library that writes where it may not is seen at once.
CHECKED := LD_PRELOAD=libc_malloc_debug.so.0 MALLOC_CHECK_=3 MALLOC_PERTURB_=165
export OMP_NUM_THREADS ?= 1

.PHONY: demo test slow extras browser hosts slurm lint docs site bench gpu torture clean setup
setup: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(if $(TORCH),$(UV) "$(TORCH)")
	$(UV) --group dev --editable .
	touch $@

demo: $(STAMP)
	$(BIN)/ambient train --sigma 0.2 --corruption 0.9 --outdir demo/train
	$(BIN)/ambient sweep run experiments/table1_digits.toml --runs demo/runs --workers 2 --outdir demo/sweep
	$(BIN)/ambient simulate-gmm --outdir demo/simulation
	$(BIN)/ambient compare demo/sweep demo/simulation --shipped --gallery demo/sweep/samples --outdir demo/report
	@echo "Open $(CURDIR)/demo/report/index.html"

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

slow: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow --timeout 1800

browser: $(STAMP)
	$(BIN)/python -m pytest -m browser -rs

hosts: $(STAMP)
	$(BIN)/python -m pytest -m namespaces --timeout 900 -rs

slurm: $(STAMP)
	$(BIN)/python -m pytest -m slurm --timeout 900 -rs

# the packages of the optional extras; a test whose package could not be had is skipped, and says so
extras: $(STAMP)
	-$(UV) --editable ".[hub,tb,wandb,lmdb,datasets,slurm,science]"
	-$(UV) --no-deps "torch-fidelity>=0.3"
	$(BIN)/python -m pytest -m extras -n $(WORKERS) --timeout 900 -rs

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m ambient_train.settings.document > docs/options.md
	$(BIN)/python -m ambient_theory.simulation.options >> docs/options.md
	$(BIN)/python -m ambient_theory.own_data.options >> docs/options.md
	$(BIN)/python -m ambient_theory.compare.commands.document >> docs/options.md

site: $(STAMP)
	$(BIN)/python docs/site site
	@echo "Open $(CURDIR)/site/index.html"

torture: $(STAMP)
	$(BIN)/python tests/torture kills --out experiments/torture.json
	$(BIN)/python tests/torture commands --out experiments/torture_commands.json
	$(CHECKED) $(BIN)/python tests/torture files --out experiments/torture_files.json

bench: $(STAMP)
	mkdir -p benchmarks
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-json=benchmarks/latest.json --timeout 1800

# one sitting on a GPU, at most 25 minutes, nothing from the network; ARGS=--cpu walks through it at toy size
gpu: $(STAMP)
	mkdir -p benchmarks
	experiments/gpu.sh benchmarks/gpu.json $(ARGS)

clean:
	rm -rf $(VENV) build dist site *.egg-info
