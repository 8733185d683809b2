# Two commands do everything on a fresh machine: `make demo` and `make test`. Each target makes the environment it
# needs in .venv and nothing outside this folder, but for the browser that `make test` installs where it may.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= deepsentinel-demo
# In a container one is root, and Jupyter wants to be told that this is meant.
ALLOW_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

# All targets share one environment, and two installations into it at once would spoil it.
.NOTPARALLEL:
.PHONY: help demo test test-long lab app bench lint format notebooks chromium azurite clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# One stamp for each set of extras, so that nothing is installed twice and a change of pyproject.toml is noticed.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "deepsentinel needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make $(VENV). On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/.learn: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[learn]'
	@touch $@

$(VENV)/.map: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[map]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[map,learn,cloud,test]'
	@touch $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[map,learn,cloud,test,bench]'
	@touch $@

demo: $(VENV)/.learn  ## the main job, end to end, on the demo world: no account, no network
	$(BIN)/deepsentinel demo --out "$(OUT)"

lab: $(VENV)/.map  ## JupyterLab with the notebooks
	$(BIN)/jupyter lab --notebook-dir=notebooks $(ALLOW_ROOT)

lint: $(VENV)/.test  ## ruff and mypy, and whether notebooks were saved as they ran
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/tidy_notebooks.py --check notebooks/0*.ipynb

format: $(VENV)/.test  ## let ruff put the code in order
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

chromium:
	@sh tests/browser/ensure_chromium.sh

azurite: $(VENV)/.test
	@sh tests/corpus/ensure_azurite.sh $(VENV)

# The last notebook takes longest.
LONGEST_FIRST = $(shell ls -r notebooks/*.ipynb)

# Several processes share the machine (more than a small one has cores, as they also wait for servers and browsers):
# threads of torch that wait for each other would make it three times as slow.
test: export OMP_NUM_THREADS = 1
test: $(VENV)/.test chromium azurite  ## all tests and notebooks, under 12 minutes
	$(BIN)/python -m pytest -q -m 'not long' -n 3 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -q --nbval-lax -p no:cacheprovider -n 3 --dist loadfile --no-loadscope-reorder $(LONGEST_FIRST)

test-long: $(VENV)/.test chromium azurite  ## kill, fault and seed suites, with their figures
	$(BIN)/python -m pytest -q -m long -s

notebooks: $(VENV)/.test  ## run every notebook and save it with its outputs
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace notebooks/0*.ipynb
	$(BIN)/python tests/tidy_notebooks.py notebooks/0*.ipynb

app: $(VENV)/.learn $(VENV)/.map  ## the explorer as an app, without the code and without a network
	JUPYTER_PATH=notebooks $(BIN)/voila notebooks/explorer.ipynb --template=deepsentinel

bench: $(VENV)/.bench  ## ratios of two things run side by side
	@for file in tests/bench/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:  ## remove the environment and what the tools left behind
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis deepsentinel-demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
