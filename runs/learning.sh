#!/usr/bin/env bash
# What an estimator needs: LDS on 250 test scenes against the number and families of scenes, features and heads.
# Test scenes are collected as runs/fit.sh collects those to fit on.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
.venv/bin/eyeline collect --data scratch/test-0 --method attention --out scratch/test-collected
learn() {
  .venv/bin/python -m eyeline.evaluation.learning --fit scratch/collected --test scratch/test-collected "$@"
}
learn --experiment scenes --experiment features --out scratch/learning-0.csv & other=$!
learn --experiment transfer --experiment heads --out scratch/learning-1.csv
wait $other
{ cat scratch/learning-0.csv; tail -n +2 scratch/learning-1.csv; } > results/learning.csv
for figure in scenes features; do cp scratch/learning-0_$figure.png results/learning_$figure.png; done
for figure in transfer heads; do cp scratch/learning-1_$figure.png results/learning_$figure.png; done
