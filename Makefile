# Two commands do everything on a fresh machine with python3 and make:
#   make demo   set up, then train on synthetic faces, explain them, write demo/index.html
#   make test   set up, then run the test suite

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
SETTINGS := pyproject.toml constraints.txt

.PHONY: demo core test test-fast test-deep test-oldest web coverage mutants lint types docs wheel-check bench peers clean help

help:
	@sed -n 's/^#   //p' Makefile
	@echo "others: core, test-fast, test-deep, test-oldest, web, coverage, mutants, lint, types, docs, wheel-check, bench, peers, clean"

$(VENV)/core: $(SETTINGS)
	@echo "Setting up $(VENV) (torch is large: a minute or two) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/test: $(VENV)/core
	@echo "Setting up the test tools ..."
	@$(PIP) --editable ".[face,onnx,study,ray,peers,docs,dev]"
	@touch $@

demo: $(VENV)/core
	$(BIN)/captum-leam demo --out demo --force

core: $(VENV)/core
	$(BIN)/python tools/core_only.py

test: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/test
	$(BIN)/python -m pytest -m "not slow and not real" -n 2

# axe-core and TypeScript, which tests of pages use beside a browser (Debian's chromium); without them those tests are skipped and say so
web: $(VENV)/web/installed
$(VENV)/web/installed: tests/web/package.json
	@mkdir -p $(VENV)/web
	@cp tests/web/package.json $(VENV)/web/
	npm install --prefix $(VENV)/web --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

# Every property on twenty times as many examples, hostile files among them, and planted evidence trained in full: for the night
test-deep: $(VENV)/test
	HYPOTHESIS_PROFILE=deep OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist load tests/robustness tests/engine/test_properties.py tests/synthetic

# The core on the lowest versions that pyproject.toml allows (tools/oldest.txt), in an environment of its own
OLDEST := .venv-oldest
$(OLDEST)/core: tools/oldest.txt pyproject.toml
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python -m pip --disable-pip-version-check install --quiet --constraint tools/oldest.txt --editable . pytest hypothesis
	@touch $@

test-oldest: $(OLDEST)/core
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python tools/oldest.py

# The tests again, with the lines and branches of captum_leam that they reach
coverage: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report term:skip-covered

# mutmut on a seeded sample of 200 mutants: hours, or COUNT=6 for a look
COUNT ?= 200
mutants: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python tools/mutation_sample.py --count $(COUNT) --seed 0 --out results/mutants.csv

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/codespell captum_leam docs examples benchmarks tests tools .github *.md CITATION.cff

types: $(VENV)/test
	$(BIN)/mypy --strict captum_leam

docs: $(VENV)/test
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html
	@echo "docs/_build/html/index.html"

# Build wheel and sdist into dist/, check them, install the wheel into a fresh environment, and run the demo there.
wheel-check: $(VENV)/test
	rm -rf dist
	$(BIN)/python tools/wheel_check.py --out dist

# Real data: make bench DATA=../shared/real
DATA ?= ../shared/real
bench: $(VENV)/test
	$(BIN)/python benchmarks/main_job.py --data $(DATA)
	$(BIN)/python benchmarks/region_lift.py --data $(DATA)
	$(BIN)/python benchmarks/planted_evidence.py

# Every method on one harness, and the page of it
peers: $(VENV)/test
	$(BIN)/python benchmarks/peers.py --data $(DATA) --out results/peers
	$(BIN)/python benchmarks/peers_page.py --results results/peers

clean:
	rm -rf $(VENV) $(OLDEST) build dist mutants docs/_build docs/gallery .pytest_cache .mypy_cache .ruff_cache *.egg-info
