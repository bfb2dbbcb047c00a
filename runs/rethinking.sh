#!/usr/bin/env bash
# How much faster thinking again is with all regions in one batch than one by one, on traces of 150 tokens and more.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/eyeline scenes --long --seeds 7300000:7300020 --out scratch/rethinking
OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.rethinking --data scratch/rethinking --most 300 --out results/rethinking.csv
