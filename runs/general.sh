#!/usr/bin/env bash
# General weights and calibration: the shipped model and the first one that was ever shipped here (out of the history: other
# widths, trained on its own, on plain drawings), each with weights from the other alone. LDS against images; then, on test
# scenes, what events carry without any image of the model, with ten, beside rivals.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
first=scratch/first/eyeline/models/qwen3-vl-mini
if [ ! -f "$first/config.json" ]; then
  mkdir -p scratch/first
  git archive fa87068 eyeline/models/qwen3-vl-mini | tar -x -C scratch/first
  rm -r "$first/estimator"
fi
[ -d scratch/plain ] || .venv/bin/eyeline scenes --seeds 5300000:5300040 --out scratch/plain
[ -d scratch/plain-test ] || .venv/bin/eyeline scenes --seeds 8000700:8000710 --out scratch/plain-test
.venv/bin/eyeline collect --model "$first" --data scratch/plain --features heads --out scratch/collected-first
.venv/bin/eyeline fit-general scratch/collected scratch/collected-first --out eyeline/general
.venv/bin/python -m benchmarks.by_level --collection shipped=scratch/collected --collection first=scratch/collected-first --out results/levels.csv
.venv/bin/eyeline fit-general scratch/collected --name none --out scratch/general-for-first
.venv/bin/eyeline fit-general scratch/collected-first --name none --out scratch/general-for-shipped
evaluate() {  # model, scenes, general weights of the other, name, scenes at most
  .venv/bin/eyeline evaluate --model "$1" --data "$2" --estimator "$3" --out "scratch/levels-$4" --limit "$5" \
    --methods eyeline,centre,raw-attention-mean,attn-lrp,exhaustive
  cp "scratch/levels-$4/table.csv" "results/levels_$4.csv"
  cp "scratch/levels-$4/versus.csv" "results/levels_$4_versus.csv"
}
evaluate "$first" scratch/plain-test scratch/general-for-first first 50 & other=$!
evaluate mini scratch/test-0 scratch/general-for-shipped shipped 30
wait $other
