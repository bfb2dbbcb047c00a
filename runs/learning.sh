#!/usr/bin/env bash
# What an estimator needs: LDS on 250 test scenes against the number and families of scenes, features (fitted in 300 steps) and heads.
# Test scenes are collected as runs/fit.sh collects those to fit on.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
.venv/bin/eyeline collect --data scratch/test-0 --out scratch/test-collected
learn() {
  .venv/bin/python -m benchmarks.learning --fit scratch/collected --test scratch/test-collected \
    --experiment "$1" --out scratch/learning-"$1".csv "${@:2}"
}
(learn scenes; learn features --steps 300) & other=$!
learn heads
learn transfer
wait $other
{ cat scratch/learning-scenes.csv; for each in transfer features heads; do tail -n +2 scratch/learning-$each.csv; done; } > results/learning.csv
for each in scenes transfer features heads; do cp scratch/learning-${each}_$each.png results/learning_$each.png; done
