# make demo   set up .venv and convert the bundled sounds
# make test   set up .venv and run the tests
# make test-sanitize   the tests that need more builds of the kernels: NEON under qemu, address and thread sanitizer
# make test-cases   files as people have them, one line each: what they are read as, or why they are refused
# make lint   set up .venv and check style and types
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(shell uname -s),Linux)
EXTRAS := cpu,test,dev
else
EXTRAS := test,dev
endif
SOURCES := pyproject.toml CMakeLists.txt $(shell find src/cpp -type f)
INSTALLED := $(VENV)/.installed
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell getconf _NPROCESSORS_ONLN)

.PHONY: demo test test-cases test-sanitize lint format clean

$(INSTALLED): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/rvc-fast demo --output demo_out

# The emulated GPU kernels run beside everything else: each keeps about one core busy.
test: $(INSTALLED)
	@mkdir -p build
	@$(BIN)/python -m pytest tests/metal >build/test-metal.log 2>&1 & metal=$$!; \
	$(BIN)/python -m pytest --ignore tests/metal; engine=$$?; \
	wait $$metal; metal=$$?; cat build/test-metal.log; exit $$((engine | metal))

test-sanitize: $(INSTALLED)
	CI=true $(BIN)/python -m pytest -m ci

test-cases: $(INSTALLED)
	$(BIN)/python -m pytest -v tests/cases

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
