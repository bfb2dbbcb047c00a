#!/usr/bin/env bash
# What answers rest on through the thinking, and sentences on earlier ones: draws scenes of seeds that nothing else uses, collects
# and fits on 240 of them with the shipped estimator of regions, and measures on 150 others beside rivals.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
. runs/halves.sh
eyeline() { .venv/bin/eyeline "$@"; }
shipped=eyeline/models/qwen3-vl-mini/estimator
eyeline scenes --wild --seeds 7700000:7700048 --out scratch/through-fit
eyeline scenes --wild --seeds 8000600:8000630 --out scratch/through-scenes
in_halves collect-through scratch/through-fit scratch/through
eyeline fit-through scratch/through --estimator $shipped --out $shipped
in_halves evaluate-through scratch/through-scenes scratch/through-test
cp scratch/through-test/totals.csv results/totals.csv
