#!/usr/bin/env bash
# Collects effects on scenes of both halves, one process for each, and fits three estimators: ours by filled pixels (shipped), the
# paper's on attention alone, and ours by attention knockout, which stands beside the first.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
collect() {  # RUN SCENES HIDING
  .venv/bin/eyeline collect --data scratch/fit-0 --hiding "$3" --out "$1" --limit 1  # opens the collection
  .venv/bin/eyeline collect --data scratch/fit-0 --hiding "$3" --out "$1" --limit "$2" & other=$!
  .venv/bin/eyeline collect --data scratch/fit-1 --hiding "$3" --out "$1" --limit "$2"
  wait $other
}
collect scratch/collected 377 pixels
.venv/bin/eyeline fit scratch/collected --name eyeline-mini --out eyeline/models/qwen3-vl-mini/estimator
.venv/bin/eyeline fit scratch/collected --kinds attention --link identity --name paper-attention --out scratch/paper-attention
collect scratch/collected-attention 300 attention
.venv/bin/eyeline fit scratch/collected-attention --name eyeline-mini-attention --out eyeline/models/qwen3-vl-mini/estimator-attention
