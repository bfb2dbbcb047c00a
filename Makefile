# Commands for a new machine: `make demo`, `make serve` and `make test`. They install into .venv, once.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo serve test check install install-dev chromium clean

demo: install
	$(BIN)/eyeline demo --out demo
	@echo "To ask it yourself, on a page in the browser: make serve"

serve: install
	$(BIN)/eyeline serve --open

test: install-dev chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

check: install-dev
	$(BIN)/ruff format --check eyeline benchmarks tests
	$(BIN)/ruff check eyeline benchmarks tests
	$(BIN)/pyright
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile

install: .venv/installed
install-dev: .venv/installed-dev

# The CPU build of torch is asked for by version first: a newer one would bring CUDA packages along.
.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable ".[scenes]"
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

# Browser tests need Chromium. As root on Debian it is installed; elsewhere the tests skip and say so, but not in CI.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else echo "Chromium is not installed: browser tests will be skipped."; fi

clean:
	rm -rf .venv build dist *.egg-info demo
