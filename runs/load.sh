#!/usr/bin/env bash
# The server under load, and its time per token against the library's stream. Run with nothing else running.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m benchmarks.load --requests 500 --clients 20 --tokens 40 --rounds 11 --out results/load.csv
.venv/bin/python -m benchmarks.load --requests 20 --clients 4 --tokens 160 --rounds 21 --out results/load_cost.csv
