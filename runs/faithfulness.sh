#!/usr/bin/env bash
# Every method on test scenes: LDS, R2, drops, pointing, intervals, cost. Subsets are drawn with another seed, after fitting.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
evaluate() {
  .venv/bin/eyeline evaluate --out scratch/evaluated --limit "$2" --data "$1" \
    --estimator eyeline/models/qwen3-vl-mini/estimator --estimator scratch/paper-attention \
    --methods eyeline,random,raw-attention,rollout,tam,input-gradient,attn-lrp,cp-lrp,exhaustive,regression-32
}
evaluate scratch/test-0 1  # opens the run
evaluate scratch/test-0 125 & other=$!
evaluate scratch/test-1 125
wait $other
evaluate scratch/test-1 125  # the table of both halves
cp scratch/evaluated/table.csv results/faithfulness.csv
cp scratch/evaluated/page.html results/faithfulness.html
for figure in cost families effects; do cp scratch/evaluated/$figure.png results/faithfulness_$figure.png; done
