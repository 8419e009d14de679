# Each target does all of its own set-up, in the virtual environment .venv of this folder.

SHELL := bash
VENV := .venv
BENCH := build/bench
PACKAGES = $(1) -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip install --quiet --disable-pip-version-check
CPP := $(shell git ls-files --cached --others --exclude-standard '*.h' '*.cpp' '*.cu' '*.cuh')
BUILT_FROM := setup.py pyproject.toml $(wildcard building/*.py) $(filter csrc/%,$(CPP))

# The torches that the wheel is tested beside: the oldest that it serves, and a newer one, with CUDA.
TORCHES := 2.13.0 2.14.1
# The emulator and the sanitizers compile the kernels themselves, and the rest looks at the sources: they say nothing of
# a wheel.
NOT_OF_THE_WHEEL := emulat* evidence mutants sanitizers house package install docs on_gpu benchmarks accuracy instruction*

.PHONY: help build demo test test-libraries test-deep wheel test-wheel check format bench accuracy evidence gpu-test gpu-bench docs clean
help:
	@echo "make demo    run a real sentence encoder in int8 and compare it with float32 and with the reference"
	@echo "make test    build quaver and run every test"
	@echo "make test-deep  every test, those of minutes and gigabytes too"
	@echo "make wheel   sdist and wheel, into dist;  make test-wheel  the wheel's tests beside torch $(TORCHES)"
	@echo "make check   formatting and lint"
	@echo "make bench   time the ops against the pure-torch reference and their peers, and write a report; QUICK=1: minutes"
	@echo "make accuracy  what int8 costs three real models, recipe by recipe, and keep the tables: two hours"
	@echo "make evidence  count what the CUDA kernels do, with no GPU, and keep the table"
	@echo "make gpu-test  on a machine with a GPU: the kernels on the real thing;  make gpu-bench  their times, beside torch's"
	@echo "make docs    these functions and their pages as a site, into build/site; dead links are errors"
	@echo "make format  apply the formatting;  make clean  remove what was built"

build: $(VENV)/built

demo: $(VENV)/demo
	$(PYTHON) examples/sentence_encoder.py

# Side by side; a worker whose tests are done takes over some of another's.
test: $(VENV)/test
	$(PYTHON) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

# The kernels as the emulator runs them, and under the sanitizers; the first test that needs them compiles them too.
test-libraries: $(VENV)/built
	-$(PYTHON) -c 'from tests.emulator import emulated; emulated.library()'
	-$(PYTHON) -c 'from tests.sanitizers import build; build.package()'

# What takes too long for every change; its log is kept.
test-deep: $(VENV)/test test-wheel
	set -o pipefail; { date -u +%F; $(PYTHON) -m quaver info --json; $(PYTHON) -m pytest --deep; } 2>&1 | tee tests/deep.log

wheel: $(VENV)/wheel

# Built once, out of the source distribution.
test-wheel: $(VENV)/wheel $(TORCHES:%=build/torch-%/installed)
	for torch in $(TORCHES); do \
		python=build/torch-$$torch/bin/python; \
		$$python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/*.whl && \
		$$python -m pytest --wheel dist/*.whl --pyargs quaver tests README.md docs \
			$(NOT_OF_THE_WHEEL:%='--ignore-glob=tests/test_%.py') || exit 1; \
	done

check: $(VENV)/check
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run --Werror $(CPP)

format: $(VENV)/check
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(CPP)

# In an environment of its own, which sees that of the tests and of the models; QUICK=1: minutes, KEEP=1: the tables too.
bench: $(BENCH)/installed
	$(BENCH)/bin/python -m benchmarks $(if $(QUICK),--quick) $(if $(KEEP),--keep)

accuracy: $(VENV)/accuracy
	$(PYTHON) -m benchmarks.accuracy --keep

evidence: $(VENV)/test
	$(PYTHON) -m benchmarks.evidence

# For a machine with a GPU; their logs are build/gpu-test.log and build/gpu-bench.log.
gpu-test gpu-bench: gpu-%: $(VENV)/test
	mkdir -p build
	set -o pipefail; $(PYTHON) -m $(if $(filter test,$*),tests.on_gpu,benchmarks.bench_gpu) 2>&1 | tee build/gpu-$*.log

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet

clean:
	rm -rf $(VENV) build dist python/*.egg-info python/quaver/*.so

# Stamps: each file stands for a step that is done.

$(PYTHON):
	python3 -m venv $(VENV)

$(VENV)/torch: requirements/build.txt | $(PYTHON)
	$(PIP) -r $<
	@touch $@

# With the machine's nvcc, if there is one, the CUDA kernels too; QUAVER_CUDA=0 leaves them out.
$(VENV)/built: $(VENV)/torch $(BUILT_FROM)
	$(PIP) --no-build-isolation --no-deps --editable .
	@$(PYTHON) -m quaver info
	@touch $@

$(VENV)/test: requirements/test.txt $(VENV)/built
	$(PIP) -r $<
	@touch $@

$(VENV)/wheel: requirements/wheel.txt $(VENV)/torch $(BUILT_FROM) MANIFEST.in LICENSE README.md $(wildcard python/quaver/*.py python/quaver/*/*.py)
	$(PIP) -r $<
	rm -rf dist
	$(PYTHON) -m build --no-isolation
	@touch $@

build/torch-%/installed: requirements/test.txt
	python3 -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check torch==$* $(filter numpy==% safetensors==%,$(file < requirements/build.txt)) -r $<
	@touch $@

$(BENCH)/installed: requirements/bench.txt $(VENV)/test $(VENV)/accuracy
	python3 -m venv $(BENCH)
	echo "import site; site.addsitedir('$$($(call PACKAGES,$(PYTHON)))')" > $$($(call PACKAGES,$(BENCH)/bin/python))/quaver.pth
	for peer in $$(grep -v '^#' $<); do \
		$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check $$peer || echo "without $$peer"; \
	done
	@touch $@

$(VENV)/docs: requirements/docs.txt | $(PYTHON)
	$(PIP) -r $<
	@touch $@

$(VENV)/demo: requirements/demo.txt requirements/demo-no-deps.txt $(VENV)/built
	$(PIP) -r requirements/demo.txt
	$(PIP) --no-deps -r requirements/demo-no-deps.txt
	@touch $@

$(VENV)/accuracy: requirements/accuracy.txt requirements/accuracy-no-deps.txt $(VENV)/demo
	$(PIP) -r requirements/accuracy.txt
	$(PIP) --no-deps --no-build-isolation -r requirements/accuracy-no-deps.txt
	@touch $@

$(VENV)/check: requirements/check.txt | $(PYTHON)
	$(PIP) -r $<
	@touch $@
