.DEFAULT_GOAL := help
.PHONY: help setup test fuzz demo lint format docs bench constraints clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

RUN ?= runs/digits
SEED ?= 0
CASES ?= 10000
FUZZ ?=
RECIPE := tasks/image_classification/recipes/digits.yaml

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv and install the tested versions (every other target does this first)

NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 10))'

# pip 23.0 is the oldest that is tried; an older one is replaced inside the virtual environment.
$(READY): pyproject.toml constraints.txt
	@$(BIN)/python $(NEW_ENOUGH) 2>/dev/null || { \
	  $(PYTHON) $(NEW_ENOUGH) || { \
	    echo "This needs Python 3.10 or newer, and '$(PYTHON)' is not. Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; \
	    exit 1; }; \
	  echo "Creating $(VENV)"; $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }; }
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(BIN)/python -m ensurepip
	@$(BIN)/python -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (23, 0))' || \
	  $(BIN)/python -m pip install --quiet --upgrade 'pip>=23.0'
	@echo "Installing into $(VENV): several minutes and about 6 GB the first time"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest -n auto --dist worksteal

fuzz: $(READY) ## Try many more cases of tests/fuzz: make fuzz CASES=10000 FUZZ='-k sound'
	FUZZ_CASES=$(CASES) $(BIN)/python -m pytest tests/fuzz -n auto --dist worksteal -o timeout=0 --hypothesis-show-statistics $(FUZZ)

demo: $(READY) ## Train on handwritten digits, evaluate, and keep the run in runs/digits
	$(BIN)/perceiver-io train image-classification --config $(RECIPE) --output-dir $(RUN) --seed $(SEED) --overwrite
	$(BIN)/perceiver-io evaluate $(RUN)
	@echo; echo "The run is in $(RUN):"; find $(RUN) -type f | sort | sed 's/^/  /'

lint: $(READY) ## Check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY) ## Rewrite the code in the project's format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(READY) ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY) ## Time the models beside their peers (well over an hour)
	$(BIN)/python benchmarks/digits.py
	$(BIN)/python benchmarks/masked_language_modeling.py
	$(BIN)/python benchmarks/published.py
	$(BIN)/python benchmarks/decoding.py

# Markers that hold for every supported environment are dropped; so are those that single out a platform,
# since a constraint on what is not installed changes nothing.
constraints: ## Resolve constraints.txt again (needs uv; UV_ARGS='--upgrade-package NAME' to move one)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 \
	  --no-header --no-annotate --quiet $(UV_ARGS) --output-file constraints.txt
	sed -i -E -e "s/ and python_full_version < '3.14'//; s/python_full_version < '3.14' and //" \
	  -e "s/ and sys_platform == 'linux'//g; s/ ; (sys_platform|platform_|\(\().*//" \
	  -e '1i # The tested versions, for Python 3.10 to 3.13 on Linux: pip install -c constraints.txt -e '"'.[dev]'" \
	  -e '1i # Written by `make constraints`, which keeps the versions below wherever they still resolve.' \
	  -e '1i # torch, torchvision and torchaudio are one set: their binaries fit each other and nothing else.' \
	  constraints.txt

clean: ## Remove what the build and the tools left (not $(VENV), not runs/)
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
