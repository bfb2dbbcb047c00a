# Commands for a new machine: `make demo`, `make serve`, `make test`, and `make docs` and `make dist` for who hands it on.
# They install into .venv, once.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

# The CPU build of torch is asked for by version first: a newer one would bring CUDA packages along.
export TORCH ?= torch==2.13.0

.PHONY: demo serve test check docs dist install install-dev chromium clean

demo: install
	$(BIN)/eyeline demo --out demo
	@echo "To ask it yourself, on a page in the browser: make serve"

serve: install
	$(BIN)/eyeline serve --open

test: install-dev chromium .venv/installed-harness
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

check: install-dev
	$(BIN)/ruff format --check eyeline benchmarks tests
	$(BIN)/ruff check eyeline benchmarks tests
	$(BIN)/pyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "The site is in site/. To read and search it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

# Source and wheel of Eyeline and of its miniatures, checked, and the wheels tried in an environment that has nothing else.
dist: .venv/installed-dist
	rm -rf build dist minis/build
	$(BIN)/python -m build --quiet --outdir dist .
	$(BIN)/python -m build --quiet --outdir dist minis
	$(BIN)/twine check --strict dist/*
	$(BIN)/python .ci/try_wheel.py dist

install: .venv/installed
install-dev: .venv/installed-dev

.venv/installed: pyproject.toml minis/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable ".[scenes]" --editable ./minis
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

.venv/installed-docs .venv/installed-dist: .venv/installed-%: .venv/installed
	$(BIN)/pip install --quiet --editable ".[$*]"
	touch $@

# lmms-eval wants a hundred packages, other versions of torch's among them; its test takes what it really imports, apart from the rest.
HARNESS := lmms-eval==0.7.3 filelock==3.18.0 loguru pytablewriter DataProperty mbstrdecoder pathvalidate tabledata tcolorpy typepy \
	evaluate sacrebleu tqdm-multiprocess colorama portalocker lxml tabulate chardet python-dateutil pytz tenacity jsonlines python-dotenv \
	aiohttp multidict yarl propcache aiohappyeyeballs aiosignal frozenlist
.venv/installed-harness: .venv/installed-dev
	$(BIN)/pip install --quiet --no-deps --upgrade --target .venv/harness $(HARNESS) && touch $@ || echo "lmms-eval is not tested: it could not be installed"

# Browser tests need Chromium. As root on Debian it is installed; elsewhere the tests skip and say so, but not in CI.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else echo "Chromium is not installed: browser tests will be skipped."; fi

clean:
	rm -rf .venv build dist site *.egg-info minis/build minis/*.egg-info demo
