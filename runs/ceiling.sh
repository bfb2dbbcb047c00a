#!/usr/bin/env bash
# The ceiling of sums of regions' effects, and how many forward passes a ContextCite-style regression needs.
set -euo pipefail
cd "$(dirname "$0")/.."
OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.ceiling --data scratch/test-0 --limit 30 --out results/ceiling.csv
