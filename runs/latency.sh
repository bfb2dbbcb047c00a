#!/usr/bin/env bash
# Decoding with attribution against generate, and attribution time against context length. Run with nothing else running.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/eyeline scenes --wild --seeds 7300200:7300203 --out scratch/latency
.venv/bin/python -m benchmarks.latency --data scratch/latency --rounds 11 --out results/latency.csv
