# Every target sets up .venv first. `make help` lists them: it prints the comments that begin with two #.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(shell uname -s),Linux)
EXTRAS := cpu,test,dev,docs
else
EXTRAS := test,dev,docs
endif
SOURCES := pyproject.toml CMakeLists.txt $(shell find src/cpp -type f)
INSTALLED := $(VENV)/.installed
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell getconf _NPROCESSORS_ONLN)

.PHONY: help demo test test-sanitize lint format docs hooks clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

demo: $(INSTALLED) ## convert the bundled sounds and draw them, into demo_out/
	$(BIN)/rvc-fast demo --output demo_out

# The emulated GPU kernels run beside everything else: each keeps about one core busy.
test: $(INSTALLED) ## run the tests
	@mkdir -p build
	@$(BIN)/python -m pytest tests/metal >build/test-metal.log 2>&1 & metal=$$!; \
	$(BIN)/python -m pytest --ignore tests/metal; engine=$$?; \
	wait $$metal; metal=$$?; cat build/test-metal.log; exit $$((engine | metal))

test-sanitize: $(INSTALLED) ## run the tests that need more builds of the kernels: NEON under qemu, address and thread sanitizer
	CI=true $(BIN)/python -m pytest -m ci

lint: $(INSTALLED) ## check style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	find src/cpp src/kernels tests -name '*.h' -o -name '*.cpp' -o -name '*.inc' -o -name '*.metal' -o -name '*.cu' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(INSTALLED) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	find src/cpp src/kernels tests -name '*.h' -o -name '*.cpp' -o -name '*.inc' -o -name '*.metal' -o -name '*.cu' | xargs $(BIN)/clang-format -i

docs: $(INSTALLED) ## build the documentation site in build/docs/site; a broken link is an error
	$(BIN)/python docs/build.py

hooks: $(INSTALLED) ## have git check style before every commit
	$(BIN)/pre-commit install

clean: ## remove .venv and everything that was built
	rm -rf $(VENV) build dist demo_out
