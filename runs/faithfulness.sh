#!/usr/bin/env bash
# Every method on test scenes: LDS, R2, drops, pointing, intervals, cost. Subsets are drawn with another seed, after fitting.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
. runs/halves.sh
evaluate_halves evaluated 125 scratch/paper-attention \
  eyeline,random,raw-attention,rollout,tam,input-gradient,attn-lrp,cp-lrp,exhaustive,regression-32
cp scratch/evaluated/table.csv results/faithfulness.csv
cp scratch/evaluated/page.html results/faithfulness.html
for figure in cost families effects; do cp scratch/evaluated/$figure.png results/faithfulness_$figure.png; done
