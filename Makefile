# Each of three commands does all the set-up on a fresh machine: `make demo`, `make test` and `make docs`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OPTIONS ?=
PYTEST_OPTIONS ?= -n 2 --dist loadfile --no-loadscope-reorder --durations=25

MINIMUM := .venv-minimum
WHEEL := build/minimum
TRIXIE ?= /srv/trixie
COPY := $(TRIXIE)/root/nnunet_ssl
SMOKE := tests/test_cli.py tests/losses tests/data/test_views.py tests/training/test_trainer.py tests/evaluation/scoring \
	tests/evaluation/report/test_write.py tests/planning/test_small_network.py

.PHONY: install demo test test-pages test-minimum test-trixie lint docs docs-tables docs-diagrams clean

# Repeated when pyproject.toml changes
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/nnunet_ssl demo $(DEMO_OPTIONS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

# Pages of the documentation as they stand: every row of docs/reproduce, small, from imitated raw files; tutorials; demo
test-pages: install
	$(BIN)/python -m pytest -n 2 -m pages --durations=25 tests/benchmarks tests/demo tests/docs

# The wheel in an empty environment with the lowest versions that its metadata allows, from another folder, and a set of
# tests with them; downloads gigabytes
test-minimum:
	$(PYTHON) -m venv --clear $(MINIMUM)
	$(MINIMUM)/bin/python -m pip install --quiet uv
	rm -rf $(WHEEL)
	$(MINIMUM)/bin/uv build --quiet --out-dir $(WHEEL)
	$(MINIMUM)/bin/uv pip compile --quiet --python $(MINIMUM)/bin/python --resolution lowest-direct pyproject.toml \
		--output-file $(WHEEL)/lowest.txt
	$(MINIMUM)/bin/uv pip install --quiet --python $(MINIMUM)/bin/python --constraints $(WHEEL)/lowest.txt $(WHEEL)/*.whl
	cd $(MINIMUM) && bin/nnunet_ssl methods
	$(MINIMUM)/bin/uv pip install --quiet --python $(MINIMUM)/bin/python "pytest>=8" hypothesis
	$(MINIMUM)/bin/uv pip list --python $(MINIMUM)/bin/python
	$(MINIMUM)/bin/python -m pytest $(SMOKE)

# All tests with Python 3.13 as Debian trixie has it, in a folder of its own; as root, downloads gigabytes
test-trixie:
	test -x $(TRIXIE)/usr/bin/make || \
		debootstrap --include=python3-venv,make,git,ca-certificates trixie $(TRIXIE)
	mkdir -p $(COPY)
	find $(COPY) -mindepth 1 -maxdepth 1 ! -name $(VENV) -exec rm -rf {} +
	tar --exclude=./$(VENV) --exclude=./$(MINIMUM) --exclude=./build -cf - . | tar -xf - -C $(COPY)
	chroot $(TRIXIE) make -C /root/nnunet_ssl test

# The site in build/site, every link checked; the variables are for notices about versions to come
docs: install
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet

# The tables of settings in docs/methods, from the dataclasses
docs-tables: install
	$(BIN)/python docs/settings_tables.py

# The diagrams in docs/methods/diagrams, from docs/site/diagrams.yaml
docs-diagrams: install
	$(BIN)/python docs/site/diagrams.py

clean:
	rm -rf $(VENV) $(MINIMUM) demo_output build dist *.egg-info
