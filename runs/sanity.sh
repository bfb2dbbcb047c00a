#!/usr/bin/env bash
# Checks: the estimator on a model with shuffled weights, and pairs of scenes that differ in one region as truth that fills nothing.
# Both sides of the pairs are of test seeds.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/eyeline scenes --wild --seeds 8000200:8000220 --pairs --out scratch/test-pairs
OMP_NUM_THREADS=1 .venv/bin/python -m eyeline.evaluation.sanity --data scratch/test-pairs --out results/sanity.csv
# The same of what is said of answers through the thinking, and single sentences hidden.
.venv/bin/eyeline scenes --wild --seeds 8000700:8000709 --pairs --out scratch/through-pairs
OMP_NUM_THREADS=1 .venv/bin/python -m eyeline.evaluation.sanity_through --data scratch/through-pairs --out results/sanity_through.csv
# A copy of the embedded model that is trained to answer from a mark, while its thinking recites the evidence.
OMP_NUM_THREADS=1 .venv/bin/python -m eyeline.evaluation.planted --cheat scratch/cheat --out results/planted.csv
