#!/usr/bin/env bash
# LDS, R2 and intervals of every method on 200 test scenes; the subsets are drawn with another seed, after fitting.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
.venv/bin/eyeline collect --data scratch/test-0 --out scratch/collected-test --method attention --rates 0.5,0.25,0.1 --seed 1 --limit 1  # opens the collection
.venv/bin/eyeline collect --data scratch/test-0 --out scratch/collected-test --method attention --rates 0.5,0.25,0.1 --seed 1 --limit 100 & other=$!
.venv/bin/eyeline collect --data scratch/test-1 --out scratch/collected-test --method attention --rates 0.5,0.25,0.1 --seed 1 --limit 100
wait $other
.venv/bin/python -m eyeline.evaluation.faithfulness scratch/collected-test --estimator eyeline/models/qwen3-vl-mini/estimator \
  --estimator scratch/paper-attention --out results/faithfulness.csv
