# Every target sets up .venv first. `make help` lists them: it prints the comments that begin with two #.
# Kept within GNU make 3.81 and BSD's tools, which are what a Mac has.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(shell uname -s),Linux)
EXTRAS := cpu,test,dev,docs
else
EXTRAS := test,dev,docs
endif
SOURCES := pyproject.toml CMakeLists.txt release/backend.py $(shell find src/cpp -type f)
INSTALLED := $(VENV)/.installed
RELEASE := $(VENV)/.release
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell getconf _NPROCESSORS_ONLN)

.PHONY: help demo test test-builds test-faults test-cases wheel-macos wheels lint format stubs docs hooks clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The first line says in one sentence what this machine lacks.
$(INSTALLED): $(SOURCES)
	@python=$(PYTHON); test ! -x $(BIN)/python || python=$(BIN)/python; $$python src/python/rvc_fast/machine.py build
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

$(RELEASE): pyproject.toml
	@python=$(PYTHON); test ! -x $(BIN)/python || python=$(BIN)/python; $$python src/python/rvc_fast/machine.py build
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --group release
	touch $@

demo: $(INSTALLED) ## convert the bundled sounds and draw them, into demo_out/
	$(BIN)/rvc-fast demo --output demo_out

# What takes longest runs beside the rest, in parts of which none keeps two cores busy: the emulated GPU kernels, and
# what is compiled once more or trained.
BESIDE := metal release cpp+training
test: $(INSTALLED) ## run the tests
	@mkdir -p build; rm -f build/test-*.log; parts=; \
	for part in $(BESIDE); do \
	  $(BIN)/python -m pytest $$(echo tests/$$part | sed 's:+: tests/:g') >build/test-$$part.log 2>&1 & parts="$$parts $$!"; \
	done; \
	$(BIN)/python -m pytest $(patsubst %,--ignore tests/%,$(subst +, ,$(BESIDE))); failed=$$?; \
	for part in $$parts; do wait $$part || failed=1; done; \
	cat build/test-*.log; exit $$failed

test-builds: $(INSTALLED) $(RELEASE) ## run the tests that need more builds: Clang, arm64 under qemu, sanitizers, wheels
	CI=true TEST_WHEELS=true $(BIN)/python -m pytest -m ci

test-faults: $(INSTALLED) ## run the tests of full disks, little memory, kills and files that change in use
	$(BIN)/python -m pytest tests/faults

test-cases: $(INSTALLED) ## show how files are read as people have them, one line each
	$(BIN)/python -m pytest -v tests/cases

wheel-macos: $(RELEASE) ## build wheels for Macs, compiled and linked on Linux; PYTHONS=3.11,3.13 chooses
	$(BIN)/python release/wheels.py macos-arm64 --python '$(PYTHONS)'

wheels: $(RELEASE) ## build wheels for Linux on x86-64 and arm64, the pure-Python wheel and the sdist
	$(BIN)/python release/wheels.py linux-x86_64 linux-arm64 pure sdist --python '$(PYTHONS)'

lint: $(INSTALLED) ## check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	find src/cpp src/kernels tests -name '*.h' -o -name '*.cpp' -o -name '*.inc' -o -name '*.metal' -o -name '*.cu' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(INSTALLED) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	find src/cpp src/kernels tests -name '*.h' -o -name '*.cpp' -o -name '*.inc' -o -name '*.metal' -o -name '*.cu' | xargs $(BIN)/clang-format -i

stubs: $(INSTALLED) ## write _ext.pyi, the types of the compiled extension
	$(BIN)/python release/stubs.py

docs: $(INSTALLED) ## build the documentation site in build/docs/site; a broken link is an error
	$(BIN)/python docs/build.py

hooks: $(INSTALLED) ## have git check style before every commit
	$(BIN)/pre-commit install

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) build dist demo_out
