#!/usr/bin/env bash
# Every method there is, those that take hundreds of passes too, on 20 of the test scenes: faithfulness against time a token.
# The paper's estimator is fitted on 400 scenes, so that this does not wait for runs/fit.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
. runs/halves.sh
.venv/bin/eyeline collect --data scratch/fit-0 --limit 400 --out scratch/collected-some
.venv/bin/eyeline fit scratch/collected-some --kinds attention --link identity --name paper-attention --out scratch/paper-some
evaluate_halves methods 10 "eyeline/models/qwen3-vl-mini/estimator scratch/paper-some" \
  eyeline,random,centre,raw-attention,raw-attention-mean,rollout,rollout-mean,tam,tam-mean,ifr,ifr-mean,input-gradient,input-gradient-mean,integrated-gradients,attn-lrp,attn-lrp-mean,cp-lrp,exhaustive,regression-32,regression-64,regression-256,regression-1024,ridge-256
cp scratch/methods/table.csv results/methods.csv
cp scratch/methods/cost.png results/methods_cost.png
