#!/usr/bin/env bash
# Two checks: the estimator on a model with shuffled weights, and pairs of scenes that differ in one region as truth that fills nothing.
# Both sides of the pairs are of test seeds.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/eyeline scenes --wild --seeds 8000200:8000220 --pairs --out scratch/test-pairs
OMP_NUM_THREADS=1 .venv/bin/python -m eyeline.evaluation.sanity --data scratch/test-pairs --out results/sanity.csv
