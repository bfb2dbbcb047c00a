#!/usr/bin/env bash
# What it brings to measure what hiding the whole image does, by reading the text once more without it: the estimator as it is and so,
# on the test scenes of faithfulness.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
. runs/halves.sh
evaluate_halves measured-whole 35 eyeline/models/qwen3-vl-mini/estimator eyeline,eyeline-whole,exhaustive
cp scratch/measured-whole/table.csv results/measured_whole.csv
cp scratch/measured-whole/versus.csv results/measured_whole_versus.csv
