#!/usr/bin/env bash
# Is the mark "not grounded" right? On the shipped model, on the second one, and on the first one that was ever shipped here with ten
# images' calibration (runs/general.sh brings it), on scenes of seeds that nothing else uses.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
first=scratch/first/eyeline/models/qwen3-vl-mini
.venv/bin/eyeline scenes --wild --pairs --seeds 8000720:8000732 --out scratch/grounding-wild
.venv/bin/eyeline scenes --pairs --seeds 8000740:8000752 --out scratch/grounding-drawn
.venv/bin/eyeline calibrate --model "$first" --data scratch/plain --collection scratch/calibration-first --out scratch/calibrated-first
.venv/bin/python -m eyeline.evaluation.ungrounded --data scratch/grounding-wild --out results/grounding.csv & other=$!
.venv/bin/python -m eyeline.evaluation.ungrounded --model "$first" --estimator scratch/calibrated-first --data scratch/grounding-drawn \
  --out results/grounding_first.csv
wait $other
.venv/bin/python -m eyeline.evaluation.ungrounded --model glm4v-mini --data scratch/grounding-wild --out results/grounding_glm4v.csv
