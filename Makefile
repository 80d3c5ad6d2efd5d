# `make mini` and `make test` are all that a fresh Linux machine with Python 3.11, 3.12 or 3.13 needs.

PYTHON ?= python3
CORES ?= $(shell nproc)
VENV := .venv
BIN := $(VENV)/bin
# Version of torch's CUDA libraries: 13 for NVIDIA drivers 580 and newer, 12 for older ones. The default is that of .venv.
CUDA ?= $(if $(wildcard $(VENV)/.ready-cuda12),12,13)
PINS := envs/requirements.txt envs/requirements-cuda12.txt envs/requirements-dev.txt
READY := $(VENV)/.ready-cuda$(CUDA)

.PHONY: help env mini assets full-size benchmark test test-all test-slurm test-slurm-all test-faults check clean-env

# `make` alone prints this.
help:
	@echo 'make help            this list'
	@echo 'make env             the pinned environment in .venv: 3 minutes, 6.4 GB'
	@echo 'make mini            all tables and figures of the miniature: half an hour on two cores'
	@echo 'make assets          the files of the paper'"'"'s world: 84 GB; STUDY=NAME for another study'
	@echo 'make full-size       time and memory of each stage with full-size models'
	@echo 'make benchmark       speed compared with a plain reference: a quarter of an hour'
	@echo 'make test            the tests of every change: 20 minutes on two cores'
	@echo 'make test-all        all tests: hours; needs root'
	@echo 'make test-slurm      tests with a real Slurm; needs root'
	@echo 'make test-slurm-all  all of these tests, with accounting; needs root'
	@echo 'make test-faults     tests with kills, full disks and damaged files; needs root'
	@echo 'make check           linters, formatters and type checks: seconds'
	@echo 'make clean-env       remove .venv'
	@echo 'Single targets: .venv/bin/snakemake -c2 results/mini/table1.csv; with -c1 and without a target, it lists the studies.'

env: $(READY)

# An interrupted installation leaves no $(READY), so the next one starts from the beginning. pins.txt in the environment
# lists the versions that were installed.
$(READY): $(PINS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than Python 3.11; choose another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 14))' || \
		echo "make: $(PYTHON) is newer than Python 3.13, the newest version in docs/environment.md; trying it nevertheless"
	@case "$(CUDA)" in 12|13) ;; *) echo "make: CUDA is $(CUDA), expected 12 or 13"; exit 1 ;; esac
	@$(PYTHON) -m corelib.files.shell_paths $(VENV)
	@[ ! -h "$(VENV)" ] || \
		{ echo "make: $(VENV) is a link to a folder that would be emptied; remove it, or set VENV=/some/new/folder"; exit 1; }
	@[ -e "$(VENV)/pyvenv.cfg" ] || [ -z "$$(ls -A "$(VENV)" 2> /dev/null)" ] || \
		{ echo "make: $(VENV) has files and is not an environment; choose a new folder"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@cp envs/requirements.txt $(VENV)/pins.txt
	@[ "$(CUDA)" = 13 ] || \
		sed '/^torch\(vision\)\{0,1\}==/d' envs/requirements.txt | cat - envs/requirements-cuda$(CUDA).txt > $(VENV)/pins.txt
	$(BIN)/python -m pip install --quiet -r $(VENV)/pins.txt -r envs/requirements-dev.txt
	@touch $@

# brief: a line each minute; full: all messages of Snakemake.
PROGRESS ?= brief

mini: env
	@products=$$($(BIN)/python -m corelib products mini) && set -x && \
		CORELIB_PROGRESS=$(PROGRESS) $(BIN)/snakemake --cores $(CORES) $$products --quiet host
	@cat results/mini/table1.md

# Downloads, checks and locks the files of the paper's world, on a machine with a network.
STUDY ?= paper
assets: env
	@$(BIN)/python -m corelib assets $(STUDY)

# Measures time and memory of each stage with full-size models of random weights. Needs 18 GB of memory, 20 GB of disk.
full-size: env
	$(BIN)/python benchmarks/full_size.py --steps 10

# Writes benchmark/benchmark.md. `python benchmarks/gpu.py` does all checks of a GPU (docs/performance.md).
benchmark: env
	$(BIN)/python benchmarks

# Number of processes in which tests run side by side; results that several tests need are built once.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test: env
	$(PYTEST) -m "not slow"

test-all: env
	$(PYTEST)
	$(MAKE) test-faults
	$(MAKE) test-slurm-all

# Starts a real Slurm for the tests and removes it after them. Needs root and Debian's slurm-wlm and munge
# (test-slurm-all: also slurmdbd and mariadb-server); fails with a message if they are missing.
test-slurm: env
	$(BIN)/python tests/slurm

test-slurm-all: env
	$(BIN)/python tests/slurm --long

# Kills every stage and gives it full disks and damaged files, hundreds of times; then takes a random walk of 500 moves
# through what people do to a folder of results (docs/faults.md). Needs root, for mounts.
test-faults: env
	$(BIN)/python tests/faults --workers $(WORKERS)
	$(BIN)/python tests/walk --moves 500

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow rules
	$(BIN)/mypy
	$(BIN)/snakemake --lint

clean-env:
	rm -rf $(VENV)
