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
[ -d scratch/through-fit ] || .venv/bin/eyeline scenes --wild --seeds 7700000:7700048 --out scratch/through-fit
[ -d scratch/through-scenes ] || .venv/bin/eyeline scenes --wild --seeds 8000600:8000630 --out scratch/through-scenes
# Traces of each model, with games by weights of its own collection alone
.venv/bin/eyeline fit-general scratch/collected --name none --out scratch/general-of-shipped
.venv/bin/eyeline fit-general scratch/collected-first --name none --out scratch/general-of-first
.venv/bin/eyeline collect-through --data scratch/through-fit --limit 60 --estimator scratch/general-of-shipped --out scratch/through-shipped & other=$!
.venv/bin/eyeline collect-through --model "$first" --data scratch/plain --limit 60 --estimator scratch/general-of-first --out scratch/through-first
wait $other
.venv/bin/eyeline fit-general scratch/collected scratch/collected-first --traces scratch/through-shipped --traces scratch/through-first --out eyeline/general
.venv/bin/python -m benchmarks.by_level --collection shipped=scratch/collected --collection first=scratch/collected-first --out results/levels.csv
.venv/bin/eyeline fit-general scratch/collected --name none --traces scratch/through-shipped --out scratch/general-for-first
.venv/bin/eyeline fit-general scratch/collected-first --name none --traces scratch/through-first --out scratch/general-for-shipped
evaluate() {  # model, scenes, general weights of the other, name, scenes at most
  .venv/bin/eyeline evaluate --model "$1" --data "$2" --estimator "$3" --out "scratch/levels-$4" --limit "$5" \
    --methods eyeline,centre,raw-attention-mean,attn-lrp,exhaustive
  cp "scratch/levels-$4/table.csv" "results/levels_$4.csv"
  cp "scratch/levels-$4/versus.csv" "results/levels_$4_versus.csv"
}
evaluate "$first" scratch/plain-test scratch/general-for-first first 50 & other=$!
evaluate mini scratch/test-0 scratch/general-for-shipped shipped 30
wait $other
through() {  # model, scenes, general weights of the other, name
  .venv/bin/eyeline evaluate-through --model "$1" --data "$2" --estimator "$3" --out "scratch/through-level-$4" --limit 50
  cp "scratch/through-level-$4/totals.csv" "results/levels_through_$4.csv"
}
through "$first" scratch/plain-test scratch/general-for-first first & other=$!
through mini scratch/through-scenes scratch/general-for-shipped shipped
wait $other
.venv/bin/python -m benchmarks.fit_memory --collection scratch/drawn --out results/fit_memory.csv
