#!/usr/bin/env bash
# A model's rows in the table of models and families: estimators that have seen no image of it, ten, 480 and the paper's map of the same
# 480, beside rivals and exhaustive ablation, on 70 test scenes; what answers rest on, on 50 others. The one of 480 ships with the model.
#   runs/table.sh NAME GENERAL      GENERAL: folder of general weights that were learned without the model
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
. runs/halves.sh
name=$1 general=$2 here=scratch/table/$1
shipped=minis/eyeline_minis/$name/estimator
eyeline() { .venv/bin/eyeline "$@"; }
scenes() { [ -d "$1" ] || eyeline scenes --wild --seeds "$2" --out "$1"; }
scenes scratch/table/fit 7000000:7000096
scenes scratch/table/through-fit 7700000:7700024
scenes scratch/table/through 8000600:8000610
in_halves collect scratch/table/fit $here/collected --model "$name" --features heads
eyeline fit $here/collected --name "eyeline-$name" --out $here/fitted
eyeline fit $here/collected --kinds attention --link identity --name paper-attention --out $here/paper
[ -d $here/calibrated ] || eyeline calibrate --model "$name" --data scratch/table/fit --collection $here/ten --out $here/calibrated
evaluate_halves "table/$name/evaluated" 35 "$here/fitted $here/calibrated $general $here/paper" \
  eyeline,random,centre,raw-attention,raw-attention-mean,tam,tam-mean,ifr,ifr-mean,input-gradient,input-gradient-mean,attn-lrp,attn-lrp-mean,exhaustive \
  --model "$name"
cp $here/evaluated/table.csv "results/table_$name.csv"
cp $here/evaluated/versus.csv "results/table_${name}_versus.csv"
in_halves collect-through scratch/table/through-fit $here/through --model "$name" --estimator $here/fitted
eyeline fit-through $here/through --estimator $here/fitted --out $shipped
in_halves evaluate-through scratch/table/through $here/through-test --model "$name" --estimator $shipped
cp $here/through-test/totals.csv "results/table_${name}_through.csv"
.venv/bin/python -m benchmarks.by_family --of qwen3-vl-mini=results/faithfulness --of glm4v-mini=results/table_glm4v-mini
