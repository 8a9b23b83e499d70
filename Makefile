# Two commands do everything on a fresh machine with python3 and make:
#   make demo   set up, then explain networks whose evidence is known, write demo/index.html
#   make test   set up, then run the test suite

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := --constraint constraints.txt
INSTALL := $(BIN)/python tools/install.py $(CONSTRAINTS)
SETTINGS := pyproject.toml constraints.txt tools/install.py

.PHONY: demo demo-weights core test test-ci test-fast test-deep test-oldest test-newest web coverage mutants lint types docs notebooks wheel-check bench peers clean help

help:
	@sed -n 's/^#   //p' Makefile
	@echo "others: demo-weights, core, test-ci, test-fast, test-deep, test-oldest, test-newest, web, coverage, mutants, lint, types, docs, notebooks, wheel-check, bench, peers, clean"

# Set-up is by uv where the registry has it, else by pip; INSTALLER=pip or INSTALLER=uv chooses
$(VENV)/core: $(SETTINGS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) .
	@touch $@

$(VENV)/demo: $(SETTINGS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) ".[cli,report]"
	@touch $@

$(VENV)/test: $(SETTINGS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) ".[cli,report,face,onnx,study,ray,cloud,peers,docs,dev]"
	@touch $@

demo: $(VENV)/demo
	$(BIN)/captum-leam demo --out demo --force

core: $(VENV)/core
	$(BIN)/python tools/core_only.py

test: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not ci" -n 2 --dist loadfile --no-loadscope-reorder

# Long tests: killed, interrupted and distributed studies, faults at any moment, real networks in full
test-ci: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m ci -n 2 --dist loadfile --no-loadscope-reorder tests

# Where the numbers are made: the folders that `make mutants` changes, 1480 tests in 70 s of processor time
FAST := tests/engine tests/faithfulness tests/patterns tests/regions tests/stats tests/verification tests/test_maps.py tests/test_pairs.py tests/test_refinement.py
test-fast: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not real" -n 2 --dist worksteal $(FAST)

# axe-core, TypeScript and ESLint, which tests of pages use beside a browser (Debian's chromium); without them those tests are skipped and say so
web: $(VENV)/web/installed
$(VENV)/web/installed: tests/web/package.json
	@mkdir -p $(VENV)/web
	@cp tests/web/package.json $(VENV)/web/
	npm install --prefix $(VENV)/web --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@

# Every property on twenty times as many examples, hostile files among them, and planted evidence trained in full: for the night
test-deep: $(VENV)/test
	HYPOTHESIS_PROFILE=deep OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist load tests/robustness tests/engine/test_properties.py tests/synthetic

# The lowest versions that pyproject.toml allows (tools/oldest.txt), in an environment of its own
OLDEST := .venv-oldest
$(OLDEST)/all: tools/oldest.txt pyproject.toml tools/install.py
	@test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	@$(OLDEST)/bin/python tools/install.py --constraint tools/oldest.txt ".[cli,report,face,onnx,study,ray,cloud]" pytest hypothesis
	@touch $@

test-oldest: $(OLDEST)/all
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python tools/oldest.py

# The tests of make test again, with the lines and branches of captum_leam that they reach
coverage: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not ci" -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report term:skip-covered

# mutmut on a seeded sample of 200 mutants: hours, or COUNT=6 for a look
COUNT ?= 200
mutants: $(VENV)/test
	OMP_NUM_THREADS=1 $(BIN)/python tools/mutation_sample.py --count $(COUNT) --seed 0 --out results/mutants.csv

lint: $(VENV)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --quiet --offline --config .github/zizmor.yml .github/workflows
	@if command -v actionlint >/dev/null; then actionlint; else echo "actionlint is not installed: not run"; fi
	$(BIN)/codespell captum_leam docs examples benchmarks tests tools .github *.md CITATION.cff
	$(BIN)/python tools/check_words.py
	$(BIN)/python tools/check_docstrings.py

# The tests of extras and core on the newest versions that the registry has, in an environment of its own
NEWEST := .venv-newest
test-newest:
	$(MAKE) test VENV=$(NEWEST) CONSTRAINTS=

# The networks of the demo again, from nothing: prints whether they are those of the package
demo-weights: $(VENV)/demo
	$(BIN)/python tools/train_demo.py --check

types: $(VENV)/test
	$(BIN)/mypy --strict captum_leam

docs: $(VENV)/test
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html
	@echo "docs/_build/html/index.html"

# The gallery's tutorials as executed notebooks
notebooks: $(VENV)/test
	$(BIN)/python tools/notebooks.py --out docs/_build/notebooks

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
	rm -rf $(VENV) $(OLDEST) $(NEWEST) build dist mutants docs/_build docs/gallery .pytest_cache .mypy_cache .ruff_cache *.egg-info
