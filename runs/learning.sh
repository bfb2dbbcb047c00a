#!/usr/bin/env bash
# What an estimator needs: LDS on 250 test scenes against the number and families of scenes, features and heads.
# Test scenes are collected as runs/fit.sh collects those to fit on.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
.venv/bin/eyeline collect --data scratch/test-0 --method attention --out scratch/test-collected
.venv/bin/python -m eyeline.evaluation.learning --fit scratch/collected --test scratch/test-collected --out results/learning.csv
