#!/usr/bin/env bash
# Collects effects on scenes of both halves, one process for each, and fits two estimators by filled pixels: ours (shipped), and the
# paper's, linear in attention alone.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
collect() {
  .venv/bin/eyeline collect --data "$1" --out scratch/collected --limit 377
}
collect scratch/fit-0 & other=$!
collect scratch/fit-1
wait $other
.venv/bin/eyeline fit scratch/collected --name eyeline-mini --out eyeline/models/qwen3-vl-mini/estimator
.venv/bin/eyeline fit scratch/collected --kinds attention --link identity --name paper-attention --out scratch/paper-attention
