#!/usr/bin/env bash
# What events carry, joint predictions and rivals on test scenes, by filled pixels: LDS, R2, drops, pointing, intervals, cost, and who is
# ahead of whom; then contributions on ten of them. Subsets are drawn with another seed, after fitting. The dearest
# rivals, integrated gradients and LASSO on 256 subsets and more, are in methods.sh, on fewer scenes.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
. runs/halves.sh
model=eyeline/models/qwen3-vl-mini
evaluate_halves evaluated 35 "$model/estimator scratch/paper-attention" \
  eyeline,random,centre,raw-attention,raw-attention-mean,rollout,rollout-mean,tam,tam-mean,ifr,ifr-mean,input-gradient,input-gradient-mean,attn-lrp,attn-lrp-mean,cp-lrp,exhaustive,regression-32,regression-64,ridge-256
cp scratch/evaluated/table.csv results/faithfulness.csv
cp scratch/evaluated/versus.csv results/faithfulness_versus.csv
cp scratch/evaluated/page.html results/faithfulness.html
for figure in cost families effects; do cp scratch/evaluated/$figure.png results/faithfulness_$figure.png; done
.venv/bin/eyeline evaluate --out scratch/evaluated-contributions --limit 10 --data scratch/test-0 --estimator "$model/estimator" \
  --methods eyeline,exhaustive --ordered 32
cp scratch/evaluated-contributions/table.csv results/contributions.csv
