#!/usr/bin/env bash
# Is the mark "not grounded" right? On the shipped model, and on the first one that was ever shipped here with ten images' calibration
# (runs/general.sh brings it), on scenes of seeds that nothing else uses.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
first=scratch/first/eyeline/models/qwen3-vl-mini
.venv/bin/eyeline scenes --wild --pairs --seeds 8000660:8000672 --out scratch/grounding
.venv/bin/eyeline scenes --pairs --seeds 8000680:8000692 --out scratch/grounding-plain
.venv/bin/eyeline calibrate --model "$first" --data scratch/plain --collection scratch/calibration-first --out scratch/calibrated-first
.venv/bin/python -m eyeline.evaluation.ungrounded --data scratch/grounding --out results/grounding.csv & other=$!
.venv/bin/python -m eyeline.evaluation.ungrounded --model "$first" --estimator scratch/calibrated-first --data scratch/grounding-plain \
  --out results/grounding_first.csv
wait $other
