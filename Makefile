# make demo   set up .venv and convert the bundled sounds
# make test   set up .venv and run the tests
# make test-builds   the tests that need more builds: Clang, arm64 under qemu, address and thread sanitizer, wheels
# make wheel-macos   wheels for Macs, compiled and linked on Linux; PYTHONS=3.11,3.13 chooses
# make wheels   wheels for Linux on x86-64 and arm64, the pure-Python wheel, the sdist
# make lint   set up .venv and check style and types
# Kept within GNU make 3.81 and BSD's tools, which are what a Mac has.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(shell uname -s),Linux)
EXTRAS := cpu,test,dev
else
EXTRAS := test,dev
endif
SOURCES := pyproject.toml CMakeLists.txt release/backend.py $(shell find src/cpp -type f)
INSTALLED := $(VENV)/.installed
RELEASE := $(VENV)/.release
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell getconf _NPROCESSORS_ONLN)

.PHONY: demo test test-builds wheel-macos wheels lint format clean

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

demo: $(INSTALLED)
	$(BIN)/rvc-fast demo --output demo_out

# The emulated GPU kernels run beside everything else: each keeps about one core busy.
test: $(INSTALLED)
	@mkdir -p build
	@$(BIN)/python -m pytest tests/metal >build/test-metal.log 2>&1 & metal=$$!; \
	$(BIN)/python -m pytest --ignore tests/metal; engine=$$?; \
	wait $$metal; metal=$$?; cat build/test-metal.log; exit $$((engine | metal))

test-builds: $(INSTALLED) $(RELEASE)
	CI=true $(BIN)/python -m pytest -m ci

wheel-macos: $(RELEASE)
	$(BIN)/python release/wheels.py macos-arm64 --python '$(PYTHONS)'

wheels: $(RELEASE)
	$(BIN)/python release/wheels.py linux-x86_64 linux-arm64 pure sdist --python '$(PYTHONS)'

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	find src/cpp src/kernels tests -name '*.h' -o -name '*.cpp' -o -name '*.inc' -o -name '*.metal' -o -name '*.cu' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	find src/cpp src/kernels tests -name '*.h' -o -name '*.cpp' -o -name '*.inc' -o -name '*.metal' -o -name '*.cu' | xargs $(BIN)/clang-format -i

clean:
	rm -rf $(VENV) build dist demo_out
