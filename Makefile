# Two commands do everything: `make demo` trains, `make test` passes the tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# The CPU build of torch is enough for the demo and the tests. Where pip would take the large CUDA build instead, say:
#   make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
PIP_ARGS ?=
# pip shows what it fetches, how much of it has come and how long the rest takes.
PIP := --disable-pip-version-check --progress-bar on
# The tests of single parts, which `make coverage` runs.
PARTS := $(addprefix tests/,tree protocol runtime streams weights clients learner rollout verifier launcher demo python)
QUICK := not drill and not slow and not sglang and not gpu
VENV := .venv
BIN := $(VENV)/bin
# The real SGLang for tests on a plain CPU, in an environment of its own: its pins are not ours.
SGLANG ?= sglang==0.5.23
SGLANG_VENV := .venv-sglang
SGLANG_BIN := $(SGLANG_VENV)/bin
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-drills test-full test-verifier-long test-manifests test-containers coverage sglang-cpu test-sglang gpu-check dashboards docs sbom lint types check clean

help:  ## What there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) on PATH: install Python 3.11 or later, or say make PYTHON=python3"; exit 1; }
	@echo "Making the environment in $(VENV) (about two minutes, once): first PyTorch, then the rest"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install $(PIP) $(PIP_ARGS) "$(TORCH)"
	@$(BIN)/pip install $(PIP) $(PIP_ARGS) --editable ".[dev]"
	@touch $@

install: $(VENV)/.installed  ## The environment, in .venv

demo: install  ## Train a small model with IB-TPO on this machine: all services, a few minutes
	@$(BIN)/ibtpo demo $(ARGS)

test: install  ## The quick suite: lint, types, contracts, tests
	@$(MAKE) --no-print-directory check
	@$(BIN)/pytest -q -n 2 -m "$(QUICK)" $(ARGS)

# Only files that have drills are read, and those of whole systems, the longest, come early.
test-drills: install  ## Whole processes at work: runs that are killed and go on, ranks, trees and evaluations by command
	@$(BIN)/pytest -q -n 2 -m "drill and not slow" $(or $(ARGS),$$(grep -rl --include='test_*.py' 'mark\.drill' tests | sort -r))

test-full: install  ## The quick suite and every longer one that this machine can run
	@$(MAKE) --no-print-directory check
	@$(BIN)/pytest -q -m "not sglang and not gpu" $(ARGS)

# Apart from the quick suite: on Python 3.11 measuring takes half as much processor time again. `make test` judges the tests;
# here 1, some failed, is no failure, because the slower pace may be the reason.
coverage: install  ## How much of services and shared the tests of single parts run; subprocesses do not count
	@mkdir -p build
	@$(BIN)/pytest -q -n 2 -m "$(QUICK)" --tb=no --cov --cov-report= $(PARTS) $(ARGS) || [ $$? -eq 1 ]
	@echo "coverage of services and shared: $$($(BIN)/coverage report --format=total)%"

test-verifier-long: install  ## The verifier under a hundred thousand items and kills
	@$(BIN)/pytest -q -s -m slow tests/verifier $(ARGS)

gpu-check: install  ## What training on trees takes on one CUDA card, under eight minutes; ARGS="--device cpu --quick" tries it
	@$(BIN)/python -m benchmarks.gpu_check $(ARGS)

dashboards: install  ## Write the dashboards and the operator's rules; ARGS="--docs URL" says where docs/ is read
	@$(BIN)/python deploy/generate.py $(ARGS)

test-manifests: install  ## Prometheus rules, dashboards, Kubernetes manifests, Dockerfiles: all that needs no cluster
	@tests/manifests/run

test-containers: install  ## The composed system on a real engine, from nothing but root and apt: train, scale, kill, watch
	@tests/containers/run $(ARGS)

$(SGLANG_VENV)/.installed: deploy/sglang-cpu/requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) on PATH: install Python 3.11, or say make PYTHON=python3"; exit 1; }
	@echo "Making the environment of SGLang in $(SGLANG_VENV) (about two minutes and 2.7 GB, once)"
	@test -x $(SGLANG_BIN)/python || $(PYTHON) -m venv $(SGLANG_VENV)
	@$(SGLANG_BIN)/pip install $(PIP) $(PIP_ARGS) --requirement deploy/sglang-cpu/requirements.txt
	@$(SGLANG_BIN)/pip install $(PIP) $(PIP_ARGS) --no-deps "$(SGLANG)"
	@echo "$(CURDIR)/deploy/sglang-cpu/python" > "$$($(SGLANG_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ibtpo-sglang-cpu.pth"
	@touch $@

sglang-cpu: $(SGLANG_VENV)/.installed  ## The real SGLang for a plain CPU, in .venv-sglang

test-sglang: install sglang-cpu  ## The tests against the real SGLang: parity, weights, reuse, a run that learns
	@$(BIN)/pytest -q -m sglang tests/sglang $(ARGS)

docs: install  ## The documentation as a site in build/site, warnings are errors; ARGS=serve shows it as you write
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs $(or $(ARGS),build --quiet) && { test -n "$(ARGS)" || echo "open build/site/index.html"; }

sbom: install  ## What the environment is made of (CycloneDX 1.6), in build/sbom.cdx.json
	@test -x build/sbom/bin/cyclonedx-py || { $(PYTHON) -m venv build/sbom && build/sbom/bin/pip install --quiet $(PIP_ARGS) "cyclonedx-bom>=7,<8"; }
	@build/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON --output-file build/sbom.cdx.json $(BIN)/python
	@echo "build/sbom.cdx.json"

lint: install  ## Style
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .

types: install  ## Types
	@$(BIN)/mypy --no-error-summary

check: lint types  ## Style, types and who may import whom
	@$(BIN)/lint-imports

clean:  ## Remove what was built (runs/ stays)
	rm -rf $(VENV) $(SGLANG_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
