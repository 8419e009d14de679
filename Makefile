# Each target does all of its own set-up, in the virtual environment .venv of this folder.

SHELL := bash
VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check
CPP := $(shell git ls-files --cached --others --exclude-standard '*.h' '*.cpp' '*.cu' '*.cuh')
BUILT_FROM := setup.py pyproject.toml $(filter csrc/%,$(CPP))

.PHONY: help demo test test-deep check format bench evidence clean
help:
	@echo "make demo    run a real sentence encoder in int8 and compare it with float32 and with the reference"
	@echo "make test    build quaver and run every test"
	@echo "make test-deep  every test, those of minutes and gigabytes too"
	@echo "make check   formatting and lint"
	@echo "make bench   time the ops against the pure-torch reference"
	@echo "make evidence  count what the CUDA kernels do, with no GPU, and keep the table"
	@echo "make format  apply the formatting;  make clean  remove what was built"

demo: $(VENV)/demo
	$(PYTHON) examples/sentence_encoder.py

test: $(VENV)/test
	$(PYTHON) -m pytest

# What takes too long for every change; its log is kept.
test-deep: $(VENV)/test
	set -o pipefail; { date -u +%F; $(PYTHON) -m quaver; $(PYTHON) -m pytest --deep; } 2>&1 | tee tests/deep.log

check: $(VENV)/check
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $(CPP)

format: $(VENV)/check
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(CPP)

bench: $(VENV)/built
	$(PYTHON) -m benchmarks.bench_quantize
	$(PYTHON) -m benchmarks.bench_matmul

evidence: $(VENV)/test
	$(PYTHON) -m benchmarks.evidence

clean:
	rm -rf $(VENV) build python/*.egg-info python/quaver/*.so

# Stamps: each file stands for a step that is done.

$(PYTHON):
	python3 -m venv $(VENV)

$(VENV)/torch: requirements/build.txt | $(PYTHON)
	$(PIP) -r $<
	@touch $@

# With the machine's nvcc, if there is one, the CUDA kernels too; QUAVER_CUDA=0 leaves them out.
$(VENV)/built: $(VENV)/torch $(BUILT_FROM)
	MAX_JOBS=$${MAX_JOBS:-$$(nproc)} $(PIP) --no-build-isolation --no-deps --editable .
	@$(PYTHON) -m quaver
	@touch $@

$(VENV)/test: requirements/test.txt $(VENV)/built
	$(PIP) -r $<
	@touch $@

$(VENV)/demo: requirements/demo.txt requirements/demo-no-deps.txt $(VENV)/built
	$(PIP) -r requirements/demo.txt
	$(PIP) --no-deps -r requirements/demo-no-deps.txt
	@touch $@

$(VENV)/check: requirements/check.txt | $(PYTHON)
	$(PIP) -r $<
	@touch $@
