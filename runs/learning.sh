#!/usr/bin/env bash
# What an estimator needs: LDS on test scenes against the number and families of scenes, features and heads.
# Test scenes are collected as runs/fit.sh collects those to fit on, one process for each half.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
out=scratch/test-collected
.venv/bin/eyeline collect --data scratch/test-0 --method attention --out $out --limit 1  # opens the collection
.venv/bin/eyeline collect --data scratch/test-0 --method attention --out $out & other=$!
.venv/bin/eyeline collect --data scratch/test-1 --method attention --out $out
wait $other
.venv/bin/python -m eyeline.evaluation.learning --fit scratch/collected --test $out --out results/learning.csv
