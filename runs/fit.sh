#!/usr/bin/env bash
# Collects effects on 4,000 scenes, one process for each half, and fits two estimators: ours on all features (shipped),
# and the paper's on attention alone.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
.venv/bin/eyeline collect --data scratch/fit-0 --method attention --out scratch/collected --limit 1  # opens the collection
.venv/bin/eyeline collect --data scratch/fit-0 --method attention --out scratch/collected & other=$!
.venv/bin/eyeline collect --data scratch/fit-1 --method attention --out scratch/collected
wait $other
.venv/bin/eyeline fit scratch/collected --name eyeline-mini --out eyeline/models/qwen3-vl-mini/estimator
.venv/bin/eyeline fit scratch/collected --kinds attention --link identity --name paper-attention --out scratch/paper-attention
