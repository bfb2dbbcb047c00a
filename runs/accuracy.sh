#!/usr/bin/env bash
# Exact answers on test scenes: the image, blank, evidence blank; both of counterfactual pairs; another reading in the trace. First of
# scenes as people photograph them, then of plain drawings; and of the second miniature.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
.venv/bin/python -m benchmarks.accuracy --data scratch/plain-pairs --out results/accuracy_plain.csv & other=$!
.venv/bin/python -m benchmarks.accuracy --data scratch/pairs --out results/accuracy.csv
wait $other
.venv/bin/python -m benchmarks.accuracy --model glm4v-mini --data scratch/pairs --out results/accuracy_glm4v.csv
